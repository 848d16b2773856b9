"""The substrate of udipdist: processes, clusters, files and stores. It knows nothing of brains or genomes."""

__version__ = "0.1.0"
