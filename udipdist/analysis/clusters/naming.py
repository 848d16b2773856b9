"""What clusters are called: the region of the brain that the maps of their SNPs rank first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hpc.errors import InputError
from udipdist.loci import intervals

_COLUMNS = {"directions.tsv": ("name", "kind", "snp"), "regions.tsv": ("direction", "region", "score", "q")}


def read_regions(folder: Path) -> pd.DataFrame:
    """Of each SNP whose map `interpret perturb` made the score of every region: snp, region, score. Raises InputError
    where the folder is another, or has no maps of SNPs or no regions."""
    tables = {}
    for name, columns in _COLUMNS.items():
        path = folder / name
        if not path.is_file():
            raise InputError(
                f"{path}: does not exist; give maps= the folder that `udipdist interpret perturb` wrote with loci= and "
                "an atlas"
            )
        tables[name] = intervals.read(path)
        lacks = [column for column in columns if column not in tables[name]]
        if lacks:
            raise InputError(
                f"{path}: lacks the column {lacks[0]}; give maps= the folder of interpret perturb with loci="
            )
    directions, regions = tables.values()
    of_snps = directions.loc[directions["kind"] == "snp", ["name", "snp"]]
    joined = regions.merge(of_snps, left_on="direction", right_on="name")
    joined["score"] = pd.to_numeric(joined["score"], errors="coerce")
    return joined[["snp", "region", "score"]].dropna()


def first_region(regions: pd.DataFrame, snps: list[str]) -> tuple[str, float, int]:
    """The region with the highest mean score over the maps of `snps`, that score, and how many of them have a map;
    "" and NaN where none has."""
    own = regions[regions["snp"].isin(snps)]
    if own.empty:
        return "", float("nan"), 0
    mean = own.groupby("region")["score"].mean()
    return str(mean.idxmax()), float(mean.max()), own["snp"].nunique()


def describe(
    leads: pd.DataFrame, similarity_LL: np.ndarray, corrected_LL: np.ndarray | None, regions: pd.DataFrame | None
) -> pd.DataFrame:
    """A row a cluster of `leads` (snp, cluster, support): cluster, n_snps, snps, support, similarity and corrected
    (means over its pairs), and region, region_score, maps where there are maps."""
    rows = []
    for cluster, group in leads[leads["cluster"] > 0].groupby("cluster"):
        inside = group.index.to_numpy()
        pairs = tuple(inside[i] for i in np.triu_indices(len(inside), 1))
        row = {
            "cluster": cluster,
            "n_snps": len(inside),
            "snps": ";".join(group["snp"]),
            "support": group["support"].iloc[0],
            "similarity": similarity_LL[pairs].mean(),
        }
        if corrected_LL is not None:
            known = corrected_LL[pairs][np.isfinite(corrected_LL[pairs])]
            row["corrected"] = known.mean() if len(known) else np.nan
        if regions is not None:
            row |= dict(zip(("region", "region_score", "maps"), first_region(regions, list(group["snp"])), strict=True))
        rows.append(row)
    columns = ["cluster", "n_snps", "snps", "support", "similarity"]
    columns += [] if corrected_LL is None else ["corrected"]
    columns += [] if regions is None else ["region", "region_score", "maps"]
    return pd.DataFrame(rows, columns=columns)
