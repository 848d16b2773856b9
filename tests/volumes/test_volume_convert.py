"""A store as files of other programs: what was ingested comes back, bit for bit."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import zarr
from nibabel.testing import data_path

from hpc.errors import ConfigError, InputError, NoSpace, OutputExists
from hpc.stage import read_manifest
from udipdist.config import IngestConfig, VolumesConfig
from udipdist.volumes import convert, formats
from udipdist.volumes.convert import digest, preview, volumes
from udipdist.volumes.ingest import ingest
from udipdist.volumes.store import VolumeStore

SHAPE = (70, 9, 8)  # two levels: 70 > 64


def brain(seed, shape=SHAPE, dtype="int16"):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.5, rng.integers(1, 900, shape), 0).astype(dtype)


def write(path, values, affine, slope=None, inter=None, kind=nib.Nifti1Image):
    image = kind(values, affine)
    image.header.set_slope_inter(slope, inter)
    nib.save(image, path)


LAS = np.array([[-2.0, 0, 0, 90], [0, 3, 0, -126], [0, 0, 1, 0], [0, 0, 0, 1]])
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.1, -0.05, 0.2) @ np.diag([2.0, 3, 1]), [-60.1, -70.3, 0.7]
)
FILES = {  # name: what `write` gets; shapes turned so that all are SHAPE in RAS order
    "1001": (brain(1), np.diag([2.0, 3, 1, 1])),
    "1002": (brain(2), LAS, 0.1, -3.25),
    "1003": (brain(3), OBLIQUE),
    "1004": (brain(4, (8, 70, 9)), np.array([[0.0, -2, 0, 5.5], [0, 0, -3, 7], [1.5, 0, 0, 0], [0, 0, 0, 1]])),  # SLP
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Four subjects of many orientations and one that cannot be read; do not write to it."""
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "scans").mkdir()
    for name, words in FILES.items():
        write(folder / "scans" / f"{name}.nii.gz", *words)
    (folder / "scans" / "1005.nii.gz").write_bytes(b"not a volume")
    keys = {"workers": 0, "allow_failures": 1, "allow": "affines"}
    ingest(IngestConfig(volumes=folder / "scans", out=folder / "store.zarr", **keys))
    return folder


@pytest.fixture
def config(cohort, tmp_path):
    def make(**keys) -> VolumesConfig:
        return VolumesConfig.parse({"store": cohort / "store.zarr", "out": tmp_path / "out"} | keys)

    return make


def files(place):
    return {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()}


# ------------------------------------------------------------------------------------------------------------ NIfTI


@pytest.mark.parametrize("name", FILES)
def test_nifti_as_it_was(name, cohort, config):
    """With the orientation of the source: header, affine and values are those of the file that was ingested."""
    volumes(config(orientation="source", subjects=[name]))
    source, again = (nib.load(p) for p in (cohort / "scans" / f"{name}.nii.gz", config().out / f"{name}.nii.gz"))
    np.testing.assert_array_equal(again.affine, source.affine)
    np.testing.assert_array_equal(again.dataobj.get_unscaled(), source.dataobj.get_unscaled())
    np.testing.assert_array_equal(again.get_fdata(), source.get_fdata())
    assert again.header.get_data_dtype() == source.header.get_data_dtype()
    assert again.dataobj.slope == source.dataobj.slope and again.dataobj.inter == source.dataobj.inter
    np.testing.assert_array_equal(again.header.get_zooms(), source.header.get_zooms())


@pytest.mark.parametrize("name", FILES)
def test_nifti_in_ras_order(name, cohort, config):
    volumes(config(subjects=name))
    source = nib.as_closest_canonical(nib.load(cohort / "scans" / f"{name}.nii.gz"))
    again = nib.load(config().out / f"{name}.nii.gz")
    np.testing.assert_array_equal(again.get_fdata(), source.get_fdata())
    np.testing.assert_array_equal(again.affine, source.affine.astype(np.float32))
    assert again.header.get_xyzt_units()[0] == "mm" and again.header["magic"].item() == b"n+1"


REAL = {
    "anatomical": Path(data_path) / "anatomical.nii",
    "reoriented": Path(data_path) / "reoriented_anat_moved.nii",
    "big_endian": Path(data_path) / "example4d.nii.gz",
    "mgz": Path(data_path) / "test.mgz",
}


