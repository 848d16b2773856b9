"""Found loci and latents compared with the truth of a simulated cohort.

Every lead SNP falls into one class:

* planted: within `flank_bp` of a planted variant (a locus counts once, however many leads stand near it);
* polygenic: elsewhere, in a window whose polygenic variants are strong enough to give a lead honestly;
* strict false: on a null chromosome, where nothing acts on any factor;
* other false: the rest, that is, between windows or where the window's own signal is too weak.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from scipy import stats

from hpc.errors import InputError

MEDIAN_CHI2 = float(stats.chi2.median(1))
HONEST_NCP = 5.0  # N r^2 of a window below which 5e-8 is out of reach without an error of the test


@dataclass(frozen=True)
class Score:
    """Lead SNPs by class. `planted_found` are ids of loci; the other counts are of leads."""

    planted_found: list[str]
    planted_total: int
    leads: int
    planted_leads: int
    polygenic: int
    strict_false: int
    other_false: int


def score(leads: pd.DataFrame, truth_dir: str | Path, flank_bp: int = 300_000) -> Score:
    """Class of each lead SNP (columns chrom, position), by the truth/ folder of a cohort.

    Raises InputError where the truth is not there.
    """
    truth_dir = Path(truth_dir)
    loci, windows = (_table(truth_dir / name) for name in ("loci.tsv", "windows.tsv"))
    facts = truth_facts(truth_dir)
    null = set(facts["null_chromosomes"])
    strong = windows[facts["people"] * windows["polygenic_r2"] >= HONEST_NCP]
    found: set[str] = set()
    counts = dict.fromkeys(("planted_leads", "polygenic", "strict_false", "other_false"), 0)
    for chrom, position in zip(leads["chrom"].astype(str), leads["position"].astype(int), strict=True):
        same = loci[loci["chr"] == chrom]
        distance = (same["pos"] - position).abs()
        if len(same) and distance.min() <= flank_bp:
            found.add(str(same.loc[distance.idxmin(), "locus"]))
            counts["planted_leads"] += 1
        elif chrom in null:
            counts["strict_false"] += 1
        elif ((strong["chr"] == chrom) & (strong["start"] <= position) & (position < strong["end"])).any():
            counts["polygenic"] += 1
        else:
            counts["other_false"] += 1
    return Score(sorted(found), loci["locus"].nunique(), len(leads), **counts)


def cluster_ari(
    clusters: pd.DataFrame, truth_dir: str | Path, one_factor: bool = False, flank_bp: int = 300_000
) -> tuple[float, int]:
    """How well clusters of lead SNPs (columns chrom, position, cluster; 0: alone) are the planted factors: the adjusted
    Rand index over the leads within `flank_bp` of a planted variant, by the factor that it moves most, and how many
    these are; `one_factor`: without loci that move a second factor, whose direction is between two. NaN where they are
    fewer than two. Raises InputError where the truth is not there."""
    from sklearn.metrics import adjusted_rand_score

    planted = _table(Path(truth_dir) / "loci.tsv")
    loci, second = (planted[planted["role"] == role] for role in ("primary", "pleiotropic"))
    factors, found = [], []
    for lead in clusters.itertuples():
        same = loci[loci["chr"] == str(lead.chrom)]
        distance = (same["pos"] - lead.position).abs()
        if not len(same) or distance.min() > flank_bp:
            continue
        nearest = same.loc[distance.idxmin()]
        if not (one_factor and nearest["locus"] in set(second["locus"])):
            factors.append(nearest["factor"])
            found.append(lead.cluster if lead.cluster > 0 else -len(found) - 1)
    return (float(adjusted_rand_score(factors, found)) if len(found) > 1 else float("nan")), len(found)


def truth_facts(truth_dir: str | Path) -> dict:
    """truth.json: seed, preset, people, factors, null_chromosomes (text). Raises InputError."""
    path = Path(truth_dir) / "truth.json"
    if not path.exists():
        raise InputError(f"{path}: does not exist; give the truth/ folder of a cohort that `udipdist simulate` wrote")
    return json.loads(path.read_text(encoding="utf-8"))


class _Sumstats(Protocol):
    traits: list[str]
    variants: pd.DataFrame

    def beta(self, trait: str) -> np.ndarray: ...
    def se(self, trait: str) -> np.ndarray: ...
    def log10p(self, name: str) -> np.ndarray: ...


def lambda_joint(sumstats: _Sumstats, null_chromosomes: Iterable[str]) -> float:
    """Genomic-control lambda of the joint test on the null chromosomes: the chi2_1 of its median p over that of 0.5.

    NaN without such a test.
    """
    rows = sumstats.variants["chrom"].astype(str).isin([str(c) for c in null_chromosomes])
    log10p = sumstats.log10p("multivariate")[rows]
    log10p = log10p[np.isfinite(log10p)]
    return float(stats.chi2.isf(10 ** -np.median(log10p), 1) / MEDIAN_CHI2) if len(log10p) else float("nan")


def lambda_null(sumstats: _Sumstats, null_chromosomes: Iterable[str]) -> float:
    """Genomic-control lambda on the null chromosomes, of each trait (median chi2 over its expectation), averaged.

    On 20 windows one trait's lambda has an SD of about 0.03 by chance alone. NaN without tested null variants.
    """
    rows = np.flatnonzero(sumstats.variants["chrom"].astype(str).isin([str(c) for c in null_chromosomes]))
    if not len(rows):
        return float("nan")
    lambdas = []
    for trait in sumstats.traits:
        chi2 = (np.asarray(sumstats.beta(trait), float)[rows] / np.asarray(sumstats.se(trait), float)[rows]) ** 2
        chi2 = chi2[np.isfinite(chi2)]
        if len(chi2):
            lambdas.append(np.median(chi2) / MEDIAN_CHI2)
    return float(np.mean(lambdas)) if lambdas else float("nan")


def _table(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise InputError(f"{path}: does not exist; give the truth/ folder of a cohort that `udipdist simulate` wrote")
    return pd.read_csv(path, sep="\t", dtype={"chr": str})
