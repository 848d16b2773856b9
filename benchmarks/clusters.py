"""Are clusters of SNP directions those that were planted? `python -m benchmarks.clusters [--quick]`.

48 SNPs of six clades in 128 correlated latents, of several strengths, measured twice: the adjusted Rand index of the
tree cut into six, by the similarity of the registration paper (cosine of the effects, with signs), by its absolute
value, whitened, and whitened free of noise; that of our own clusters, which are not told how many there are, and of a
cut by support alone; how well the trees of the two measurements agree, which says little of being right; and how many
of 48 SNPs with unrelated directions our rule puts into clusters.

Without --quick also a simulated cohort (4,000 people, 60 planted loci): the association of its true factors (oracle)
and of 128 mixtures of these with noise in place of latents, the clusters of their lead SNPs, and the same as published.

The last line is one JSON object: cluster_ari (whitened) and cluster_ari_untold (our clusters), the smallest over the
strengths; cluster_ari_published (signed raw), the largest; cluster_false, the largest number of unrelated SNPs in
clusters; and of the cohort cluster_ari_oracle and cluster_ari_latents (loci of one factor; null with --quick).
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.cluster import hierarchy
from sklearn.metrics import adjusted_rand_score

from benchmarks.tables import rounded, show
from udipdist.analysis.clusters import tree
from udipdist.analysis.clusters.directions import Directions, Whitening, cosines
from udipdist.analysis.clusters.verb import clusters
from udipdist.cohort.score import cluster_ari
from udipdist.cohort.simulate import simulate
from udipdist.config import ClustersConfig, GwasConfig, LociConfig, SimulateConfig
from udipdist.gwas.scan.verb import gwas
from udipdist.loci.verb import loci

STRENGTHS = (60.0, 120.0, 300.0, 1000.0)  # |mean of w|^2, the non-centrality of the joint test
CLADES, EACH, LATENTS = 6, 8, 128
WITHIN = 0.9  # cosine of the effect of a SNP with that of its clade, so 0.81 between two SNPs of one
SPECTRUM = np.geomspace(1.0, 0.01, LATENTS)  # eigenvalues of the latents' covariance


def main() -> None:
    """Measure, print tables and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two draws of each strength, and no cohort")
    options = parser.parse_args()
    logging.getLogger("udipdist").setLevel(logging.ERROR)
    print(json.dumps(rounded(measure(options.quick))))


def measure(quick: bool) -> dict[str, Any]:
    """Print the tables; the numbers of the last line."""
    started = time.process_time()
    rows = [planted(strength, draws=2 if quick else 10, trees=100) for strength in STRENGTHS]
    show(f"{CLADES * EACH} SNPs of {CLADES} clades, {LATENTS} latents: adjusted Rand index", rows)
    summary = {
        "cluster_ari": min(row["whitened"] for row in rows),
        "cluster_ari_untold": min(row["own clusters"] for row in rows),
        "cluster_false": max(row["unrelated in clusters"] for row in rows),
        "cluster_ari_published": max(row["signed raw"] for row in rows),
        "cluster_ari_oracle": None,
        "cluster_ari_latents": None,
    }
    if not quick:
        with tempfile.TemporaryDirectory() as place:
            found = of_cohort(Path(place))
        show("a simulated cohort: adjusted Rand index of clusters with the planted factors", found)
        ours = {row["phenotypes"]: row["one factor"] for row in found if row["method"] == "whitened"}
        summary |= {"cluster_ari_oracle": ours["true factors"], "cluster_ari_latents": ours["mixtures with noise"]}
    return summary | {"cluster_seconds": time.process_time() - started}


def planted(strength: float, draws: int, trees: int) -> dict[str, Any]:
    """A row of the table: means over draws of six clades, each measured twice."""
    clade_L = np.repeat(np.arange(CLADES), EACH)
    rows = []
    for draw in range(draws):
        rng = np.random.default_rng([draw, int(strength)])
        whitening, sd_P = latents(rng)
        mean_Lq = np.sqrt(strength) * directions(clade_L, rng)
        two = [
            Directions.of((mean_Lq + rng.standard_normal(mean_Lq.shape)) @ whitening.colour_qP, sd_P, whitening)
            for _ in range(2)
        ]
        row = _row(clade_L, two, sd_P, trees)
        mean_Lq = np.sqrt(strength) * _unit(rng.standard_normal(mean_Lq.shape))
        z_LP = (mean_Lq + rng.standard_normal(mean_Lq.shape)) @ whitening.colour_qP
        unrelated = Directions.of(z_LP, sd_P, whitening)
        node_L, _ = tree.by_direction(unrelated, tree.grow(unrelated.similarity()), 0.5)
        rows.append(row | {"unrelated in clusters": int((node_L >= 0).sum())})
    means = pd.DataFrame(rows).mean()
    return {"strength": strength, "reliability": strength / (strength + LATENTS), **means.to_dict()}


