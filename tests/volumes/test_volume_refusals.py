"""What would go on silently and be nonsense: no brains, unknown left and right, images that are left out."""

from __future__ import annotations

import bz2
import csv
import json
import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from hpc.errors import ConfigError, Incomplete, InputError
from hpc.stage import read_manifest
from udipdist.cohort import template
from udipdist.config import IngestConfig
from udipdist.models.layers.tokens import Patcher
from udipdist.pipeline import Step
from udipdist.volumes import nifti, quality, quality_files, resample
from udipdist.volumes.ingest import ingest, preview
from udipdist.volumes.left_out import failures_path
from udipdist.volumes.packed import pack
from udipdist.volumes.sources import list_cohort
from udipdist.volumes.store import VolumeStore

SHAPE, AFFINE = template.SHAPES[8], template.affine(8)
BRAIN = quality.template_mask(SHAPE, AFFINE)


def brain(seed: int) -> np.ndarray:
    """A brain in MNI space, 8 mm, int16, with background 0."""
    rng = np.random.default_rng(seed)
    x, y, z = np.indices(SHAPE)
    return np.where(BRAIN, 800 + 200 * np.sin(x / 2 + y / 2 + z) + rng.normal(0, 60, SHAPE), 0).astype(np.int16)


def write(path: Path, values: np.ndarray, affine: np.ndarray | None = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def cohort(folder: Path, n: int = 4) -> Path:
    for i in range(n):
        write(folder / f"{1001 + i}.nii.gz", brain(i))
    return folder


def config(volumes: Path, **keys) -> IngestConfig:
    return IngestConfig(**{"volumes": volumes, "out": volumes.parent / "s.zarr", "workers": 0} | keys)


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open() as file:
        return {row["IID"]: row for row in csv.DictReader(file, delimiter="\t")}


# ------------------------------------------------------------------------------------------ background that is not 0


def test_half_a_step_around_zero_is_background(tmp_path):
    """z-scores in int16, whose 0 comes back as 4e-5."""
    for i in range(3):
        values = brain(i).astype(float)
        image = nib.Nifti1Image(np.where(BRAIN, (values - values[BRAIN].mean()) / values[BRAIN].std(), 0), AFFINE)
        image.set_data_dtype(np.int16)
        (tmp_path / "in").mkdir(exist_ok=True)
        nib.save(image, tmp_path / "in" / f"{i}.nii")
    assert (nib.load(tmp_path / "in" / "0.nii").get_fdata() != 0).all()
    ingest(config(tmp_path / "in"))
    store = VolumeStore.open(tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.mask, BRAIN)
    np.testing.assert_array_equal(store.normalised([0])[0] != 0, BRAIN)
    packed = pack(store, Patcher(np.ones(SHAPE, bool), (8, 8, 8)).gather())
    assert packed.foreground.tolist() == [BRAIN.sum()] * 3


def test_the_same_before_it_is_resampled():
    header = nifti.Header(
        (9, 9, 9), np.dtype(np.int16), np.eye(4), "RAS", np.array([[0, 1], [1, 1], [2, 1]]), 0.001, -0.0004
    )
    values = np.zeros((9, 9, 9), np.int16)
    values[4, 4, 4] = 500
    out, _ = resample.to_mni(values, header, np.eye(4))
    assert 0 < np.count_nonzero(out) <= 8


@pytest.mark.parametrize("n", [1, 5, 12])
def test_a_cohort_with_skulls_and_air_is_not_passed_on(tmp_path, n):
    for i in range(n):
        noise = np.random.default_rng(i).integers(1, 300, SHAPE)
        write(tmp_path / "in" / f"{i}.nii.gz", np.where(BRAIN, brain(i), noise).astype(np.int16))
    asked = config(tmp_path / "in")
    for _ in range(2):  # also where the store is complete
        with pytest.raises(Incomplete, match=r"not skull-stripped, or not registered\?.*allow=\[background\]"):
            ingest(asked)
    rows = table(quality_files.table_path(asked.out))
    assert {row["outlier"] for row in rows.values()} == {"yes"} and {row["corners"] for row in rows.values()} == {"8"}
    assert all("fills 100 %" in row["reasons"] and "(Dice) is 0.3" in row["reasons"] for row in rows.values())
    accepted = config(tmp_path / "in", allow="background")
    assert not Step("ingest", "ingest", asked, asked.out).accepted
    assert Step("ingest", "ingest", accepted, asked.out).accepted
    ingest(accepted)


def test_heads_in_clean_air_are_no_brains(tmp_path):
    head = ndimage.binary_dilation(BRAIN, iterations=2)
    for i in range(2):
        bright = np.random.default_rng(i).integers(200, 900, SHAPE)
        write(tmp_path / "in" / f"{i}.nii.gz", np.where(BRAIN, brain(i), head * bright).astype(np.int16))
    with pytest.raises(Incomplete, match=r"1.\d times the brain of the template \(limit 1.5\)"):
        ingest(config(tmp_path / "in"))


def test_one_bad_scan_is_listed_and_the_rest_goes_on(tmp_path):
    write(cohort(tmp_path / "in") / "x.nii.gz", brain(7) + np.int16(5))
    rolled = write(tmp_path / "in" / "y.nii.gz", np.roll(brain(8), 12, axis=1))
    ingest(config(tmp_path / "in"))
    rows = table(tmp_path / "s.qc.tsv")
    assert rows["x"]["reasons"].startswith(quality.NOT_A_BRAIN) and "Dice" in rows[rolled.name[0]]["reasons"]
    assert [row["outlier"] for row in rows.values()] == ["no"] * 4 + ["yes"] * 2
    assert quality.brief(rows["x"]["reasons"]) == "no brain?"


def test_means_of_scans_that_were_z_scored_before(tmp_path):
    rule = next(rule for rule in quality.RULES if rule.name == "mean")
    values = np.r_[np.random.default_rng(0).normal(0, 1e-6, 23), 1.3e-5]
    limits = quality.limits_of(rule, values, sd=1.0)
    assert limits.low < -0.2 and limits.high > 0.2
    assert quality.limits_of(rule, np.full(24, 400.0), sd=90.0).high == pytest.approx(500)


# ----------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("outside", [7, np.nan])
def test_a_mask_of_the_table_is_applied(tmp_path, outside):
    lines = ["EID,T1,brainmask"]
    for i in range(3):
        write(tmp_path / f"{i}.nii.gz", np.where(BRAIN, brain(i), outside).astype(np.float32))
        turned = nib.as_closest_canonical(nib.Nifti1Image(BRAIN.astype(np.uint8), AFFINE)).as_reoriented(
            np.array([[0, -1], [1, 1], [2, 1]])
        )
        nib.save(turned, tmp_path / f"m{i}.nii.gz")
        lines.append(f"{i},{i}.nii.gz,m{i}.nii.gz")
    write(tmp_path / "m1.nii.gz", BRAIN[:-1].astype(np.uint8))
    write(tmp_path / "m2.nii.gz", np.zeros(SHAPE, np.uint8))
    (tmp_path / "in.csv").write_text("\n".join(lines) + "\n")
    ingest(config(tmp_path / "in.csv", mask="brainmask", allow_failures=2))
    store = VolumeStore.open(tmp_path / "s.zarr")
    assert store.valid.tolist() == [True, False, False]
    np.testing.assert_array_equal(store.raw(0), brain(0))
    reasons = {iid: row["reason"] for iid, row in table(failures_path(tmp_path / "s.zarr")).items()}
    assert "its mask m1.nii.gz has the shape" in reasons["1"] and "m2.nii.gz has no brain" in reasons["2"]
    with pytest.raises(InputError, match="mask=other is not a column"):
        list_cohort(tmp_path / "in.csv", mask="other")
    with pytest.raises(ConfigError, match="mask=x: is a column of a CSV"):
        list_cohort(cohort(tmp_path / "folder"), mask="x")


def test_a_mask_elsewhere_and_one_of_no_value_for_zero(tmp_path):
    away = AFFINE + np.array([[0, 0, 0, 5.0], [0] * 4, [0] * 4, [0] * 4])
    image = nib.Nifti1Image(np.where(BRAIN, brain(0), 3).astype(np.int16), AFFINE)
    image.header.set_slope_inter(1, 40_000)
    nib.save(image, tmp_path / "b.nii")
    write(tmp_path / "a.nii", brain(0))
    write(tmp_path / "m.nii", BRAIN.astype(np.uint8))
    write(tmp_path / "away.nii", BRAIN.astype(np.uint8), away)
    (tmp_path / "in.csv").write_text("EID,T1,m\na,a.nii,away.nii\nb,b.nii,m.nii\nc,a.nii,m.nii\n")
    ingest(config(tmp_path / "in.csv", mask="m", allow_failures=2))
    reasons = [row["reason"] for row in table(tmp_path / "s.failures.tsv").values()]
    assert "lies elsewhere than the image: its affine is up to 5 mm away" in reasons[0]
    assert "no value for 0" in reasons[1]


def test_a_mask_of_bids(tmp_path):
    for name in ("sub-a/ses-1/anat/sub-a_ses-1", "sub-a/ses-1/anat/sub-a_ses-1_space-X", "sub-b/anat/sub-b"):
        write(tmp_path / "in" / f"{name}_desc-preproc_T1w.nii.gz", np.where(BRAIN, brain(1), 9).astype(np.int16))
        if "sub-b" not in name:
            write(tmp_path / "in" / f"{name}_desc-brain_mask.nii.gz", BRAIN.astype(np.uint8))
    keys = {"modalities": "space-_T1w", "mask": "desc-brain_mask"}
    listed = list_cohort(tmp_path / "in", modalities=["space-X_T1w"], mask="desc-brain_mask")
    assert listed.sources[0].scans[0].mask.name == "sub-a_ses-1_space-X_desc-brain_mask.nii.gz"
    ingest(config(tmp_path / "in", allow_failures=1, **keys))
    np.testing.assert_array_equal(VolumeStore.open(tmp_path / "s.zarr").raw(0), brain(1))
    assert "mask sub-b_desc-brain_mask.nii.gz cannot be read" in table(tmp_path / "s.failures.tsv")["b"]["reason"]


# ------------------------------------------------------------------------------------- orientation and place in space


def tilted(seed: int) -> np.ndarray:
    """As a scanner acquires a head."""
    rng = np.random.default_rng(seed)
    place = nib.affines.from_matvec(nib.eulerangles.euler2mat(*rng.normal(0, 0.1, 3)), rng.normal(0, 12, 3))
    return place @ AFFINE


@pytest.mark.parametrize("n", [2, 6])
def test_native_space_is_refused(tmp_path, n):
    for i in range(n):
        write(tmp_path / "in" / f"{i}.nii.gz", brain(i), tilted(i))
    asked = config(tmp_path / "in")
    with pytest.raises(InputError, match=rf"{n - 1} of {n} files lie elsewhere .*1.nii.gz.*native space.*s.qc.tsv"):
        ingest(asked)
    assert not asked.out.exists()
    rows = table(tmp_path / "s.qc.tsv")
    assert rows["1"]["outlier"] == "failed" and "mm away" in rows["1"]["reasons"] and rows["1"]["mean"] == "NA"
    affine = np.array(rows["1"]["affine"].split(), float).reshape(3, 4)
    np.testing.assert_allclose(affine, nib.load(tmp_path / "in" / "1.nii.gz").affine[:3], rtol=1e-6)
    with pytest.raises(InputError, match="native space"):
        preview(asked)
    ingest(config(tmp_path / "in", allow="affines"))
    assert "lies elsewhere than most" in table(tmp_path / "s.qc.tsv")["1"]["reasons"]


def coded(values: np.ndarray, sform: np.ndarray | None, qform: np.ndarray | None) -> nib.Nifti1Image:
    image = nib.Nifti1Image(values, None)
    image.header.set_sform(sform, 4 if sform is not None else 0)
    image.header.set_qform(qform, 1 if qform is not None else 0)
    return image


def test_left_and_right_must_be_known(tmp_path):
    mirrored, turned = AFFINE.copy(), AFFINE.copy()
    mirrored[0] *= -1
    turned[:2] *= -1  # by half a turn, of the same handedness
    forms = {"ok": (AFFINE, None), "q": (None, AFFINE), "both": (AFFINE, tilted(0) @ np.eye(4))}
    forms |= {"none": (None, None), "mirror": (AFFINE, mirrored), "turn": (AFFINE, turned)}
    (tmp_path / "in").mkdir()
    for name, (sform, qform) in forms.items():
        image = coded(brain(0), sform, qform)
        header = image.header.copy()
        header["vox_offset"] = 352
        (tmp_path / "in" / f"{name}.nii").write_bytes(header.binaryblock + bytes(4) + brain(0).tobytes(order="F"))
    with pytest.raises(Incomplete, match="3 of 6 volumes could not be used"):
        ingest(config(tmp_path / "in"))
    rows = table(tmp_path / "s.qc.tsv")
    assert {iid for iid, row in rows.items() if row["outlier"] == "failed"} == {"none", "mirror", "turn"}
    assert "sform_code and qform_code are 0" in rows["none"]["reasons"]
    assert "contradict each other" in rows["mirror"]["reasons"] and rows["mirror"]["codes"] == "sform 4, qform 1"
    assert rows["ok"]["zooms"] == "8 8 8" and rows["ok"]["orientation"] == "RAS"
    # what nibabel makes of a file without codes lies elsewhere
    ingest(config(tmp_path / "in", allow="orientation", overwrite=True))
    assert VolumeStore.open(tmp_path / "s.zarr").valid.all()


def test_a_cohort_without_any_code_is_refused_at_once(tmp_path):
    for i in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(brain(i), None), tmp_path / "in" / f"{i}.nii.gz")
    with pytest.raises(InputError, match=r"sform_code and qform_code are 0.*allow=\[orientation\].*s.qc.tsv lists"):
        ingest(config(tmp_path / "in"))
    assert {row["codes"] for row in table(tmp_path / "s.qc.tsv").values()} == {"sform 0, qform 0"}


