"""Genotypes in files: PLINK's formats, what stands in a block of variants, and which of them are wanted."""