def latents(rng: np.random.Generator) -> tuple[Whitening, np.ndarray]:
    """Whitening of correlated latents, and the standard errors of an effect, which are their standard deviations."""
    basis_PP = np.linalg.qr(rng.standard_normal((LATENTS, LATENTS)))[0]
    covariance_PP = (basis_PP * SPECTRUM) @ basis_PP.T
    return Whitening.of(covariance_PP), np.sqrt(np.diag(covariance_PP))


def directions(clade_L: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors [L, q] with the cosine WITHIN to that of their clade, and any sign."""
    base, own = (_unit(rng.standard_normal((n, LATENTS))) for n in (clade_L.max() + 1, len(clade_L)))
    sign_L = rng.choice([-1.0, 1.0], (len(clade_L), 1))
    return sign_L * _unit(WITHIN * base[clade_L] + np.sqrt(1 - WITHIN**2) * own)


def _row(clade_L: np.ndarray, two: list[Directions], sd_P: np.ndarray, trees: int) -> dict[str, float]:
    first = two[0]
    raw = [cosines((one.w_Lq @ one.whitening.colour_qP) * sd_P) for one in two]
    grown = {
        "signed raw": [tree.grow(similarity) for similarity in raw],
        "raw": [tree.grow(np.abs(similarity)) for similarity in raw],
        "whitened": [tree.grow(one.similarity()) for one in two],
        "free of noise": [tree.grow(np.nan_to_num(one.corrected())) for one in two],
    }
    row = {
        name: adjusted_rand_score(clade_L, hierarchy.fcluster(pair[0], CLADES, "maxclust"))
        for name, pair in grown.items()
    }
    own = grown["whitened"][0]
    node_L, _ = tree.by_direction(first, own, 0.5)
    row["own clusters"] = adjusted_rand_score(clade_L, _apart(node_L))
    node_L = tree.by_support(own, tree.support(first, own, trees, 0), 0.9)
    row["by support"] = adjusted_rand_score(clade_L, _apart(node_L))
    for name in ("signed raw", "whitened"):
        row[f"agreement, {name}"] = float(np.corrcoef(*(hierarchy.cophenet(one) for one in grown[name]))[0, 1])
    return row


def of_cohort(place: Path) -> list[dict[str, Any]]:
    """Simulate, test, find loci, cluster: a row for the true factors and for the mixtures, as ours and as published."""
    cohort = place / "cohort"
    truth = cohort / "truth"
    simulate(SimulateConfig.parse({"out": cohort, "preset": "demo", "traits_only": True}))
    tables = {"true factors": truth / "factors.parquet", "mixtures with noise": cohort / "phenotypes.parquet"}
    common = {
        "genotypes": cohort / "genotypes", "covariates": cohort / "covariates.tsv", "sparse_grm": cohort / "sparse",
        "normalise": "rank", "workers": 0,
    }  # fmt: skip
    rows = []
    for number, (name, phenotypes) in enumerate(tables.items()):
        found = place / str(number)
        gwas(GwasConfig.parse(common | {"phenotypes": phenotypes, "out": found / "gwas"}))
        folders = [found / trait for trait in ("minp", "multivariate")]
        for folder in folders:
            keys = {"sumstats": found / "gwas", "genotypes": cohort / "genotypes", "trait": folder.name, "out": folder}
            loci(LociConfig.parse(keys))
        for method in ("whitened", "published"):
            out = found / method
            clusters(ClustersConfig(sumstats=[found / "gwas"], loci=folders, out=out, method=method))
            table = pd.read_csv(out / "clusters.tsv", sep="\t", dtype={"chrom": str})
            (every, leads), (single, of_one) = (cluster_ari(table, truth, one) for one in (False, True))
            rows.append(
                {
                    "phenotypes": name, "method": method, "median reliability": float(table["reliability"].median()),
                    "clusters": int(table["cluster"].max()), "leads": leads, "all loci": every, "leads ": of_one,
                    "one factor": single,
                }
            )  # fmt: skip
    return rows


def _apart(node_L: np.ndarray) -> np.ndarray:
    """Nodes, with a number of its own for each leaf that is alone."""
    return np.where(node_L < 0, -1 - np.arange(len(node_L)), node_L)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
