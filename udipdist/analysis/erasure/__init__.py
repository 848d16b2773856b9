"""Latents without what confounders say of them linearly, and what is left."""
