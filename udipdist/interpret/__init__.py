"""What a network looks at, and what its latents look like."""
