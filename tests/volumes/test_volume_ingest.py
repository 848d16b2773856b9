"""Files in, a store out: round trips, resuming, failures."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import nilearn
import numpy as np
import pytest
import xarray
from nibabel.testing import data_path

from hpc.errors import ConfigError, Incomplete, InputError, NoSpace, OutputExists
from hpc.stage import read_manifest
from hpc.testing import HANGS
from udipdist.config import IngestConfig
from udipdist.volumes import ingest as ingest_module
from udipdist.volumes import nifti
from udipdist.volumes.ingest import ingest, preview
from udipdist.volumes.left_out import failures_path
from udipdist.volumes.store import VolumeStore

SHAPE = (7, 8, 6)
TEMPLATES = sorted((Path(nilearn.__file__).parent / "datasets" / "data").glob("mni*.nii.gz"))


def brain(seed, shape=SHAPE):
    """A volume with about half of its voxels 0, always the same corner among them."""
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(shape) < 0.5, rng.integers(1, 900, shape), 0).astype("int16")
    values[:2] = 0
    return values


def write(path, values, affine=None, **header):
    image = nib.Nifti1Image(values, np.diag([2.0, 2, 2, 1]) if affine is None else affine)
    if header:
        image.header.set_slope_inter(**header)
    nib.save(image, path)


@pytest.fixture
def scans(tmp_path):
    """Ten subjects, 0001..0010."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for i in range(10):
        write(folder / f"{i + 1:04d}.nii.gz", brain(i))
    return folder


def config(volumes, out=None, **keys):
    keys = {"workers": 0, "subjects_per_shard": 4} | keys
    return IngestConfig(volumes=volumes, out=out or volumes.parent / "store.zarr", **keys)


def tree(place):
    """The bytes of every file but the manifest."""
    return {p.relative_to(place): p.read_bytes() for p in place.rglob("*") if p.is_file() and p.name != "manifest.json"}


def test_store_holds_what_the_files_hold(scans):
    ingest(config(scans))
    volumes = VolumeStore.open(scans.parent / "store.zarr")
    assert volumes.subjects == volumes.fids == [f"{i + 1:04d}" for i in range(10)]
    assert volumes.valid.all() and volumes.shape == SHAPE and volumes.zooms == (2, 2, 2) and len(volumes) == 10
    data = np.stack([brain(i) for i in range(10)]).astype(float)
    for i in range(10):
        np.testing.assert_array_equal(volumes.raw(i), data[i])
        foreground = data[i][data[i] != 0]
        assert volumes.mean[i] == pytest.approx(foreground.mean(), rel=1e-13)
        assert volumes.std[i] == pytest.approx(foreground.std(), rel=1e-13)
    counts = (data != 0).sum(axis=0)
    np.testing.assert_array_equal(volumes.mask, counts > 0)
    facts = read_manifest(volumes.path)["facts"]
    assert (facts["subjects"], facts["valid"], facts["failures"]) == (10, 10, 0)
    assert not failures_path(volumes.path).exists()
    assert not {"plan.json", "parts"} & {p.name for p in volumes.path.iterdir()}


