"""What feeds the training: who is held out, in which order subjects come, and how their volumes get here in time.

The order is a function of seed and step alone: global batch b of epoch e is the same people on 1 rank as on 64.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from torch import Tensor

from hpc.engine import Batches
from hpc.errors import InputError
from udipdist.volumes.store import VolumeStore

log = logging.getLogger(__name__)
_RESIDENT_SHARE = 0.4  # of the available memory that resident subjects may take
_READ = 64  # subjects read from the store at once
_AHEAD = 4  # batches that the reading thread may be ahead


def split(subjects: Sequence[str], share: float) -> np.ndarray:
    """True for the subjects held out for validation: those whose hashed id falls below `share`.

    It depends on the id alone, so a person stays on the same side when others come or go.
    """
    hashed = (hashlib.sha256(subject.encode("utf-8")).digest()[:8] for subject in subjects)
    return np.array([int.from_bytes(digest, "big") < share * 2.0**64 for digest in hashed], dtype=bool)


@dataclass(frozen=True)
class Sampler:
    """The order of `rows`. A last batch of an epoch that would not be full is left out."""

    rows: np.ndarray
    batches: Batches
    seed: int

    @property
    def steps(self) -> int:
        """Optimiser steps of one epoch."""
        return len(self.rows) // self.batches.total

    def epoch(self, epoch: int, rank: int, ranks: int, first: int = 0) -> list[np.ndarray]:
        """The micro-batches of one rank in order, from optimiser step `first` of the epoch on."""
        order = self.rows[np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))]
        order = order[: self.steps * self.batches.total]
        micros = order.reshape(self.steps, self.batches.accumulation, ranks, self.batches.micro)[first:, :, rank]
        return list(micros.reshape(-1, self.batches.micro))


class Subjects:
    """Volumes of a store in a network's prepared form: all in memory where they fit, else read ahead by a thread."""

    def __init__(self, store: VolumeStore, prepare: Callable[[Tensor], Tensor], rows: np.ndarray, sharers: int = 1):
        """`sharers` processes of this machine hold the same subjects.

        Reading raises InputError for a subject that cannot be read, or without brain in the prepared form.
        """
        self._store, self._prepare = store, prepare
        self._where = {int(row): i for i, row in enumerate(rows)}
        self._kept: Tensor | None = None
        example = self._read(rows[:1])
        needed = example.nbytes * len(rows)
        room = _RESIDENT_SHARE * psutil.virtual_memory().available / sharers
        if needed < room:
            self._kept = torch.empty(len(rows), *example.shape[1:])
            for i in range(0, len(rows), _READ):
                self._kept[i : i + _READ] = self._read(rows[i : i + _READ])
        log.info(
            "%d subjects, %.2f GB: %s", len(rows), needed / 1e9, "in memory" if needed < room else "read as they come"
        )

    def batch(self, rows: np.ndarray) -> Tensor:
        """The prepared form [B, ...] of these rows of the store."""
        if self._kept is None:
            return self._read(rows)
        return self._kept[[self._where[int(row)] for row in rows]]

    def stream(self, batches: Sequence[np.ndarray]) -> Iterator[Tensor]:
        """The prepared form of each batch in order."""
        if self._kept is not None:
            yield from map(self.batch, batches)
            return
        ready: queue.Queue[Tensor | BaseException] = queue.Queue(_AHEAD)
        ended = threading.Event()
        thread = threading.Thread(target=self._read_ahead, args=(batches, ready, ended), daemon=True)
        thread.start()
        try:
            for _ in batches:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            ended.set()
            thread.join()

    def _read_ahead(self, batches: Sequence[np.ndarray], ready: queue.Queue, ended: threading.Event) -> None:
        for rows in batches:
            try:
                item: Tensor | BaseException = self._read(rows)
            except BaseException as error:
                item = error
            while not ended.is_set():
                try:
                    ready.put(item, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if ended.is_set() or isinstance(item, BaseException):
                return

    def _read(self, rows: np.ndarray) -> Tensor:
        prepared = self._prepare(torch.from_numpy(np.asarray(self._store.normalised(rows))))
        require_brain(prepared, [self._store.subjects[row] for row in rows], self._store.path)
        return prepared


def require_brain(prepared: Tensor, names: Sequence[str], store: object) -> None:
    """Raises InputError that names the subjects without one brain voxel in the prepared form."""
    empty = (prepared == 0).flatten(1).all(dim=1)
    if empty.any():
        blank = ", ".join(name for name, is_empty in zip(names, empty.tolist(), strict=True) if is_empty)
        raise InputError(f"{store}: no brain inside the network's tokens in subject {blank}; look at the volume")
