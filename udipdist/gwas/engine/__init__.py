"""The test of a block of variants against all traits."""
