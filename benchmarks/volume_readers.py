"""Ways of reading random training batches, each timed in turn with the others.

One epoch is a permutation of all volumes in batches of BATCH, as training reads them. Costs are per volume. Shapes: B
volumes of a batch, T tokens, V voxels of a token, N volumes, R = T V.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks import volume_peers
from benchmarks.clock import Cost, clock, since_start, smallest
from hpc import files
from udipdist.models.layers.tokens import PAPER_PATCH, Patcher
from udipdist.training.feed import SubjectDataset, Subjects
from udipdist.volumes import packed
from udipdist.volumes.store import VolumeStore

PUBLISHED = "published code: nibabel and boolean passes"
UNPACKED = "ours, from the compressed volumes"
OURS, COPY = "ours, packed tokens", "  floor: copy of a np.memmap of the float32 tokens"
OURS_INTO, COPY_INTO = "ours, packed tokens, into the same memory", "  floor: the same copy, into the same memory"
OURS_RAW, COPY_RAW = "ours, stored values, into the same memory", "  floor: copy of a np.memmap of these values"
LOADER = "ours in 2 spawned workers of a DataLoader"
FEED = "ours, data.resident=none: a thread reads ahead"
RESIDENT = "ours, data.resident=host: from memory"
BATCH = 4  # of one GPU in the paper
SLOW = 4  # volumes of an epoch of those that take a tenth of a second each
WORKERS = 2
Batches = list[np.ndarray]


@dataclass(frozen=True)
class Way:
    """A way of reading: `epoch` reads the batches that it is given; of few volumes where it is slow."""

    epoch: Callable[[Batches], Any]
    volumes: int
    living: bool = False  # in processes that live on
    disk: int = 0  # bytes of all its volumes, 0 where it has no files of its own
    making: Cost | None = None  # of what it reads, from the .nii.gz, once, for a volume


def in_turn(ways: dict[str, Way], most: int, deadline: float = np.inf) -> dict[str, Cost]:
    """The smallest cost of a volume in each way. A round is an epoch of each; the first is not counted: it compiles,
    starts processes and fills the page cache. At least one round is, and at most `most`, while there is time."""
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for turn in range(most + 1):
        started = since_start()
        for name, way in ways.items():
            batches = epoch(way.volumes, turn)
            with clock(way.living) as cost:
                way.epoch(batches)
            if turn:
                costs[name].append(cost * (1 / way.volumes))
        if turn and 2 * since_start() - started > deadline:
            break
    return {name: smallest(found) for name, found in costs.items()}


def epoch(n: int, seed: int) -> Batches:
    """Every one of n volumes once, in random order."""
    return np.array_split(np.random.default_rng(seed).permutation(n), -(-n // BATCH))


class Floor:
    """Rows in one file without a header, mapped into memory: what copying them takes, and nothing else."""

    def __init__(self, path: Path, rows: Iterable[np.ndarray]):
        with path.open("wb") as file:
            for row in rows:
                row.tofile(file)
        self.map_NR = np.memmap(path, row.dtype, "r").reshape(-1, row.size)
        self.out_BR = np.empty((BATCH, row.size), row.dtype)

    def copy(self, rows: np.ndarray) -> np.ndarray:
        """One batch, in new memory."""
        return self.map_NR[rows]

    def copy_into(self, rows: np.ndarray) -> np.ndarray:
        """One batch, always into the same memory."""
        for out_R, row in zip(self.out_BR, rows, strict=False):
            out_R[...] = self.map_NR[row]
        return self.out_BR[: len(rows)]


class Order:
    """The batches that a DataLoader reads next."""

    def __init__(self) -> None:
        self.batches: Batches = []

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return (rows.tolist() for rows in self.batches)


class Loader:
    """A DataLoader with worker processes that stay."""

    def __init__(self, tokens: packed.Tokens):
        self.order = Order()
        self.loader = DataLoader(
            SubjectDataset(tokens),
            batch_sampler=self.order,
            num_workers=WORKERS,
            multiprocessing_context="spawn",
            persistent_workers=True,
        )

    def epoch(self, batches: Batches) -> None:
        """Take every batch and drop it."""
        self.order.batches = batches
        for _ in self.loader:
            pass


def every(read: Callable[[np.ndarray], Any]) -> Callable[[Batches], None]:
    """An epoch that calls `read` for each batch."""

    def epoch_of(batches: Batches) -> None:
        for rows in batches:
            read(rows)

    return epoch_of


def ways(paths: Sequence[Path], folder: Path, few: int, ingest: Cost) -> dict[str, Way]:
    """All ways of reading the volumes `paths`, which `folder`/few.zarr holds in the same order; floors among them.

    MONAI's caches hold the first `few` volumes. `ingest`: what that took, a volume.
    """
    n = len(paths)
    found = {PUBLISHED: Way(every(lambda rows: [volume_peers.published(paths[i]) for i in rows]), min(SLOW, n))}
    if volume_peers.has_monai():
        found |= _monai(paths[:few], folder / "monai")
    else:
        print("MONAI is left out: it is not installed (pip install 'udipdist[bench]')")
    return found | _ours(VolumeStore.open(folder / "few.zarr"), folder, ingest)


def _monai(paths: Sequence[Path], folder: Path) -> dict[str, Way]:
    """Volumes, stacked to a batch."""

    def stacked(dataset: Any) -> Callable[[Batches], None]:
        return every(lambda rows: torch.stack([torch.as_tensor(dataset[int(i)]) for i in rows]))

    n = len(paths)
    persistent, make = volume_peers.monai_persistent(paths, folder), volume_peers.monai_cached(paths)
    with clock() as filling:
        for i in range(n):
            _ = persistent[i]
    with clock() as reading:
        cached = make()
    return {
        "MONAI PersistentDataset": Way(stacked(persistent), n, disk=files.size_of(folder), making=filling * (1 / n)),
        "MONAI CacheDataset": Way(stacked(cached), n, making=reading * (1 / n)),
    }


def _ours(store: VolumeStore, folder: Path, ingest: Cost) -> dict[str, Way]:
    """From the store, from packed tokens, and the floors of these; tokens are those of the paper's patch."""
    n = len(store)
    gather = Patcher(store.mask, PAPER_PATCH).gather()
    files.remove(packed.pack(store, gather).place)  # compiles
    with clock() as packing:
        tokens = packed.pack(store, gather)
    unpacked = packed.Unpacked(store, gather)
    made = ingest + packing * (1 / n)
    disk = {UNPACKED: files.size_of(store.path / "image"), OURS: files.size_of(tokens.place)}
    ready = Floor(folder / "float32", (tokens.normalised([i]) for i in range(n)))
    raw = Floor(folder / "stored", (tokens.stored([i]) for i in range(n)))
    shape_BTV = (BATCH, *gather.shape)
    out_BTV, raw_BTV = np.empty(shape_BTV, np.float32), np.empty(shape_BTV, tokens.dtype)
    everyone = np.arange(n)
    return {
        UNPACKED: Way(every(unpacked.normalised), n, disk=disk[UNPACKED], making=ingest),
        OURS: Way(every(tokens.normalised), n, disk=disk[OURS], making=made),
        COPY: Way(every(ready.copy), n),
        OURS_INTO: Way(every(lambda rows: tokens.normalised(rows, out_BTV[: len(rows)])), n),
        COPY_INTO: Way(every(ready.copy_into), n),
        OURS_RAW: Way(every(lambda rows: tokens.stored(rows, raw_BTV[: len(rows)])), n),
        COPY_RAW: Way(every(raw.copy_into), n),
        LOADER: Way(Loader(tokens).epoch, n, living=True),
        FEED: Way(_drop(Subjects(tokens, everyone, resident="none")), n),
        RESIDENT: Way(_drop(Subjects(tokens, everyone, resident="host")), n),
    }


def _drop(subjects: Subjects) -> Callable[[Batches], None]:
    """An epoch of what feeds the training."""

    def epoch_of(batches: Batches) -> None:
        for _ in subjects.stream(batches):
            pass

    return epoch_of
