"""Zarr v3 arrays on a file system, written by whole shards and read by rows.

A *row* is what one index of the first axis selects; it is one chunk. Rows are packed into shards of a fixed number
of rows, one file each, so a writer that owns a shard shares no file with another writer. zarr-python creates
the metadata and can read and write everything here; `write_shard`, `RowReader` and `MappedRows` handle the shard files
themselves (Zarr v3 sharding codec, version 1.0), because that needs memory for one row instead of one shard when
writing, and microseconds instead of a millisecond for each small row when reading. Rows that are not compressed lie in
the shard as they lie in memory, so that reading one is copying it out of the page cache.

A store becomes a group, and can be opened, when `seal` writes the group's metadata last.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import struct
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypedDict

import google_crc32c
import numpy as np
import zarr
import zarr.errors
from numcodecs.blosc import Blosc, decompress
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, TransposeCodec

from hpc.errors import InputError
from hpc.files import publish, remove


class _Blosc(TypedDict):
    cname: Literal["lz4"]
    clevel: int
    shuffle: Literal["shuffle"]


COMPRESSION: _Blosc = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle"}
_EMPTY = 2**64 - 1  # offset and length of a chunk that is not stored
_ENTRY = 16  # bytes of an index entry: offset and length, both uint64 little-endian
_CHECKSUM = 4  # bytes of the CRC-32C behind the index
_ALIGNMENT = 64  # bytes, a cache line: where rows that are not compressed begin
_PAGE = mmap.PAGESIZE


def create_rows(
    place: str | Path,
    name: str,
    shape: Sequence[int],
    dtype: Any,
    dims: Sequence[str],
    rows_per_shard: int,
    compressed: bool = True,
    first_axis_fastest: bool = False,
) -> Path:
    """An empty array of zeros `place/name` whose chunks are rows, `rows_per_shard` of them in one file.

    Rows that are not `compressed` can be mapped into memory (MappedRows). `first_axis_fastest`: a row lies on the disk
    as Fortran's arrays and NIfTI files lie in memory, by Zarr's transpose codec; readers see the same array. What an
    earlier call left at that place is removed. Returns the path of the array.
    """
    path, row = Path(place) / name, tuple(shape[1:])
    if path.exists():
        remove(path)
    zarr.create_array(
        path,
        shape=tuple(shape),
        dtype=np.dtype(dtype).newbyteorder("="),
        chunks=(1, *row),
        shards=(rows_per_shard, *row),
        filters=[TransposeCodec(order=_reversed(len(shape)))] if first_axis_fastest else None,
        compressors=BloscCodec(**COMPRESSION) if compressed else None,
        dimension_names=list(dims),
        fill_value=0,
    )
    return path


def put(place: str | Path, name: str, values: np.ndarray, dims: Sequence[str], **attributes: Any) -> None:
    """Write a small array as one chunk, published whole. Text (any string or object dtype) is stored as UTF-8."""
    text = values.dtype.kind in "OUT"
    with publish(Path(place) / name) as partial:
        array = zarr.create_array(
            partial,
            shape=values.shape,
            dtype=str if text else values.dtype.newbyteorder("="),
            chunks=tuple(max(n, 1) for n in values.shape),
            compressors=[BloscCodec(**COMPRESSION), Crc32cCodec()],  # blosc alone may read a cut-off file as garbage
            dimension_names=list(dims),
            attributes=attributes,
        )
        array[...] = values.astype(object) if text else values


def get(place: str | Path, name: str) -> np.ndarray:
    """The values of a small array written by `put`, also before `seal`."""
    return np.asarray(zarr.open_array(Path(place) / name, mode="r", zarr_format=3)[...])


def seal(place: str | Path, attributes: Mapping[str, Any]) -> None:
    """Make the arrays of a directory one group, with consolidated metadata. Call it last: it makes a store openable.

    Partial files that killed writers left are removed.
    """
    for path in Path(place).rglob(".*.partial-*"):
        remove(path)
    with warnings.catch_warnings():
        # Other files may stand in the directory, and consolidated metadata is not in the core specification.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.open_group(Path(place), mode="a", zarr_format=3).update_attributes(dict(attributes))
        zarr.consolidate_metadata(Path(place))


def open_group(place: str | Path) -> zarr.Group:
    """A sealed store, read-only. Raises InputError where there is none."""
    place = Path(place)
    if not place.is_dir():
        raise InputError(f"{place}: does not exist; give the path of a Zarr store (a folder)")
    if not (place / "zarr.json").exists():
        raise InputError(f"{place}: is not a finished Zarr v3 store; run the command that makes it (again)")
    return zarr.open_group(place, mode="r", zarr_format=3)


class Layout:
    """Where the rows of a sharded array lie. Raises InputError where it is not laid out as `create_rows` does."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            array = zarr.open_array(self.path, mode="r", zarr_format=3)
        except (FileNotFoundError, ValueError) as error:
            raise InputError(f"{self.path}: is not a Zarr v3 array ({error})") from None
        self.shape, self.dtype = array.shape, array.dtype
        self.stored_dtype = self.dtype.newbyteorder("<")
        self.row_shape = self.shape[1:]
        self.row_bytes = math.prod(self.row_shape) * self.dtype.itemsize
        self.fill_value = array.fill_value
        codec = _codec_of_rows(array)
        if codec is None or array.shards is None:
            raise InputError(
                f"{self.path}: is not stored as rows in shards, compressed by blosc or not at all (chunks "
                f"{array.chunks}, shards {array.shards}); make the store again with this software"
            )
        kinds = {type(inner) for inner in codec.codecs}
        self.compressed, self.first_axis_fastest = BloscCodec in kinds, TransposeCodec in kinds
        self.rows_per_shard = array.shards[0]
        self.n_shards = -(-self.shape[0] // self.rows_per_shard)

    def shard_path(self, shard: int) -> Path:
        """The file of a shard (chunk key encoding `default` with `/`)."""
        return self.path.joinpath("c", str(shard), *["0"] * len(self.row_shape))

    def as_stored(self, row: np.ndarray) -> np.ndarray:
        """A view of a row with its axes in the order in which they lie on the disk."""
        return row.T if self.first_axis_fastest else row

    def empty_row(self) -> np.ndarray:
        """Memory for a row, in the order of the disk."""
        return np.empty(self.row_shape, self.dtype, "F" if self.first_axis_fastest else "C")

    def rows_of_shard(self, shard: int) -> range:
        """The rows that a shard holds."""
        if not 0 <= shard < self.n_shards:
            raise IndexError(f"{self.path}: shard {shard} of {self.n_shards}")
        start = shard * self.rows_per_shard
        return range(start, min(start + self.rows_per_shard, self.shape[0]))


def write_shard(layout: Layout, shard: int, rows: Iterable[np.ndarray | None]) -> None:
    """Write one whole shard, published by one rename; `rows` gives each of its rows in order, None for zeros.

    One row is compressed and written while the next is made, so each row given is an array of its own. The bytes
    depend on the rows only: compression runs outside the main thread, where blosc uses one thread, because with several
    it puts blocks in the order they get ready.
    """
    expected = layout.rows_of_shard(shard)
    compress = Blosc(COMPRESSION["cname"], COMPRESSION["clevel"], Blosc.SHUFFLE).encode
    encode, alignment = (compress, 1) if layout.compressed else (_as_bytes, _ALIGNMENT)
    index = np.full((layout.rows_per_shard, 2), _EMPTY, dtype="<u8")
    count = 0
    with publish(layout.shard_path(shard)) as partial, partial.open("wb") as file, ThreadPoolExecutor(1) as thread:
        waiting: Future[bytes | memoryview] | None = None
        for count, row in enumerate(rows, start=1):
            if count > len(expected):
                raise ValueError(f"{layout.path}: shard {shard} holds {len(expected)} rows, and more are given")
            if waiting is not None:
                _append(file, index, count - 2, waiting.result(), alignment)
            waiting = None if row is None else thread.submit(encode, _checked(row, layout))
        if waiting is not None:
            _append(file, index, count - 1, waiting.result(), alignment)
        if count != len(expected):
            raise ValueError(f"{layout.path}: shard {shard} holds {len(expected)} rows, and {count} are given")
        entries = index.tobytes()
        file.write(entries + struct.pack("<I", google_crc32c.value(entries)))


class RowReader:
    """Random access to the rows of an array made by `create_rows`. Threads may share it; it can be pickled."""

    def __init__(self, path: str | Path):
        self.layout = Layout(path)
        self._indices: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self.layout.shape[0]

    def row(self, i: int, out: np.ndarray | None = None) -> np.ndarray:
        """Row `i`; into `out` (of the row's shape and dtype, contiguous in the order of the disk) where given.

        Raises IndexError, and InputError where a file of the store is damaged.
        """
        layout = self.layout
        if not 0 <= i < layout.shape[0]:
            raise IndexError(f"{layout.path}: row {i} of {layout.shape[0]}")
        if out is None:
            out = layout.empty_row()
        memory = layout.as_stored(out)
        if out.shape != layout.row_shape or out.dtype != layout.dtype or not memory.flags.c_contiguous:
            order = "F" if layout.first_axis_fastest else "C"
            raise ValueError(f"out must be {order}-contiguous, {layout.row_shape} of {layout.dtype}")
        shard, place = divmod(i, layout.rows_per_shard)
        index = self._index(shard)
        if int(index[place, 0]) == _EMPTY:
            out[...] = layout.fill_value
            return out
        offset, length = (int(v) for v in index[place])
        data = _read_at(layout.shard_path(shard), offset, length)
        try:
            if layout.compressed:
                decompress(data, memory)
            else:
                memory[...] = np.frombuffer(data, layout.stored_dtype).reshape(memory.shape)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"{layout.shard_path(shard)}: row {i} is damaged ({error}); make the store again"
            ) from None
        return out

    def fingerprint(self) -> str:
        """A SHA-256 of the array's form and of where each row lies and how long it is.

        The length of a compressed row changes with its content as good as surely; only the ends of shards are read.
        """
        layout = self.layout
        seen = hashlib.sha256(repr((layout.shape, str(layout.dtype), layout.rows_per_shard)).encode())
        for shard in range(layout.n_shards):
            index = self._index(shard)
            seen.update(index.tobytes())
        return seen.hexdigest()

    def _index(self, shard: int) -> np.ndarray:
        """Offset and length of each row of a shard, kept after the first look. `write_shard` leaves none out."""
        if shard not in self._indices:
            path = self.layout.shard_path(shard)
            if not path.exists():
                raise InputError(f"{path}: is missing; copy the store again, or make it again")
            self._indices[shard] = _read_index(path, self.layout.rows_per_shard)
        return self._indices[shard]


