"""The page: complete, self-contained, safe with hostile names; absent stages are said, broken ones refused."""

from __future__ import annotations

import base64
import errno
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hpc.errors import ConfigError, InputError, NoSpace, OutputExists
from hpc.files import remove
from hpc.stage import manifest_path, read_manifest
from udipdist.config import ReportConfig
from udipdist.report.collect import RunFolder
from udipdist.report.page import SECTIONS, figures_folder, preview, report
from udipdist.report.section import Album, Picture

NOT_ASKED = {
    "probes",
    "phewas",
    "interpretation",
    "networks",
    "clusters",
}  # of verbs that were not called, and too few lead SNPs
FIGURES = {
    "scan_figures", "training_curves", "reconstructions", "manhattan", "manhattan_joint", "heatmap", "region_1",
    "region_2", "qq", "qq_traits", "heritability", "comparison", "covariates", "recall",
}  # fmt: skip
SHEETS = {"contact_sheet_train", "contact_sheet_gwas"}  # drawn by ingest
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags with attributes, the text of each section, and whether the tags are balanced."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.open: list[str] = []
        self.headings: list[str] = []
        self.current = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.current = dict(attrs)["id"]
            self.sections[self.current] = ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h1":
            self.headings.append(data)
        if self.current:
            self.sections[self.current] += data


@pytest.fixture(scope="module")
def made(whole_page) -> tuple[str, Page, Path]:
    text = whole_page.read_text()
    return text, Page(text), whole_page


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """Make the page of a run with its figures drawn but not saved; returns it."""

    def add(album: Album, name: str, figure: Figure, caption: str, alt: str, chart=True, folded="") -> Picture:
        album.names.append(name)
        return Picture(name, "data:image/png;base64,", caption, alt, chart, folded=folded)

    def make(run: Path, **keys) -> Page:
        monkeypatch.setattr(Album, "add", add)
        report(ReportConfig(run=run, out=tmp_path / "r.html", **keys))
        return Page((tmp_path / "r.html").read_text())

    return make


def test_every_section_is_there_and_says_how_to_read_it(made):
    _, page, out = made
    assert page.open == []
    assert list(page.sections) == [
        "cohort", "quality", "training", "reconstructions", "manhattan", "loci", "regions",
        "calibration", "comparison", "confounding", "recall", "cost", "provenance",
    ]  # fmt: skip
    assert len(page.sections) == len(SECTIONS) - len(NOT_ASKED)
    leads = [attrs for tag, attrs in page.tags if tag == "p" and attrs.get("class") == "lead"]
    assert len(leads) == len(SECTIONS) - len(NOT_ASKED)
    manifest = read_manifest(out)
    assert manifest["facts"]["missing"] == []
    assert NOT_ASKED.isdisjoint(page.sections)
    assert set(manifest["facts"]["figures"]) == FIGURES | SHEETS


def test_what_the_sections_say(made):
    _, page, _ = made
    assert "age + sex (3 columns when encoded)" in page.sections["cohort"]
    assert "10 \u00d7 12 \u00d7 11" in page.sections["cohort"] and "2 \u00d7 2 \u00d7 3" in page.sections["cohort"]
    assert "no scan" in page.sections["cohort"] and "gwas9" in page.sections["cohort"]
    assert "2,970,000" in page.sections["loci"] and "441.00" in page.sections["loci"]
    assert "hit: rs9&9, 12 kb" in page.sections["loci"] and "none on this chromosome" in page.sections["loci"]
    assert "50% of the loci hit the panel of 692" in page.sections["loci"]
    assert "chromosome 2, -log10 p 441.0" in page.sections["regions"]
    assert "The genotypes g no longer exist" in page.sections["regions"]
    assert "QQ curves of 5 traits, one by one" in page.sections["calibration"]
    assert "1 of 2" in page.sections["comparison"] and "1.012" in page.sections["comparison"]
    assert "Loci on the null chromosomes: 0 with covariates, 0 without." in page.sections["confounding"]
    assert "10 variants without a known chromosome are not drawn" in page.sections["manhattan"]
    for stage in ("ingest train", "ingest gwas", "train", "embed", "gwas", "loci", "panel"):
        assert stage in page.sections["cost"]
    assert "comparison/without_covariates/gwas" in page.sections["cost"]
    assert "formula" in page.sections["provenance"] and "deepspeed" in page.sections["provenance"]


