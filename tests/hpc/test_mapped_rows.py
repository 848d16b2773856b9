"""Rows that are not compressed: the shard files against zarr-python and xarray, and as shared memory."""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc import store
from hpc.errors import InputError


def make(place, rows, rows_per_shard, left_out=()):
    """An array written by whole shards."""
    dims = [f"d{i}" for i in range(rows.ndim)]
    path = store.create_rows(place, "rows", rows.shape, rows.dtype, dims, rows_per_shard, compressed=False)
    layout = store.Layout(path)
    for shard in range(layout.n_shards):
        given = (None if i in left_out else rows[i] for i in layout.rows_of_shard(shard))
        store.write_shard(layout, shard, given)
    return path


def random_rows(shape, dtype, seed=0):
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 9),
    row=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    rows_per_shard=st.integers(1, 11),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "int32", "int64", "float32", "float64"]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_every_reader_gets_what_was_written(n, row, rows_per_shard, dtype, seed, data):
    rows = random_rows((n, *row), dtype, seed)
    left_out = data.draw(st.sets(st.integers(0, n - 1)))
    rows[list(left_out)] = 0
    order = data.draw(st.lists(st.integers(0, n - 1)))
    with tempfile.TemporaryDirectory() as folder:
        path = make(folder, rows, rows_per_shard, left_out)
        np.testing.assert_array_equal(zarr.open_array(path, mode="r")[...], rows)
        reader, mapped = store.RowReader(path), store.MappedRows(path)
        for i in range(n):
            np.testing.assert_array_equal(reader.row(i), rows[i])
            np.testing.assert_array_equal(mapped.view(i), rows[i])
            assert not mapped.view(i).flags.writeable
        out = np.empty((len(order), *row), dtype)
        assert mapped.copy(order, out) is out
        np.testing.assert_array_equal(out, rows[order])
        peer = store.create_rows(folder, "peer", rows.shape, rows.dtype, "d" * rows.ndim, rows_per_shard, False)
        zarr.open_array(peer, mode="r+")[...] = rows + 1  # none is all zeros, which zarr-python would not store
        np.testing.assert_array_equal(store.MappedRows(peer).copy(order, out), rows[order] + 1)


def test_xarray_reads_them(tmp_path):
    rows = random_rows((5, 3, 4), "int16")
    make(tmp_path / "a.zarr", rows, 2)
    store.seal(tmp_path / "a.zarr", {})
    np.testing.assert_array_equal(xarray.open_zarr(tmp_path / "a.zarr")["rows"].values, rows)


def test_rows_are_aligned_views_of_one_map(tmp_path):
    mapped = store.MappedRows(make(tmp_path, random_rows((6, 5, 7), "int16"), 3))
    places = [mapped.view(i).ctypes.data for i in range(6)]
    assert all(place % 64 == 0 for place in places)
    assert [mapped.view(i).ctypes.data for i in range(6)] == places
    assert places[1] - places[0] == places[2] - places[1] == 128  # 70 bytes, and up to the next 64


def test_shared_by_threads_and_mapped_anew_by_a_spawned_process(tmp_path):
    rows = random_rows((40, 30, 30), "int16")
    mapped = store.MappedRows(make(tmp_path, rows, 7))
    order = np.random.default_rng(0).integers(0, 40, 400)
    with ThreadPoolExecutor(4) as threads:
        for i, row in zip(order, threads.map(mapped.view, order), strict=True):
            np.testing.assert_array_equal(row, rows[i])
    assert len(pickle.dumps(mapped)) < 2000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(
            pool.apply(mapped.copy, ([3, 39], np.empty((2, 30, 30), np.int16))), rows[[3, 39]]
        )
    for i in (-1, 40):
        with pytest.raises(IndexError, match="of 40"):
            mapped.view(i)


def test_touching_leaves_them_as_they_are(tmp_path):
    rows = random_rows((5, 100, 100), "float32")
    mapped = store.MappedRows(make(tmp_path, rows, 2, left_out=[1]))
    mapped.touch(range(5))
    np.testing.assert_array_equal(mapped.view(4), rows[4])


def test_damage_is_reported(tmp_path):
    path = make(tmp_path, random_rows((2, 200), "int16"), 2)
    shard = store.Layout(path).shard_path(0)
    whole = shard.read_bytes()
    index = len(whole) - 2 * 16 - 4
    for damaged, message in [
        (b"", "ends before byte 36"),
        (whole[:10], "damaged"),
        (whole[:-1], "checksum"),
        (whole[400:], "not where its index says"),
        (whole[: index - 1] + whole[index:], "not where its index says"),
    ]:
        shard.write_bytes(damaged)
        with pytest.raises(InputError, match=message):
            store.MappedRows(path).view(0)
    shard.unlink()
    with pytest.raises(InputError, match="No such file"):
        store.MappedRows(path).view(0)


def test_compressed_rows_are_not_mapped(tmp_path):
    path = store.create_rows(tmp_path, "a", (2, 3), "int16", "sx", 2)
    with pytest.raises(InputError, match="is compressed, so it cannot be mapped"):
        store.MappedRows(path)