@pytest.mark.parametrize("name", REAL)
def test_real_images(name, tmp_path):
    """Whatever byte order, form of the affine (quaternion: a float32 rounding) and container the file had."""
    path = REAL[name]
    if name in ("big_endian", "mgz"):  # four dimensions: take one volume, as it is stored
        image = nib.load(path)
        path = tmp_path / ("first" + ".nii" if name == "big_endian" else "first.mgz")
        kind = nib.Nifti1Image if name == "big_endian" else nib.MGHImage
        header = image.header if name == "mgz" else nib.Nifti1Header(image.header.binaryblock, image.header.endianness)
        nib.save(kind(np.asarray(image.dataobj)[..., 0], image.affine, header), path)
    (tmp_path / "list.csv").write_text(f"EID,T1\n{name},{path}\n")
    ingest(IngestConfig(volumes=tmp_path / "list.csv", out=tmp_path / "store.zarr", workers=0, allow="background"))
    volumes(VolumesConfig(store=tmp_path / "store.zarr", out=tmp_path / "out", orientation="source"))
    source, again = nib.load(path), nib.load(tmp_path / "out" / f"{name}.nii.gz")
    np.testing.assert_array_equal(again.get_fdata(), source.get_fdata())
    np.testing.assert_allclose(again.affine, source.affine, rtol=1e-6, atol=1e-5)
    assert again.header.get_data_dtype() == source.header.get_data_dtype().newbyteorder("=")


def test_scale_factors_that_nifti1_cannot_hold_make_a_nifti2(tmp_path):
    slope, inter = 1 / 3, 1e-9 + 2
    (tmp_path / "scans").mkdir()
    write(tmp_path / "scans" / "a.nii", brain(1), np.eye(4), slope, inter, nib.Nifti2Image)
    write(tmp_path / "scans" / "b.nii", brain(2), np.eye(4), 0.5, 1, nib.Nifti2Image)
    ingest(IngestConfig(volumes=tmp_path / "scans", out=tmp_path / "store.zarr", workers=0, allow="background"))
    volumes(VolumesConfig(store=tmp_path / "store.zarr", out=tmp_path / "out"))
    a, b = (nib.load(tmp_path / "out" / f"{name}.nii.gz") for name in "ab")
    assert isinstance(a, nib.Nifti2Image) and not isinstance(b, nib.Nifti2Image)
    np.testing.assert_array_equal(a.get_fdata(), brain(1) * slope + inter)
    np.testing.assert_array_equal(b.get_fdata(), brain(2) * 0.5 + 1)


def test_bytes_depend_on_the_volume_only(config, tmp_path):
    volumes(config(subjects=["1002", "1001"]))
    volumes(config(out=tmp_path / "other", workers=2))
    for name in ("1001.nii.gz", "1002.nii.gz"):
        data = (tmp_path / "out" / name).read_bytes()
        assert data == (tmp_path / "other" / name).read_bytes()
        assert data[4:8] == b"\0\0\0\0" and not data[3]  # no time and no name
        assert len(gzip.decompress(data)) == 352 + brain(1).nbytes


# -------------------------------------------------------------------------------------------------------- OME-Zarr


def test_ome_zarr_of_the_specification(config, caplog):
    """Read by ome-zarr-models, which checks the metadata and the arrays against the 0.5 specification."""
    models = pytest.importorskip("ome_zarr_models.v05")
    volumes(config(format="ome-zarr"))
    assert "1 of 4 volumes are rotated or sheared against the axes" in caplog.text and "(1003)" in caplog.text
    assert read_manifest(config().out)["facts"]["not_on_axes"] == ["1003"]
    for name in FILES:
        group = zarr.open_group(config().out / f"{name}.ome.zarr", mode="r")
        image = models.Image.from_zarr(group)
        (multiscale,) = image.attributes.ome.multiscales
        assert multiscale.name == name and [d.path for d in multiscale.datasets] == ["0", "1"]


