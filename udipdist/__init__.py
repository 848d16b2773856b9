"""From brain MRI volumes and genotypes to genomic risk loci, without labels."""

from hpc import __version__

__all__ = ["__version__"]
