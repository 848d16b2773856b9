"""Phenome-wide association of latents: which diagnoses a direction of latent space tells, in people held out."""
