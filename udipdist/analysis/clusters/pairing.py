"""Two analyses compared: trees of the loci that both have, how alike they are, and the tanglegram."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpc.errors import InputError
from udipdist.analysis.clusters import agreement, figures, leads, tree
from udipdist.analysis.clusters.output import Grown, save_picture, write_table
from udipdist.genome import assemblies

MATCHED, MEASURES, PARTITIONS, CLADES = "matched.tsv", "agreement.tsv", "partitions.tsv", "clades.tsv"
TANGLEGRAM = "tanglegram"
SURE = 0.05  # q of a clade that both trees have
_NO_SUPPORT = 2.0  # no clade of a tree without bootstrap is marked


@dataclass(frozen=True)
class Pair:
    """Two analyses. `row_K2`: the rows of their tables that are of the same locus; `drawn`: the trees of these."""

    analyses: tuple[Grown, Grown]
    row_K2: np.ndarray
    drawn: tuple[figures.Drawn, figures.Drawn]
    result: agreement.Agreement
    facts: dict[str, Any]

    @property
    def tables(self) -> list[pd.DataFrame]:
        """The rows of both tables, a row a shared locus."""
        return [one.table.iloc[rows].reset_index(drop=True) for one, rows in self.each()]

    def each(self) -> list[tuple[Grown, np.ndarray]]:
        """Each analysis with its rows [K]."""
        return list(zip(self.analyses, self.row_K2.T, strict=True))


def pair(one: Grown, other: Grown, reach: int, permutations: int, seed: int) -> Pair:
    """Trees of the leads of shared loci (see leads.match), each analysis with its own SNP there. Raises InputError
    where they are too few."""
    row_K2 = leads.match(one.table, other.table, reach)
    if len(row_K2) < agreement.FEWEST:
        raise InputError(
            f"{one.name} and {other.name} share {len(row_K2)} loci, and two trees need {agreement.FEWEST} to be "
            "compared; give a larger match_bp=, or loci with more in common"
        )
    each = list(zip((one, other), row_K2.T, strict=True))
    similarities = tuple(own.similarity_LL[np.ix_(rows, rows)] for own, rows in each)
    trees = figures.untangled(*(tree.grow(similarity) for similarity in similarities))
    result = agreement.compare(trees, similarities, permutations, seed)
    cluster_K = [own.table["cluster"].to_numpy()[rows] for own, rows in each]
    drawn = tuple(
        figures.Drawn(
            grown,
            [leads.labels(own.table)[row] for row in rows],
            cluster_K[0],
            np.zeros(len(grown)),
            _NO_SUPPORT,
            own.distance,
        )
        for grown, (own, rows) in zip(trees, each, strict=True)
    )
    rand = {"measure": "clusters_ari", "value": _rand(*cluster_K), "p": np.nan}
    result = replace(result, measures=pd.concat([result.measures, pd.DataFrame([rand])], ignore_index=True))
    return Pair((one, other), row_K2, drawn, result, _facts(one, other, result))


def write_pair(folder: Path, found: Pair, permutations: int) -> str:
    """Write the shared loci, the measures, the partitions, the clades and the tanglegram; returns its caption."""
    a, b = found.tables
    matched = {"chrom": [assemblies.label(code) for code in a["chrom"]]}
    for side, table in (("a", a), ("b", b)):
        matched |= {f"{column}_{side}": table[column] for column in ("locus", "snp", "position", "cluster")}
    write_table(folder / MATCHED, pd.DataFrame(matched))
    write_table(folder / MEASURES, found.result.measures)
    write_table(folder / PARTITIONS, found.result.partitions)
    write_table(folder / CLADES, _clades(found))
    one, other = found.analyses
    shared = len(found.row_K2)
    values = found.result.measures.set_index("measure")
    said = (
        f"cophenetic r {values.loc['cophenetic_r', 'value']:.2f} (Mantel p {values.loc['cophenetic_r', 'p']:.2g}), "
        f"Baker's gamma {values.loc['bakers_gamma', 'value']:.2f}, {shared} shared loci"
    )
    picture = figures.tanglegram(*found.drawn, found.result.partitions, (one.name, other.name), said)
    save_picture(picture, folder / TANGLEGRAM)
    return (
        f"The trees of {one.name} and {other.name}, of the {shared} loci that both have; lines join a locus with "
        f"itself; colours are those of the clusters in {one.name} (grey: alone). Below: how alike partitions into k "
        f"clusters are, and what {permutations:,} trees with shuffled leaves give."
    )


def _facts(one: Grown, other: Grown, result: agreement.Agreement) -> dict[str, Any]:
    """Measures and their p by name, None where one is not defined; and counts."""
    shared = len(result.partitions) + 2
    facts: dict[str, Any] = {"shared_loci": shared, "only": [len(own.table) - shared for own in (one, other)]}
    for name, value, p in result.measures.itertuples(index=False):
        facts |= {name: None if np.isnan(value) else float(value), f"{name}_p": None if np.isnan(p) else float(p)}
    return facts | {"shared_clades": int((result.shared["q"] < SURE).sum())}


def _rand(one_K: np.ndarray, other_K: np.ndarray) -> float:
    """The adjusted Rand index of two clusterings, in which those that are alone are a cluster each."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(_apart(one_K), _apart(other_K)))


def _clades(found: Pair) -> pd.DataFrame:
    """clades.tsv: each clade of the first tree, the most alike of the second, and their SNPs."""
    shared = found.result.shared
    names = []
    for drawn in found.drawn:
        below = tree.members(drawn.tree)[len(drawn.names) :]
        names.append([";".join(drawn.names[leaf] for leaf in leaves) for leaves in below])
    return shared.assign(
        leads=[names[0][row] for row in shared["row"]], other_leads=[names[1][row] for row in shared["other_row"]]
    ).drop(columns=["row", "other_row"])


def _apart(cluster_L: np.ndarray) -> np.ndarray:
    """Clusters with a number of its own for every lead that is alone."""
    return np.where(cluster_L == tree.ALONE, -1 - np.arange(len(cluster_L)), cluster_L)
