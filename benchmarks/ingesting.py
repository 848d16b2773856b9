"""What ingest costs: against merely inflating the files, over worker processes, and step by step."""

from __future__ import annotations

import importlib.util
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from isal import igzip_lib

from benchmarks.clock import Cost, clock, since_start, smallest
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


def link(paths: Sequence[Path], folder: Path, n: int) -> list[Path]:
    """`n` names in `folder` for the files, one after the other and from the start again."""
    folder.mkdir(parents=True)
    names = [folder / f"{1_000_000 + i}.nii.gz" for i in range(n)]
    for i, name in enumerate(names):
        name.symlink_to(paths[i % len(paths)].absolute())
    return names


def config(volumes: Path, out: Path, workers: int = 0, subjects_per_shard: int = 64) -> IngestConfig:
    """Ingest of a folder, whatever is there already."""
    keys = {"volumes": str(volumes), "out": str(out), "workers": workers, "subjects_per_shard": subjects_per_shard}
    return IngestConfig.parse(keys | {"overwrite": True})


def against_inflating(scans: Path, folder: Path, most: int, deadline: float = np.inf) -> dict[str, Cost]:
    """The smallest cost of a volume, in one process: `ingest`, and `inflate with X`, in turn, at most `most` times.

    Also `run`, the cost of an ingest of one volume less that of each further one: what comes once.
    """
    paths = sorted(scans.iterdir())
    packed = [path.read_bytes() for path in paths[:INFLATED]]
    size = len(zlib.decompress(packed[0], GZIP))
    link(paths, folder / "one", 1)
    works: dict[str, tuple[Callable[[], object], int]] = {
        "ingest": (lambda: ingest(config(scans, folder / "store.zarr")), len(paths)),
        "one": (lambda: ingest(config(folder / "one", folder / "one.zarr")), 1),
    }

    def inflate_all(inflate: Callable[[bytes, int], bytes]) -> None:
        for data in packed:
            inflate(data, size)

    for name, inflate in inflaters().items():
        works[f"inflate with {name}"] = (lambda inflate=inflate: inflate_all(inflate), len(packed))
    costs: dict[str, list[Cost]] = {name: [] for name in works}
    for turn in range(most + 1):  # the first compiles, and fills the page cache
        started = since_start()
        for name, (work, volumes) in works.items():
            with clock() as cost:
                work()
            if turn:
                costs[name].append(cost * (1 / volumes))
        if turn and 2 * since_start() - started > deadline:
            break
    least = {name: smallest(found) for name, found in costs.items()}
    one, each, n = least.pop("one"), least["ingest"], len(paths)
    once = (one.cpu - each.cpu) * n / (n - 1), (one.seconds - each.seconds) * n / (n - 1)
    least["run"] = Cost(seconds=once[1], cpu=once[0])
    return least


def with_workers(paths: Sequence[Path], folder: Path, n: int, rounds: int) -> dict[int, dict[str, float]]:
    """Volumes a second with 1 and 2 worker processes: while running, and with their start. The best of the rounds.

    While running: from when each worker has done its first part, most of which is its start.
    """
    link(paths, folder / "scans", n)
    found: dict[int, dict[str, float]] = {}
    for _ in range(rounds):
        for workers in (1, 2):
            asked = config(folder / "scans", folder / "store.zarr", workers, max(1, n // (2 * PARTS_A_WORKER)))
            with watch_parts(asked.out) as ends, clock() as cost:
                ingest(asked)
            times = sorted(ends.values())
            assert len(times) == -(-n // asked.subjects_per_shard), "the records of parts were not seen"
            rest = (len(times) - workers) * asked.subjects_per_shard
            rates = {"running": rest / (times[-1] - times[workers - 1]), "with start": n / cost.seconds}
            before = found.get(workers, rates)
            found[workers] = {name: max(rate, before[name]) for name, rate in rates.items()}
    return found


@contextmanager
def watch_parts(place: Path) -> Iterator[dict[str, float]]:
    """When each part of a job in `place` was recorded as done, in seconds, by the names of the records.

    Looks again and again, because a finished store keeps no records.
    """
    seen: dict[str, float] = {}
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.01):
            for path in (place / "parts").glob("*.json"):
                if path.name not in seen:
                    try:
                        seen[path.name] = path.stat().st_mtime_ns / 1e9
                    except FileNotFoundError:  # of an earlier run, or the run has ended
                        continue

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
