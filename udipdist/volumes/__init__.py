"""NIfTI volumes -> the chunked volume store, and its reader."""