def test_nothing_is_loaded_from_elsewhere(made):
    text, page, _ = made
    loads = [
        attrs[key] for _, attrs in page.tags for key in ("src", "href", "srcset", "action", "data") if key in attrs
    ]
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in loads)
    assert not re.search(r"url\(|@import|https?://", text)
    assert {"script", "link", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    policy = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_hostile_names_are_text(made):
    text, page, _ = made
    assert "<script" not in text and "onerror=alert(1)>" not in text.replace("onerror=alert(1)&gt;", "")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script>alert(1)</script>" in page.sections["loci"]
    assert "A &amp; B" in text and "rs9&amp;9" in text
    assert not [attrs for _, attrs in page.tags if any(key.startswith("on") for key in attrs)]


def test_figures_are_drawn_and_inlined(made):
    text, _, out = made
    folder = figures_folder(out)
    assert {path.stem for path in folder.iterdir()} == FIGURES | SHEETS
    for name in SHEETS:
        data = (folder / f"{name}.png").read_bytes()
        assert base64.b64encode(data).decode() in text and Image.open(folder / f"{name}.png").width > 1000
    for name in FIGURES:
        image = np.asarray(Image.open(folder / f"{name}.png").convert("L"), float)
        assert image.shape[1] == (1440 if name.startswith("region") else 2000) and image.std() > 5, name
        assert (folder / f"{name}.pdf").read_bytes()[:5] == b"%PDF-"
        assert base64.b64encode((folder / f"{name}.png").read_bytes()).decode() in text


@pytest.mark.parametrize(
    ("gone", "sections"),
    [
        ("train", {"training", "reconstructions"}),
        ("gwas", {"manhattan", "regions", "calibration", "confounding"}),
        ("loci", {"loci", "regions"}),
        ("panel", set()),
        ("comparison.json", {"comparison", "recall"}),
        ("comparison", {"confounding"}),
        ("loci_multivariate", set()),
    ],
)
def test_a_stage_that_was_not_run_has_no_section(run_copy, tmp_path, draw, gone, sections):
    whole = {*draw(run_copy).sections}
    remove(run_copy / gone)
    page = draw(run_copy, overwrite=True)
    assert read_manifest(tmp_path / "r.html")["facts"]["missing"] == []
    assert whole - {*page.sections} == sections
    if not gone.startswith("comparison"):
        assert re.search(f"Not run, or not finished: .*{gone.replace('_', ' ')}", page.sections["cost"])


def test_the_first_stage_alone_gives_a_page(run_copy, draw):
    for path in list(run_copy.iterdir()):
        if path.name != "ingest":
            remove(path)
    remove(run_copy / "ingest" / "train.zarr")
    page = draw(run_copy)
    assert "training and association" in page.sections["cohort"]
    assert list(page.sections) == ["cohort", "quality", "cost", "provenance"]


def test_the_page_is_called_after_the_study(run_copy, draw):
    moved = run_copy.rename(run_copy.with_name("run"))
    page = draw(moved, title="Cortex & co <b>")
    assert page.headings == ["Cortex & co <b>"]
    assert draw(moved, overwrite=True).headings == [moved.parent.name]
    other = moved.rename(moved.with_name("ukb-t1"))
    assert draw(other, overwrite=True).headings == ["ukb-t1"]


def test_an_unfinished_stage_is_said(run_copy, draw):
    remove(manifest_path(run_copy / "gwas"))
    page = draw(run_copy)
    assert "gwas has been started but is not finished" in page.sections["calibration"]


def test_no_loci_no_metrics_and_no_standard_errors_are_said(run_copy, draw):
    loci = pd.read_parquet(run_copy / "loci" / "loci.parquet")
    loci.iloc[:0].to_parquet(run_copy / "loci" / "loci.parquet")
    (run_copy / "train" / "metrics.jsonl").write_text("")
    null = pd.read_csv(run_copy / "gwas" / "null.tsv", sep="\t")
    null.assign(h2_se=np.nan).to_csv(run_copy / "gwas" / "null.tsv", sep="\t", index=False, na_rep="NA")
    page = draw(run_copy)
    assert "No variant passed the threshold" in page.sections["loci"]
    assert "no step was recorded" in page.sections["training"]
    assert "no standard errors" in page.sections["calibration"]


def spoil_npz(run: Path) -> None:
    np.savez(run / "train" / "reconstructions.npz", subject=np.array(["a"]), original=np.zeros((1, 2, 2, 2)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "train" / "metrics.jsonl").write_text('{"step": 1, "split": "train"}\n{"st'),
         r"metrics.jsonl, line 2: is not a JSON object"),
        (lambda run: (run / "train" / "metrics.jsonl").unlink(), r"metrics.jsonl: cannot be read.*run train again"),
        (spoil_npz, r"reconstructions.npz: cannot be read"),
        (lambda run: (run / "train" / "reconstructions.npz").write_bytes(b"no"), "reconstructions.npz: cannot be"),
        (lambda run: (run / "gwas" / "null.tsv").write_text("trait\tn\n"), r"null.tsv: lacks the columns k, vg, ve"),
        (lambda run: (run / "gwas" / "null.tsv").write_text("trait\tn\tk\tvg\tve\th2\th2_se\na\t1\t1\t0\t1\tbig\tNA\n"),
         r"null.tsv, line 2: h2='big' is not a number"),
        (lambda run: remove(run / "gwas" / "sumstats.zarr"), r"holds no sumstats.zarr"),
        (lambda run: (run / "loci" / "loci.parquet").write_bytes(b"no"), r"loci.parquet: cannot be read"),
        (lambda run: (run / "panel" / "hits.tsv").write_text(""), r"hits.tsv: is not a table"),
        (lambda run: (run / "panel" / "panel.json").write_text("[]"), r"panel.json: holds a list"),
        (lambda run: (run / "comparison.json").write_text("{}"), r"comparison.json: lacks rows"),
        (lambda run: (run / "comparison.json").write_text(json.dumps({"rows": [{"name": "A"}], "planted": [{}]})),
         r"a planted locus lacks locus, chr, pos, found_by"),
        (lambda run: manifest_path(run / "loci").write_text("{"), r"loci/manifest.json: is not valid JSON"),
        (lambda run: manifest_path(run / "loci").write_text("{}"), r"loci/manifest.json: lacks facts, seconds, config"),
    ],
)  # fmt: skip
def test_a_broken_stage_is_refused_and_leaves_no_page(run_copy, tmp_path, draw, spoil, message):
    spoil(run_copy)
    with pytest.raises(InputError, match=message):
        draw(run_copy)
    assert not (tmp_path / "r.html").exists() and not (tmp_path / "r_figures").exists()


