"""Null models: the variance components of each trait."""