def test_mgh_says_so_in_a_flag():
    data = bytearray(nib.MGHImage(brain(0), AFFINE).to_bytes())
    assert nifti.read_header(bytes(data[:400]), "a.mgh").unsure == ""
    data[28:30] = bytes(2)
    assert "goodRASFlag is 0" in nifti.read_header(bytes(data[:400]), "a.mgh").unsure


# --------------------------------------------------------------------------------------------- left out, and not read


def test_no_image_is_left_out_silently(tmp_path, caplog):
    folder = cohort(tmp_path / "in", 2)
    data = (folder / "1001.nii.gz").read_bytes()
    (folder / "link.nii.gz").symlink_to("../.git/annex/objects/MD5E--abc.nii.gz")
    (folder / "pointer.nii.gz").write_text("/annex/objects/MD5E-s1--abc.nii.gz\n")
    nib.save(nib.Nifti1Pair(brain(3), AFFINE), folder / "pair.hdr")
    (folder / "half.img").write_bytes(bytes(9))
    (folder / "packed.nii.bz2").write_bytes(bz2.compress(data))
    for name in ("a.nii.gz.part", "b.NII.GZ~", "c.nrrd", "d.nii.gz.1", "1001__dup-01.nii.gz", "void.nii"):
        (folder / name).write_bytes(b"" if name == "void.nii" else data)
    for name in ("1001.json", "1001.nii.gz.md5", "people.tsv", ".hidden.nii.gz"):
        (folder / name).write_text("x")
    (folder / "UPPER.NII.GZ").write_bytes(data)
    (folder / "more").mkdir()
    with caplog.at_level("INFO"), pytest.raises(Incomplete, match="11 of 14 volumes could not be used"):
        ingest(config(folder))
    with failures_path(tmp_path / "s.zarr").open() as file:
        listed = {Path(row["file"]).name: row["reason"] for row in csv.DictReader(file, delimiter="\t")}
    words = {
        "link.nii.gz": "is a link to ../.git/annex/objects/MD5E--abc.nii.gz, which is not there",
        "pointer.nii.gz": "pointer of git-annex", "pair.hdr": "pair", "half.img": "pair", "packed.nii.bz2": "gzip",
        "a.nii.gz.part": "unfinished", "b.NII.GZ~": "unfinished", "c.nrrd": "format", "d.nii.gz.1": "does not end",
        "1001__dup-01.nii.gz": "__dup", "void.nii": "0 bytes",
    }  # fmt: skip
    assert set(listed) == set(words)
    assert all(text in listed[name] for name, text in words.items()), listed
    assert "1 .json, 1 .md5, 1 .tsv" in caplog.text and "folders in it (1)" in caplog.text
    assert VolumeStore.open(tmp_path / "s.zarr").valid.sum() == 3
    only = [name for name in os.listdir(folder) if "nii" in name and not name.startswith(("1", "U"))]
    for name in only:
        (folder / name).rename(tmp_path / name)
    found = list_cohort(f"{folder}/*")
    assert len(found.sources) == 3 and {Path(left.file).name for left in found.unused} >= {"pair.hdr", "c.nrrd"}


