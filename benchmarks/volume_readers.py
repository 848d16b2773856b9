"""Ways of reading random training batches, each timed in turn with the others.

One epoch is a permutation of all volumes in batches of BATCH, as training reads them. Costs are per volume. Shapes: B
volumes of a batch, T tokens, V voxels of a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks import volume_peers
from benchmarks.clock import Cost, clock, since_start, smallest
from hpc import files
from udipdist.models.tokens import PAPER_PATCH, Patcher
from udipdist.volumes.store import VolumeStore

PUBLISHED = "published code: nibabel and boolean passes"
COPY, COPY_RAW = "np.memmap of float32 tokens, copied", "np.memmap of stored tokens, copied"
OURS = "store, compressed volumes"
BATCH = 4  # of one GPU in the paper
SLOW = 8  # volumes of an epoch of those that take a tenth of a second each
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
        """One batch, always into the same place."""
        for out_R, row in zip(self.out_BR, rows, strict=False):
            out_R[...] = self.map_NR[row]
        return self.out_BR[: len(rows)]


class TokensOfStore(Dataset):
    """Batches of z-scored tokens [B, T, V] for a DataLoader; a worker gets a pickled copy."""

    def __init__(self, store: VolumeStore, patcher: Patcher):
        self.store, self.patcher = store, patcher

    def __getitem__(self, rows: np.ndarray) -> torch.Tensor:
        return self.patcher(torch.from_numpy(self.store.normalised(rows)))


class Order:
    """The batches that a DataLoader reads next."""

    def __init__(self) -> None:
        self.batches: Batches = []

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.batches)


class Loader:
    """A DataLoader over batches of rows, with worker processes that stay."""

    def __init__(self, dataset: Dataset):
        self.order = Order()
        self.loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=self.order,
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


def ways(paths: Sequence[Path], folder: Path, few: int) -> dict[str, Way]:
    """All ways of reading the volumes `paths`, which `folder`/store.zarr holds in the same order; floors among them.

    MONAI's caches hold the first `few` volumes.
    """
    store, n = VolumeStore.open(folder / "store.zarr"), len(paths)
    patcher = Patcher(store.mask, PAPER_PATCH)
    tokens = TokensOfStore(store, patcher)
    found = {PUBLISHED: Way(every(lambda rows: [volume_peers.published(paths[i]) for i in rows]), min(SLOW, n))}
    if volume_peers.has_monai():
        found |= _monai(paths[:few], folder / "monai")
    else:
        print("MONAI is left out: it is not installed (pip install 'udipdist[bench]')")
    found[OURS] = Way(every(lambda rows: tokens[rows]), n, disk=files.size_of(store.path / "image"))
    raw = Floor(folder / "raw", (patcher(torch.from_numpy(store.raw(i))[None])[0].numpy() for i in range(n)))
    ready = Floor(folder / "float32", (tokens[np.array([i])].numpy() for i in range(n)))
    found[COPY_RAW] = Way(every(raw.copy), n)
    found[COPY] = Way(every(ready.copy), n)
    found["the same in 2 workers of a DataLoader"] = Way(Loader(tokens).epoch, n, living=True)
    return found


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
