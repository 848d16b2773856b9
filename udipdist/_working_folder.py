"""Keeps what stands in the working folder from being taken for modules of ours; imported before everything else.

`python -m udipdist` looks there first, and a file hpc.py or torch.py of the user would come before the real one.
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

if sys.argv[:1] == ["-m"] and sys.path[:1] == [os.getcwd()] != [ROOT] and not sys.flags.safe_path:
    if ROOT in sys.path[1:]:
        del sys.path[0]
    else:
        sys.path[0] = ROOT
