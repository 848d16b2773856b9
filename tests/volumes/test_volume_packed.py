"""The packed voxels against the store they are made from: every bit, through kills, changes and full disks."""

from __future__ import annotations

import errno
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc import store as rows
from hpc.errors import InputError, NoSpace
from hpc.stage import fingerprint
from udipdist.config import IngestConfig
from udipdist.models.layers.tokens import Patcher
from udipdist.training.feed import zscore
from udipdist.volumes import packed
from udipdist.volumes.ingest import ingest
from udipdist.volumes.packed import Gather, Unpacked, find, pack
from udipdist.volumes.store import VolumeStore

SHAPE = (9, 11, 6)
PATCH = (4, 4, 4)  # y is padded on both sides, x and z behind


def make(folder: Path, kind: str = "int16", inter: float = 0.0, seed: int = 0, n: int = 7) -> VolumeStore:
    """A store of n - 1 scans and a file that is none, three to a shard."""
    rng, scans = np.random.default_rng(seed), folder / "scans"
    scans.mkdir(parents=True)
    for i in range(n - 1):
        values = (rng.integers(1, 200, SHAPE) * (rng.random(SHAPE) < 0.7)).astype(kind)
        header = nib.Nifti1Image(values, np.diag([2.0, 2, 2, 1])).header
        header.set_slope_inter(0.37 if inter else 1.0, inter)  # nibabel would scale the values to it
        header["vox_offset"] = 352
        (scans / f"S{i}.nii").write_bytes(header.binaryblock + bytes(4) + values.tobytes(order="F"))
    (scans / "S9.nii").write_bytes(b"none")
    keys = {"workers": 0, "subjects_per_shard": 3, "allow_failures": 1, "allow": "background"}
    ingest(IngestConfig(volumes=scans, out=folder / "s.zarr", **keys))
    return VolumeStore.open(folder / "s.zarr")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> VolumeStore:
    """A store; do not write to it: give `where`."""
    return make(tmp_path_factory.mktemp("store"))


def patcher(store: VolumeStore) -> Patcher:
    return Patcher(np.ones(store.shape, bool), PATCH)


def expected(store: VolumeStore, gather: Gather, chosen: list[int]) -> np.ndarray:
    """The slow, obvious way."""
    flat = store.normalised(chosen).reshape(len(chosen), math.prod(SHAPE))
    found = np.where(gather.index < 0, 0, flat[:, np.maximum(gather.index, 0)])
    return found.astype(np.float32).reshape(len(chosen), *gather.shape)


def test_the_patcher_says_what_it_takes(store):
    cut = patcher(store)
    gather = cut.gather()
    assert gather.shape == (cut.tokens, cut.voxels) and (gather.index < 0).any()
    volumes = store.normalised([0, 4])
    np.testing.assert_array_equal(cut(torch.from_numpy(volumes)), expected(store, gather, [0, 4]))


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("inter", [0.0, -7.77])
def test_every_way_of_reading_gives_the_same_bits(tmp_path, kind, inter):
    store = make(tmp_path, kind, inter)
    gather, order = patcher(store).gather(), [3, 0, 5, 3]
    made, direct = pack(store, gather), Unpacked(store, gather)
    reference = expected(store, gather, order)
    assert (
        made.stored([0]).dtype == np.dtype(kind) and (reference[:, gather.index.reshape(gather.shape) < 0] == 0).all()
    )
    assert (store.inter[:3] == np.float32(inter)).all()
    for reader in (made, direct, pickle.loads(pickle.dumps(made)), find(store, gather)):
        assert reader.normalised(order).tobytes() == reference.tobytes()
        out = np.full((4, *gather.shape), np.nan, np.float32)
        assert reader.normalised(order, out) is out and out.tobytes() == reference.tobytes()
        np.testing.assert_array_equal(reader.stored(order), made.stored(order))
    on_device = zscore(torch.from_numpy(made.stored(order)), made.scale[order], made.padding)
    assert on_device.numpy().tobytes() == reference.tobytes()


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_gather(store, tmp_path_factory, data):
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    n, voxels = math.prod(shape), st.integers(-1, math.prod(SHAPE) - 1)
    gather = Gather(shape, np.array(data.draw(st.lists(voxels, min_size=n, max_size=n)), np.int64))
    chosen = data.draw(st.lists(st.integers(0, 5), max_size=4))
    made = pack(store, gather, tmp_path_factory.getbasetemp() / "gathers", threads=2)
    assert made.normalised(chosen).tobytes() == expected(store, gather, chosen).tobytes()
    counts = [np.count_nonzero(store.raw(i).ravel()[gather.index[gather.index >= 0]]) for i in range(6)]
    assert made.foreground.tolist() == [*counts, 0]


