"""What a network reads of each volume, in its own order, ready to be copied: an array derived from a volume store.

A network reads a fixed set of voxels (the ViT: those of its brain tokens). Packed, they lie uncompressed in files that
every process of a machine maps into its memory: a batch is copied and z-scored out of the page cache in one pass,
without decompression, and there is one copy for all ranks and loader workers. Values are the stored ones, so a packed
array is as large as its dtype says and stays right when nothing but the scale of reading changes.

The array is made on demand, tagged with the content of the store and the gather, and made anew when they change.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hpc import parts
from hpc import store as rows
from hpc.compiled import njit
from hpc.errors import InputError, NoSpace, OutputExists, some
from hpc.files import publish_json, remove, require_space, size_of
from hpc.lock import locked
from hpc.stage import DERIVED
from udipdist.volumes import kernels
from udipdist.volumes.store import VolumeStore

log = logging.getLogger(__name__)
FORMAT = "udipdist packed 1"
FOLDER = "packed"  # inside a store: a group of its own, so that readers of the store do not see it
VOXELS = "voxels"  # the array
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)
_ELSEWHERE = "or type data.packed=DIR to have the packed voxels in a folder on another disk"


@dataclass(frozen=True, eq=False)
class Gather:
    """The voxels that a network reads: `index` [prod(shape)] int64 into the voxels of a volume (x, y, z in C order), in
    the order in which the network's form of a subject, `shape`, takes them; -1 is padding, which is always 0."""

    shape: tuple[int, ...]
    index: np.ndarray

    def __post_init__(self) -> None:
        if self.index.shape != (math.prod(self.shape),) or self.index.dtype != np.int64:
            raise ValueError(
                f"index must be int64 [{math.prod(self.shape)}], not {self.index.dtype} {self.index.shape}"
            )

    @cached_property
    def key(self) -> str:
        """A SHA-256 of what is read."""
        return hashlib.sha256(repr(self.shape).encode() + self.index.astype("<i8").tobytes()).hexdigest()

    @cached_property
    def padding(self) -> np.ndarray:
        """The places in the flat form that are no voxels."""
        return np.flatnonzero(self.index < 0)

    def within(self, shape: Sequence[int], first_axis_fastest: bool) -> np.ndarray:
        """The index into the voxels of a volume [x, y, z] as they lie in memory: in C order, or with the first axis
        fastest. Raises InputError where it does not fit.
        """
        if self.index.size and self.index.max() >= math.prod(shape):
            raise InputError(
                f"the network reads voxels beyond a volume of {tuple(shape)}: it is made for another store"
            )
        if not first_axis_fastest:
            return self.index
        turned = np.ravel_multi_index(np.unravel_index(np.maximum(self.index, 0), shape), shape, order="F")
        return np.where(self.index < 0, -1, turned)


class Tokens(ABC):
    """Subjects of a store in a network's form. Threads may share it; loader workers may get a pickled copy.

    `scale` [N, 5] float64: slope, inter, mean, std and background of each subject, as in VolumeStore; `padding`: flat
    places that are always 0.
    """

    def __init__(self, store: VolumeStore, gather: Gather):
        self.store, self.shape, self.padding = store.path, tuple(gather.shape), gather.padding
        self.dtype = store.reader.layout.dtype
        self.subjects, self.valid = store.subjects, np.asarray(store.valid)
        self.scale = np.stack([store.slope, store.inter, store.mean, store.std, store.background], axis=1)

    def __len__(self) -> int:
        return len(self.subjects)

    @property
    def row_bytes(self) -> int:
        """Bytes of one subject's stored values."""
        return math.prod(self.shape) * self.dtype.itemsize

    def stored(self, indices: Iterable[int], out: np.ndarray | None = None) -> np.ndarray:
        """Stored values [B, ...] of some subjects; into `out` where given. Raises InputError for one not valid."""
        chosen = self._checked(indices)
        out = self._out(out, len(chosen), self.dtype)
        for place, row in enumerate(self._rows(chosen)):
            out[place].reshape(-1)[:] = row
        return out

    def normalised(self, indices: Iterable[int], out: np.ndarray | None = None) -> np.ndarray:
        """Subjects in the network's form, z-scored: float32 [B, ...], bit for bit as VolumeStore.normalised has them.

        Background and padding are exactly 0. Raises InputError for a subject that is not valid.
        """
        chosen = self._checked(indices)
        out = self._out(out, len(chosen), np.dtype(np.float32))
        for place, (i, row) in enumerate(zip(chosen, self._rows(chosen), strict=True)):
            flat = out[place].reshape(-1)
            kernels.zscore(row, *self.scale[i].tolist(), flat)
            if self.scale[i, 1] and self.padding.size:
                flat[self.padding] = 0
        return out

    @abstractmethod
    def _rows(self, chosen: list[int]) -> Iterator[np.ndarray]:
        """The stored values of each, flat; one may be overwritten by the next."""

    def _checked(self, indices: Iterable[int]) -> list[int]:
        chosen = [int(i) for i in indices]
        for i in chosen:
            if not 0 <= i < len(self.subjects):
                raise IndexError(f"{self.store}: subject number {i} of {len(self.subjects)}")
            if not self.valid[i]:
                raise InputError(
                    f"{self.store}: the volume of subject {self.subjects[i]} could not be read at ingest; "
                    "leave the subjects out that are not valid"
                )
        return chosen

    def _out(self, out: np.ndarray | None, n: int, dtype: np.dtype) -> np.ndarray:
        shape = (n, *self.shape)
        if out is None:
            return np.empty(shape, dtype)
        if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
            raise ValueError(f"out must be C-contiguous {dtype} {shape}")
        return out


