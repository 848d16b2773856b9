"""What a representation knows: are the numbers right? `python -m benchmarks.representations [--quick]`.

The benchmarks of probes, of erasure, of PheWAS and of clusters of SNP directions, one after the other, and all their
numbers in one line of JSON: see the modules of these names.
"""

from __future__ import annotations

import argparse
import json
import logging

from benchmarks import clusters, erasure, phewas, probes
from benchmarks.tables import rounded

PARTS = (probes, erasure, phewas, clusters)


def main() -> None:
    """Measure each part, print its tables, and last a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of each, in under 45 s on two cores")
    options = parser.parse_args()
    logging.getLogger("udipdist").setLevel(logging.ERROR)
    found = {key: value for part in PARTS for key, value in part.measure(options.quick).items()}
    print(json.dumps(rounded(found)))


if __name__ == "__main__":
    main()
