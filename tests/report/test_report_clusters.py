"""The section about SNP directions."""

from __future__ import annotations

import json

import pytest

from hpc.files import publish_json
from hpc.stage import MANIFEST
from tests.analysis.planted import plant
from udipdist.analysis.clusters.verb import clusters as cluster
from udipdist.config import ClustersConfig
from udipdist.report import clusters, cost, interpretation
from udipdist.report.collect import RunFolder
from udipdist.report.page import render
from udipdist.report.section import Album, Picture, Table


@pytest.fixture
def clustered(run_copy, tmp_path):
    """A run with clusters, and their score."""
    study = plant(tmp_path)
    cluster(ClustersConfig(sumstats=[study.gwas], loci=[study.loci], out=run_copy / "clusters", trees=20))
    tree = json.loads((run_copy / "comparison.json").read_text())
    tree["clusters"] = [
        {"name": "<b>A", "clusters": 3, "leads": 12, "ari": 0.976, "leads_one_factor": 9, "ari_one_factor": None}
    ]
    publish_json(run_copy / "comparison.json", tree)
    return run_copy


def section_of(run, album):
    album.mkdir(exist_ok=True)
    return clusters.clusters(RunFolder.open(run), Album(album))


def test_tree_clusters_and_score_are_shown(clustered, tmp_path):
    section = section_of(clustered, tmp_path / "album")
    assert [(tile.value, tile.label) for tile in section.tiles][:2] == [
        ("3", "clusters"),
        ("12 of 12", "lead SNPs in a cluster"),
    ]
    (picture,) = [part for part in section.parts if isinstance(part, Picture)]
    assert picture.name == "clusters_tree" and picture.caption.startswith("Directions of 12 lead SNPs")
    assert {path.name for path in (tmp_path / "album").iterdir()} == {"clusters_tree.png", "clusters_tree.pdf"}
    score, names, *others = [part for part in section.parts if isinstance(part, Table)]
    assert score.rows == [("<b>A", "3", "12", "0.98", "9", "\u2013")]
    assert names.folded == "" and len(names.rows) == 3 and all(table.folded for table in others)
    assert "&lt;b&gt;A" in render("t", clustered, [section])


def test_it_is_no_look_into_the_network_but_is_counted(clustered, tmp_path):
    run = RunFolder.open(clustered)
    (tmp_path / "album").mkdir()
    assert interpretation.interpretation(run, Album(tmp_path / "album")) is None
    assert "interpret clusters" in [row[0] for row in cost.cost(run, Album(tmp_path / "album")).parts[0].rows]


def test_unfinished(clustered, tmp_path):
    (clustered / "clusters" / MANIFEST).unlink()
    assert "has been started but is not finished" in section_of(clustered, tmp_path / "a").missing


def test_without_clusters_there_is_no_section(run_copy, tmp_path):
    assert section_of(run_copy, tmp_path / "a") is None
