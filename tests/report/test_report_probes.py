"""The section about what can be read from the latents."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hpc.stage import MANIFEST
from udipdist.analysis.probes.verb import probe
from udipdist.config import ProbeConfig
from udipdist.report import probes
from udipdist.report.collect import RunFolder
from udipdist.report.section import Album, Picture, Table


@pytest.fixture
def probed(run_copy, tmp_path):
    """A run with probes of a measurement and of yes and no."""
    rng, n = np.random.default_rng(0), 200
    people = pd.DataFrame({"FID": [f"F{i}" for i in range(n)], "IID": [f"I{i}" for i in range(n)]})
    z = rng.standard_normal((n, 3))
    pd.concat([people, pd.DataFrame(z).add_prefix("z")], axis=1).to_parquet(tmp_path / "<b>z.parquet")
    people.assign(x=z[:, 0], ill=(z[:, 1] > 0) * 1, same=1).to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    keys = {"latents": tmp_path / "<b>z.parquet", "targets": tmp_path / "t.tsv", "out": run_copy / "probe"}
    probe(ProbeConfig.parse(keys | {"workers": 0, "draws": 50}))
    return run_copy


def section_of(run, album):
    album.mkdir(exist_ok=True)
    return probes.probes(RunFolder.open(run), Album(album))


def test_means_picture_and_tables_are_shown(probed, tmp_path):
    section = section_of(probed, tmp_path / "album")
    assert [tile.value for tile in section.tiles] == ["200", "2", "1"]
    (picture,) = [part for part in section.parts if isinstance(part, Picture)]
    assert picture.name == "probe_probes" and picture.chart
    means, *others = [part for part in section.parts if isinstance(part, Table)]
    assert [row[1:4] for row in means.rows] == [("measurements", "1", "1"), ("yes or no", "1", "1")]
    assert all(float(row[4]) > 0.95 for row in means.rows) and len(others) == 2


def test_unfinished_and_absent(probed, run_copy, tmp_path):
    (probed / "probe" / MANIFEST).unlink()
    assert "has been started but is not finished" in section_of(probed, tmp_path / "a").missing


def test_without_probes_there_is_no_section(run_copy, tmp_path):
    assert section_of(run_copy, tmp_path / "a") is None