class Unpacked(Tokens):
    """The same out of the store itself: a read and a decompression for each subject. For who reads each once."""

    def __init__(self, store: VolumeStore, gather: Gather):
        super().__init__(store, gather)
        self._reader = store.reader
        self._index = gather.within(store.shape, store.reader.layout.first_axis_fastest)

    def _rows(self, chosen: list[int]) -> Iterator[np.ndarray]:
        layout = self._reader.layout
        volume, row = layout.empty_row(), np.empty(math.prod(self.shape), layout.dtype)
        flat = layout.as_stored(volume).reshape(-1)
        for i in chosen:
            self._reader.row(i, volume)
            _gather(flat, self._index, 1.0, 0.0, 0.0, row)
            yield row


class Packed(Tokens):
    """The packed array of a store, mapped. `foreground` [N]: each subject's voxels that are not background.

    Make it with `pack`, or `find` one that is there.
    """

    def __init__(self, store: VolumeStore, gather: Gather, place: Path):
        super().__init__(store, gather)
        self.place, self.mapped = place, rows.MappedRows(place / VOXELS)
        self.foreground = rows.get(place, "foreground")

    def require_brain(self, indices: np.ndarray) -> None:
        """Raises InputError that names the subjects without one brain voxel in the network's form."""
        empty = [self.subjects[i] for i in indices if self.valid[i] and not self.foreground[i]]
        if empty:
            raise InputError(f"{self.store}: no brain inside the network's tokens in subject {some(empty)}; look at it")

    def touch(self, indices: Iterable[int]) -> None:
        """Bring subjects into the page cache."""
        self.mapped.touch(indices)

    def _rows(self, chosen: list[int]) -> Iterator[np.ndarray]:
        return (self.mapped.view(i).reshape(-1) for i in chosen)


def place_of(store: VolumeStore, gather: Gather, where: Path | None = None) -> Path:
    """Where the packed array stands: inside the store, or in the folder `where` (of any number of stores)."""
    inside = store.reader.layout.path.parent / FOLDER
    return (inside if where is None else Path(where) / content(store)[:12]) / gather.key[:12]


def content(store: VolumeStore) -> str:
    """A SHA-256 that changes when the store's voxels or scales do; it costs a look at each shard, not its reading."""
    seen = hashlib.sha256(store.reader.fingerprint().encode())
    seen.update(rows.get(store.reader.layout.path.parent, "sha256").astype("U64").tobytes())
    scales = [np.asarray(store.valid), store.slope, store.inter, store.mean, store.std]
    for values in [*scales, store.background] if store.background.any() else scales:
        seen.update(np.ascontiguousarray(values).tobytes())
    return seen.hexdigest()


def find(store: VolumeStore, gather: Gather, where: Path | None = None) -> Packed | None:
    """The packed array, if it is there, whole, and of this store as it is."""
    place = place_of(store, gather, where)
    return None if _wanting(place, content(store), gather) else Packed(store, gather, place)


def pack(
    store: VolumeStore,
    gather: Gather,
    where: Path | None = None,
    about: Mapping[str, Any] | None = None,
    threads: int = 1,
    check: Callable[[], object] = lambda: None,
) -> Packed:
    """The packed array; made where it is not there or not of this store any more, which reads the whole store once.

    What was done when it is killed is not done again. Where another process makes it just now, wait for that. `check`
    is called now and then, and may raise to stop. `about`: JSON facts to keep in its attributes. Raises InputError
    where the place cannot be written to, and NoSpace.
    """
    place, source = place_of(store, gather, where), content(store)
    if not _wanting(place, source, gather):
        return Packed(store, gather, place)
    try:
        _make_group(place.parent)
        with locked(place.with_name(f".{place.name}.lock"), check):
            wanting = _wanting(place, source, gather)
            if wanting:
                log.info("packing the voxels that the network reads into %s: %s", place, wanting)
                _make(store, gather, place, source, dict(about or {}), threads, check)
    except NoSpace as error:
        raise NoSpace(f"{error}, {_ELSEWHERE}") from None
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        raise InputError(f"{place}: cannot be written ({error.strerror}); check permissions, {_ELSEWHERE}") from None
    return Packed(store, gather, place)


