"""What several parts of the pipeline draw with: the look of every figure, and brains. Nothing touches pyplot."""
