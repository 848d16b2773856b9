"""The shard files against zarr-python, the peer that reads and writes the same format."""

from __future__ import annotations

import pickle
import tempfile
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc import store
from hpc.errors import InputError

DTYPES = ["uint8", "int16", "uint16", "int32", "int64", "float32", "float64"]


def make(place, rows, rows_per_shard, name="image", **how):
    """An array written by whole shards."""
    dims = [f"d{i}" for i in range(rows.ndim)]
    layout = store.Layout(store.create_rows(place, name, rows.shape, rows.dtype, dims, rows_per_shard, **how))
    for shard in range(layout.n_shards):
        store.write_shard(layout, shard, (rows[i] for i in layout.rows_of_shard(shard)))
    return layout


def random_rows(shape, dtype, seed):
    """Values of which none is 0, for zarr-python does not store rows of zeros."""
    return np.random.default_rng(seed).integers(1, 100, shape).astype(dtype)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 9),
    row=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    rows_per_shard=st.integers(1, 11),
    dtype=st.sampled_from(DTYPES),
    turned=st.booleans(),
    seed=st.integers(0, 99),
)
def test_same_files_as_zarr_python(n, row, rows_per_shard, dtype, turned, seed):
    rows = random_rows((n, *row), dtype, seed)
    with tempfile.TemporaryDirectory() as folder:
        layout = make(folder, rows, rows_per_shard, first_axis_fastest=turned)
        np.testing.assert_array_equal(zarr.open_array(layout.path, mode="r")[...], rows)
        reader = store.RowReader(layout.path)
        for i in range(n):
            np.testing.assert_array_equal(reader.row(i), rows[i])
        dims = [f"d{i}" for i in range(rows.ndim)]
        peer = store.Layout(
            store.create_rows(folder, "peer", rows.shape, rows.dtype, dims, rows_per_shard, first_axis_fastest=turned)
        )
        zarr.open_array(peer.path, mode="r+")[...] = rows
        for shard in range(layout.n_shards):
            assert layout.shard_path(shard).read_bytes() == peer.shard_path(shard).read_bytes()


def test_rows_with_the_first_axis_fastest(tmp_path):
    """They lie on the disk as in Fortran, are read without a copy, and `out` is in the order of the disk."""
    rows = random_rows((3, 4, 5, 6), "int16", 0)
    reader = store.RowReader(make(tmp_path, rows, 2, first_axis_fastest=True).path)
    assert reader.layout.first_axis_fastest and reader.row(1).flags.f_contiguous
    out = np.empty((4, 5, 6), np.int16, "F")
    np.testing.assert_array_equal(reader.row(2, out), rows[2])
    with pytest.raises(ValueError, match="F-contiguous"):
        reader.row(2, np.empty((4, 5, 6), np.int16))
    mapped = store.MappedRows(make(tmp_path, rows, 2, "plain", compressed=False, first_axis_fastest=True).path)
    np.testing.assert_array_equal(mapped.view(2), rows[2])
    np.testing.assert_array_equal(store.RowReader(tmp_path / "plain").row(2), rows[2])


@pytest.mark.parametrize("order", [">", "<"])
def test_byte_order_of_the_rows_given_does_not_matter(tmp_path, order):
    rows = random_rows((3, 4, 5), "int32", 0)
    layout = store.Layout(store.create_rows(tmp_path, "a", rows.shape, rows.dtype.newbyteorder(order), "sxy", 2))
    store.write_shard(layout, 0, rows[:2].astype(rows.dtype.newbyteorder(order)))
    np.testing.assert_array_equal(store.RowReader(layout.path).row(1), rows[1])


def test_bytes_do_not_depend_on_threads(tmp_path):
    """Blosc with several threads puts the blocks of a row in the order they get ready."""
    rows = np.random.default_rng(0).integers(0, 50, (2, 1_000_000)).astype(np.int32)
    seen = {make(tmp_path, rows, 2, f"a{i}").shard_path(0).read_bytes() for i in range(3)}
    other = threading.Thread(target=lambda: seen.add(make(tmp_path, rows, 2, "b").shard_path(0).read_bytes()))
    other.start()
    other.join()
    assert len(seen) == 1


