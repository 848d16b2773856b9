"""Quality: faults planted in simulated brains are found, a clean cohort is left alone, the table says it all."""

from __future__ import annotations

import csv
import dataclasses
import logging
import math
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import xarray
from matplotlib.image import imread
from nilearn.datasets import load_mni152_brain_mask
from nilearn.image import resample_img

from hpc import store
from hpc.stage import read_manifest
from udipdist.cohort import factors, seeds, template
from udipdist.cohort.brains import BrainModel, draw_scan
from udipdist.config import BrainConfig, IngestConfig
from udipdist.volumes import contact_sheet, likeness, quality, quality_files
from udipdist.volumes.ingest import ingest

RESOLUTION, N = 8, 120
TORQUE = 3.0  # SD of the factor that everybody has more of: a common asymmetry, as real brains have


@pytest.fixture(scope="module")
def model():
    return BrainModel(RESOLUTION)


def cohort(model, torque, n=N):
    """Scans of people, int16 [n, x, y, z]."""
    scans = []
    for i in range(n):
        rng = seeds.stream(1, "scan", str(i))
        values = seeds.stream(1, "factors", str(i)).standard_normal(len(factors.NAMES))
        values[factors.NAMES.index("torque")] += torque
        scan = draw_scan(BrainConfig(), i % 4, float(rng.standard_normal()), rng)
        scans.append(np.round(1000 * model.render(values, scan, rng)).astype(np.int16))
    return np.stack(scans)


@pytest.fixture(scope="module")
def asymmetric(model):
    return cohort(model, TORQUE)


@pytest.fixture(scope="module")
def symmetric(model):
    return cohort(model, 0.0)


def zscored(scan):
    brain = scan[scan != 0].astype(np.float64)
    return np.where(scan != 0, (scan - brain.mean()) / brain.std(), 0)


def thumbnails(scans):
    return np.stack([quality.thumbnail(zscored(scan), quality.block((RESOLUTION,) * 3)) for scan in scans])


def build(place, scans, failed=(), affine=None):
    """What ingest leaves in a group before it asks for the quality. Returns the facts."""
    affine = template.affine(RESOLUTION) if affine is None else affine
    n = len(scans)
    valid = np.array([i not in failed for i in range(n)])
    scans = np.where(valid[:, None, None, None], scans, 0)
    place.mkdir(parents=True)
    small = [thumbnails(scan[None])[0] if ok else None for scan, ok in zip(scans, valid, strict=True)]
    blocks = quality.thumbnail_shape(scans.shape[1:], quality.block((RESOLUTION,) * 3))
    for name, rows, shape, dtype in (
        ("image", scans, scans.shape, scans.dtype), ("thumbnail", small, (n, *blocks), np.float32),
    ):  # fmt: skip
        layout = store.Layout(store.create_rows(place, name, shape, dtype, ("subject", "x", "y", "z"), 64))
        for shard in range(layout.n_shards):
            store.write_shard(layout, shard, (rows[i] if valid[i] else None for i in layout.rows_of_shard(shard)))
    mask = quality.template_mask(scans.shape[1:], affine)
    brains = [scan[scan != 0].astype(float) for scan in scans]
    columns = {
        "subject": np.array([f"s{i:03d}" for i in range(n)]),
        "fid": np.array([f"f{i:03d}" for i in range(n)]),
        "valid": valid,
        "mean": np.array([b.mean() if len(b) else math.nan for b in brains]),
        "std": np.array([b.std() if len(b) else math.nan for b in brains]),
        "scl_slope": np.where(valid, 1.0, math.nan),
        "scl_inter": np.where(valid, 0.0, math.nan),
        "foreground": np.array([len(b) for b in brains]),
        "corners": np.array([(scan[np.ix_(*[[0, -1]] * 3)] != 0).sum() for scan in scans]),
        "background": np.where(valid, 0.0, math.nan),
        "orientation": np.array(["RAS"] * n),
        "codes": np.array(["sform 2, qform 0"] * n),
    }
    if mask is not None:
        columns["foreground_in_template"] = np.array([(scan[mask] != 0).sum() for scan in scans])
    for name, values in columns.items():
        store.put(place, name, values, ("subject",))
    store.put(place, "affine", np.where(valid[:, None, None], affine, math.nan), ("subject", "row", "column"))
    failures = dict.fromkeys(failed, "is truncated")
    return quality.assess(place, failures, None if mask is None else int(mask.sum()))


