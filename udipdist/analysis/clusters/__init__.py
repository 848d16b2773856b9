"""Lead SNPs clustered by their direction in latent space: directions, trees, support, and two trees compared."""
