"""The substrate of udipdist: processes, clusters, files and stores. It knows nothing of brains or genomes."""

import os

from hpc.threads import prepare

__version__ = "0.1.0"

# Here, because whatever we start imports hpc before it loads torch, and only a policy that is set earlier counts.
prepare(os.environ)
