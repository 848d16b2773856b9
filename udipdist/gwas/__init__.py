"""Association of genetic variants with many traits at once: exact mixed model or linear regression."""
