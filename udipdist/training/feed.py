"""What feeds the training: who is held out, in which order subjects come, and how their voxels get here in time.

The order is a function of seed and step alone: global batch b of epoch e is the same people on 1 rank as on 64. So are
the numbers: wherever the voxels are held, a subject's z-scored tokens have the same bits.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hpc import memory
from hpc.engine import Batches
from hpc.errors import ConfigError, InputError
from hpc.progress import Progress
from hpc.world import cores
from udipdist.config import Resident
from udipdist.volumes.packed import Packed, Tokens

log = logging.getLogger(__name__)
_DEVICE_SHARE = 0.4  # of the GPU's free memory that resident subjects may take; the network needs the rest
_HOST_SHARE = 0.6  # of the memory of this machine
_AHEAD = 4  # batches that the reading threads may be ahead
_READERS = 4  # reading threads beside a GPU
_TOUCHED = 64  # subjects that a thread brings into memory at once
_AT_ONCE = 2**25  # values that are z-scored at once on a GPU, in float64


def split(subjects: Sequence[str], share: float) -> np.ndarray:
    """True for the subjects held out for validation: those whose hashed id falls below `share`.

    It depends on the id alone, so a person stays on the same side when others come or go.
    """
    hashed = (hashlib.sha256(subject.encode("utf-8")).digest()[:8] for subject in subjects)
    return np.array([int.from_bytes(digest, "big") < share * 2.0**64 for digest in hashed], dtype=bool)


@dataclass(frozen=True)
class Sampler:
    """The order of `rows`: in each epoch a permutation of its own, cut into global batches.

    Each row comes once in an epoch, or is among those `left_out`, which do not fill a last batch.
    """

    rows: np.ndarray
    batches: Batches
    seed: int

    @property
    def steps(self) -> int:
        """Optimiser steps of one epoch."""
        return len(self.rows) // self.batches.total

    def epoch(self, epoch: int, rank: int, ranks: int, done: int = 0) -> list[np.ndarray]:
        """The micro-batches of one rank in order, after the first `done` subjects of the epoch, which may have been
        used on another number of ranks."""
        order, total = self._order(epoch)[done:], self.batches.total
        steps = len(order) // total
        shape = (steps, self.batches.accumulation, ranks, self.batches.micro)
        return list(order[: steps * total].reshape(shape)[:, :, rank].reshape(-1, self.batches.micro))

    def left_out(self, epoch: int, done: int = 0) -> np.ndarray:
        """The rows of an epoch that do not fill a last global batch, when it went on after `done` subjects."""
        order = self._order(epoch)[done:]
        return order[len(order) // self.batches.total * self.batches.total :]

    def _order(self, epoch: int) -> np.ndarray:
        return self.rows[np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))]


class SubjectDataset(Dataset):
    """Subjects by their number in the store, z-scored in the network's form, for a torch DataLoader.

    Give the loader `batch_sampler=sampler.epoch(...)`. Workers, spawned or forked, map the packed files themselves and
    so share the page cache; none holds a copy.
    """

    def __init__(self, tokens: Tokens):
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, row: int) -> Tensor:
        return torch.from_numpy(self.tokens.normalised([row])[0])

    def __getitems__(self, rows: Sequence[int]) -> list[Tensor]:
        return list(torch.from_numpy(self.tokens.normalised(rows)))


class Subjects:
    """Batches of subjects on a device, z-scored in the network's form.

    `kind` says where the stored values are held meanwhile: in the memory of the `device`, of the `host` (the page
    cache, one copy for all ranks of a node), or nowhere (`none`: they are read as they come). A GPU gets stored values
    and does the z-scoring; copies to it run beside its work.
    """

    def __init__(
        self,
        tokens: Tokens,
        rows: np.ndarray,
        device: torch.device | None = None,
        resident: Resident = "none",
        local_rank: int = 0,
        sharers: int = 1,
    ):
        """`rows`: the subjects that will be asked for. This is rank `local_rank` of `sharers` on its machine.

        Raises ConfigError where they do not fit the memory that `resident` names.
        """
        self.tokens, self.device = tokens, device or torch.device("cpu")
        self._gpu = self.device.type == "cuda"
        self._readers = max(1, min(_READERS, cores() // sharers)) if self._gpu else 1
        self._kept: Tensor | None = None
        self._where = np.full(len(tokens), -1)
        needed = len(rows) * tokens.row_bytes
        self.kind, why = choose(resident, needed, self.device)
        log.info("%d subjects, %.2f GB, resident=%s: %s", len(rows), needed / 1e9, self.kind, why)
        if self.kind == "device":
            self._keep(rows)
        elif self.kind == "host" and isinstance(tokens, Packed):
            _touch(tokens, rows[local_rank::sharers])

    def batch(self, rows: np.ndarray) -> Tensor:
        """float32 [B, ...] of these rows of the store."""
        if self._kept is None:
            return self._on_device(rows, self._read(rows))
        places = torch.from_numpy(self._where[rows]).to(self.device)
        return self._normalised(rows, self._kept[places])

    def stream(self, batches: Sequence[np.ndarray]) -> Iterator[Tensor]:
        """float32 [B, ...] of each batch in order."""
        if self._kept is not None or (self.kind == "host" and not self._gpu):
            yield from map(self.batch, batches)
        elif self._gpu:
            yield from self._beside(self._ahead(batches))
        else:
            yield from (tokens for _, tokens in self._ahead(batches))

    def _read(self, rows: np.ndarray) -> Tensor:
        """What goes to the device: for a CPU z-scored, for a GPU as it is stored."""
        return self._stored(rows) if self._gpu else torch.from_numpy(self.tokens.normalised(rows))

    def _on_device(self, rows: np.ndarray, read: Tensor) -> Tensor:
        return self._normalised(rows, read.to(self.device, non_blocking=True)) if self._gpu else read

    def _stored(self, rows: np.ndarray) -> Tensor:
        """Stored values, in pinned memory where there is a GPU; unsigned integers as signed ones of the same bits, of
        which torch can do more."""
        dtype = self.tokens.dtype
        signed = np.dtype(f"i{dtype.itemsize}") if dtype.kind == "u" and dtype.itemsize > 1 else dtype
        raw = torch.empty(
            len(rows), *self.tokens.shape, dtype=torch.from_numpy(np.empty(0, signed)).dtype, pin_memory=self._gpu
        )
        self.tokens.stored(rows, raw.numpy().view(dtype))
        return raw

    def _normalised(self, rows: np.ndarray, raw: Tensor) -> Tensor:
        stored = torch.from_numpy(np.empty(0, self.tokens.dtype)).dtype
        return zscore(raw.view(stored), self.tokens.scale[rows], self.tokens.padding)

    def _keep(self, rows: np.ndarray) -> None:
        """Bring all rows to the device, a few at a time."""
        for start in range(0, len(rows), _TOUCHED):
            part = self._stored(rows[start : start + _TOUCHED])
            if self._kept is None:
                self._kept = torch.empty(len(rows), *part.shape[1:], dtype=part.dtype, device=self.device)
            self._kept[start : start + len(part)].copy_(part, non_blocking=True)
        self._where[rows] = np.arange(len(rows))

    def _ahead(self, batches: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Each batch as it is read, by threads that run ahead."""
        waiting: deque[tuple[np.ndarray, Future[Tensor]]] = deque()
        # A thread that pins memory would otherwise open a context on the first GPU.
        start = (torch.cuda.set_device, (self.device,)) if self._gpu else (None, ())
        with ThreadPoolExecutor(self._readers, initializer=start[0], initargs=start[1]) as threads:
            try:
                for rows in batches:
                    waiting.append((rows, threads.submit(self._read, rows)))
                    if len(waiting) > _AHEAD:
                        yield _next(waiting)
                while waiting:
                    yield _next(waiting)
            finally:
                for _, future in waiting:
                    future.cancel()

    def _beside(self, reads: Iterator[tuple[np.ndarray, Tensor]]) -> Iterator[Tensor]:
        """Each batch on the GPU; the next one is copied and z-scored on a stream of its own meanwhile."""
        side, waiting = torch.cuda.Stream(self.device), None
        for rows, read in reads:
            with torch.cuda.stream(side):
                coming = self._on_device(rows, read), side.record_event()
            if waiting is not None:
                yield _ready(*waiting)
            waiting = coming
        if waiting is not None:
            yield _ready(*waiting)


