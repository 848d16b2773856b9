"""A simulated cohort with known truth: genomes (msprime), brains (a real template, warped), tables."""
