"""UK Biobank's bulk files: zips and the folders unpacked from them; reading out of zips."""

from __future__ import annotations

import csv
import gzip
import tempfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc.errors import ConfigError, InputError
from udipdist.config import IngestConfig
from udipdist.volumes import nifti
from udipdist.volumes.ingest import ingest
from udipdist.volumes.nifti import Unreadable
from udipdist.volumes.resample import to_mni
from udipdist.volumes.sources import Repeat, Scan, Unused, list_cohort
from udipdist.volumes.sources.scan import parse_matrix
from udipdist.volumes.store import VolumeStore

T1 = ("T1/T1_unbiased_brain.nii.gz", "T1/transforms/T1_to_MNI_linear.mat")
FLAIR = ("T2_FLAIR/T2_FLAIR_unbiased_brain.nii.gz", "T2_FLAIR/transforms/T2_FLAIR_to_MNI_linear.mat")
MATRIX = "1.1  0  0  -3.5  \n0  1.2  0.1  2  \n0  -0.1  1.05  -4e-1  \n0  0  0  1  \n"


def bulk(folder, *names, image=None, matrix=MATRIX):
    """Bulk files of these names; a name without .zip becomes an unpacked folder."""
    for name in names:
        content = (image or b"image" + name.encode(), matrix.encode())
        members = dict(zip(T1 if "_20252_" in name else FLAIR, content, strict=True))
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".zip"):
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("../../escape.txt", "nothing is extracted")
                for member, content in members.items():
                    archive.writestr(member, content)
        else:
            for member, content in members.items():
                (path / member).parent.mkdir(parents=True, exist_ok=True)
                (path / member).write_bytes(content)
    return folder


def test_the_first_visit_is_kept_and_the_others_are_repeats(tmp_path):
    bulk(tmp_path, "1000023_20252_3_0.zip", "1000023_20252_2_0.zip", "1000011_20252_2_0.zip", "20_20252_3_0.zip")
    bulk(tmp_path, "1000023_20253_2_0.zip", "999_20253_2_0.zip")
    (tmp_path / "1000023_20251_2_0.zip").touch()  # another field
    (tmp_path / "readme.txt").touch()
    cohort = list_cohort(tmp_path)
    assert cohort.modalities == ("T1",)
    assert [(s.fid, s.iid, s.session) for s in cohort.sources] == [
        ("20", "20", "3_0"),  # has no earlier visit
        ("999", "999", "2_0"),  # has no T1
        ("1000011", "1000011", "2_0"),
        ("1000023", "1000023", "2_0"),
    ]
    path = tmp_path / "1000023_20252_2_0.zip"
    assert cohort.sources[1].scans == (None,)
    assert cohort.sources[3].scans == (Scan(path, T1[0], T1[1], path),)
    assert cohort.repeats == [
        Repeat("1000023", "1000023", "3_0", f"{tmp_path / '1000023_20252_3_0.zip'}/{T1[0]}"),
    ]
    (scan,) = cohort.sources[3].scans
    assert scan.name == "1000023_20252_2_0.zip/T1/T1_unbiased_brain.nii.gz"
    assert scan.read_bytes() == b"image1000023_20252_2_0.zip" and scan.read_start(3) == b"ima"
    assert scan.files == (path,)
    expected = [[1.1, 0, 0, -3.5], [0, 1.2, 0.1, 2], [0, -0.1, 1.05, -0.4], [0, 0, 0, 1]]
    np.testing.assert_array_equal(scan.read_matrix(), expected)
    assert not list(tmp_path.parent.rglob("escape*"))


