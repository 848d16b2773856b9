"""The section on quality: outliers by name, what not known, several modalities, what is old or broken."""

from __future__ import annotations

import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from hpc.errors import InputError
from udipdist.config import IngestConfig, ReportConfig
from udipdist.report import scans
from udipdist.report.collect import RunFolder
from udipdist.report.figures import spread
from udipdist.report.page import report
from udipdist.report.section import Album
from udipdist.volumes import quality, quality_files
from udipdist.volumes.ingest import ingest

SHAPE = (10, 12, 11)
BOLD = "<b>bold</b>"  # the id of the person whose scan has three times the others' intensity
N = 16


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder of which only the training scans are there: two modalities, one scan unusual, one unreadable."""
    folder = tmp_path_factory.mktemp("scans")
    rng = np.random.default_rng(1)
    brain = (np.stack(np.meshgrid(*[np.linspace(-1, 1, s) for s in SHAPE], indexing="ij")) ** 2).sum(0) < 0.8
    tissue = rng.normal(size=SHAPE)
    lines = ["EID,T1,T2"]
    for i in range(N):
        name = BOLD if i == 4 else f"p{i:02d}"
        for modality, gain in (("T1", 3 if i == 4 else 1), ("T2", 1)):
            values = gain * np.where(brain, 100 + 20 * tissue + 5 * rng.normal(size=SHAPE), 0)
            nib.save(nib.Nifti1Image(values.astype(np.int16), np.diag([9.0, 9, 9, 1])), folder / f"{modality}{i}.nii")
        lines.append(f"{name},T1{i}.nii,T2{i}.nii")
    (folder / "T17.nii").write_bytes(b"not a scan")
    (folder / "scans.csv").write_text("\n".join(lines))
    out = folder / "run"
    store = out / "ingest" / "train.zarr"
    ingest(IngestConfig(volumes=folder / "scans.csv", modalities=["T1", "T2"], out=store, workers=0, allow_failures=1))
    return out


def text_of(section) -> str:
    return " ".join(
        " ".join(map(str, [part.caption, *part.columns, *(cell for row in part.rows for cell in row)]))
        if hasattr(part, "rows")
        else getattr(part, "caption", str(part))
        for part in section.parts
    )


def test_who_looks_unusual_is_named(run, tmp_path):
    section = scans.quality(RunFolder.open(run), Album(tmp_path))
    text = text_of(section)
    assert f"{BOLD} mean high, std high" in text
    assert f"training and association T1 {N - 1} 1 1 not known" in text
    assert f"training and association T2 {N} 0 0 not known" in text
    assert "train.qc.tsv" in text
    assert [tile.value for tile in section.tiles] == ["1"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "scan_figures.png", "scan_figures.pdf", "contact_sheet_train.png",
    }  # fmt: skip


def test_the_page_of_several_modalities(run, tmp_path):
    report(ReportConfig(run=run, out=tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    assert "&lt;b&gt;bold&lt;/b&gt;" in page and BOLD not in page
    assert "training and association T2" in page


@pytest.fixture
def spoilt(run, tmp_path, monkeypatch):
    """The run with another place for the table and the sheet, which a test may change or leave out."""
    store = run / "ingest" / "train.zarr"
    for name in ("table_path", "sheet_path"):
        path = getattr(quality_files, name)(store)
        (tmp_path / path.name).write_bytes(path.read_bytes())
        monkeypatch.setattr(quality_files, name, lambda out, at=tmp_path / path.name: at)
    return RunFolder.open(run)


def test_a_store_without_figures_is_said(spoilt, tmp_path):
    (tmp_path / "train.qc.tsv").unlink()
    section = scans.quality(spoilt, Album(tmp_path))
    assert "no quality figures" in section.missing and "overwrite=true" in section.missing


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("train.qc.tsv", b"FID\tIID\n", r"qc.tsv: lacks the columns modality, foreground.*run ingest again"),
        ("train.qc.png", None, r"qc.png: cannot be read.*run ingest again"),
    ],
)
def test_what_is_broken_is_refused(spoilt, tmp_path, name, data, message):
    (tmp_path / name).unlink() if data is None else (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        scans.quality(spoilt, Album(tmp_path))


def test_nothing_ingested_has_no_section(tmp_path, whole_run):
    opened = RunFolder.open(whole_run)
    bare = RunFolder(tmp_path, dict(opened.stages))
    for name in scans.STORES:
        made = opened.stages[name]
        bare.stages[name] = type(made)(made.name, made.verb, tmp_path / "none", None)
    assert scans.quality(bare, Album(tmp_path)) is None


@pytest.mark.parametrize("outlier", ["no", "yes"])
def test_odd_distributions_can_be_drawn(outlier):
    table = pd.DataFrame({name: [0.5, 0.5, np.nan] for name in quality.FIGURES}).assign(outlier=outlier)
    table["overlap"] = np.nan
    limits = {"limits": {"mean": {"median": 0.5, "low": 0.4, "high": None}}, "flip_limit": None}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = spread.spreads([("a $\\frac{1}$", table, limits), ("b", table.iloc[:0], limits)])
        figure.canvas.draw()
    assert "not known" in [text.get_text() for text in figure.axes[3].texts]
    pyplot.close("all")


def test_outliers_beyond_the_picture_are_arrows():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: rng.normal(size=50) for name in quality.FIGURES}).assign(outlier="no")
    table.loc[[3, 4, 5], "outlier"] = "yes"
    table.loc[[3, 4, 5], "mean"] = [400.0, -400.0, 0.0]
    axes = spread.spreads([("a", table, {"limits": {}, "flip_limit": None})]).axes[1]
    assert sorted(line.get_marker() for line in axes.lines) == ["<", ">", "|"]
    assert axes.get_xlim()[0] > -5 and axes.get_xlim()[1] < 5