def reasons_of(place):
    return dict(enumerate(str(text) for text in store.get(place, "qc_reasons")))


def planted(scans):
    """Scans with a fault each, and words that the reason must hold."""
    rng = np.random.default_rng(0)
    scans = scans.copy()
    noise = rng.integers(1, 900, scans.shape[1:])
    scans[3] = scans[3][::-1]
    scans[7] = noise  # nothing but noise, everywhere
    scans[11] *= 3
    scans[13] = np.roll(scans[13], 2, axis=1)  # 16 mm forwards
    scans[17] = np.where(scans[17] != 0, noise, 0)  # noise in the shape of a brain
    scans[19] = scans[19][:, ::-1]  # front and back exchanged
    scans[23] = np.where(np.arange(scans.shape[3]) < 9, 0, scans[23])  # the field of view ends too high
    words = {
        3: "left and right may be exchanged", 7: "foreground 1 is high", 11: "mean intensity", 13: "overlap",
        17: "correlation with the cohort", 19: "overlap", 23: "overlap",
    }  # fmt: skip
    return scans, words


def test_planted_faults_are_found_and_hardly_anybody_else(asymmetric, tmp_path):
    scans, words = planted(asymmetric)
    facts = build(tmp_path / "a.zarr", scans, failed=(5,))
    reasons = reasons_of(tmp_path / "a.zarr")
    for i, expected in words.items():
        assert expected in reasons[i], (i, reasons[i])
    others = {i: text for i, text in reasons.items() if text and i not in words and i != 5}
    assert len(others) <= 2, others
    assert facts["outliers"] == len(words) + len(others)
    assert facts["flips_suspected"] >= 1 and facts["flip_limit"] < 0
    assert facts["outlier_subjects"][0].startswith("s003: left and right")
    assert reasons[5] == "is truncated"
    assert not store.get(tmp_path / "a.zarr", "qc_outlier")[5]


def test_a_clean_cohort_is_left_alone(symmetric, asymmetric, tmp_path):
    """At most 1 % of the people are called unusual, and of them none is called flipped."""
    for name, scans in (("symmetric", symmetric), ("asymmetric", asymmetric)):
        facts = build(tmp_path / f"{name}.zarr", scans)
        assert facts["outliers"] <= 0.01 * N, facts
        assert facts["flips_suspected"] == 0
        assert (facts["flip_limit"] is None) == (name == "symmetric")


def test_every_figure_is_that_of_the_definition(asymmetric, tmp_path):
    place = tmp_path / "a.zarr"
    build(place, asymmetric)
    mask = quality.template_mask(asymmetric.shape[1:], template.affine(RESOLUTION))
    small = thumbnails(asymmetric)
    brain = (small != 0).mean(0) >= 0.05
    for i in (0, 57):
        inside = asymmetric[i] != 0
        assert store.get(place, "qc_foreground")[i] == pytest.approx(inside.mean(), rel=1e-12)
        dice = 2 * (inside & mask).sum() / (inside.sum() + mask.sum())
        assert store.get(place, "qc_overlap")[i] == pytest.approx(dice, rel=1e-12)
        others = np.delete(small, i, axis=0).astype(float).mean(0)
        expected = np.corrcoef(small[i][brain], others[brain])[0, 1]
        assert store.get(place, "qc_correlation")[i] == pytest.approx(expected, abs=2e-6)


def test_many_flipped_scans_are_found_too(model):
    scans = cohort(model, TORQUE, 240)
    scans[:24] = scans[:24, ::-1].copy()
    _, asymmetry = likeness.likeness(thumbnails(scans), np.ones(240, bool))
    suspected = asymmetry < likeness.flip_limit(asymmetry)
    assert suspected[:24].mean() > 0.8 and suspected[24:].mean() < 0.01


