"""The BIG40 panel: 692 replicated clusters of brain imaging associations (Smith et al. 2021, Nature Neuroscience).

`data/big40` ships with the package; `derive` and `derive_places` are how it was made, from the tables named in
`data/big40/PROVENANCE.txt`.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

import pandas as pd

FOLDER = files("udipdist.loci") / "data" / "big40"
BUILD = "GRCh37"  # of the clusters
CLUSTERS, PLACES = FOLDER / "clusters.tsv", FOLDER / "places.tsv"


def load() -> pd.DataFrame:
    """The 692 clusters: chrom, start, end (base pairs, GRCh37, members' smallest and largest position), lead, n."""
    with CLUSTERS.open(encoding="utf-8") as file:
        return pd.read_csv(file, sep="\t", dtype={"chrom": "str", "lead": "str"})


@cache
def places() -> pd.DataFrame:
    """Where its SNPs are: rsid, chrom (code, X = 23), position_GRCh37, position_GRCh38 (0: not known here)."""
    with PLACES.open(encoding="utf-8") as file:
        return pd.read_csv(file, sep="\t", dtype={"rsid": "str"})


def derive(folder: str | Path) -> pd.DataFrame:
    """The clusters from Table1.txt (associations: SNP, phenotype, position) and Table2.txt (clusters of them).

    Table 2 names a cluster's lead association and its other members as pairs of SNP and phenotype, so lines have
    different lengths. Replicated clusters are those with cluster_nominal > 0. `n` counts associations.
    """
    folder = Path(folder)
    associations = _associations(folder)
    at = {
        (row.rsid, row.pheno): (row.chr.lstrip("0"), int(row.pos))
        for row in associations[["rsid", "pheno", "chr", "pos"]].itertuples()
    }
    rows = []
    for line in (folder / "Table2.txt").read_text(encoding="utf-8").splitlines()[1:]:
        lead, phenotype, _, chrom, position, nominal, *others = line.split()
        if int(nominal) <= 0:
            continue
        members = [(lead, phenotype), *zip(others[::2], others[1::2], strict=True)]
        chroms, positions = zip(*(at[member] for member in members), strict=True)
        if set(chroms) != {chrom.lstrip("0")} or int(position) not in positions:
            raise AssertionError(f"{lead} {phenotype}: the two tables disagree on its place")
        rows.append((chroms[0], min(positions), max(positions), lead, len(members)))
    return pd.DataFrame(rows, columns=["chrom", "start", "end", "lead", "n"])


def derive_places(folder: str | Path, grch38: pd.DataFrame) -> pd.DataFrame:
    """The table of `places`: the rsIDs of Table1.txt with its positions, and those of `grch38` (rsid, position)."""
    table = _associations(Path(folder))[["rsid", "chr", "pos"]]
    table = table[table.rsid.str.fullmatch(r"rs\d+")].drop_duplicates("rsid")
    there = grch38.drop_duplicates("rsid").set_index("rsid").position
    result = pd.DataFrame(
        {
            "rsid": table.rsid,
            "chrom": table.chr.str.lstrip("0").replace("X", "23").astype(int),
            "position_GRCh37": table.pos.astype(int),
            "position_GRCh38": table.rsid.map(there).fillna(0).astype(int),
        }
    )
    return result.sort_values(["chrom", "position_GRCh37", "rsid"], ignore_index=True)


def _associations(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "Table1.txt", sep=" ", dtype=str)