def test_folders_that_hold_no_run_are_refused(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(InputError, match="holds no stage of a run"):
        RunFolder.open(tmp_path)


def test_what_stands_there_is_kept(whole_run, tmp_path):
    (tmp_path / "r_figures").mkdir()
    (tmp_path / "r_figures" / "mine.png").write_text("mine")
    with pytest.raises(OutputExists, match="r_figures: already exists"):
        report(ReportConfig(run=whole_run, out=tmp_path / "r.html"))
    assert (tmp_path / "r_figures" / "mine.png").exists()
    with pytest.raises(ConfigError, match="a page is named NAME.html"):
        report(ReportConfig(run=whole_run, out=tmp_path / "page"))


def test_a_full_disk_leaves_nothing_and_the_same_command_goes_on(run_copy, tmp_path, draw, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    config = ReportConfig(run=run_copy, out=tmp_path / "r.html")
    with monkeypatch.context() as patched:
        patched.setattr(Figure, "savefig", full)
        with pytest.raises(NoSpace, match="r_figures: the disk is full"):
            report(config)
    with monkeypatch.context() as patched:
        patched.setattr("hpc.stage.publish_json", full)
        with pytest.raises(NoSpace, match="r.html: the disk is full"):
            draw(run_copy)
    assert [path.name for path in tmp_path.glob("*r*_*") if path != run_copy] == []
    draw(run_copy)


def test_the_same_run_gives_the_same_figures(whole_run, tmp_path, made):
    report(ReportConfig(run=whole_run, out=tmp_path / "r.html"))
    for path in figures_folder(made[2]).iterdir():
        assert path.read_bytes() == (tmp_path / "r_figures" / path.name).read_bytes(), path.name


def test_preview_names_stages_and_places(whole_run, tmp_path):
    lines = "\n".join(preview(ReportConfig(run=whole_run, out=tmp_path / "r.html")))
    assert re.search("loci multivariate +done", lines) and "planted loci: known" in lines and "r_figures" in lines