def test_t2_flair_is_carried_by_the_matrix_of_the_t1(tmp_path):
    bulk(tmp_path, "1_20252_2_0.zip", "2_20252_2_0")
    bulk(tmp_path, "1_20253_2_0.zip", "2_20253_2_0", "3_20253_2_0.zip", matrix=MATRIX.replace("1.1", "7.7"))
    cohort = list_cohort(tmp_path, modalities=["T1", "T2_FLAIR"])
    one, two, three = ([*s.scans] for s in cohort.sources)
    for t1, flair in (one, two):
        assert (t1.read_matrix() == flair.read_matrix()).all() and t1.read_matrix()[0, 0] == 1.1
        assert flair.read_bytes().startswith(b"image") and b"_20253_" in flair.read_bytes()
    assert one[1] == Scan(tmp_path / "1_20253_2_0.zip", FLAIR[0], T1[1], tmp_path / "1_20252_2_0.zip")
    assert one[1].files == (tmp_path / "1_20253_2_0.zip", tmp_path / "1_20252_2_0.zip")
    assert two[1] == Scan(tmp_path / "2_20253_2_0" / FLAIR[0], None, str(tmp_path / "2_20252_2_0" / T1[1]))
    assert three[0] is None and three[1].read_matrix()[0, 0] == 7.7  # alone: the copy in its own file
    assert [s.scans[0] for s in list_cohort(tmp_path, "ukb", ["T2_FLAIR"]).sources] == [one[1], two[1], three[1]]


def test_folders_below_and_duplicates(tmp_path):
    bulk(tmp_path / "T1" / "10", "10_20252_2_0.zip", "10_20252_3_0")
    bulk(tmp_path / "more", "10_20252_2_0.zip", "10_20252_2_0")
    bulk(tmp_path / ".hidden", "11_20252_2_0.zip")
    cohort = list_cohort(tmp_path)
    assert [s.iid for s in cohort.sources] == ["10"]
    first = tmp_path / "T1" / "10" / "10_20252_2_0.zip"
    assert cohort.sources[0].scans[0].path == first
    reason = f"is a duplicate: {first} is the same field and visit, and is kept"
    assert cohort.unused == [
        Unused("10", "10", str(tmp_path / "more" / name), reason) for name in ("10_20252_2_0", "10_20252_2_0.zip")
    ]
    assert [repeat.session for repeat in cohort.repeats] == ["3_0"]


def test_mistakes(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no EID_20252_2_0.zip"):
        list_cohort(tmp_path / "empty", "ukb")
    bulk(tmp_path, "5_20253_2_0.zip")
    with pytest.raises(InputError, match="none of 1 subjects has a T1 image; give other modalities"):
        list_cohort(tmp_path)
    with pytest.raises(ConfigError, match="modalities=SWI: of UK Biobank's files, T1 and T2_FLAIR can be read"):
        list_cohort(tmp_path, modalities=["T1", "SWI"])
    (tmp_path / "7.nii").touch()
    with pytest.raises(InputError, match="say layout=folder or layout=ukb"):
        list_cohort(tmp_path)


def reason(read):
    with pytest.raises(Unreadable) as refusal:
        read()
    return str(refusal.value)


def test_what_is_wrong_with_a_zip_is_said(tmp_path):
    bulk(tmp_path, "1_20252_2_0.zip")
    path = tmp_path / "1_20252_2_0.zip"
    whole = path.read_bytes()
    scan = Scan(path, T1[0], T1[1], path)
    assert reason(Scan(path, "T1/absent.nii.gz").read_bytes) == "is not in 1_20252_2_0.zip, which holds 3 other files"
    absent = Scan(path, T1[0], "T1/absent.mat", path)
    assert reason(absent.read_matrix).startswith("its matrix T1/absent.mat is not in 1_20252_2_0.zip")
    path.write_bytes(whole[: len(whole) // 2])
    assert "the zip is damaged, cut or encrypted" in reason(scan.read_bytes)
    start = whole.index(T1[0].encode()) + len(T1[0]) + 4  # in the packed image
    path.write_bytes(whole[:start] + bytes([whole[start] ^ 0xFF]) + whole[start + 1 :])
    assert "the zip is damaged, cut or encrypted" in reason(scan.read_bytes)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(T1[0], "image")
    assert reason(scan.read_bytes) == "is packed in 1_20252_2_0.zip by method 14; deflate is read"
    path.unlink()
    assert reason(scan.read_bytes) == "cannot be read (No such file or directory)"
    path.mkdir()
    assert reason(lambda: scan.read_start(4)).startswith("cannot be read")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not 4 lines of 4 numbers"),
        ("1 0 0 0\n0 1 0 0\n0 0 1 0\n", "is not 4 lines of 4 numbers"),
        ("1 0 0 0\n0 1 0 0\n0 0 1\n0 0 0 1\n", "is not 4 lines of 4 numbers"),
        ("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 2\n", "the last 0 0 0 1"),
        ("1 0 0 nan\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "is not 4 lines of 4 numbers"),
        ("a b c d\n" * 4, "is not 4 lines of 4 numbers"),
        ("1 0 0 0\n1 0 0 0\n0 0 1 0\n0 0 0 1\n", "cannot be inverted"),
        ("\xff\xfe", "is not 4 lines of 4 numbers"),
    ],
)
def test_matrices_that_are_none(text, message):
    assert message in reason(lambda: parse_matrix(text.encode("latin-1"), "x.mat"))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_zip_is_refused_or_read_right(data):
    """Bytes changed or cut anywhere give the image itself, or Unreadable: never another image, never another error."""
    with tempfile.TemporaryDirectory() as folder:
        path = bulk(Path(folder), "1_20252_2_0.zip", image=bytes(range(256)) * 2) / "1_20252_2_0.zip"
        whole = bytearray(path.read_bytes())
        scan = Scan(path, T1[0], T1[1], path)
        image = scan.read_bytes()
        for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=3)):
            whole[place] = data.draw(st.integers(0, 255))
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
        try:
            assert scan.read_bytes() == image
            scan.read_matrix()
        except Unreadable as error:
            assert "\n" not in str(error)


