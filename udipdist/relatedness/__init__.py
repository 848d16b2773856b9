"""Who is related to whom: sparse matrices of relationships, counted from genotypes or read from tables."""
