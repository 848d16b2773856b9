"""The section about diagnoses that the latents tell."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hpc.stage import MANIFEST
from udipdist.analysis.phewas.verb import phewas
from udipdist.config import PhewasConfig
from udipdist.report import phewas as sections
from udipdist.report.collect import RunFolder
from udipdist.report.section import Album, Picture, Table


@pytest.fixture
def tested(run_copy, tmp_path):
    """A run with a PheWAS of two phecodes, of which one is told."""
    rng, n = np.random.default_rng(0), 600
    people = pd.DataFrame({"FID": [f"F{i}" for i in range(n)], "IID": [f"I{i}" for i in range(n)]})
    z = rng.standard_normal((n, 3))
    pd.concat([people, pd.DataFrame(z).add_prefix("z")], axis=1).to_parquet(tmp_path / "z.parquet")
    people.assign(**{"008": (z[:, 1] > 0.5) * 1, "401": (rng.random(n) < 0.3) * 1, "402": 0}).to_csv(
        tmp_path / "p.tsv", sep="\t", index=False
    )
    keys = {"latents": tmp_path / "z.parquet", "phecodes": tmp_path / "p.tsv", "out": run_copy / "phewas"}
    phewas(PhewasConfig.parse(keys))
    return run_copy


def section_of(run, album):
    album.mkdir(exist_ok=True)
    return sections.phewas(RunFolder.open(run), Album(album))


def test_picture_counts_and_tables_are_shown(tested, tmp_path):
    section = section_of(tested, tmp_path / "album")
    assert [tile.value for tile in section.tiles] == ["600", "2", "1"]
    (picture,) = [part for part in section.parts if isinstance(part, Picture)]
    assert picture.name == "phewas_qq_z" and picture.chart
    counts, *others = [part for part in section.parts if isinstance(part, Table)]
    assert counts.rows[0][:3] == ("z", "2", "1") and len(others) == 3
    assert "008" in {row[1] for row in others[0].rows}


def test_unfinished_and_absent(tested, tmp_path):
    (tested / "phewas" / MANIFEST).unlink()
    assert section_of(tested, tmp_path / "a") is None or "not finished" in section_of(tested, tmp_path / "a").missing
