"""Chance loci that look like the found ones: SNPs of the reference that are as common, with as many SNPs in LD and as
many genes near (after SNPsnap: Pers, Timshel and Hirschhorn 2015, Bioinformatics 31:418-420).

Loci of any trait lie near genes, among common SNPs with many others in LD; so do panels. Random places do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from hpc.errors import InputError
from hpc.progress import Progress
from udipdist.genome import assemblies
from udipdist.genotypes.ld import LinkageReader
from udipdist.genotypes.source import GenotypeSource
from udipdist.loci import proximity
from udipdist.loci.reference import Index

WINDOW_BP = 250_000  # on both sides of a SNP: where partners and genes are counted
PARTNER_R2 = 0.5
MIN_MAF = 0.01  # of SNPs that can stand for a lead
NEAREST = 50  # SNPs that can stand for each lead
FEATURES = ("maf", "partners", "genes")


@dataclass(frozen=True)
class Snps:
    """K SNPs: `chrom_K` (code), `position_K`, and `features_KF` (FEATURES, float64, NaN where it is not known)."""

    chrom_K: np.ndarray
    position_K: np.ndarray
    features_KF: np.ndarray

    @property
    def known_F(self) -> np.ndarray:
        """Which features are known of any of them."""
        return ~np.isnan(self.features_KF).all(0)


@dataclass(frozen=True)
class Chance:
    """What matched loci give: the mean share that hits, P(as many hits or more), and for each feature that was matched
    its mean over the leads and over the SNPs that stand for them."""

    share: float
    p: float
    balance: dict[str, tuple[float, float]]


class Reference:
    """Features of SNPs, from the genotypes of a cohort and a table of genes (chrom, start, end), where there is one."""

    def __init__(self, source: GenotypeSource, genes: pd.DataFrame | None):
        self.source, self.genes = source, genes
        self.chrom_M = assemblies.codes(source.variants["chrom"])
        self.position_M = source.variants["position"].to_numpy(np.int64)
        self.index = Index.of(self.chrom_M, self.position_M, None)

    def sample(self, size: int, seed: int) -> Snps:
        """`size` random SNPs with MAF >= MIN_MAF (all, where there are fewer). Raises InputError without any."""
        order = np.random.default_rng(seed).permutation(self.index.rows)
        kept: list[int] = []
        found: list[tuple[float, float]] = []
        with Progress("SNPs for chance loci", min(size, len(order)), "SNPs") as progress:
            for row in order.tolist():
                if len(kept) == size:
                    break
                maf, partners = self._linkage(row)
                if maf >= MIN_MAF:
                    kept.append(row)
                    found.append((maf, partners))
                    progress.advance()
        if not kept:
            raise InputError(f"{self.source.rows.where}: no SNP has MAF >= {MIN_MAF}; give other genotypes=, or pool=0")
        return self._snps(self.chrom_M[kept], self.position_M[kept], np.array(found))

    def leads(self, loci: pd.DataFrame) -> Snps:
        """The lead SNPs of loci (chrom, first, last: its position; lead: its rsID), or the middles where they are
        not known; MAF and partners of what is not in the reference are NaN."""
        linkage_LF = np.full((len(loci), 2), np.nan)
        place_L = (loci["first"] + loci["last"]).to_numpy(np.int64) // 2
        for i, locus in enumerate(loci.itertuples()):
            rows = self.index.within(locus.chrom, locus.last, locus.first)  # none, where these are the whole locus
            named = rows[self.source.variants["snp"].iloc[rows].to_numpy(str) == str(locus.lead)]
            if len(rows):
                linkage_LF[i] = self._linkage(int((named if len(named) else rows)[0]))
        return self._snps(loci.chrom.to_numpy(), place_L, linkage_LF)

    def _snps(self, chrom_K: np.ndarray, position_K: np.ndarray, linkage_K2: np.ndarray) -> Snps:
        return Snps(chrom_K, position_K, np.c_[linkage_K2, genes_near(chrom_K, position_K, self.genes)])

    def _linkage(self, row: int) -> tuple[float, float]:
        """MAF of a variant, and how many others within the window have r2 >= PARTNER_R2 with it."""
        chrom, position = int(self.chrom_M[row]), int(self.position_M[row])
        rows = self.index.within(chrom, position - WINDOW_BP, position + WINDOW_BP)
        reader, at = LinkageReader(self.source, rows), int(np.searchsorted(rows, row))
        partners = np.count_nonzero(reader.r2(at, 0, len(rows)) >= PARTNER_R2)
        return reader.minor_frequency(at), max(partners - 1, 0)


def genes_near(chrom_K: np.ndarray, position_K: np.ndarray, genes: pd.DataFrame | None) -> np.ndarray:
    """How many genes come within the window of each place, float64 [K]; NaN without genes."""
    count_K = np.full(len(chrom_K), np.nan)
    if genes is None:
        return count_K
    count_K[:] = 0
    for chrom, here in genes.groupby("chrom"):
        rows = np.flatnonzero(chrom_K == chrom)
        begun = np.searchsorted(np.sort(here.start), position_K[rows] + WINDOW_BP, side="right")
        ended = np.searchsorted(np.sort(here.end), position_K[rows] - WINDOW_BP, side="left")
        count_K[rows] = begun - ended
    return count_K


def chance(
    loci: pd.DataFrame, known: pd.DataFrame, leads: Snps, pool: Snps, flank_bp: int, lengths: Mapping[int, int]
) -> Chance:
    """What L loci (chrom, start, end) would hit of `known` if each stood about one of the SNPs that are most
    like its lead, as wide as it is. p is exact, for loci drawn independently (a Poisson binomial law)."""
    from scipy.stats import poisson_binom  # takes a second to import

    like_Lk = most_like(leads, pool)
    chrom_Lk, position_Lk = pool.chrom_K[like_Lk], pool.position_K[like_Lk]
    before_L, after_L = leads.position_K - loci.start.to_numpy(), loci.end.to_numpy() - leads.position_K
    last_Lk = np.vectorize(lambda chrom: lengths.get(chrom, np.iinfo(np.int64).max))(chrom_Lk)
    drawn = pd.DataFrame(
        {
            "chrom": chrom_Lk.ravel(),
            "start": np.maximum(1, position_Lk - before_L[:, None]).ravel(),
            "end": np.maximum(position_Lk, np.minimum(last_Lk, position_Lk + after_L[:, None])).ravel(),
        }
    )
    rate_L = proximity.touched(drawn, known, flank_bp).reshape(like_Lk.shape).mean(1)
    hits = int(proximity.touched(loci, known, flank_bp).sum())
    ours, theirs = leads.features_KF, pool.features_KF[like_Lk].mean(1)
    matched = {
        name: (float(np.nanmean(ours[:, f])), float(theirs[~np.isnan(ours[:, f]), f].mean()))
        for f, name in enumerate(FEATURES)
        if leads.known_F[f] and pool.known_F[f]
    }
    return Chance(float(rate_L.mean()), float(poisson_binom.sf(hits - 1, rate_L)), matched)


def most_like(leads: Snps, pool: Snps) -> np.ndarray:
    """For each lead the NEAREST SNPs of the pool by the features that are known of it, int [L, k]: MAF, and the
    logarithms of the counts, each in units of the pool's SD."""
    ours_LF, theirs_KF = _scaled(leads, pool), _scaled(pool, pool)
    like_Lk = np.empty((len(ours_LF), min(NEAREST, len(theirs_KF))), np.int64)
    known_LF = ~np.isnan(ours_LF) & pool.known_F
    for pattern_F in np.unique(known_LF, axis=0):
        rows = np.flatnonzero((known_LF == pattern_F).all(1))
        tree = cKDTree(theirs_KF[:, pattern_F]) if pattern_F.any() else None
        if tree is None:  # nothing is known of these leads
            like_Lk[rows] = np.arange(like_Lk.shape[1])
        else:
            like_Lk[rows] = tree.query(ours_LF[rows][:, pattern_F], k=[*range(1, like_Lk.shape[1] + 1)])[1]
    return like_Lk


def _scaled(snps: Snps, pool: Snps) -> np.ndarray:
    """Features as distances are taken of them."""
    scaled, of_pool = (np.c_[x[:, 0], np.log2(1 + x[:, 1:])] for x in (snps.features_KF, pool.features_KF))
    sd_F = of_pool.std(0)
    return scaled / np.where(sd_F > 0, sd_F, 1)
