"""Sweeps: trainings side by side, each scored by the loci that its latents discover."""