def zscore(raw: Tensor, scale: np.ndarray, padding: np.ndarray) -> Tensor:
    """float32 z-scores of stored values [B, ...], bit for bit those of Tokens.normalised, on the device of `raw`.

    scale [B, 5] float64: slope, inter, mean, std, background; padding: flat places that are 0.
    """
    flat = raw.flatten(1)
    out = torch.empty(flat.shape, dtype=torch.float32, device=raw.device)
    scale_B5 = torch.from_numpy(scale).to(raw.device)
    step = max(1, _AT_ONCE // max(1, flat.shape[1]))
    for start in range(0, len(flat), step):
        slope, inter, mean, std, limit = scale_B5[start : start + step, :, None].unbind(1)
        value = flat[start : start + step].double().mul_(slope).add_(inter)
        background = value.abs() <= limit
        out[start : start + step] = value.sub_(mean).mul_(1 / std).masked_fill_(background, 0)
    if padding.size and scale[:, 1].any():
        out[:, torch.from_numpy(padding).to(raw.device)] = 0
    return out.view(raw.shape)


def choose(resident: Resident, needed: int, device: torch.device) -> tuple[str, str]:
    """Where `needed` bytes are held, and why. Raises ConfigError where they do not fit where they are wanted."""
    room, seen = {}, {}
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        room["device"], seen["device"] = free * _DEVICE_SHARE, f"the GPU has {free / 1e9:.1f} GB free"
    free = memory.available()
    room["host"], seen["host"] = free * _HOST_SHARE, f"this machine has {free / 1e9:.1f} GB of memory left"
    if resident == "device" and device.type == "cpu":
        return choose("host", needed, device)[0], "the device of this rank is the CPU, whose memory is the host's"
    if resident == "none":
        return resident, "they are read as they come"
    if resident != "auto":
        if needed > room[resident]:
            raise ConfigError(
                f"data.resident={resident}: the subjects take {needed / 1e9:.1f} GB, and {seen[resident]}, of which "
                f"{room[resident] / 1e9:.1f} GB may be used; type data.resident=auto"
            )
        return resident, f"as asked; {seen[resident]}"
    for kind, bytes_ in room.items():
        if needed <= bytes_:
            return kind, f"it is the first place that they fit; {', '.join(seen.values())}"
    return "none", f"they are read as they come, for they do not fit; {', '.join(seen.values())}"


def require_brain(prepared: Tensor, names: Sequence[str], store: object) -> None:
    """Raises InputError that names the subjects without one brain voxel in the prepared form."""
    empty = (prepared == 0).flatten(1).all(dim=1)
    if empty.any():
        blank = ", ".join(name for name, is_empty in zip(names, empty.tolist(), strict=True) if is_empty)
        raise InputError(f"{store}: no brain inside the network's tokens in subject {blank}; look at the volume")


def _next(waiting: deque[tuple[np.ndarray, Future[Tensor]]]) -> tuple[np.ndarray, Tensor]:
    rows, future = waiting.popleft()
    return rows, future.result()


def _ready(tokens: Tensor, event: torch.cuda.Event) -> Tensor:
    """The batch that another stream makes, for use in this one."""
    current = torch.cuda.current_stream(tokens.device)
    current.wait_event(event)
    tokens.record_stream(current)
    return tokens


def _touch(tokens: Packed, rows: np.ndarray) -> None:
    """Bring rows into the page cache: several threads, for a network file system answers each slowly."""
    parts = [rows[start : start + _TOUCHED] for start in range(0, len(rows), _TOUCHED)]
    with ThreadPoolExecutor(_READERS) as threads, Progress("reading into memory", len(rows), "subjects") as progress:
        for part, _ in zip(parts, threads.map(tokens.touch, parts), strict=True):
            progress.advance(len(part))