def test_a_cohort_of_zips_becomes_a_store(tmp_path):
    """Two visits, two modalities, a damaged zip and one without the image: what can be used is there, in MNI."""
    rng = np.random.default_rng(3)
    affine, shape = np.diag([-4.0, 5.0, 4.5, 1.0]), (36, 36, 32)
    brain = np.zeros(shape, np.int16)
    brain[4:-4, 4:-4, 4:-4] = rng.integers(1, 900, (28, 28, 24))
    image = nib.Nifti1Image(brain, affine)
    place = tmp_path / "bulk"
    for name in ("1_20252_2_0.zip", "1_20252_3_0.zip", "1_20253_2_0", "2_20252_2_0.zip", "3_20252_2_0"):
        bulk(place, name, image=gzip.compress(image.to_bytes()))
    bulk(place, "2_20253_2_0.zip")
    (place / "2_20253_2_0.zip").write_bytes((place / "2_20253_2_0.zip").read_bytes()[:-40])
    (place / "3_20252_2_0" / T1[0]).unlink()
    out = tmp_path / "s.zarr"
    ingest(IngestConfig(volumes=place, out=out, modalities=["T1", "T2_FLAIR"], allow_failures=9, workers=0))
    with open(tmp_path / "s.failures.tsv") as file:
        failures = {(row["IID"], row["modality"]): row["reason"] for row in csv.DictReader(file, delimiter="\t")}
    assert "the zip is damaged, cut or encrypted" in failures["2", "T2_FLAIR"]
    assert failures["3", "T1"] == "cannot be read (No such file or directory)"
    assert failures["3", "T2_FLAIR"] == "has no T2_FLAIR file"
    assert len(failures) == 3
    assert "1_20252_3_0.zip" in (tmp_path / "s.repeats.tsv").read_text()
    t1, flair = (VolumeStore.open(out, name) for name in ("T1", "T2_FLAIR"))
    assert t1.subjects == flair.subjects == ["1", "2", "3"]
    assert (t1.valid.tolist(), flair.valid.tolist()) == ([True, True, False], [True, False, False])
    header = nifti.read_header(image.to_bytes(), "x.nii")
    expected, grid = to_mni(brain[::-1], header, parse_matrix(MATRIX.encode(), ""))
    assert np.count_nonzero(expected) > 100_000
    for store, i in ((t1, 0), (t1, 1), (flair, 0)):
        np.testing.assert_allclose(store.raw(i), expected, atol=1e-3)
        np.testing.assert_array_equal(store.affine(i), grid)