def _wanting(place: Path, source: str, gather: Gather) -> str:
    """Why the array at `place` cannot be used; nothing where it can."""
    if not (place / "zarr.json").exists():
        return "it does not exist, or is not finished"
    attributes = rows.open_group(place).attrs
    if (attributes.get("made_from"), attributes.get("gather")) != (source, gather.key):
        return "it was made from an older state of the store"
    lost = parts.lost(place, place / VOXELS)
    return f"it is damaged: {some(lost)}" if lost else ""


def _make_group(folder: Path) -> None:
    """What holds packed arrays is a Zarr group itself, so that readers of the store know it, and no part of what the
    store is, so that making one does not change the store for those who have read it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DERIVED).touch()
    if not (folder / "zarr.json").exists():
        publish_json(folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": {}})


@dataclass(frozen=True, eq=False)
class _PackJob:
    """The store cut by its shards; part i is shard i of the packed array."""

    place: Path
    store: VolumeStore
    gather: Gather
    unit: str = "volumes"
    digest: str = "crc32c"  # shards are large

    @cached_property
    def layout(self) -> rows.Layout:
        return rows.Layout(self.place / VOXELS)

    @property
    def n_parts(self) -> int:
        return self.layout.n_shards

    def size_of_part(self, index: int) -> int:
        """Subjects of a part."""
        return len(self.layout.rows_of_shard(index))

    def files_of_part(self, index: int) -> list[Path]:
        """The shard."""
        return [self.layout.shard_path(index)]

    @cached_property
    def index(self) -> np.ndarray:
        """The gather, for volumes as they lie on the disk."""
        return self.gather.within(self.store.shape, self.store.reader.layout.first_axis_fastest)

    def part(self, index: int) -> dict[str, Any]:
        """Write one shard; its subjects' voxels that are not background."""
        store, found = self.store, []
        volume = store.reader.layout.empty_row()
        flat = store.reader.layout.as_stored(volume).reshape(-1)

        def packed() -> Iterator[np.ndarray | None]:
            for i in self.layout.rows_of_shard(index):
                if not store.valid[i]:
                    found.append(0)
                    yield None
                    continue
                store.reader.row(i, volume)
                row = np.empty(self.gather.shape, flat.dtype)
                scale = store.slope[i], store.inter[i], store.background[i]
                found.append(_gather(flat, self.index, *scale, row.reshape(-1)))
                yield row

        rows.write_shard(self.layout, index, packed())
        return {"foreground": found}


def _make(
    store: VolumeStore,
    gather: Gather,
    place: Path,
    source: str,
    about: dict[str, Any],
    threads: int,
    check: Callable[[], object],
) -> None:
    """Make the array at `place`, or what is left to make of it."""
    layout = store.reader.layout
    shape = (len(store), *gather.shape)
    plan = {"stage": "pack", "made_from": source, "gather": gather.key, "shape": shape, "dtype": str(layout.dtype)}
    if not (place / "plan.json").exists():
        remove(place)
    try:
        parts.fix_plan(place, plan)
    except OutputExists:  # of another state of the store
        remove(place)
        parts.fix_plan(place, plan)
    total = int(np.sum(store.valid)) * math.prod(gather.shape) * layout.dtype.itemsize
    try:
        require_space(place, total - size_of(place))
    except NoSpace as error:
        raise NoSpace(str(error).removesuffix(" or give another out=") + " and run the same command again") from None
    (place / "zarr.json").unlink(missing_ok=True)
    dims = ("subject", *(f"axis_{k}" for k in range(len(gather.shape))))
    if not (place / VOXELS / "zarr.json").exists():
        rows.create_rows(place, VOXELS, shape, layout.dtype, dims, layout.rows_per_shard, compressed=False)
    job = _PackJob(place, store, gather)
    facts = parts.run(job, "pack", _in_threads(threads, check))
    rows.put(place, "index", gather.index.reshape(gather.shape), dims[1:])
    rows.put(place, "foreground", np.array([n for fact in facts for n in fact["foreground"]], np.int64), ("subject",))
    rows.put(place, "subject", np.array(store.subjects), ("subject",))
    tags = {"made_from": source, "gather": gather.key, "store": str(store.path)}
    rows.seal(place, {"format": FORMAT, **tags, **about})


def _in_threads(threads: int, check: Callable[[], object]) -> parts.Runner:
    """Run parts here in some threads: decompression, gathering and writing leave the interpreter free."""

    def run(job: parts.Job, todo: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        with ThreadPoolExecutor(max(threads, 1)) as pool:
            futures = {pool.submit(parts.run_part, job, index): index for index in todo}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
                    check()
            finally:
                for future in futures:
                    future.cancel()

    return run


@njit(nogil=True, cache=True)
def _gather(volume: np.ndarray, index: np.ndarray, slope: float, inter: float, limit: float, out: np.ndarray) -> int:
    """out = volume[index], 0 where the index is -1. Returns how many are foreground. Flat arrays."""
    n = 0
    for k in range(index.size):
        at = index[k]
        out[k] = volume[at] if at >= 0 else 0
        n += at >= 0 and not (abs(volume[at] * slope + inter) <= limit)
    return n
