"""The page of a sweep: its sections and figures, hostile names, what is not there yet, what is broken."""

from __future__ import annotations

import html
import json
import re
import sys
from pathlib import Path

import pytest

from hpc.errors import InputError
from hpc.stage import read_manifest
from udipdist.config import ReportConfig
from udipdist.report import page
from udipdist.sweep import results

sys.path.insert(0, str(Path(__file__).parents[1] / "sweep"))
import fake_sweep as fake

HOSTILE = "<script>alert(1)</script>$\\frac{1}$"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A sweep with a trial that failed and a configuration with a hostile name, and its page; do not change it."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    fake.whole(out)
    made = fake.trial(out, 9, HOSTILE.replace("/", ""), 1)
    fake.look(made.folder / "epochs", 1, [5], seed=1)
    results.write(out)
    return out


def test_the_page_has_every_section_and_its_figures(written):
    text = (written / "report.html").read_text()
    assert re.findall(r'<section id="(\w+)">', text) == ["table1", "epochs", "agreement", "trials", "best"]
    assert 'class="missing"' not in text
    figures = ["sweep_agreement", "sweep_epochs", "sweep_loci"]
    assert sorted(path.stem for path in (written / "report_figures").glob("*.png")) == figures
    assert sorted(path.stem for path in (written / "report_figures").glob("*.pdf")) == figures
    assert read_manifest(written / "report.html")["facts"]["missing"] == []


def test_the_page_shows_table_1_the_spread_and_the_floor(written):
    text = html.unescape((written / "report.html").read_text())
    row = re.search(r"<tr><td>cosine</td>.*?</tr>", text, re.DOTALL)[0]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
    assert cells[3:11] == ["2", "0.2000", "0.500", "5", "4.5 \u00b1 0.7", "2", "3", "2.5 \u00b1 0.7"]
    assert cells[-1] == "3 of 6"
    assert "<td>untrained</td>" in text
    assert "<dd>5</dd><dt>loci of the best look</dt>" in text


def test_the_page_shows_the_log_of_a_failed_trial_and_the_best_one(written):
    text = html.unescape((written / "report.html").read_text())
    assert "step-seed3 failed: out of <memory>" in text
    assert "RuntimeError: out of <memory>" in text
    assert "cosine-seed2 at epoch 3" in text
    assert "/best/train.yaml" in text


def test_names_are_escaped(written):
    text = (written / "report.html").read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_sweep_without_a_look_says_so(tmp_path):
    out = tmp_path / "out"
    fake.begin(out)
    fake.trial(out, 0, "step", 1, "failed")
    results.write(out)
    assert read_manifest(out / "report.html")["facts"]["missing"] == ["table1", "epochs", "agreement", "best"]
    assert "No trial has come to its first look yet" in (out / "report.html").read_text()


def test_a_dry_run_says_that_it_is_a_sweep(written, tmp_path):
    config = ReportConfig(run=written, out=tmp_path / "page.html")
    assert page.preview(config) == [f"a sweep: {written}", f"writes {config.out} and {tmp_path / 'page_figures'}"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("sweep.json", "{", "sweep.json: does not describe a sweep"),
        ("sweep.json", json.dumps({"trials": 1}), "sweep.json: does not describe a sweep .KeyError.'objective'"),
        ("curves.tsv", "trial\tepoch\n", "curves.tsv: lacks the columns configuration, pass, loci"),
        ("overlap.tsv", None, "overlap.tsv: cannot be read"),
    ],
)
def test_a_broken_table_is_named(tmp_path, name, text, message):
    out = tmp_path / "out"
    fake.whole(out)
    results.write_tables(out)
    (out / name).unlink()
    if text is not None:
        (out / name).write_text(text)
    with pytest.raises(InputError, match=message):
        page.report(ReportConfig(run=out, out=tmp_path / "page.html"))
