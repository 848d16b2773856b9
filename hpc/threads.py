"""How many threads a process starts, and how its threads wait for one another.

GNU OpenMP, which torch uses, lets a thread that waits spin some 300,000 times before it sleeps. That is the fastest way
on an idle machine. As soon as anything else wants the cores (a second rank, a Dask worker, another user), the spinning
threads take the time of those they wait for, and training loses most of its speed. After a short spin both cases are
nearly as fast as the better way for each (docs/performance.md has the figures).
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping

from hpc.world import cores, cpu_quota

log = logging.getLogger(__name__)

# Turns of a loop of GNU OpenMP, some microseconds. The runtime of conda's torch and of macOS counts milliseconds, and
# OpenBLAS processor cycles, as a power of two.
SHORT_SPIN = {"GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "1", "OPENBLAS_THREAD_TIMEOUT": "14"}
_ASKED = ("OMP_WAIT_POLICY", *SHORT_SPIN)  # a user who sets one of these has decided
_NUMBERS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

# Below this many operations in an average layer, two threads wait for each other longer than they work.
WORTH_SHARING = 1e6

_warned: set[str] = set()


def prepare(environ: MutableMapping[str, str]) -> None:
    """Make threads wait with a short spin, and let libraries start no more of them than there are cores.

    What the user has set stays. It counts for libraries that are loaded later, here and in processes started from here.
    """
    if not any(name in environ for name in _ASKED):
        environ.update(SHORT_SPIN)
    if cpu_quota() is not None:  # libraries know the affinity mask, but not the quota
        for name in _NUMBERS:
            environ.setdefault(name, str(cores()))


def share(sharers: int = 1, asked: int = 0, warns: bool = True) -> int:
    """Threads for one of `sharers` processes of this machine: its share of the cores, or as many as were asked for.

    Where all of them together have more threads than there are cores, a process that `warns` says so once.
    """
    there = cores()
    threads = asked or max(1, there // sharers)
    if warns and threads * sharers > there:
        count = "1 core" if there == 1 else f"{there} cores"
        each = "1 thread" if threads == 1 else f"{threads} threads"
        _warn_once(
            f"{sharers} processes of {each} each share {count}, so they wait for one another; give fewer ranks, "
            "workers or threads, or more cores"
            if sharers > 1
            else f"{threads} threads share {count}, so they wait for one another; give threads={there} or less"
        )
    return threads


def share_work(threads: int, operations: float, layers: int) -> int:
    """`threads`, or 1 where `operations` in so many layers are too few for threads to share."""
    return threads if operations >= WORTH_SHARING * max(1, layers) else 1


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        log.warning(message)