class MappedRows:
    """The rows of an array that is not compressed as memory, of which all processes of a machine share one copy.

    Threads may share it. Pickling carries no data: the process that gets it maps the files anew. Raises InputError
    where the array is compressed, and, when a row of it is first asked for, where a shard is gone or cut off.
    """

    def __init__(self, path: str | Path):
        self.layout = Layout(path)
        if self.layout.compressed:
            raise InputError(f"{path}: is compressed, so it cannot be mapped into memory; read it by rows")
        self._shards: dict[int, tuple[np.ndarray, list[int]]] = {}

    def __len__(self) -> int:
        return self.layout.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        return {"layout": self.layout, "_shards": {}}

    def view(self, i: int) -> np.ndarray:
        """Row `i`, read-only, without a copy."""
        layout = self.layout
        if not 0 <= i < layout.shape[0]:
            raise IndexError(f"{layout.path}: row {i} of {layout.shape[0]}")
        data = self._bytes(i)
        if data is None:
            zeros = np.zeros(layout.row_shape, layout.dtype)
            zeros.flags.writeable = False
            return zeros
        stored = data.view(layout.stored_dtype)
        return stored.reshape(layout.row_shape, order="F" if layout.first_axis_fastest else "C")

    def copy(self, rows: Iterable[int], out: np.ndarray) -> np.ndarray:
        """Copy some rows into `out` [B, ...] and return it."""
        for place, i in enumerate(rows):
            out[place] = self.view(i)
        return out

    def touch(self, rows: Iterable[int]) -> None:
        """Bring rows into the page cache, and into the memory map of this process."""
        for i in rows:
            data = self._bytes(i)
            if data is not None:
                data[::_PAGE].max()

    def _bytes(self, i: int) -> np.ndarray | None:
        """The bytes of row `i`; None where it is not stored, for it is zeros."""
        shard, place = divmod(int(i), self.layout.rows_per_shard)
        if shard not in self._shards:  # two threads may both map it: the second map replaces the first
            self._shards[shard] = self._map(shard)
        data, starts = self._shards[shard]
        start = starts[place]
        return None if start < 0 else data[start : start + self.layout.row_bytes]

    def _map(self, shard: int) -> tuple[np.ndarray, list[int]]:
        """A shard's bytes, and where each of its rows starts in them (-1: not stored)."""
        layout, path = self.layout, self.layout.shard_path(shard)
        try:
            with path.open("rb") as file:
                index = _read_index(path, layout.rows_per_shard)
                data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: cannot be mapped into memory ({error}); make the store again") from None
        stored = index[:, 0] != _EMPTY
        offsets, lengths = index[stored].T
        behind = len(data) - layout.rows_per_shard * _ENTRY - _CHECKSUM  # a map of a cut-off file would end the process
        if (lengths != layout.row_bytes).any() or (offsets > behind - layout.row_bytes).any():
            raise InputError(
                f"{path}: its rows are not where its index says; the file is damaged, make the store again"
            )
        starts = np.where(stored, index[:, 0], 0).astype(np.int64)
        return data, np.where(stored, starts, -1).tolist()


