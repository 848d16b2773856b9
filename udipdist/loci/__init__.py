"""Genomic risk loci from summary statistics, and their comparison with a panel of known loci."""
