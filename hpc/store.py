"""Zarr v3 arrays on a file system, written by whole shards and read by rows.

A *row* is what one index of the first axis selects; it is one chunk. Rows are packed into shards of a fixed number
of rows, one file each, so a writer that owns a shard shares no file with another writer. zarr-python creates
the metadata and can read and write everything here; `write_shard` and `RowReader` handle the shard files
themselves (Zarr v3 sharding codec, version 1.0), because that needs memory for one row instead of one shard when
writing, and microseconds instead of a millisecond for each small row when reading.

A store becomes a group, and can be opened, when `seal` writes the group's metadata last.
"""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import zarr
import zarr.errors
from numcodecs.blosc import Blosc, decompress
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec

from hpc.errors import InputError
from hpc.files import publish, remove

COMPRESSION = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle"}
_EMPTY = 2**64 - 1  # offset and length of a chunk that is not stored
_ENTRY = 16  # bytes of an index entry: offset and length, both uint64 little-endian
_CHECKSUM = 4  # bytes of the CRC-32C behind the index


def create_rows(
    place: str | Path, name: str, shape: Sequence[int], dtype: Any, dims: Sequence[str], rows_per_shard: int
) -> Path:
    """An empty array of zeros `place/name` whose chunks are rows, `rows_per_shard` of them in one file.

    What an earlier call left at that place is removed. Returns the path of the array.
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
        compressors=BloscCodec(**COMPRESSION),
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
    return zarr.open_array(Path(place) / name, mode="r", zarr_format=3)[...]


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
        raise InputError(f"{place}: is not there; give the path of a Zarr store (a folder)")
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
        self.row_shape = self.shape[1:]
        self.fill_value = array.fill_value
        if not _is_by_rows(array):
            raise InputError(
                f"{self.path}: is not stored as blosc-compressed rows in shards (chunks {array.chunks}, shards "
                f"{array.shards}); make the store again with this software"
            )
        self.rows_per_shard = array.shards[0]
        self.n_shards = -(-self.shape[0] // self.rows_per_shard)

    def shard_path(self, shard: int) -> Path:
        """The file of a shard (chunk key encoding `default` with `/`)."""
        return self.path.joinpath("c", str(shard), *["0"] * len(self.row_shape))

    def rows_of_shard(self, shard: int) -> range:
        """The rows that a shard holds."""
        if not 0 <= shard < self.n_shards:
            raise IndexError(f"{self.path}: shard {shard} of {self.n_shards}")
        start = shard * self.rows_per_shard
        return range(start, min(start + self.rows_per_shard, self.shape[0]))


def write_shard(layout: Layout, shard: int, rows: Iterable[np.ndarray | None]) -> None:
    """Write one whole shard, published by one rename; `rows` gives each of its rows in order, None for zeros.

    One row is compressed while the next is made. The bytes depend on the rows only: compression runs outside the
    main thread, where blosc uses one thread, because with several it puts blocks in the order they get ready.
    """
    expected = layout.rows_of_shard(shard)
    compressor = Blosc(COMPRESSION["cname"], COMPRESSION["clevel"], Blosc.SHUFFLE)
    index = np.full((layout.rows_per_shard, 2), _EMPTY, dtype="<u8")
    count = 0
    with publish(layout.shard_path(shard)) as partial, partial.open("wb") as file, ThreadPoolExecutor(1) as thread:
        waiting: Future | None = None
        for count, row in enumerate(rows, start=1):
            if count > len(expected):
                raise ValueError(f"{layout.path}: shard {shard} holds {len(expected)} rows, and more are given")
            if waiting is not None:
                _append(file, index, count - 2, waiting.result())
            waiting = None if row is None else thread.submit(compressor.encode, _checked(row, layout))
        if waiting is not None:
            _append(file, index, count - 1, waiting.result())
        if count != len(expected):
            raise ValueError(f"{layout.path}: shard {shard} holds {len(expected)} rows, and {count} are given")
        entries = index.tobytes()
        file.write(entries + struct.pack("<I", google_crc32c.value(entries)))


class RowReader:
    """Random access to the rows of an array made by `create_rows`. Threads may share it; it can be pickled."""

    def __init__(self, path: str | Path):
        self.layout = Layout(path)
        self._indices: dict[int, np.ndarray | None] = {}

    def __len__(self) -> int:
        return self.layout.shape[0]

    def row(self, i: int, out: np.ndarray | None = None) -> np.ndarray:
        """Row `i`; into `out` (C-contiguous, of the row's shape and dtype) where given.

        Raises IndexError, and InputError where a file of the store is damaged.
        """
        layout = self.layout
        if not 0 <= i < layout.shape[0]:
            raise IndexError(f"{layout.path}: row {i} of {layout.shape[0]}")
        if out is None:
            out = np.empty(layout.row_shape, layout.dtype)
        elif out.shape != layout.row_shape or out.dtype != layout.dtype or not out.flags.c_contiguous:
            raise ValueError(f"out must be C-contiguous, {layout.row_shape} of {layout.dtype}")
        shard, place = divmod(i, layout.rows_per_shard)
        index = self._index(shard)
        if index is None or int(index[place, 0]) == _EMPTY:
            out[...] = layout.fill_value
            return out
        offset, length = (int(v) for v in index[place])
        data = _read_at(layout.shard_path(shard), offset, length)
        try:
            decompress(data, out)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"{layout.shard_path(shard)}: row {i} is damaged ({error}); make the store again"
            ) from None
        return out

    def _index(self, shard: int) -> np.ndarray | None:
        """Offset and length of each row of a shard, kept after the first look; None where nothing is stored."""
        if shard not in self._indices:
            path = self.layout.shard_path(shard)
            self._indices[shard] = _read_index(path, self.layout.rows_per_shard) if path.exists() else None
        return self._indices[shard]


def _is_by_rows(array: zarr.Array) -> bool:
    codecs = array.metadata.codecs
    if array.ndim < 2 or len(codecs) != 1 or not isinstance(codecs[0], ShardingCodec):
        return False
    sharding = codecs[0]
    return (
        tuple(sharding.chunk_shape) == (1, *array.shape[1:])
        and tuple(array.shards[1:]) == array.shape[1:]
        and [type(codec) for codec in sharding.codecs] == [BytesCodec, BloscCodec]
        and [type(codec) for codec in sharding.index_codecs] == [BytesCodec, Crc32cCodec]
        and sharding.index_location.value == "end"
        and array.metadata.chunk_key_encoding.to_dict() == {"name": "default", "configuration": {"separator": "/"}}
        and array.metadata.to_dict()["codecs"][0]["configuration"]["codecs"][0].get("configuration", {}).get("endian")
        in (None, "little")
    )


def _checked(row: np.ndarray, layout: Layout) -> np.ndarray:
    if row.shape != layout.row_shape or row.dtype.newbyteorder("=") != layout.dtype:
        raise ValueError(f"{layout.path}: a row is {row.shape} {row.dtype}, not {layout.row_shape} {layout.dtype}")
    return np.ascontiguousarray(row, dtype=layout.dtype.newbyteorder("<"))


def _append(file: BinaryIO, index: np.ndarray, place: int, data: bytes) -> None:
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