def _codec_of_rows(array: zarr.Array[Any]) -> ShardingCodec | None:
    """The codec that makes shards of rows; None where the array is laid out in another way."""
    metadata = array.metadata
    if metadata.zarr_format != 3 or array.ndim < 2 or len(metadata.codecs) != 1 or array.shards is None:
        return None
    sharding = metadata.codecs[0]
    if not isinstance(sharding, ShardingCodec):
        return None
    turned = [codec.order for codec in sharding.codecs if isinstance(codec, TransposeCodec)]
    described: Any = metadata.to_dict()["codecs"]
    listed = {codec["name"]: codec for codec in described[0]["configuration"]["codecs"]}
    by_rows = (
        tuple(sharding.chunk_shape) == (1, *array.shape[1:])
        and tuple(array.shards[1:]) == array.shape[1:]
        and turned in ([], [_reversed(array.ndim)])
        and [type(codec) for codec in sharding.codecs][len(turned) :] in ([BytesCodec, BloscCodec], [BytesCodec])
        and [type(codec) for codec in sharding.index_codecs] == [BytesCodec, Crc32cCodec]
        and sharding.index_location.value == "end"
        and metadata.chunk_key_encoding.to_dict() == {"name": "default", "configuration": {"separator": "/"}}
        and listed["bytes"].get("configuration", {}).get("endian") in (None, "little")
    )
    return sharding if by_rows else None