def test_torch_zscores_in_pieces(store, tmp_path, monkeypatch):
    made = pack(store, patcher(store).gather(), tmp_path)
    monkeypatch.setattr("udipdist.training.feed._AT_ONCE", 2 * made.row_bytes)
    found = zscore(torch.from_numpy(made.stored(range(6))), made.scale[:6], made.padding)
    assert found.numpy().tobytes() == made.normalised(range(6)).tobytes()


def test_readers_of_the_store_do_not_see_it(tmp_path):
    store = make(tmp_path)
    gather = patcher(store).gather()
    (tmp_path / "s.zarr.manifest.json").rename(tmp_path / "away")
    before = fingerprint(store.path)
    made = pack(store, gather, about={"patch": list(PATCH)})
    assert fingerprint(store.path) == before  # a run that read the store goes on, with or without a manifest
    assert made.place == store.path / "packed" / gather.key[:12]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for consolidated in (True, False):
            seen = xarray.open_zarr(store.path, consolidated=consolidated)
            assert "image" in seen and "voxels" not in seen
        mine = xarray.open_zarr(made.place)
    np.testing.assert_array_equal(mine["voxels"].values[:6], made.stored(range(6)))
    np.testing.assert_array_equal(mine["index"].values.ravel(), gather.index)
    assert mine.attrs["patch"] == list(PATCH) and mine.attrs["gather"] == gather.key
    assert list(mine["subject"].values) == store.subjects


def test_rows_are_checked(store, tmp_path):
    for reader in (pack(store, patcher(store).gather(), tmp_path), Unpacked(store, patcher(store).gather())):
        for read in (reader.normalised, reader.stored):
            with pytest.raises(InputError, match="subject S9 could not be read at ingest"):
                read([0, 6])
            with pytest.raises(IndexError, match="number 7 of 7"):
                read([7])
        with pytest.raises(ValueError, match="out must be C-contiguous float32"):
            reader.normalised([0], np.empty((1, *reader.shape)))
    with pytest.raises(InputError, match="beyond a volume of"):
        Unpacked(store, Gather((1,), np.array([math.prod(SHAPE)])))
    with pytest.raises(ValueError, match="index must be int64"):
        Gather((2,), np.array([1]))


def test_subjects_without_brain_are_named(store, tmp_path):
    at = int(np.flatnonzero(store.raw(2).ravel() == 0)[0])
    made = pack(store, Gather((1,), np.array([at])), tmp_path)
    blank = [store.subjects[i] for i in range(6) if store.raw(i).ravel()[at] == 0]
    with pytest.raises(InputError, match=f"no brain inside the network's tokens in subject {', '.join(blank)};"):
        made.require_brain(np.arange(7))


def test_made_once_and_anew_when_store_or_gather_change(tmp_path, caplog):
    caplog.set_level("INFO")
    store = make(tmp_path / "a")
    gather, other = patcher(store).gather(), Gather((3,), np.array([5, -1, 7]))
    assert find(store, gather) is None
    first = pack(store, gather)
    assert "packing the voxels" in caplog.text
    pack(store, other)
    caplog.clear()
    assert pack(store, gather).place == first.place and find(store, gather) and find(store, other)
    assert "packing" not in caplog.text
    (store.path / "packed").rename(tmp_path / "kept")
    changed = make(tmp_path / "b", seed=1)
    (tmp_path / "kept").rename(changed.path / "packed")  # as if the store had been replaced around it
    assert find(changed, gather) is None
    again = pack(changed, gather)
    assert again.place.name == first.place.name and "older state of the store" in caplog.text
    assert again.normalised([1]).tobytes() == expected(changed, gather, [1]).tobytes()
    assert (changed.path / "packed" / other.key[:12] / "zarr.json").exists()  # of another gather: left alone


def test_a_copy_of_the_store_keeps_it(tmp_path):
    store = make(tmp_path)
    gather = patcher(store).gather()
    pack(store, gather)
    subprocess.run(["cp", "-r", store.path, tmp_path / "copy.zarr"], check=True)
    assert find(VolumeStore.open(tmp_path / "copy.zarr"), gather)


