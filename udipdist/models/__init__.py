"""Networks that make latents of volumes."""
