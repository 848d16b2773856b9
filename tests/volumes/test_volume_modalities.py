"""Several modalities of one cohort: groups of one store, failures and repeats by name."""

from __future__ import annotations

import gzip
import warnings
import zipfile

import nibabel as nib
import numpy as np
import pytest
import xarray

from hpc.errors import ConfigError, Incomplete, InputError
from hpc.stage import read_manifest
from udipdist.config import IngestConfig
from udipdist.volumes import resample
from udipdist.volumes.ingest import ingest, preview
from udipdist.volumes.left_out import failures_path, repeats_path
from udipdist.volumes.store import VolumeStore

SHAPE, FLAIR_SHAPE = (7, 8, 6), (5, 6, 4)


def brain(seed, shape=SHAPE, dtype="int16"):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.5, rng.integers(1, 900, shape), 0).astype(dtype)


def write(path, values, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 2, 2, 1]) if affine is None else affine), path)


@pytest.fixture
def cohort(tmp_path):
    """Six subjects of a table with T1 and T2_FLAIR, of other grids and types; the fourth has no FLAIR."""
    lines = ["FID,EID,T1,T2_FLAIR"]
    for i in range(6):
        write(tmp_path / f"scans/t1_{i}.nii.gz", brain(i))
        write(tmp_path / f"scans/flair_{i}.nii.gz", brain(i + 9, FLAIR_SHAPE, "float32") * np.float32(0.5))
        lines.append(f"f{i},{1000 + i},scans/t1_{i}.nii.gz," + ("" if i == 3 else f"scans/flair_{i}.nii.gz"))
    (tmp_path / "scans.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def config(place, **keys):
    keys = {"modalities": ["T1", "T2_FLAIR"], "workers": 0, "subjects_per_shard": 4, "allow_failures": 1} | keys
    return IngestConfig(volumes=place / "scans.csv", out=place / "store.zarr", **keys)


def rows(path):
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_each_modality_is_a_group_with_every_coordinate(cohort):
    ingest(config(cohort))
    out = cohort / "store.zarr"
    t1, flair = (VolumeStore.open(out, name) for name in ("T1", "T2_FLAIR"))
    assert t1.subjects == flair.subjects == [str(1000 + i) for i in range(6)] and t1.fids[2] == "f2"
    assert (t1.shape, flair.shape, t1.path) == (SHAPE, FLAIR_SHAPE, out / "T1")
    assert t1.valid.all() and list(np.flatnonzero(~flair.valid)) == [3]
    for i in (0, 5):
        np.testing.assert_array_equal(t1.raw(i), brain(i))
        np.testing.assert_array_equal(flair.raw(i), brain(i + 9, FLAIR_SHAPE) * np.float32(0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = xarray.open_zarr(out, group="T2_FLAIR")
    assert list(data["subject"].values) == t1.subjects and data.attrs["modality"] == "T2_FLAIR"
    np.testing.assert_array_equal(data["image"].sel(subject="1001").values, flair.raw(1))
    facts = read_manifest(out)["facts"]
    assert (facts["subjects"], facts["images"], facts["failures"]) == (6, 12, 1)
    assert facts["modalities"]["T1"]["valid"] == 6 and facts["modalities"]["T2_FLAIR"]["valid"] == 5


def test_a_missing_file_is_listed_by_modality(cohort):
    with pytest.raises(Incomplete, match=r"1 of 12 volumes .*1003 T2_FLAIR: has no T2_FLAIR file.*allow_failures=1"):
        ingest(config(cohort, allow_failures=0))
    assert rows(failures_path(cohort / "store.zarr")) == [
        ["FID", "IID", "modality", "file", "reason"],
        ["f3", "1003", "T2_FLAIR", "", "has no T2_FLAIR file"],
    ]


def test_the_modality_must_be_said(cohort):
    ingest(config(cohort))
    for wrong, message in ((None, r"holds T1, T2_FLAIR; say which with modality="), ("T2", "holds no T2; .* T1, T2")):
        with pytest.raises(InputError, match=message):
            VolumeStore.open(cohort / "store.zarr", wrong)
    assert VolumeStore.open(cohort / "store.zarr" / "T1").shape == SHAPE


def test_one_modality_is_flat(cohort):
    ingest(config(cohort, modalities=["T2_FLAIR"]))
    for modality in (None, "T2_FLAIR"):
        assert VolumeStore.open(cohort / "store.zarr", modality).shape == FLAIR_SHAPE
    with pytest.raises(InputError, match="holds no T1"):
        VolumeStore.open(cohort / "store.zarr", "T1")


def test_a_duplicate_subject_fails_and_the_first_is_kept(cohort):
    table = cohort / "scans.csv"
    table.write_text(table.read_text() + "f0,1000,scans/t1_5.nii.gz,scans/flair_5.nii.gz\n")
    with pytest.raises(Incomplete, match="3 of 14 volumes could not be used"):
        ingest(config(cohort))
    store = VolumeStore.open(cohort / "store.zarr", "T1")
    assert store.subjects.count("1000") == 1
    np.testing.assert_array_equal(store.raw(0), brain(0))
    listed = [row for row in rows(failures_path(store.path.parent)) if row[1] == "1000"]
    assert [row[3].rpartition("/")[2] for row in listed] == ["t1_5.nii.gz", "flair_5.nii.gz"]
    assert all("is a duplicate" in row[4] for row in listed)


def test_folders_of_the_store_are_no_names(cohort):
    table = cohort / "scans.csv"
    table.write_text(table.read_text().replace("T2_FLAIR", "parts"))
    with pytest.raises(ConfigError, match="parts is the name of another folder"):
        ingest(config(cohort, modalities=["T1", "parts"]))


def test_the_workers_of_two_modalities_write_the_same_bytes(cohort):
    ingest(config(cohort))
    kept = {p.relative_to(cohort / "store.zarr"): p.read_bytes() for p in files_of(cohort / "store.zarr")}
    ingest(config(cohort, workers=2, overwrite=True))
    assert kept == {p.relative_to(cohort / "store.zarr"): p.read_bytes() for p in files_of(cohort / "store.zarr")}


def files_of(place):
    return [path for path in place.rglob("*") if path.is_file()]


MATRIX = "1 0 0 {}\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"


def test_images_with_a_matrix_come_out_in_mni(tmp_path):
    """UK Biobank's zips: the first visit is kept, the other listed; a damaged zip and a missing matrix fail alone."""
    affine = np.diag([-1.0, 1, 1, 1])
    affine[:3, 3] = 90, -126, -72
    values = np.zeros((182, 218, 182), np.int16)
    values[60:120, 60:150, 60:120] = np.random.default_rng(0).integers(1, 900, (60, 90, 60))
    image = nib.Nifti1Image(values, affine).to_bytes()
    for i, name in enumerate(["1001_20252_2_0", "1001_20252_3_0", "1002_20252_2_0", "1003_20252_2_0"]):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("T1/T1_unbiased_brain.nii.gz", gzip.compress(image, 1))
            if i != 3:
                archive.writestr("T1/transforms/T1_to_MNI_linear.mat", MATRIX.format(i))
    cut = tmp_path / "1004_20252_2_0.zip"
    cut.write_bytes((tmp_path / "1001_20252_2_0.zip").read_bytes()[:-100])
    keys = {
        "volumes": str(tmp_path),
        "out": tmp_path / "s.zarr",
        "workers": 0,
        "allow_failures": 9,
        "allow": "background",
    }
    assert "left out: 1 later visits" in "\n".join(preview(IngestConfig(**keys)))
    ingest(IngestConfig(**keys))
    store = VolumeStore.open(tmp_path / "s.zarr")
    failed = {row[1]: row[4] for row in rows(failures_path(store.path))[1:]}
    assert store.shape == resample.MNI_SHAPE and store.reader.layout.dtype == np.float32
    assert store.subjects[:2] == ["1001", "1002"] and store.valid[:2].all()
    assert "T1_to_MNI_linear.mat is not in 1003" in failed["1003"] and "zip is damaged" in failed["1004"]
    np.testing.assert_allclose(store.raw(0), values[::-1], atol=1e-3)
    shifted = np.zeros(values.shape)
    shifted[2:] = values[:-2]
    np.testing.assert_allclose(store.raw(1), shifted[::-1], atol=1e-3)
    np.testing.assert_array_equal(store.affine(0), resample.MNI_AFFINE)
    assert rows(repeats_path(store.path))[1][:3] == ["1001", "1001", "3_0"]
    group = xarray.open_zarr(store.path)
    assert group["foreground_in_template"].values[0] > 0 and group["thumbnail"].shape[0] == len(store)
