"""Where the processor's time of ingest goes: its steps, each timed as it runs, in whatever thread.

The functions that do a step are replaced, for a while, by ones that also look at the clock of their thread. What a
step calls of another step is the other's, not its own.
"""

from __future__ import annotations

import functools
import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import ingesting
from benchmarks.clock import clock
from hpc import parts, store
from udipdist.volumes import ingest, kernels, nifti, quality_files
from udipdist.volumes.sources import Scan

REST, ALL = "everything else", "all"
Steps = dict[str, float]


@contextmanager
def timed(places: dict[str, list[tuple[Any, str]]]) -> Iterator[Steps]:
    """Processor seconds of each step while the block runs; `places`: for each step, objects and names of functions."""
    seconds: Steps = defaultdict(float)
    inside, lock = threading.local(), threading.Lock()

    def watched(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **keys: Any) -> Any:
            outer, inside.others = getattr(inside, "others", 0.0), 0.0
            start = time.thread_time()
            try:
                return function(*args, **keys)
            finally:
                whole = time.thread_time() - start
                with lock:
                    seconds[step] += whole - inside.others
                inside.others = outer + whole

        return call

    patches = [
        mock.patch.object(owner, name, watched(step, getattr(owner, name)))
        for step, functions in places.items()
        for owner, name in functions
    ]
    for patch in patches:
        patch.start()
    try:
        yield seconds
    finally:
        for patch in reversed(patches):
            patch.stop()


class _Compressor(store.Blosc):
    """Blosc with a method that can be replaced."""

    def encode(self, row: Any) -> bytes:
        return super().encode(row)


def places() -> dict[str, list[tuple[Any, str]]]:
    """The steps of ingest and the functions that do them."""
    return {
        "plan: list files, read headers": [(ingest, "make_plan")],
        "read the .gz": [(Scan, "read_bytes")],
        "inflate": [(nifti, "_inflate")],
        "hash the .gz (SHA-256)": [(hashlib, "sha256")],
        "turn to RAS, survey": [(kernels, "survey")],
        "compress (lz4)": [(_Compressor, "encode")],
        "write": [(store, "_append")],
        "checksums of shards": [(parts, "_checksums"), (parts, "_wrong")],
        "coordinates, mask": [(ingest, "_finish")],
        "quality control, contact sheet": [(quality_files, "publish")],
    }


def profile(few: Path, many: Path, folder: Path) -> list[dict[str, Any]]:
    """Rows of a table: processor ms of each step of an ingest in this process, for each further volume and once a run
    (from the difference of two folders, as ingesting.against_inflating), its share of `many`, and over inflating."""
    n_few, n_many = (len(list(scans.iterdir())) for scans in (few, many))
    with mock.patch.object(store, "Blosc", _Compressor):
        _one(few, folder)  # compiles
        short, long = _one(few, folder), _one(many, folder)
    further = {step: (seconds - short.get(step, 0.0)) / (n_many - n_few) for step, seconds in long.items()}
    return [
        {
            "": step,
            "ms, each further volume": 1000 * each,
            "ms, once": 1000 * (short.get(step, 0.0) - n_few * each),
            "share": long[step] / long[ALL],
            "each, over inflating": each / further["inflate"],
        }
        for step, each in further.items()
    ]


def _one(scans: Path, folder: Path) -> Steps:
    """Seconds of the steps of one ingest."""
    with timed(places()) as steps, clock() as whole:
        ingest.ingest(ingesting.config(scans, folder / "profile.zarr"))
    steps[REST] = whole.cpu - sum(steps.values())
    steps[ALL] = whole.cpu
    return dict(steps)
