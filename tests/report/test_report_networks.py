"""The section of `udipdist compare`, and the summary that it reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from hpc.errors import InputError
from hpc.files import publish_json, publish_text
from udipdist.compare import summary
from udipdist.config import CompareConfig, TrainConfig
from udipdist.loci.across_runs import OVERLAP_COLUMNS
from udipdist.report.collect import RunFolder
from udipdist.report.networks import networks
from udipdist.report.section import Album

OVERLAP = ("minp", "run", "CNN", 2, 1, 1, 1, 2, 1, 0.5, 0.9)


@pytest.fixture
def compared(run_copy) -> Path:
    """The run folder with a second network that found the first of the two loci."""
    second = run_copy / "networks" / "CNN"
    for name in ("train", "gwas", "loci", "loci_multivariate", "panel"):
        shutil.copytree(run_copy / name, second / name)
    for place, name in ((run_copy, "vit_ae"), (second, "cnn_ae")):
        recipe = TrainConfig.parse({"store": "s", "run_dir": "r", "model": {"name": name}})
        publish_text(place / "train" / "config.yaml", recipe.yaml())
    shutil.copy(second / "loci_multivariate" / "loci.parquet", second / "loci" / "loci.parquet")
    for folder in ("loci", "loci_multivariate"):
        place = run_copy / "networks" / folder
        place.mkdir()
        pd.DataFrame([OVERLAP], columns=list(OVERLAP_COLUMNS)).to_csv(place / "overlap.tsv", sep="\t", index=False)
        head = "analysis\tunion\tchrom\tstart\tend\tn_runs\trun\tCNN\n"
        rows = "minp\t1\t1\t2970000\t3060000\t2\trs1\trs1\nminp\t2\t2\t3010000\t3010000\t1\trs<2>\t\n"
        (place / "loci_by_run.tsv").write_text(head + rows)
    tree = {"out": str(run_copy), "volumes": "v", "genotypes": "g", "networks": {"ViT": {}, "CNN": {}}}
    publish_json(run_copy / "networks" / "networks.json", summary(CompareConfig.parse(tree)))
    return run_copy


def section(run: Path, folder: Path):
    folder.mkdir(exist_ok=True)
    return networks(RunFolder.open(run), Album(folder))


def test_the_summary_names_the_networks(compared):
    tree = json.loads((compared / "networks" / "networks.json").read_text())
    first, second = tree["networks"]
    assert (first["name"], first["network"], first["folder"]) == ("ViT", "vit_ae", ".")
    assert (second["name"], second["network"], second["folder"]) == ("CNN", "cnn_ae", "networks/CNN")
    assert (first["loci"], second["loci"], first["loci_multivariate"], first["novel"]) == (2, 1, 1, 1)
    assert first["parameters"] == 1234 and first["ssim"] == 0.7
    (pair,) = tree["overlap"]["loci"]
    assert (pair["run_a"], pair["run_b"], pair["shared"], pair["jaccard"]) == ("ViT", "CNN", 1, 0.5)


def test_the_section_shows_loci_novel_ones_and_overlap(compared, tmp_path):
    made = section(compared, tmp_path / "album")
    found, loci, joint, picture, each = made.parts
    assert found.columns[-3:] == [">loci", ">novel", ">joint: loci"]
    assert [row[0] for row in found.rows] == ["ViT", "CNN"] and found.rows[0][-3:] == ["2", "1", "1"]
    assert loci.rows == joint.rows == [("ViT and CNN", "1", "1", "0", "2", "0.50")]
    assert picture.name == "networks" and "ViT (up) and CNN (down)" in picture.caption
    assert each.rows[1] == ("2", "3,010,000", "3,010,000", "rs<2>", "") and each.columns[3:] == ("ViT", "CNN")


def test_one_network_is_not_compared(run_copy, tmp_path):
    assert section(run_copy, tmp_path / "album") is None


@pytest.mark.parametrize("text", ["{", "{}", '{"networks": [{"folder": "."}], "overlap": {"loci": []}}'])
def test_a_damaged_summary_is_refused(compared, tmp_path, text):
    path = compared / "networks" / "networks.json"
    path.write_text(text)
    with pytest.raises(InputError, match="networks.json: .* run `udipdist compare` again"):
        section(compared, tmp_path / "album")
