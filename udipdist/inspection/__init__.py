"""What a file or folder is, whether it is complete, and who made it from what."""
