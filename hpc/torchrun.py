"""torchrun that leaves the last word to the ranks: `python -m hpc.torchrun ...` takes torchrun's own words.

Where a rank fails, its message stands alone on the screen, and the exit code is that of the first rank that failed.
"""

from __future__ import annotations

import logging
import sys


def main() -> None:
    """Start the ranks and wait for them."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        torchrun()
    except ChildFailedError as failed:
        code = failed.get_first_failure()[1].exitcode
        sys.exit(code if 0 < code < 128 else 1)


if __name__ == "__main__":
    main()
