"""Many trainings, scored by the loci that their latents discover."""
