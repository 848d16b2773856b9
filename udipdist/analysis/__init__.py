"""What latents are worth and have in common: numbers of tables, without torch."""