def test_mask_is_foreground_of_a_twentieth(tmp_path):
    """With 40 subjects a voxel of two of them is in the mask, a voxel of one is not; failed ones do not count."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for i in range(40):
        values = np.zeros(SHAPE, np.int16)
        values[0, 0, :2] = 1, 2
        values[1, 1, 1] = i < 2
        values[2, 2, 2] = i < 1
        write(folder / f"{i:02d}.nii", values)
    write(folder / "empty.nii", np.zeros(SHAPE, np.int16))
    ingest(config(folder, subjects_per_shard=16, allow_failures=1))
    volumes = VolumeStore.open(tmp_path / "store.zarr")
    expected = np.zeros(SHAPE, bool)
    expected[0, 0, :2] = expected[1, 1, 1] = True
    np.testing.assert_array_equal(volumes.mask, expected)
    assert xarray.open_zarr(volumes.path)["foreground_count"].values[2, 2, 2] == 1


def test_opens_with_xarray_without_warnings(scans):
    ingest(config(scans))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = xarray.open_zarr(scans.parent / "store.zarr")
        one = data.sel(subject="0003")
        np.testing.assert_array_equal(one["image"].values, brain(2))
        assert dict(data.sizes) == {
            "subject": 10,
            "x": 7,
            "y": 8,
            "z": 6,
            "row": 4,
            "column": 4,
            "tx": 2,
            "ty": 2,
            "tz": 2,
        }
        assert str(one["source"].values) == str(scans / "0003.nii.gz")
        assert data["image"].chunks[0] == (1,) * 10


def test_normalised(scans):
    write(scans / "0011.nii.gz", brain(11), slope=0.5, inter=-3.25)
    ingest(config(scans))
    volumes = VolumeStore.open(scans.parent / "store.zarr")
    assert volumes.slope[10] == 0.5 and volumes.inter[10] == -3.25
    order = [10, 3, 3, 0]
    batch = volumes.normalised(order)
    assert batch.dtype == np.float32 and batch.shape == (4, *SHAPE)
    for values, i in zip(batch, order, strict=True):
        scaled = nib.load(scans / f"{i + 1:04d}.nii.gz").get_fdata()
        foreground = scaled != 0
        expected = np.where(foreground, (scaled - scaled[foreground].mean()) / scaled[foreground].std(), 0)
        np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-7)
        assert (values[~foreground] == 0).all()
    np.testing.assert_array_equal(batch[1], batch[2])
    out = volumes.empty(4)
    out[:] = 9
    assert volumes.normalised(np.array(order), out) is out
    np.testing.assert_array_equal(out, batch)
    with pytest.raises(ValueError, match="float32"):
        volumes.normalised(order, out.astype(np.float64))
    with pytest.raises(IndexError, match="of 11"):
        volumes.normalised([11])


def test_store_is_shared_by_threads_and_pickled(scans):
    ingest(config(scans))
    volumes = VolumeStore.open(scans.parent / "store.zarr")
    expected = volumes.normalised(range(10))
    copy = pickle.loads(pickle.dumps(volumes))
    with ThreadPoolExecutor(4) as threads:
        for i, batch in enumerate(threads.map(lambda i: copy.normalised([i % 10, 0]), range(100))):
            np.testing.assert_array_equal(batch, expected[[i % 10, 0]])


REAL = {
    "anatomical": Path(data_path) / "anatomical.nii",
    "reoriented": Path(data_path) / "reoriented_anat_moved.nii",
    "image_10426": TEMPLATES[0].parent / "image_10426.nii.gz",
}


@pytest.mark.parametrize("name", REAL)
def test_real_images_round_trip(tmp_path, name):
    """Voxel values and affine survive to NIfTI, whatever byte order, type and orientation the file had."""
    (tmp_path / "list.csv").write_text(f"EID,T1\n{name},{REAL[name]}\n")
    ingest(config(tmp_path / "list.csv", allow="background"))
    image = VolumeStore.open(tmp_path / "store.zarr").to_nifti(0)
    expected = nib.as_closest_canonical(nib.load(REAL[name]))
    np.testing.assert_array_equal(image.get_fdata(), expected.get_fdata())
    np.testing.assert_allclose(image.affine, expected.affine, rtol=0, atol=1e-5)
    assert image.get_data_dtype() == expected.get_data_dtype().newbyteorder("=")


def test_nan_around_the_brain_is_refused(tmp_path):
    """A real image, resampled by a program that writes NaN outside the field of view."""
    shutil.copy(Path(data_path) / "resampled_anat_moved.nii", tmp_path / "a.nii")
    with pytest.raises(InputError, match="a.nii: has NaN, .* write 0"):
        ingest(config(tmp_path, tmp_path / "store.zarr"))


def test_templates_of_nilearn_round_trip(tmp_path):
    lines = [f"{path.name},{path}" for path in TEMPLATES]
    (tmp_path / "list.csv").write_text("\n".join(["EID,path", *lines]) + "\n")
    ingest(config(tmp_path / "list.csv", subjects_per_shard=2))
    volumes = VolumeStore.open(tmp_path / "store.zarr")
    assert volumes.shape == (197, 233, 189) and volumes.zooms == (1, 1, 1) and len(volumes) == 3
    for i, path in enumerate(TEMPLATES):
        image, expected = volumes.to_nifti(i), nib.load(path)
        np.testing.assert_array_equal(image.dataobj, np.asarray(expected.dataobj))
        np.testing.assert_array_equal(image.affine, expected.affine)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_scale_factors_round_trip(tmp_path, kind):
    folder = tmp_path / "scans"
    folder.mkdir()
    image = kind(brain(0), np.diag([-1.0, 1, 1, 1]))
    image.header.set_slope_inter(0.1, 3)
    nib.save(image, folder / "a.nii.gz")
    ingest(config(folder, allow="background"))
    volumes = VolumeStore.open(tmp_path / "store.zarr")
    nib.save(volumes.to_nifti(0), tmp_path / "b.nii.gz")
    again, expected = nib.load(tmp_path / "b.nii.gz"), nib.as_closest_canonical(nib.load(folder / "a.nii.gz"))
    np.testing.assert_array_equal(again.get_fdata(), expected.get_fdata())
    np.testing.assert_array_equal(again.affine, expected.affine)


def test_types_of_a_cohort_are_joined_exactly(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    write(folder / "a.nii", brain(0).astype(np.uint16) + 60_000)
    write(folder / "b.nii", brain(1))
    ingest(config(folder, allow="background"))
    volumes = VolumeStore.open(tmp_path / "store.zarr")
    assert volumes.raw(0).dtype == np.int32
    np.testing.assert_array_equal(volumes.raw(0), brain(0).astype(np.int32) + 60_000)
    image = nib.Nifti1Image(brain(2).astype(np.int64), np.eye(4), dtype=np.int64)
    nib.save(image, folder / "c.nii")
    write(folder / "d.nii", brain(3).astype(np.float32))
    with pytest.raises(InputError, match="float32, int16, int64, uint16, which no one type holds exactly"):
        ingest(config(folder, tmp_path / "other.zarr"))


@pytest.mark.parametrize("subjects_per_shard", [1, 3, 64])
def test_result_does_not_depend_on_shards(scans, subjects_per_shard):
    ingest(config(scans))
    ingest(config(scans, scans.parent / "other.zarr", subjects_per_shard=subjects_per_shard))
    one, other = (VolumeStore.open(scans.parent / name) for name in ("store.zarr", "other.zarr"))
    np.testing.assert_array_equal(one.normalised(range(10)), other.normalised(range(10)))
    np.testing.assert_array_equal(one.mask, other.mask)


def test_two_workers_write_the_same_bytes(scans):
    (scans / "0005.nii.gz").write_bytes(b"no image")
    for name, workers in (("store.zarr", 0), ("other.zarr", 2)):
        ingest(config(scans, scans.parent / name, workers=workers, allow_failures=1))
    assert tree(scans.parent / "store.zarr") == tree(scans.parent / "other.zarr")


SLOW_INGEST = """
import sys, time
from pathlib import Path
from udipdist.config import IngestConfig
from udipdist.volumes import ingest, nifti
read = nifti.read
def slowly(data, name):
    time.sleep(0.1)
    return read(data, name)