def test_ome_zarr_holds_the_stored_values_and_where_they_lie(cohort, config):
    volumes(config(format="ome-zarr", subjects=["1001", "1002", "1003"]))
    store = VolumeStore.open(cohort / "store.zarr")
    for i, name in enumerate(["1001", "1002", "1003"]):
        group = zarr.open_group(config().out / f"{name}.ome.zarr", mode="r")
        level = group["0"]
        np.testing.assert_array_equal(level[...].transpose(2, 1, 0), store.raw(i))
        assert level.metadata.dimension_names == ("z", "y", "x") and level.shape == SHAPE[::-1]
        assert group.attrs["ome"]["version"] == "0.5"
        own = group.attrs["udipdist"]
        np.testing.assert_array_equal(own["affine"], store.affine(i))
        assert (own["scl_slope"], own["scl_inter"]) == (store.slope[i], store.inter[i])
        assert own["source"] == str(cohort / "scans" / f"{name}.nii.gz")
        for n, dataset in enumerate(group.attrs["ome"]["multiscales"][0]["datasets"]):
            scale, move = (entry[entry["type"]] for entry in dataset["coordinateTransformations"])
            np.testing.assert_allclose(scale, np.array([1, 3, 2]) * 2**n, rtol=1e-6)
            # A voxel of level 1 lies between the first two of level 0.
            origin = store.affine(i)[:3, 3][::-1] if name != "1003" else np.zeros(3)
            np.testing.assert_allclose(move, origin + np.array([1, 3, 2]) * n / 2, rtol=1e-6)
    assert len(list((config().out / "1001.ome.zarr").rglob("c/0/0/0"))) == 2  # a file a level


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32"])
def test_pyramid_is_the_mean_of_eight(dtype):
    values = (brain(5, (131, 66, 3)) / (4 if dtype == "uint8" else 1)).astype(dtype)
    levels = list(formats.pyramid(values))
    assert [level.shape for level in levels] == [(131, 66, 3), (66, 33, 2), (33, 17, 1)]
    assert {level.dtype for level in levels} == {values.dtype}
    np.testing.assert_array_equal(levels[0], values)
    exact = values[:130].astype(float).reshape(65, 2, 33, 2, 3).mean(axis=(1, 3))
    expected = np.stack([exact[..., :2].mean(-1), exact[..., 2]], axis=-1)
    expected = expected.astype(np.float32) if dtype == "float32" else np.rint(expected)
    np.testing.assert_array_equal(levels[1][:65], expected)
    edge = values[130].astype(float).reshape(33, 2, 3).mean(1)[:, 2]  # two voxels stand for the eight
    np.testing.assert_array_equal(levels[1][65, :, 1], edge if dtype == "float32" else np.rint(edge))


@pytest.mark.parametrize("orientation", ["ras", "source"])
def test_nifti_zarr_is_read_by_the_package_of_its_specification(orientation, cohort, config, tmp_path):
    niizarr = pytest.importorskip("niizarr")
    volumes(config(format="nifti-zarr", orientation=orientation))
    for name in FILES:
        source = nib.load(cohort / "scans" / f"{name}.nii.gz")
        if orientation == "ras":
            source = nib.as_closest_canonical(source)
        place, copy = str(config().out / f"{name}.nii.zarr"), tmp_path / "copy.nii.gz"
        image = niizarr.zarr2nii(place, str(copy))
        np.testing.assert_array_equal(image.affine, source.affine.astype(np.float32))
        slope, inter = nib.Nifti1Header(zarr.open_array(f"{place}/nifti", mode="r")[...].tobytes()).get_slope_inter()
        values = image.dataobj.get_unscaled().astype(float)  # the package leaves the scale factors behind
        np.testing.assert_array_equal(values * slope + inter, source.get_fdata())
        half = niizarr.zarr2nii(place, str(copy), level=1)
        assert half.shape == tuple(-(-n // 2) for n in source.shape)
        corner = nib.affines.apply_affine(source.affine, [0.5, 0.5, 0.5])  # the centre of the first eight voxels
        np.testing.assert_allclose(half.affine[:3, 3], corner, atol=1e-4)


def test_header_in_a_nifti_zarr_can_be_read(config):
    volumes(config(format="nifti-zarr", subjects=["1002"]))
    array = zarr.open_array(config().out / "1002.nii.zarr" / "nifti", mode="r")
    header = nib.Nifti1Header(array[...].tobytes())
    np.testing.assert_array_equal(header.get_sform()[:3], array.attrs["Affine"])
    assert header.get_slope_inter() == (array.attrs["ScaleSlope"], array.attrs["ScaleOffset"])
    assert list(header.get_data_shape()) == array.attrs["Dim"] == list(SHAPE)


# ------------------------------------------------------------------------------------------- which, where, how far


def test_list_of_files(config, caplog):
    volumes(config())
    table = pd.read_csv(config().out / "files.tsv", sep="\t", dtype=str)
    assert table["IID"].tolist() == table["FID"].tolist() == list(FILES)
    for row in table.itertuples():
        data = (config().out / row.file).read_bytes()
        assert (row.bytes, row.sha256) == (str(len(data)), hashlib.sha256(data).hexdigest())
    assert {p.name for p in config().out.iterdir()} == {f"{n}.nii.gz" for n in FILES} | {"files.tsv", "manifest.json"}
    assert read_manifest(config().out)["facts"]["left_out"] == ["1005"]
    assert "1 subjects without a readable volume are left out: 1005" in caplog.text
    with pytest.raises(OutputExists, match="overwrite=true"):
        volumes(config())
    volumes(config(overwrite=True, format="ome-zarr", subjects=["1001"]))
    row = pd.read_csv(config().out / "files.tsv", sep="\t", dtype=str).iloc[0]
    assert (int(row.bytes), row.sha256) == digest(config().out / "1001.ome.zarr")


@pytest.mark.parametrize("format", ["nifti", "ome-zarr"])
def test_goes_on_where_it_was_stopped(format, config, monkeypatch, tmp_path):
    volumes(config(format=format, out=tmp_path / "whole"))
    write = convert._WRITERS[format]

    def stop_at_third(path, picture):
        if picture.name == "1003":
            path.write_bytes(b"half a file") if format == "nifti" else path.mkdir()
            raise KeyboardInterrupt
        write(path, picture)

    monkeypatch.setitem(convert._WRITERS, format, stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        volumes(config(format=format))
    written = []
    monkeypatch.setitem(
        convert._WRITERS, format, lambda path, picture: (written.append(picture.name), write(path, picture))
    )
    with pytest.raises(OutputExists, match="unfinished work of another plan"):
        volumes(config(format=format, subjects=["1001"]))
    volumes(config(format=format))
    assert written == ["1003", "1004"]
    one, other = (files(tmp_path / name) for name in ("out", "whole"))
    assert {n: d for n, d in one.items() if n != "manifest.json"} == {
        n: d for n, d in other.items() if n != "manifest.json"
    }


def test_a_disk_that_cannot_hold_it_says_so_first(config, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(NoSpace, match="needs about"):
        volumes(config())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"subjects": ["1001", "1"]}, "subjects: 1 not in .*store.zarr; its 5 subjects are 1001, .*quotes"),
        ({"subjects": ["1005"]}, "1005 could not be read when .* was made"),
        ({"store": "nowhere.zarr"}, "nowhere.zarr: does not exist"),
        ({"modality": "T3"}, "store.zarr: holds no T3; give modality= of image"),
        ({"format": "ome-zarr", "orientation": "source"}, "OME-Zarr 0.5 cannot say that an axis is flipped"),
    ],
)
def test_mistakes(keys, message, config):
    for verb in (volumes, preview):
        with pytest.raises((InputError, ConfigError), match=message):
            verb(config(**keys))
    assert not config().out.exists()
    with pytest.raises(ConfigError, match="list is empty"):
        config(subjects=[])


