"""The effects of lead SNPs on all latents, from a store of summary statistics, and how z varies under the null.

Shapes: L leads, P traits, M variants.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from udipdist.analysis.clusters.directions import Directions, Whitening
from udipdist.analysis.clusters.leads import FEWEST
from udipdist.genome import assemblies
from udipdist.sumstats.analyses import StoreStatistics
from udipdist.sumstats.store import Sumstats

log = logging.getLogger(__name__)
NULL_VARIANTS = 100_000  # from which R is estimated where the store does not have it
_PER_TRAIT = 10  # of them a trait, at least


@dataclass(frozen=True)
class Effects:
    """Leads that were tested for all traits, their directions, and counts of those left out."""

    leads: pd.DataFrame
    directions: Directions
    traits: int
    absent: int
    untested: int
    null: str  # where R is from


def read_effects(sumstats: Sumstats, leads: pd.DataFrame, published: bool, most: int) -> Effects:
    """Of `leads` as leads.read_leads gives them. Those that are not in the store, or lack a trait, are left out,
    counted and logged. Raises InputError for a single trait, fewer than three leads that stay, or more than `most`."""
    if len(sumstats.traits) < 2:
        raise InputError(
            f"{sumstats.path}: has one trait ({sumstats.traits[0]}), and a direction needs several; give sumstats= the "
            "gwas of all latents"
        )
    if len(leads) > most:
        raise InputError(
            f"{len(leads):,} lead SNPs, and {most:,} can be clustered; give leads=loci, a smaller p= to loci, or most="
        )
    statistics = StoreStatistics(sumstats)
    row_L = _rows(statistics, leads)
    here_L = row_L >= 0
    order = np.argsort(row_L[here_L], kind="stable")
    back = np.argsort(order, kind="stable")
    beta_LP, se_LP = (values[back].astype(np.float64) for values in sumstats.effects_at(row_L[here_L][order]))
    with np.errstate(divide="ignore", invalid="ignore"):
        z_LP = _scores(sumstats, beta_LP / se_LP)
    tested = np.isfinite(z_LP).all(axis=1)
    kept = leads[here_L][tested].reset_index(drop=True)
    absent, untested = int((~here_L).sum()), int((~tested).sum())
    for count, why in ((absent, "not in these statistics"), (untested, "not tested for all traits")):
        if count:
            names = leads["snp"][~here_L] if why.startswith("not in") else leads["snp"][here_L][~tested]
            log.warning("%s: %d lead SNPs are %s and are left out: %s", sumstats.path, count, why, some(list(names)))
    if len(kept) < FEWEST:
        raise InputError(
            f"{sumstats.path}: {len(kept)} of {len(leads)} lead SNPs can be used ({absent} are not in these "
            f"statistics, {untested} were not tested for all traits), and a tree needs {FEWEST}; give loci= a "
            "folder with more loci"
        )
    covariance_PP, null = _null(statistics, leads)
    directions = Directions.of(z_LP[tested], se_LP[tested], Whitening.of(covariance_PP), published)
    return Effects(kept, directions, len(sumstats.traits), absent, untested, null)


def _rows(statistics: StoreStatistics, leads: pd.DataFrame) -> np.ndarray:
    """The row of each lead [L], -1 where there is none: the same place and alleles, or the same place and id."""
    near = np.flatnonzero(np.isin(statistics.position_M, leads["position"].to_numpy()))
    near = near[np.isin(statistics.chrom_M[near], leads["chrom"].to_numpy())]
    names = statistics.names(near)
    table = names.assign(row=near, chrom=statistics.chrom_M[near], position=statistics.position_M[near])
    by_alleles: dict[object, int] = {}
    by_name: dict[object, int] = {}
    for code, group in table.groupby("chrom"):
        unique = assemblies.unique_ids(int(code), group["position"].to_numpy(), group["a1"], group["a2"])
        for one, snp, position, row in zip(unique, group["snp"], group["position"], group["row"], strict=True):
            by_alleles.setdefault(str(one), int(row))
            by_name.setdefault((int(code), int(position), str(snp)), int(row))
    return np.array(
        [
            by_alleles.get(lead.unique_id, by_name.get((int(lead.chrom), int(lead.position), lead.snp), -1))
            for lead in leads.itertuples()
        ],
        np.int64,
    )


def _scores(sumstats: Sumstats, z_LP: np.ndarray) -> np.ndarray:
    """Scores over their standard deviation under the null. Where the statistic is t, its denominator lacks what the
    SNP explains: t^2 = df s^2 / (df + 1 - s^2) for the score s."""
    df = sumstats.attrs.get("df")
    if df is None:
        return z_LP
    df_P = np.asarray(df, np.float64)
    return z_LP * np.sqrt((df_P + 1) / (df_P + z_LP**2))


def _null(statistics: StoreStatistics, leads: pd.DataFrame) -> tuple[np.ndarray, str]:
    """A covariance of the z-scores under the null [P, P], and where it is from: the store, which has that of the joint
    test, or the variants outside the loci."""
    scores = statistics.sumstats.null_scores()
    if scores is not None:
        return scores.covariance_PP, "the joint test"
    sumstats, traits = statistics.sumstats, len(statistics.traits)
    spans = list(sumstats.blocks())
    number = min(len(spans), -(-NULL_VARIANTS // sumstats.rows_per_shard))
    total_PP, count = np.zeros((traits, traits)), 0
    for i in np.unique(np.linspace(0, len(spans) - 1, number).round().astype(int)) if spans else []:
        start, stop = spans[i]
        beta, se = (values.astype(np.float64) for values in sumstats.effects(start, stop))
        with np.errstate(divide="ignore", invalid="ignore"):
            z_MP = _scores(sumstats, beta / se)
        z_MP = z_MP[np.isfinite(z_MP).all(axis=1) & _outside(statistics, leads, start, stop)]
        total_PP += z_MP.T @ z_MP
        count += len(z_MP)
    if count < _PER_TRAIT * traits:
        raise InputError(
            f"{sumstats.path}: does not hold how the {traits} traits vary under the null, and has {count:,} variants "
            f"outside the loci to estimate it, of {_PER_TRAIT * traits:,} needed; run gwas again"
        )
    log.info("%s: null correlation of the traits from %d variants outside the loci", sumstats.path, count)
    return total_PP / count, f"{count:,} variants outside the loci"


def _outside(statistics: StoreStatistics, leads: pd.DataFrame, start: int, stop: int) -> np.ndarray:
    """Which of the variants start..stop are in no locus."""
    chrom, position = statistics.chrom_M[start:stop], statistics.position_M[start:stop]
    outside = np.ones(stop - start, bool)
    for locus in leads.itertuples():
        outside &= ~((chrom == locus.chrom) & (position >= locus.start) & (position <= locus.end))
    return outside
