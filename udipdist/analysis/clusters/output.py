"""What one analysis writes: its clusters and their names, all similarities, the tree, and the picture of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from udipdist.analysis.clusters import figures, leads, naming, tree
from udipdist.config.clusters import DIRECTION
from udipdist.figures.style import save
from udipdist.genome import assemblies

CLUSTERS, NAMES, SIMILARITY, TREE, PICTURE = "clusters.tsv", "names.tsv", "similarity.tsv", "tree.nwk", "tree"
_DOTS_PER_INCH = 200


@dataclass(frozen=True)
class Grown:
    """The tree of one analysis. `table` has a row a lead in the order of the genome, with cluster and support;
    `supported` is the share of the bootstrap `trees` from which a clade counts as supported; `corrected_LL` is None
    for the published method."""

    name: str
    tree: np.ndarray
    support_C: np.ndarray
    supported: float
    trees: int
    table: pd.DataFrame
    similarity_LL: np.ndarray
    corrected_LL: np.ndarray | None
    facts: dict[str, Any]

    @property
    def distance(self) -> str:
        """What the height of the tree is."""
        return "1 - cos" if self.corrected_LL is None else "1 - |cos|"


def write_analysis(folder: Path, one: Grown, regions: pd.DataFrame | None) -> str:
    """Write the tables, the tree and the picture; returns the picture's caption. `regions`: see naming.read_regions."""
    named = naming.describe(one.table, one.similarity_LL, one.corrected_LL, regions)
    labels = leads.labels(one.table)
    drawn = figures.Drawn(one.tree, labels, one.table["cluster"].to_numpy(), one.support_C, one.supported, one.distance)
    shown = one.table.assign(chrom=[assemblies.label(code) for code in one.table["chrom"]]).iloc[drawn.order]
    columns = ["snp", "locus", "loci", "chrom", "position", *(["gene"] if "gene" in shown else [])]
    write_table(folder / CLUSTERS, shown[[*columns, "cluster", "support", "reliability", "chi2"]])
    write_table(folder / NAMES, named)
    write_table(folder / SIMILARITY, _pairs(one, drawn.order))
    (folder / TREE).write_text(tree.newick(one.tree, labels, one.support_C) + "\n", encoding="utf-8")
    titles = {int(row.cluster): getattr(row, "region", "") or f"cluster {row.cluster}" for row in named.itertuples()}
    save_picture(figures.heat_map(drawn, one.similarity_LL, one.corrected_LL, titles), folder / PICTURE)
    return _caption(one)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Tab-separated, NA where nothing is known."""
    table.to_csv(path, sep="\t", index=False, float_format="%.6g", na_rep="NA")


def save_picture(figure: Figure, path: Path) -> None:
    """Write `path`.png and `path`.pdf."""
    save(figure, path.with_name(f"{path.name}.png"), _DOTS_PER_INCH, ".png")
    save(figure, path.with_name(f"{path.name}.pdf"))


def _pairs(one: Grown, order: np.ndarray) -> pd.DataFrame:
    """similarity.tsv: all pairs, in the order of the tree."""
    i, j = (order[place] for place in np.triu_indices(len(order), 1))
    snp, cluster = one.table["snp"].to_numpy(), one.table["cluster"].to_numpy()
    table = pd.DataFrame({"snp_a": snp[i], "snp_b": snp[j], "similarity": one.similarity_LL[i, j]})
    if one.corrected_LL is not None:
        table["corrected"] = one.corrected_LL[i, j]
    return table.assign(same_cluster=((cluster[i] == cluster[j]) & (cluster[i] != tree.ALONE)).astype(int))


def _caption(one: Grown) -> str:
    facts = one.facts
    how = (
        "cos of the effects on the latents, with their signs, as published"
        if one.corrected_LL is None
        else "|cos| of the effects on the latents in units of their joint error (below the diagonal free of noise; "
        "grey: a direction is lost in errors)"
    )
    rule = (
        f"the two sides of every join point the same way (|cos| free of noise at least {facts['least']:.2f}), and "
        "those of the last join more so than errors do by chance"
        if facts["cut"] == DIRECTION
        else f"{one.supported:.0%} of the bootstrap trees have the clade"
    )
    return (
        f"Directions of {facts['leads']} lead SNPs: {how}, and their tree by average linkage. Dots: clades that "
        f"{one.supported:.0%} of {one.trees:,} bootstrap trees have. Frames: {facts['clusters']} clusters, in which "
        f"{rule}."
    )