def test_a_shift_or_a_shading_to_the_side_is_no_asymmetry(symmetric):
    """What is the same in everybody because of the grid or the coil, and not of the brain, must not be learnt."""
    side = np.linspace(0.9, 1.1, symmetric.shape[1])[:, None, None]
    scans = np.roll(symmetric, 1, axis=1) * side
    _, asymmetry = likeness.likeness(thumbnails(scans), np.ones(N, bool))
    assert likeness.flip_limit(asymmetry) is None


def test_left_one_out_is_what_leaving_out_gives(asymmetric, monkeypatch):
    small = thumbnails(asymmetric[:40])
    _, asymmetry = likeness.likeness(small, np.ones(40, bool))
    total, brain = small.mean(0, dtype=float), (small != 0).sum(0) * 20 >= 40
    parts = likeness._Mirror.of(total, brain).odd(small)
    parts /= np.linalg.norm(parts, axis=1, keepdims=True)
    size = np.linalg.eigvalsh(parts @ parts.T)[-1]
    errors = []
    for penalty in size * 10.0 ** np.arange(-4, 2.1, 0.5):
        left = []
        for i in range(40):
            rest = np.delete(parts, i, axis=0)
            left.append(parts[i] @ rest.T @ np.linalg.solve(rest @ rest.T + penalty * np.eye(39), np.ones(39)))
        errors.append((np.mean((1 - np.array(left)) ** 2), left))
    np.testing.assert_allclose(asymmetry, min(errors)[1], atol=1e-6)
    monkeypatch.setattr(likeness, "_LEARNT", 30)
    _, other = likeness.likeness(small, np.ones(40, bool))
    assert np.isfinite(other).all() and np.corrcoef(other, asymmetry)[0, 1] > 0.7


def test_thumbnails_are_read_in_pieces(asymmetric, monkeypatch):
    """Pieces change nothing, subjects that are not valid are not looked at, and memory does not grow with N."""
    small = thumbnails(asymmetric[:60])
    valid = np.ones(60, bool)
    whole = likeness.likeness(small, valid)
    monkeypatch.setattr(likeness, "_ROWS", 7)
    np.testing.assert_allclose(likeness.likeness(small, valid), whole, atol=2e-6)
    spoilt = np.insert(small, [3, 20], np.nan, axis=0)
    valid = np.isfinite(spoilt).all(axis=(1, 2, 3))
    figures = likeness.likeness(spoilt, valid)
    assert np.isnan(figures[0][~valid]).all()
    np.testing.assert_allclose(np.array(figures)[:, valid], whole, atol=2e-6)
    monkeypatch.setattr(likeness, "_LEARNT", 50)
    many = np.broadcast_to(np.tile(small, (20, 1, 1, 1)), (1200, *small.shape[1:]))
    tracemalloc.start()
    likeness.likeness(many, np.ones(1200, bool))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < many.nbytes / 2


@pytest.mark.parametrize("few", [0, 1, 2, 5])
def test_a_few_scans_are_not_judged(asymmetric, tmp_path, few):
    facts = build(tmp_path / "a.zarr", asymmetric[: few + 1], failed=(few,))
    assert facts == {
        "outliers": 0, "outlier_subjects": [], "not_brains": 0, "not_brain_subjects": [], "flips_suspected": 0,
        "flip_limit": None, "limits": {},
    }  # fmt: skip
    assert np.isfinite(store.get(tmp_path / "a.zarr", "qc_correlation")).sum() == (few if few > 1 else 0)
    quality_files.publish(tmp_path / "a.zarr", {"": tmp_path / "a.zarr"})
    assert len((tmp_path / "a.qc.tsv").read_text().splitlines()) == few + 2


def test_identical_scans_are_no_outliers_of_each_other(asymmetric, tmp_path):
    facts = build(tmp_path / "a.zarr", np.repeat(asymmetric[:1], 30, axis=0))
    assert facts["outliers"] == 0


