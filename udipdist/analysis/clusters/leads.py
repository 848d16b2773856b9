"""Lead SNPs of loci folders, checked against the summary statistics that they are of, and matched between analyses.

A table of leads has a row a SNP: locus (its number in its folder), loci (the folder's name), folder (its number, from
0), chrom (code of genome.assemblies), start, end (of the locus), position, snp, unique_id.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpc.errors import InputError
from hpc.stage import fingerprint, read_manifest, same_content
from udipdist.genome import assemblies
from udipdist.loci import fuma, intervals
from udipdist.loci.across_runs import unions
from udipdist.sumstats.store import STORE

log = logging.getLogger(__name__)
FEWEST = 3  # leads of a tree


def read_leads(folders: Sequence[Path], every: bool) -> tuple[pd.DataFrame, int]:
    """The leads of one or several loci folders in the order of the genome, and how many were left out because a folder
    named before has a locus that overlaps theirs. `every`: all lead SNPs, otherwise one a locus. Raises InputError."""
    tables = [_of_folder(folder, every).assign(folder=number) for number, folder in enumerate(folders)]
    table = pd.concat(tables, ignore_index=True)
    if len(folders) > 1 and len(table):
        union = unions(*(table[name].to_numpy() for name in ("chrom", "start", "end")))
        first = table.groupby(union)["folder"].transform("min")
        kept = table[table["folder"] == first]
    else:
        kept = table
    return kept.sort_values(["chrom", "position", "snp"], ignore_index=True), len(table) - len(kept)


def check_same_analysis(loci: Path, sumstats: Path) -> None:
    """Refuse loci that were found in other summary statistics, by the manifests of both. Loci of FUMA, which have none,
    are taken, and that is logged. Raises InputError."""
    manifest = _manifest(loci)
    if manifest is None:
        log.warning("%s: has no manifest, so nothing tells whether these loci were found in %s", loci, sumstats)
        return
    made_of = [seen for key, seen in manifest["inputs"].items() if key.split()[0] == "sumstats"]
    ours = [fingerprint(path) for path in (sumstats, sumstats / STORE) if path.exists()]
    if not any(same_content(seen, own) for seen in made_of for own in ours):
        others = ", ".join(str(seen.get("path")) for seen in made_of) or "something else"
        raise InputError(
            f"{loci}: these loci were found in {others}, not in {sumstats} as it is now; give loci= the folder that "
            f"`udipdist loci sumstats={sumstats}` wrote, or sumstats= the one that the loci are of"
        )


def match(one: pd.DataFrame, other: pd.DataFrame, reach: int) -> np.ndarray:
    """Rows of two tables of leads that are of the same locus [pairs, 2]: their loci overlap, or their SNPs are within
    `reach` base pairs. Of several in one stretch of the genome the two nearest SNPs are the pair."""
    both = pd.concat([one.assign(side=0, row=range(len(one))), other.assign(side=1, row=range(len(other)))])
    start = np.minimum(both["start"], both["position"] - reach // 2)
    end = np.maximum(both["end"], both["position"] + reach // 2)
    stretch = unions(both["chrom"].to_numpy(), start.to_numpy(), end.to_numpy())
    pairs = []
    for _, group in both.groupby(stretch):
        a, b = (group[group["side"] == side] for side in (0, 1))
        if len(a) and len(b):
            apart = np.abs(a["position"].to_numpy()[:, None] - b["position"].to_numpy())
            i, j = np.unravel_index(int(apart.argmin()), apart.shape)
            pairs.append((int(a["row"].iloc[i]), int(b["row"].iloc[j])))
    return np.array(pairs, np.int64).reshape(-1, 2)


def labels(table: pd.DataFrame) -> list[str]:
    """What a lead is called in figures and trees: its nearest gene where that is known, otherwise its id; where several
    would be called the same, with its place."""
    genes = table["gene"] if "gene" in table else pd.Series("", index=table.index)
    names = [gene or snp for gene, snp in zip(genes, table["snp"], strict=True)]
    twice = pd.Series(names).duplicated(keep=False)
    places = [f"{assemblies.label(chrom)}:{at}" for chrom, at in zip(table["chrom"], table["position"], strict=True)]
    return [f"{name} {place}" if again else name for name, place, again in zip(names, places, twice, strict=True)]


def with_genes(table: pd.DataFrame, panel: Path) -> pd.DataFrame:
    """The table with the nearest gene of each locus of the first folder, of what `panel` wrote of it; "" for others.
    Raises InputError."""
    path = panel / "hits.tsv"
    if not path.is_file():
        raise InputError(f"{path}: does not exist; give panel= the folder that `udipdist panel` wrote (its out=)")
    hits = intervals.read(path)
    lacks = [name for name in ("locus", "nearest_gene") if name not in hits]
    if lacks:
        raise InputError(f"{path}: lacks the column {lacks[0]}; run panel with genes=, or leave panel= out")
    gene = dict(zip(hits["locus"].astype(str), hits["nearest_gene"].replace("NA", ""), strict=True))
    own = zip(table["locus"], table["folder"], strict=True)
    return table.assign(gene=["" if folder else gene.get(str(locus), "") for locus, folder in own])


def _of_folder(folder: Path, every: bool) -> pd.DataFrame:
    loci = _read(folder / fuma.LOCI, ("GenomicLocus", "uniqID", "rsID", "chr", "pos", "start", "end"))
    rows = loci
    if every:
        leads = _read(folder / fuma.LEADS, ("GenomicLocus", "uniqID", "rsID", "chr", "pos"))
        rows = leads.merge(loci[["GenomicLocus", "start", "end"]], on="GenomicLocus", how="left")
    table = pd.DataFrame({"snp": rows["rsID"], "unique_id": rows["uniqID"], "chrom": assemblies.codes(rows["chr"])})
    numbers = {"GenomicLocus": "locus", "pos": "position", "start": "start", "end": "end"}
    for column, name in numbers.items():
        values = pd.to_numeric(rows[column], errors="coerce")
        if values.isna().any():
            raise InputError(f"{folder}: {column} of {rows['rsID'][values.isna()].iloc[0]} is not a number; correct it")
        table[name] = values.astype(np.int64)
    return table.assign(loci=folder.name)


def _read(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: does not exist; give loci= the folder that `udipdist loci` wrote (its out=)")
    table = intervals.read(path)
    lacks = [name for name in columns if name not in table]
    if lacks:
        raise InputError(f"{path}: lacks the columns {', '.join(lacks)}; give the folder as `udipdist loci` wrote it")
    return table


def _manifest(loci: Path) -> dict[str, Any] | None:
    """The manifest of a loci folder, or of that around the folder of one of its runs or traits."""
    for place in (loci, loci.absolute().parent, loci.absolute().parent.parent):
        manifest = read_manifest(place)
        if manifest is not None and manifest.get("stage") == "loci":
            return manifest
    return None