@pytest.mark.parametrize("damage", ["gone", "cut off"])
def test_a_damaged_shard_is_made_again(tmp_path, caplog, damage):
    caplog.set_level("INFO")
    store = make(tmp_path)
    gather = patcher(store).gather()
    made = pack(store, gather)
    shard = made.mapped.layout.shard_path(1)
    if damage == "gone":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1])
    assert find(store, gather) is None
    again = pack(store, gather)
    assert "it is damaged" in caplog.text and "1 of 3 parts are left" in caplog.text
    assert again.normalised(range(6)).tobytes() == expected(store, gather, list(range(6))).tobytes()


def test_killed_and_run_again(tmp_path, caplog):
    caplog.set_level("INFO")
    store = make(tmp_path)
    gather = patcher(store).gather()
    undisturbed = shards(pack(store, gather, tmp_path / "undisturbed"))
    program = (
        "import os, signal, sys; import numpy as np; from udipdist.volumes.packed import Gather, pack\n"
        "from udipdist.volumes.store import VolumeStore\n"
        "store, index = VolumeStore.open(sys.argv[1]), np.load(sys.argv[2])\n"
        "pack(store, Gather(index.shape, index.ravel()), check=lambda: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    np.save(tmp_path / "index.npy", gather.index.reshape(gather.shape))
    words = [sys.executable, "-c", program, store.path, tmp_path / "index.npy"]
    assert subprocess.run(words).returncode == -signal.SIGKILL
    assert find(store, gather) is None and len(list(store.path.glob("packed/.*.lock"))) == 1
    made = pack(store, gather)
    assert "ended without releasing it" in caplog.text and "of 3 parts are left" in caplog.text
    assert shards(made) == undisturbed
    assert not list(store.path.glob("packed/.*.lock")) and not list(made.place.rglob("*.partial-*"))


def shards(made: packed.Packed) -> list[bytes]:
    layout = made.mapped.layout
    return [layout.shard_path(i).read_bytes() for i in range(layout.n_shards)]


def test_two_trainings_make_it_once(tmp_path, monkeypatch):
    store = make(tmp_path)
    gather, made = patcher(store).gather(), []
    take = packed._make

    def slow(*arguments):
        made.append(1)
        time.sleep(0.5)
        take(*arguments)

    monkeypatch.setattr(packed, "_make", slow)
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: pack(store, gather).normalised([1]).tobytes(), range(3)))
    assert len(made) == 1 and set(found) == {expected(store, gather, [1]).tobytes()}


def test_a_signal_stops_it_between_parts(tmp_path):
    store = make(tmp_path)

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(store, patcher(store).gather(), check=stop)
    assert find(store, patcher(store).gather()) is None and not list(store.path.glob("packed/.*.lock"))


def test_a_store_that_cannot_be_written(tmp_path):
    store = make(tmp_path)
    gather = patcher(store).gather()
    (store.path / "packed").write_text("a file in its place")
    with pytest.raises(InputError, match=r"packed/\w+: cannot be written .*data.packed=DIR"):
        pack(store, gather)
    assert pack(store, gather, tmp_path / "elsewhere").place.is_relative_to(tmp_path / "elsewhere")


def test_a_full_disk(tmp_path, monkeypatch):
    store = make(tmp_path)
    gather = patcher(store).gather()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(rows, "_append", full)
        with pytest.raises(NoSpace, match="disk is full.*same command again, or type data.packed=DIR"):
            pack(store, gather)
    with monkeypatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
        with pytest.raises(NoSpace, match="GB are free; free some space and run .*, or type data.packed=DIR"):
            pack(store, gather)
    assert pack(store, gather).normalised([0]).tobytes() == expected(store, gather, [0]).tobytes()


def test_shared_by_threads_and_spawned_workers(store, tmp_path):
    gather = patcher(store).gather()
    made = pack(store, gather, tmp_path)
    order = np.random.default_rng(0).integers(0, 6, (50, 2)).tolist()
    with ThreadPoolExecutor(4) as threads:
        for chosen, found in zip(order, threads.map(made.normalised, order), strict=True):
            assert found.tobytes() == expected(store, gather, chosen).tobytes()
    assert len(pickle.dumps(made)) < 20_000  # none of the voxels
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(made.normalised, ([4, 1],)).tobytes() == expected(store, gather, [4, 1]).tobytes()