def test_the_rule():
    rule = quality.Rule("x", "x", floor=0.05, low_only=True)
    values = np.random.default_rng(0).normal(0.9, 0.02, 10_001)
    limits = quality.limits_of(rule, values)
    assert limits.median == np.median(values) and math.isnan(limits.high)
    assert limits.low == pytest.approx(0.9 - 5 * 0.02, abs=0.005)
    assert quality.limits_of(rule, np.full(20, 0.9)).low == pytest.approx(0.85)
    gains = quality.limits_of(dataclasses.replace(rule, gain=True, low_only=False, floor=0.25), np.full(20, 400.0))
    assert gains.low == pytest.approx(320) and gains.high == pytest.approx(500)
    below = quality.limits_of(dataclasses.replace(rule, gain=True, low_only=False, floor=0.25), np.full(20, -400.0))
    assert (below.low, below.high) == (-500, -300)
    assert quality.limits_of(rule, np.r_[values[:9], np.nan]) is None


# ------------------------------------------------------------------------------------------- template and thumbnails


@pytest.mark.parametrize("resolution", [2, 8])
def test_the_mask_is_nilearns(resolution):
    shape, affine = template.SHAPES[resolution], template.affine(resolution)
    ours = quality.template_mask(shape, affine)
    theirs = resample_img(
        load_mni152_brain_mask(), affine, shape, interpolation="nearest", copy_header=True, force_resample=True
    ).get_fdata()
    assert (ours != (theirs > 0)).mean() < 0.002  # voxels half-way between two are rounded up, or to even
    turned = affine @ np.array([[-1.0, 0, 0, shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert (quality.template_mask(shape, turned)[::-1] == ours).mean() > 0.998


def test_a_grid_elsewhere_has_no_mask(caplog, asymmetric, tmp_path):
    away = template.affine(RESOLUTION) + np.array([[0, 0, 0, 300.0], [0] * 4, [0] * 4, [0] * 4])
    with caplog.at_level(logging.WARNING):
        assert quality.template_mask(template.SHAPES[RESOLUTION], away) is None
    assert "not in MNI space" in caplog.text and "0 %" in caplog.text
    facts = build(tmp_path / "a.zarr", asymmetric, affine=away)
    assert "overlap" not in facts["limits"] and np.isnan(store.get(tmp_path / "a.zarr", "qc_overlap")).all()
    assert "correlation" in facts["limits"]


@pytest.mark.parametrize(("zooms", "edge"), [((1, 1, 1), 8), ((2, 2, 2), 4), ((0.8, 0.8, 2), 7), ((9, 9, 9), 1)])
def test_blocks_are_about_8_mm(zooms, edge):
    assert quality.block(zooms) == edge


def test_a_thumbnail_is_the_mean_of_blocks_that_share_the_padding():
    volume = np.random.default_rng(0).normal(size=(13, 8, 3))
    small = quality.thumbnail(volume, 4)
    assert small.shape == quality.thumbnail_shape(volume.shape, 4) == (4, 2, 1)
    offset = quality.thumbnail_offset(volume.shape, 4)
    expected = np.zeros(small.shape)
    for place in np.ndindex(volume.shape):
        expected[tuple((i + o) // 4 for i, o in zip(place, offset, strict=True))] += volume[place] / 64
    np.testing.assert_allclose(small, expected, atol=1e-6)


# --------------------------------------------------------------------------------------------------- table and sheet


def test_table_and_log(asymmetric, tmp_path, caplog):
    scans, _ = planted(asymmetric)
    out = tmp_path / "a.zarr"
    groups = {"T1": out / "T1", "T2_FLAIR": out / "T2_FLAIR"}
    build(groups["T1"], scans[:60], failed=(5,))
    build(groups["T2_FLAIR"], asymmetric[:60])
    with caplog.at_level(logging.WARNING):
        quality_files.publish(out, groups)
    with quality_files.table_path(out).open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert tuple(rows[0]) == (*quality_files.COLUMNS, *quality_files.OF_HEADER) and len(rows) == 120
    assert [row["modality"] for row in rows] == ["T1"] * 60 + ["T2_FLAIR"] * 60
    assert (rows[3]["FID"], rows[3]["IID"], rows[3]["outlier"]) == ("f003", "s003", "yes")
    assert rows[5]["outlier"] == "failed" and rows[5]["reasons"] == "is truncated" and rows[5]["mean"] == "NA"
    assert float(rows[7]["foreground"]) == 1.0
    assert {row["outlier"] for row in rows[60:]} == {"no"}
    assert "s011 T1 looks unusual: mean intensity" in caplog.text
    assert (
        f"udipdist volumes store={out} 'subjects=[s003]' modality=T1 out=look" in caplog.text
        and str(quality_files.sheet_path(out)) in caplog.text
    )
    sheet = imread(quality_files.sheet_path(out))
    assert sheet.shape[1] < 2000 and sheet[..., :3].std() > 0.05
    before = quality_files.sheet_path(out).read_bytes(), quality_files.table_path(out).read_bytes()
    quality_files.publish(out, groups)
    assert (quality_files.sheet_path(out).read_bytes(), quality_files.table_path(out).read_bytes()) == before


def test_reasons_in_a_few_words(asymmetric, tmp_path):
    scans, _ = planted(asymmetric)
    build(tmp_path / "a.zarr", scans)
    reasons = reasons_of(tmp_path / "a.zarr")
    assert quality.brief(reasons[3]) == "flipped?"
    assert quality.brief(reasons[7]).startswith("foreground high, ")
    assert quality.brief(reasons[13]) == "overlap low, correlation low"
    assert quality.brief(reasons[11]) == "mean high, std high"


def test_the_sheet_shows_outliers_first_and_at_most_forty():
    outlier, valid = np.zeros(500, bool), np.ones(500, bool)
    outlier[[40, 80, 90]] = True
    valid[90] = False
    rows = contact_sheet.chosen(outlier, valid)
    assert rows[:2] == [40, 80] and len(rows) == len(set(rows)) == contact_sheet.MOST and 90 not in rows
    assert rows == contact_sheet.chosen(outlier, valid)
    outlier[:] = True
    assert len(contact_sheet.chosen(outlier, valid)) == contact_sheet.UNUSUAL
    assert contact_sheet.chosen(np.zeros(0, bool), np.zeros(0, bool)) == []


def test_ingest_takes_what_is_judged(model, asymmetric, tmp_path):
    """From files to the table: the same figures as from arrays, though the files have left and right in another order
    and are scaled; a file that is flipped in space is found, one whose axis is only stored backwards is not."""
    scans = asymmetric[:60].copy()
    scans[3] = scans[3][::-1]
    (tmp_path / "scans").mkdir()
    backwards = model.affine @ np.array([[-1.0, 0, 0, scans.shape[1] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for i, scan in enumerate(scans):
        image = nib.Nifti1Image(scan[::-1], backwards) if i % 2 else nib.Nifti1Image(scan, model.affine)
        nib.save(image, tmp_path / "scans" / f"s{i:03d}.nii.gz")
    (tmp_path / "scans" / "s005.nii.gz").write_bytes(b"no")
    out = tmp_path / "files.zarr"
    ingest(IngestConfig(volumes=tmp_path / "scans", out=out, workers=0, allow_failures=1))
    facts = build(tmp_path / "arrays.zarr", scans, failed=(5,))
    for name in ("foreground", "overlap", "correlation", "asymmetry"):
        ours, theirs = store.get(tmp_path / "arrays.zarr", f"qc_{name}"), store.get(out, f"qc_{name}")
        np.testing.assert_allclose(theirs, ours, atol=1e-4, err_msg=name)
    judged = read_manifest(out)["facts"]["quality"]
    assert judged["outliers"] == facts["outliers"] >= 1 and judged["flips_suspected"] == 1
    with quality_files.table_path(out).open() as file:
        rows = {row["IID"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert quality.FLIPPED in rows["s003"]["reasons"] and quality_files.sheet_path(out).exists()
    assert rows["s005"]["outlier"] == "failed" and "not a NIfTI" in rows["s005"]["reasons"]
    assert xarray.open_zarr(out, consolidated=False)["qc_outlier"].values.sum() == judged["outliers"]
