"""What can be read from latents: linear probes, out of fold, with intervals."""