def test_a_folder_of_pairs_only_is_told_of(tmp_path):
    (tmp_path / "in").mkdir()
    nib.save(nib.Nifti1Pair(brain(3), AFFINE), tmp_path / "in" / "a.hdr")
    with pytest.raises(InputError, match=r"holds no .*but 1 other images \(the first, a.hdr, is one half of"):
        list_cohort(tmp_path / "in")


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("offset", [0, 1, 100])
def test_voxels_inside_the_header(kind, offset):
    data = bytearray(kind(brain(0), AFFINE).to_bytes())
    np.frombuffer(data, kind.header_class.template_dtype, 1)[0]["vox_offset"] = offset
    with pytest.raises(nifti.Unreadable, match="vox.offset"):
        nifti.read(bytes(data), "a.nii")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not have such names")
def test_a_name_that_is_not_utf8_is_refused_when_planned(tmp_path):
    folder = cohort(tmp_path / "in", 2)
    os.rename(os.fsencode(folder / "1001.nii.gz"), os.fsencode(folder) + b"/M\xfcller.nii.gz")
    with pytest.raises(InputError, match=r"not UTF-8 \(M\\xfcller.nii.gz\); rename"):
        preview(config(folder))


def test_labels_that_contradict_the_folder_are_refused(tmp_path):
    write(tmp_path / "sub-a" / "ses-1" / "anat" / "sub-a_ses-1_T1w.nii.gz", brain(0))
    other = write(tmp_path / "sub-b" / "ses-1" / "anat" / "sub-b_ses-2_T1w.nii.gz", brain(1))
    write(tmp_path / "sub-b" / "ses-1" / "anat" / "sub-a_ses-1_FLAIR.nii.gz", brain(1))  # not asked for
    with pytest.raises(InputError, match=r"other labels than their folders \(sub-b/ses-1/anat/sub-b_ses-2_T1w"):
        list_cohort(tmp_path)
    other.rename(other.with_name("sub-b_ses-1_T1w.nii.gz"))
    (other.parent / "sub-b_ses-1_T1w__dup-01.nii.gz").write_bytes(b"")
    (other.parent / "sub-b_ses-1_T1w.nii.bz2").write_bytes(b"")
    found = list_cohort(tmp_path)
    assert {source.iid for source in found.sources} == {"a", "b"}
    assert sorted(left.reason[:9] for left in found.unused) == ["is marked", "is packed"]


def test_unfinished_downloads_of_uk_biobank(tmp_path):
    for name in ("1_20252_2_0.zip", "2_20252_2_0.ZIP", "3_20252_2_0.zip.part"):
        (tmp_path / name).write_bytes(b"")
    found = list_cohort(tmp_path, "ukb")
    assert [source.iid for source in found.sources] == ["1", "2"]
    assert [(left.iid, left.reason[:16]) for left in found.unused] == [("3", "is an unfinished")]


def test_a_store_of_before_is_read(tmp_path):
    ingest(config(cohort(tmp_path / "in")))
    place = tmp_path / "s.zarr"
    before = VolumeStore.open(place).normalised([1])
    described = json.loads((place / "zarr.json").read_text())
    for name in ("background", "corners", "codes"):
        del described["consolidated_metadata"]["metadata"][name]
        (place / name).rename(tmp_path / name)
    (place / "zarr.json").write_text(json.dumps(described))
    np.testing.assert_array_equal(VolumeStore.open(place).normalised([1]), before)
    assert read_manifest(place)["facts"]["doubts"] == []