def test_file_names(tmp_path):
    """Ids that no file system holds, and ids that would be one file."""
    (tmp_path / "list.csv").write_text("EID,T1\nx/1,a.nii\nx_1,a.nii\nX_1,a.nii\n..,a.nii\n")
    write(tmp_path / "a.nii", brain(0), np.eye(4))
    ingest(IngestConfig(volumes=tmp_path / "list.csv", out=tmp_path / "store.zarr", workers=0))
    names = convert.file_names(VolumeStore.open(tmp_path / "store.zarr"))
    assert names == ["x_1", "x_1-2", "X_1-3", "_"]


def test_command_line(cohort, udipdist, tmp_path):
    words = ["volumes", f"store={cohort / 'store.zarr'}", "out=o", "subjects=1001,1003"]
    text = udipdist(*words, "--dry-run").stdout
    assert "# 2 of 5 subjects, 70 x 9 x 8 voxels of int16, as nifti" in text and not (tmp_path / "o").exists()
    udipdist(*words)
    assert sorted(p.name for p in (tmp_path / "o").glob("*.gz")) == ["1001.nii.gz", "1003.nii.gz"]
    assert json.loads((tmp_path / "o" / "manifest.json").read_text())["facts"]["subjects"] == 2


def test_one_modality_of_several(tmp_path):
    for i, name in enumerate(("a1", "a2", "b1", "b2")):
        write(tmp_path / f"{name}.nii", brain(i), np.eye(4))
    (tmp_path / "list.csv").write_text("EID,T1,FLAIR\na,a1.nii,a2.nii\nb,b1.nii,b2.nii\n")
    keys = {"modalities": ["T1", "FLAIR"], "workers": 0, "out": tmp_path / "store.zarr"}
    ingest(IngestConfig.parse({"volumes": tmp_path / "list.csv"} | keys))
    made = VolumesConfig(store=tmp_path / "store.zarr", out=tmp_path / "out", modality="FLAIR", format="ome-zarr")
    volumes(made)
    for i, name in ((1, "a"), (3, "b")):
        group = zarr.open_group(tmp_path / "out" / f"{name}.ome.zarr", mode="r")
        np.testing.assert_array_equal(group["0"][...].T, brain(i))
        assert group.attrs["udipdist"]["modality"] == "FLAIR"
    with pytest.raises(InputError, match="holds T1, FLAIR; say which with modality="):
        volumes(VolumesConfig(store=tmp_path / "store.zarr", out=tmp_path / "other"))
