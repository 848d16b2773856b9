"""Summary statistics: the store that an association writes, tables of other programs, export, and p of any size."""