def test_rows_left_out_are_zeros_and_a_shard_that_is_gone_is_an_error(tmp_path):
    rows = random_rows((5, 3, 2), "int16", 1)
    layout = store.Layout(store.create_rows(tmp_path, "a", rows.shape, rows.dtype, "sxy", 2))
    store.write_shard(layout, 0, [None, rows[1]])
    store.write_shard(layout, 1, [None, None])
    expected = np.where(np.arange(5)[:, None, None] == 1, rows, 0)
    reader = store.RowReader(layout.path)
    np.testing.assert_array_equal([reader.row(i) for i in range(4)], expected[:4])
    np.testing.assert_array_equal(zarr.open_array(layout.path, mode="r")[...], expected)
    with pytest.raises(InputError, match="c/2/0/0: is missing; copy the store again"):
        reader.row(4)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_shard_is_written_whole_or_not_at_all(tmp_path, count):
    layout = store.Layout(store.create_rows(tmp_path, "a", (4, 3), "int16", "sx", 2))
    with pytest.raises(ValueError, match="holds 2 rows"):
        store.write_shard(layout, 0, [np.ones(3, np.int16)] * count)
    assert not [path for path in (layout.path / "c").rglob("*") if path.is_file()]


def test_a_row_of_another_shape_or_type_is_refused(tmp_path):
    layout = store.Layout(store.create_rows(tmp_path, "a", (2, 3), "int16", "sx", 2))
    for wrong in (np.ones(4, np.int16), np.ones(3, np.int32)):
        with pytest.raises(ValueError, match="not \\(3,\\) int16"):
            store.write_shard(layout, 0, [wrong, wrong])


def test_reader_is_shared_by_threads_and_pickled(tmp_path):
    rows = random_rows((40, 30, 30), "int16", 2)
    reader = store.RowReader(make(tmp_path, rows, 7).path)
    copy = pickle.loads(pickle.dumps(reader))
    order = np.random.default_rng(0).integers(0, 40, 400)
    with ThreadPoolExecutor(4) as threads:
        for i, row in zip(order, threads.map(reader.row, order), strict=True):
            np.testing.assert_array_equal(row, rows[i])
    out = np.empty((30, 30), np.int16)
    assert copy.row(3, out) is out
    np.testing.assert_array_equal(out, rows[3])
    for wrong in (np.empty((30, 30), np.int32), np.empty((30, 29), np.int16), np.empty((30, 60), np.int16)[:, ::2]):
        with pytest.raises(ValueError, match="C-contiguous"):
            reader.row(0, wrong)
    for i in (-1, 40):
        with pytest.raises(IndexError, match="of 40"):
            reader.row(i)


def test_damage_is_reported(tmp_path):
    rows = random_rows((2, 200), "int16", 3)
    layout = make(tmp_path, rows, 2)
    path, whole = layout.shard_path(0), layout.shard_path(0).read_bytes()
    for damaged, message in [
        (whole[:10], "damaged"),
        (whole[:-1], "checksum"),
        (whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:], "checksum"),
        (bytes(30) + whole[30:], "row 0 is damaged"),
    ]:
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=message):
            store.RowReader(layout.path).row(0)


def test_other_layouts_are_refused(tmp_path):
    zarr.create_array(tmp_path / "plain", shape=(4, 3), dtype="int16", chunks=(1, 3))
    zarr.create_array(tmp_path / "zstd", shape=(4, 3), dtype="int16", chunks=(1, 3), shards=(2, 3))
    for name in ("plain", "zstd"):
        with pytest.raises(InputError, match="not stored as"):
            store.RowReader(tmp_path / name)
    with pytest.raises(InputError, match="not a Zarr v3 array"):
        store.RowReader(tmp_path / "absent")


def test_a_sealed_store_opens_with_xarray_without_warnings(tmp_path):
    place = tmp_path / "a.zarr"
    rows = random_rows((3, 2, 2), "int16", 4)
    make(place, rows, 2)
    names = np.array(["007", "b", "long name"])
    with pytest.raises(InputError, match="not a finished"):
        store.open_group(place)
    for _ in range(2):  # again: `put` replaces
        store.put(place, "d0", names, ["d0"])
        store.put(place, "number", np.array([1.5, np.nan, -2]), ["d0"], units="mm")
    (place / "manifest.json").write_text("{}")
    left = place / "image" / "c" / "0" / ".0.partial-0123abcd"
    left.write_text("of a killed writer")
    store.seal(place, {"format": "test"})
    assert not left.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = xarray.open_zarr(place)
        assert data.attrs["format"] == "test" and data["number"].attrs["units"] == "mm"
        assert list(data["d0"].values) == list(names)
        np.testing.assert_array_equal(data["image"].sel(d0="b").values, rows[1])
    group = store.open_group(place)
    np.testing.assert_array_equal(group["number"][:], [1.5, np.nan, -2])
    with pytest.raises(ValueError, match="read-only"):
        group.create_array("more", shape=(1,), dtype="int8")
    with pytest.raises(InputError, match="does not exist"):
        store.open_group(tmp_path / "absent.zarr")


def test_create_rows_starts_afresh(tmp_path):
    layout = make(tmp_path, random_rows((4, 3), "int16", 5), 2)
    again = store.create_rows(tmp_path, "image", (4, 3), "int16", "sx", 2)
    assert again == layout.path and not Path(layout.shard_path(0)).exists()
