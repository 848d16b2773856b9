"""The section of `udipdist compare`: several networks on one cohort."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from hpc.errors import InputError
from hpc.stage import read_manifest
from udipdist.config.analyses import MINP
from udipdist.report.analysis import Analysis
from udipdist.report.collect import RunFolder, read_loci
from udipdist.report.figures.manhattan import Scan, miami
from udipdist.report.section import Album, Section, Table, count, fixed, number

# folder -> what its loci are of
_KINDS = {"loci": "the smallest p over latents", "loci_multivariate": "the joint test of all latents"}


def networks(run: RunFolder, album: Album) -> Section | None:
    """What each network found, what the others did not, and the first two above each other."""
    section = Section("networks", "Networks compared")
    path = run.path / "networks" / "networks.json"
    if not path.exists():
        return None
    tree = _read(path)
    section.lead = (
        "All networks were trained on the same scans and tested in the same people with the same covariates. The "
        "smallest p depends on how a network rotates its latents; the joint test does not. Novel loci are not in the "
        "panel of known ones."
    )
    section.add(_found(tree["networks"]))
    for folder, words in _KINDS.items():
        section.add(_overlap(tree["overlap"][folder], words))
    first, second = (_scan(run.path / row["folder"]) for row in tree["networks"][:2])
    names = tree["networks"][0]["name"], tree["networks"][1]["name"]
    figure = miami(first, second, names, run.null_chromosomes())
    caption = f"Smallest p over latents of {names[0]} (up) and {names[1]} (down)."
    section.add(album.add("networks", figure, caption, f"Manhattan plots of {names[0]} and {names[1]}"))
    section.add(_one_by_one(run.path / "networks" / "loci" / "loci_by_run.tsv", tree["networks"]))
    return section


def _found(rows: list[dict[str, Any]]) -> Table:
    columns = [
        "network",
        ">parameters",
        ">training, min",
        ">validation loss",
        ">SSIM",
        ">loci",
        ">novel",
        ">joint: loci",
    ]
    planted = all("loci_planted" in row for row in rows)
    if planted:
        columns += [">planted found", ">strict false", ">joint: planted", ">joint: false"]
    cells = []
    for row in rows:
        cell = [
            row["name"], count(row["parameters"]), number(row["train_seconds"] / 60), fixed(row.get("loss")),
            fixed(row.get("ssim")), count(row["loci"]), count(row["novel"]), count(row["loci_multivariate"]),
        ]  # fmt: skip
        for folder in _KINDS if planted else ():
            cell += [f"{row[f'{folder}_planted']} of {row[f'{folder}_planted_total']}", count(row[f"{folder}_false"])]
        cells.append(cell)
    caption = "Planted loci are known because the cohort is simulated; strict false leads are where nothing acts."
    return Table(columns, cells, caption=caption if planted else "")


def _overlap(pairs: list[dict[str, Any]], words: str) -> Table:
    rows = [
        (
            f"{pair['run_a']} and {pair['run_b']}", count(pair["shared"]), count(pair["n_a"] - pair["shared_a"]),
            count(pair["n_b"] - pair["shared_b"]), count(pair["union"]), fixed(pair["jaccard"], 2),
        )
        for pair in pairs
    ]  # fmt: skip
    columns = ("networks", ">shared", ">only the first", ">only the second", ">union", ">Jaccard")
    return Table(columns, rows, caption=f"Overlap of the loci of {words}; loci that intersect count as one.")


def _scan(folder: Path) -> Scan:
    """With the threshold that `loci` used."""
    manifest = read_manifest(folder / "loci") or {"facts": {}}
    return Analysis.open(folder / "gwas", MINP).scan(
        manifest["facts"].get("threshold_log10p"), read_loci(folder / "loci")
    )


def _one_by_one(path: Path, rows: list[dict[str, Any]]) -> Table:
    """Unions of loci, with the lead SNPs of each network. The table has a column a network, in this order."""
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    cells = [
        (chrom, f"{int(start):,}", f"{int(end):,}", *leads)
        for _, _, chrom, start, end, _, *leads in table.itertuples(index=False)
    ]
    columns = ("chr", ">start", ">end", *(row["name"] for row in rows))
    return Table(columns, cells, folded=f"{len(cells)} loci, one by one")


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        wanted = [row["folder"] for row in tree["networks"]], [tree["overlap"][folder] for folder in _KINDS]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error!r}); run `udipdist compare` again") from None
    if len(wanted[0]) < 2:
        raise InputError(f"{path}: holds fewer than two networks; run `udipdist compare` again")
    return tree