def _reversed(ndim: int) -> tuple[int, ...]:
    """The axes of an array with those of a row turned round."""
    return (0, *range(ndim - 1, 0, -1))


def _checked(row: np.ndarray, layout: Layout) -> np.ndarray:
    if row.shape != layout.row_shape or row.dtype.newbyteorder("=") != layout.dtype:
        raise ValueError(f"{layout.path}: a row is {row.shape} {row.dtype}, not {layout.row_shape} {layout.dtype}")
    return np.ascontiguousarray(layout.as_stored(row), dtype=layout.dtype.newbyteorder("<"))


def _as_bytes(row: np.ndarray) -> memoryview:
    return row.reshape(-1).view(np.uint8).data


def _append(file: BinaryIO, index: np.ndarray, place: int, data: bytes | memoryview, alignment: int) -> None:
    file.write(bytes(-file.tell() % alignment))
    index[place] = file.tell(), len(data)
    file.write(data)


def _read_at(path: Path, offset: int, length: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); make the store again") from None
    try:
        data = os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)
    if len(data) != length:
        raise InputError(f"{path}: ends before byte {offset + length}; the file is damaged, make the store again")
    return data


def _read_index(path: Path, n: int) -> np.ndarray:
    length = n * _ENTRY + _CHECKSUM
    tail = _read_at(path, max(path.stat().st_size - length, 0), length)
    entries, (checksum,) = tail[:-_CHECKSUM], struct.unpack("<I", tail[-_CHECKSUM:])
    if google_crc32c.value(entries) != checksum:
        raise InputError(f"{path}: its index fails the checksum; the file is damaged, make the store again")
    return np.frombuffer(entries, dtype="<u8").reshape(n, 2)
