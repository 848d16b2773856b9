"""What ingest costs: against merely inflating the files, over worker processes, and step by step."""

from __future__ import annotations

import functools
import importlib.util
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from isal import igzip_lib

from benchmarks.clock import Cost, clock, looking, one_core, since_start, smallest
from udipdist.config import IngestConfig
from udipdist.volumes.ingest import ingest

GZIP = 31  # window bits of zlib: with the header of gzip
INFLATED = 16  # volumes that each library inflates in a round
PARTS_A_WORKER = 8  # of the cohort that two workers share


def inflaters() -> dict[str, Callable[[bytes, int], bytes]]:
    """How libraries inflate a whole .gz in memory, told its size; those that are installed. Ours is isal."""

    def isal(data: bytes, size: int) -> bytes:
        return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP).decompress(data, size)

    found = {"isal": isal, "zlib": lambda data, size: zlib.decompress(data, GZIP, size + 1)}
    if importlib.util.find_spec("zlib_ng") is None:
        print("zlib-ng is left out: it is not installed (pip install 'udipdist[bench]')")
        return found
    from zlib_ng import zlib_ng

    return found | {"zlib-ng": lambda data, size: zlib_ng.decompress(data, GZIP, size + 1)}


def link(paths: Sequence[Path], folder: Path, n: int) -> Path:
    """A new folder of `n` names for the files, one after the other and from the start again."""
    folder.mkdir(parents=True)
    for i in range(n):
        (folder / f"{1_000_000 + i}.nii.gz").symlink_to(paths[i % len(paths)].absolute())
    return folder


def config(volumes: Path, out: Path, workers: int = 0, subjects_per_shard: int = 64) -> IngestConfig:
    """Ingest of a folder, whatever is there already."""
    keys = {"volumes": str(volumes), "out": str(out), "workers": workers, "subjects_per_shard": subjects_per_shard}
    return IngestConfig.parse(keys | {"overwrite": True})


@dataclass(frozen=True)
class Ingest:
    """Smallest costs: of each further volume, of what comes once a run, of a volume of the longer run all told, and of
    inflating a volume with each library."""

    further: Cost
    once: Cost
    whole: Cost
    inflate: dict[str, Cost]


def against_inflating(few: Path, many: Path, folder: Path, most: int, deadline: float = np.inf) -> Ingest:
    """Ingest of two folders on one core, and inflating, in turn, at most `most` times while there is time.

    What comes once (the plan, metadata, provenance, the contact sheet) is told from what comes with each volume by the
    difference between the folders; both should hold more volumes than a contact sheet shows.
    The stores stay, in `folder`: few.zarr and many.zarr.
    """
    paths = sorted(many.iterdir())
    names, packed = {}, [path.read_bytes() for path in paths[:INFLATED]]
    size = len(zlib.decompress(packed[0], GZIP))
    works: dict[str, Callable[[], object]] = {}
    for scans in (few, many):
        names[scans.name] = len(list(scans.iterdir()))
        works[scans.name] = functools.partial(ingest, config(scans, folder / f"{scans.name}.zarr"))
    for name, inflate in inflaters().items():
        works[name] = functools.partial(_each, inflate, packed, size)
    ingest(config(link(paths, folder / "warm", 1), folder / "warm.zarr"))  # compiles
    costs: dict[str, list[Cost]] = {name: [] for name in works}
    while len(costs[few.name]) < most:
        started = since_start()
        for name, work in works.items():
            with one_core(), clock() as cost:
                work()
            costs[name].append(cost)
        if 2 * since_start() - started > deadline:
            break
    least = {name: smallest(found) for name, found in costs.items()}
    n_few, n_many, short, long = names[few.name], names[many.name], least.pop(few.name), least.pop(many.name)
    further = (long - short) * (1 / (n_many - n_few))
    inflated = {name: cost * (1 / len(packed)) for name, cost in least.items()}
    return Ingest(further, short - further * n_few, long * (1 / n_many), inflated)


def _each(inflate: Callable[[bytes, int], bytes], packed: Sequence[bytes], size: int) -> None:
    for data in packed:
        inflate(data, size)


def with_workers(paths: Sequence[Path], folder: Path, n: int, rounds: int) -> dict[int, dict[str, float]]:
    """Volumes a second of one process on one core (this one), and of 2 worker processes with a core each: while
    running, and with their start. The best of the rounds.

    While running: from when each process has done its first part, most of which is its start.
    """
    scans = link(paths, folder / "scans", n)
    found: dict[int, dict[str, float]] = {}
    for _ in range(rounds):
        for processes in (1, 2):
            workers = 0 if processes == 1 else processes
            asked = config(scans, folder / "store.zarr", workers, max(1, n // (2 * PARTS_A_WORKER)))
            with watch_parts(asked.out) as ends, one_core() if processes == 1 else nullcontext(), clock() as cost:
                ingest(asked)
            times = sorted(ends.values())
            assert len(times) == -(-n // asked.subjects_per_shard), "the records of parts were not seen"
            rest = n - processes * asked.subjects_per_shard
            rates = {"running": rest / (times[-1] - times[processes - 1]), "with start": n / cost.seconds}
            before = found.get(processes, rates)
            found[processes] = {name: max(rate, before[name]) for name, rate in rates.items()}
    return found


@contextmanager
def watch_parts(place: Path) -> Iterator[dict[str, float]]:
    """When each part of a job in `place` was recorded as done, in seconds, by the names of the records.

    Looks again and again, because a finished store keeps no records.
    """
    seen: dict[str, float] = {}

    def look() -> None:
        for path in (place / "parts").glob("*.json"):
            if path.name not in seen:
                try:
                    seen[path.name] = path.stat().st_mtime_ns / 1e9
                except FileNotFoundError:  # of an earlier run, or the run has ended
                    continue

    with looking(look, 0.01):
        yield seen