nifti.read = slowly
ingest.ingest(IngestConfig(volumes=Path(sys.argv[1]), out=Path(sys.argv[2]), workers=0, subjects_per_shard=2))
"""


def test_killed_ingest_goes_on_to_the_same_bytes(scans, monkeypatch):
    out, undisturbed = scans.parent / "store.zarr", scans.parent / "undisturbed.zarr"
    ingest(config(scans, undisturbed, subjects_per_shard=2))
    process = subprocess.Popen([sys.executable, "-c", SLOW_INGEST, scans, out], cwd=Path(__file__).parents[2])
    limit = time.monotonic() + HANGS
    while len(list(out.glob("parts/*.json"))) < 2 and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(out.glob("parts/*.json")))
    assert 2 <= done < 5
    with pytest.raises(InputError, match="not a finished"):
        VolumeStore.open(out)
    seen = []
    read = nifti.read
    monkeypatch.setattr(nifti, "read", lambda data, name: seen.append(name) or read(data, name))
    ingest(config(scans, out, subjects_per_shard=2))
    assert seen == [f"{i + 1:04d}.nii.gz" for i in range(2 * done, 10)]
    assert tree(out) == tree(undisturbed)


def test_unfinished_work_of_another_plan_is_refused(scans, monkeypatch):
    def stop(*_):
        raise RuntimeError("stop here")

    monkeypatch.setattr(ingest_module, "_finish", stop)
    with pytest.raises(RuntimeError, match="stop here"):
        ingest(config(scans))
    monkeypatch.undo()
    with pytest.raises(OutputExists, match="different: subjects_per_shard"):
        ingest(config(scans, subjects_per_shard=5))
    (scans / "0010.nii.gz").unlink()
    with pytest.raises(OutputExists, match="different: shape.image, sources"):
        ingest(config(scans))
    ingest(config(scans, overwrite=True))
    assert len(VolumeStore.open(scans.parent / "store.zarr")) == 9


@pytest.fixture
def bad_scans(scans):
    """Ten good scans and seven that cannot be used, each in its own way."""
    data = (scans / "0001.nii.gz").read_bytes()
    (scans / "bad_crc.nii.gz").write_bytes(data[:-8] + bytes(4) + data[-4:])
    (scans / "bad_cut.nii.gz").write_bytes(data[: len(data) // 2])
    (scans / "bad_text.nii").write_text("no image")
    values = brain(0).astype(np.float32)
    values[3, 3, 3] = np.nan
    write(scans / "bad_nan.nii", values)
    write(scans / "bad_empty.nii", np.zeros_like(values))
    values[3, 3, 3] = -np.inf
    write(scans / "bad_inf.nii", np.nan_to_num(values, neginf=-np.inf))
    write(scans / "bad_mask.nii", (brain(0) > 0).astype(np.uint8))
    return scans


REASONS = {
    "bad_crc": "the gzip stream is damaged",
    "bad_cut": "is truncated",
    "bad_text": "is not a NIfTI file",
    "bad_nan": "NaN, infinite or huge",
    "bad_inf": "NaN, infinite or huge",
    "bad_empty": "is empty",
    "bad_mask": "cannot be z-scored",
}


def test_bad_files_are_named_and_left_out(bad_scans):
    out = bad_scans.parent / "store.zarr"
    with pytest.raises(Incomplete, match=r"7 of 17 volumes could not be used .*allow_failures=7") as raised:
        ingest(config(bad_scans))
    assert raised.value.exit_code == 3
    facts = read_manifest(out)["facts"]
    assert facts["failures"] == 7 and len(facts["failed"]) == 7
    lines = [line.split("\t") for line in failures_path(out).read_text().splitlines()]
    assert lines[0] == ["FID", "IID", "modality", "file", "reason"]
    assert {iid for _, iid, *_ in lines[1:]} == set(REASONS)
    for _, iid, _, file, reason in lines[1:]:
        assert REASONS[iid] in reason and Path(file).stem.startswith(iid)

    volumes = VolumeStore.open(out)
    assert [s for s, valid in zip(volumes.subjects, volumes.valid, strict=True) if not valid] == sorted(REASONS)
    bad = volumes.subjects.index("bad_nan")
    for call in (lambda: volumes.raw(bad), lambda: volumes.normalised([0, bad]), lambda: volumes.to_nifti(bad)):
        with pytest.raises(InputError, match="bad_nan could not be read"):
            call()
    assert not volumes.reader.row(bad).any() and np.isnan(volumes.mean[bad])
    np.testing.assert_array_equal(volumes.mask, np.any([brain(i) for i in range(10)], axis=0))


def test_failures_do_not_change_the_others(bad_scans, tmp_path):
    """The same good files give the same volumes, with and without bad ones among them."""
    ingest(config(bad_scans, allow_failures=7))
    for path in bad_scans.glob("bad_*"):
        path.unlink()
    ingest(config(bad_scans, tmp_path / "good.zarr"))
    some, all_good = VolumeStore.open(tmp_path / "store.zarr"), VolumeStore.open(tmp_path / "good.zarr")
    good = np.flatnonzero(some.valid)
    np.testing.assert_array_equal(some.normalised(good), all_good.normalised(range(10)))
    np.testing.assert_array_equal(some.mask, all_good.mask)


def test_accepting_failures_afterwards_reads_nothing_again(bad_scans, monkeypatch):
    with pytest.raises(Incomplete):
        ingest(config(bad_scans, allow_failures=6))
    before = tree(bad_scans.parent / "store.zarr")
    monkeypatch.setattr(nifti, "read", None)
    with pytest.raises(Incomplete, match="7 of 17"):
        ingest(config(bad_scans))
    ingest(config(bad_scans, allow_failures=7))
    assert tree(bad_scans.parent / "store.zarr") == before


def test_mended_files_and_overwrite(bad_scans):
    with pytest.raises(Incomplete):
        ingest(config(bad_scans))
    for path in bad_scans.glob("bad_*"):
        shutil.copy(bad_scans / "0001.nii.gz", path.with_name(path.name.split(".")[0] + ".nii.gz"))
        if path.suffix == ".nii":
            path.unlink()
    with pytest.raises(OutputExists, match="overwrite=true"):
        ingest(config(bad_scans))
    ingest(config(bad_scans, overwrite=True))
    assert VolumeStore.open(bad_scans.parent / "store.zarr").valid.all()
    assert not failures_path(bad_scans.parent / "store.zarr").exists()


def test_a_complete_store_is_not_replaced(scans):
    ingest(config(scans))
    with pytest.raises(OutputExists, match="overwrite=true"):
        ingest(config(scans))


def test_a_file_of_another_shape_fails_alone(scans):
    write(scans / "odd.nii", brain(0, (7, 8, 5)))
    write(scans / "turned.nii", brain(3).transpose(2, 0, 1), np.eye(4)[[1, 2, 0, 3]])  # (7, 8, 6) in RAS order
    assert "1 of them not usable (odd.nii)" in preview(config(scans))[0]
    with pytest.raises(Incomplete, match=r"odd: has the shape \(7, 8, 5\) in RAS order, and the store \(7, 8, 6\)"):
        ingest(config(scans))
    volumes = VolumeStore.open(scans.parent / "store.zarr")
    assert volumes.valid.sum() == 11
    np.testing.assert_array_equal(volumes.raw(volumes.subjects.index("turned")), brain(3))


def test_shapes_without_a_majority_are_refused_by_name(scans):
    for i in range(5):
        write(scans / f"odd{i}.nii", brain(0, (7, 8, 5)))
        write(scans / f"more{i}.nii", brain(0, (7, 8, 4)))
    with pytest.raises(InputError, match=r"\(7, 8, 6\): 10 files \(0001.nii.gz.*\(7, 8, 5\): 5 files \(odd0.nii"):
        ingest(config(scans))
    assert not (scans.parent / "store.zarr").exists()


def test_nothing_readable_is_refused(scans):
    for path in scans.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="none of 10 files can be read; the first, 0001.nii.gz: is not a NIfTI"):
        ingest(config(scans))
    for path in scans.iterdir():
        write(path, np.zeros(SHAPE, np.int16))
    with pytest.raises(InputError, match="none of 10 volumes can be used; .*is empty"):
        ingest(config(scans))


def test_a_file_that_changes_after_the_plan_is_a_failure(scans, monkeypatch):
    start = ingest_module._start

    def and_change(config, plan):
        job = start(config, plan)
        write(scans / "0002.nii.gz", brain(0, (9, 8, 6)))
        write(scans / "0003.nii.gz", brain(0).astype(np.float32))
        (scans / "0004.nii.gz").unlink()
        return job

    monkeypatch.setattr(ingest_module, "_start", and_change)
    ingest(config(scans, allow_failures=3))
    failed = read_manifest(scans.parent / "store.zarr")["facts"]["failed"]
    assert "shape (9, 8, 6)" in failed[0] and "float32 voxels" in failed[1] and "No such file" in failed[2]


def test_different_affines_are_told(scans, caplog):
    write(scans / "0011.nii.gz", brain(0), np.diag([2.0, 2, 2.1, 1]))
    ingest(config(scans))
    assert "1 of 11 volumes have a different affine" in caplog.text
    assert read_manifest(scans.parent / "store.zarr")["facts"]["affine_differs"] == 1


def test_name_and_space_are_checked(scans, monkeypatch):
    with pytest.raises(ConfigError, match="NAME.zarr"):
        ingest(config(scans, scans.parent / "store"))
    usage = shutil.disk_usage(scans)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(NoSpace, match="needs about"):
        ingest(config(scans))


def test_preview_tells_and_writes_nothing(bad_scans):
    text = "\n".join(preview(config(bad_scans)))
    assert "17 files" in text and "2 of them not usable" in text and "(7, 8, 6)" in text and "x RAS" in text
    assert not (bad_scans.parent / "store.zarr").exists()


def test_one_scan_under_two_names_is_told(scans, caplog):
    first, second = sorted(scans.iterdir())[:2]
    second.write_bytes(first.read_bytes())
    ingest(config(scans))
    twins = [" = ".join(path.name.partition(".")[0] for path in (first, second))]
    assert f"the same file, byte for byte: {twins[0]}" in caplog.text
    assert read_manifest(config(scans).out)["facts"]["same_bytes"] == twins


def test_a_damaged_store_is_named(tmp_path, scans):
    ingest(config(scans))
    chunk = next(path for path in (tmp_path / "store.zarr" / "mean" / "c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(InputError, match="the array mean is damaged .*overwrite=true"):
        VolumeStore.open(tmp_path / "store.zarr")


def test_not_a_store(tmp_path, scans):
    with pytest.raises(InputError, match="does not exist"):
        VolumeStore.open(tmp_path / "absent.zarr")
    ingest(config(scans))
    meta = tmp_path / "store.zarr" / "zarr.json"
    tree_of_meta = json.loads(meta.read_text())
    tree_of_meta["attributes"]["format"] = "another"
    meta.write_text(json.dumps(tree_of_meta))
    with pytest.raises(InputError, match="not a volume store"):
        VolumeStore.open(tmp_path / "store.zarr")
