"""How well the tests are calibrated: genomic-control lambda of each trait, and the QQ curve of all tests together.

M variants times P traits may be 10^9 tests, so they are pooled in one pass: tests with p < 0.01 are kept one by one,
the others are counted in 4096 bins of |statistic|, which moves the curve by less than 0.001 in -log10 p.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from udipdist.sumstats.calibration import lambda_of_log10p
from udipdist.sumstats.store import Sumstats

CUT = 2.5758293035489004  # |z| at p = 0.01
BINS = 4096
POINTS = 200  # of the curve of one trait among many
_BYTES_AT_ONCE = 1_000_000_000


@dataclass(frozen=True)
class Curve:
    """A QQ curve, from the smallest p on: expected and observed -log10 p, and the number of tests n."""

    expected: np.ndarray
    observed: np.ndarray
    n: int


@dataclass(frozen=True)
class Calibration:
    """Lambda of each trait [P] (NaN where nothing was tested) and the pooled curve; the same of the null variants; and
    the curve of each trait, some hundred points of it."""

    lambda_P: np.ndarray
    pooled: Curve
    null_lambda_P: np.ndarray
    null: Curve | None
    traits: tuple[Curve, ...] = ()


def calibrate(sumstats: Sumstats, null_M: np.ndarray | None = None) -> Calibration:
    """Lambda and QQ curves of every trait. `null_M` [M] bool marks variants known to have no effect.

    Lambda is the median chi2 over its expectation 0.4549 (Devlin & Roeder 1999, Biometrics 55:997), where the chi2 of
    a t statistic is the one that has its p.
    """
    p = len(sumstats.traits)
    lambda_P, null_lambda_P = np.full(p, np.nan), np.full(p, np.nan)
    pooled = _Pool()
    null = _Pool() if null_M is not None and null_M.any() else None
    curves = []
    width = max(1, min(sumstats.traits_per_chunk, _BYTES_AT_ONCE // (12 * max(sumstats.n_variants, 1))))
    for first in range(0, p, width):
        statistic_Mw, se_Mw = sumstats.effects(traits=slice(first, min(first + width, p)))
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic_Mw /= se_Mw
        del se_Mw  # the loop below needs the memory
        for offset in range(statistic_Mw.shape[1]):
            trait = first + offset
            statistic_M = np.abs(statistic_Mw[:, offset])
            tested_M = np.isfinite(statistic_M)
            lambda_P[trait] = pooled.add(sumstats, trait, statistic_M[tested_M])
            curves.append(pooled.last())
            if null is not None:
                null_lambda_P[trait] = null.add(sumstats, trait, statistic_M[tested_M & null_M])
    null_curve = null.curve() if null is not None else None
    return Calibration(lambda_P, pooled.curve(), null_lambda_P, null_curve, tuple(curves))


def lambda_of(log10p: np.ndarray) -> float:
    """Genomic-control lambda of -log10 p values; NaN where there are none."""
    log10p = log10p[~np.isnan(log10p)]
    return lambda_of_log10p(float(np.median(log10p))) if len(log10p) else np.nan


def few_points(curve: Curve, points: int = POINTS) -> Curve:
    """The curve at its first fifty points, and at others spread evenly over the expected -log10 p."""
    wanted = np.linspace(curve.expected.max(initial=0.0), 0.0, points)
    near = np.searchsorted(-curve.expected, -wanted).clip(0, max(len(curve.expected) - 1, 0))
    rows = (
        np.unique(np.concatenate([np.arange(min(50, len(curve.expected))), near])) if len(curve.expected) else near[:0]
    )
    return Curve(curve.expected[rows], curve.observed[rows], curve.n)


def exact_curve(log10p: np.ndarray) -> Curve:
    """The QQ curve of -log10 p values; NaN are left out."""
    observed = -np.sort(-log10p[~np.isnan(log10p)])
    return Curve(_expected(np.arange(1, len(observed) + 1), len(observed)), observed, len(observed))


def band(n: int, points: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expected -log10 p, and the lower and upper edge of the pointwise 95 % band of n independent null tests.

    The i-th smallest of n uniform p-values is Beta(i, n - i + 1).
    """
    rank = np.unique(np.geomspace(1, n, points).round())
    low, high = (-np.log10(special.betaincinv(rank, n - rank + 1, q)) for q in (0.975, 0.025))
    return _expected(rank, n), low, high


class _Pool:
    """Tests of many traits, pooled: counts by bin below CUT, -log10 p one by one above."""

    def __init__(self) -> None:
        self.levels: list[np.ndarray] = []  # -log10 p at the lower edges of the bins
        self.counts: list[np.ndarray] = []
        self.tails: list[np.ndarray] = []

    def add(self, sumstats: Sumstats, trait: int, statistic: np.ndarray) -> float:
        """Count the |statistics| of one trait; returns its lambda, NaN where there are none."""
        if not len(statistic):
            for values in (self.levels, self.counts, self.tails):
                values.append(np.empty(0, np.int64 if values is self.counts else np.float64))
            return np.nan
        body = statistic < CUT
        bins = np.minimum((statistic[body] * (BINS / CUT)).astype(np.int32), BINS - 1)
        count = np.bincount(bins, minlength=BINS)
        filled = np.flatnonzero(count)
        self.levels.append(sumstats.log10p_from(filled * (CUT / BINS), np.ones(len(filled)), trait))
        self.counts.append(count[filled])
        self.tails.append(sumstats.log10p_from(statistic[~body], np.ones(int((~body).sum())), trait))
        n = len(statistic)
        middle = np.partition(statistic, [(n - 1) // 2, n // 2])[[(n - 1) // 2, n // 2]]
        return float(np.mean([lambda_of_log10p(p) for p in sumstats.log10p_from(middle, np.ones(2), trait)]))

    def curve(self) -> Curve:
        """The curve of all: a point for each test of the tail and for each bin, at the rank of the smallest test in
        it."""
        return _curve(self.levels, self.counts, self.tails)

    def last(self) -> Curve:
        """Some points of the curve of the trait added last."""
        return few_points(_curve(self.levels[-1:], self.counts[-1:], self.tails[-1:]))


def _curve(levels: list[np.ndarray], counts: list[np.ndarray], tails: list[np.ndarray]) -> Curve:
    level = np.concatenate([np.empty(0), *tails, *levels])
    count = np.concatenate([np.empty(0, np.int64), *(np.ones(len(tail), np.int64) for tail in tails), *counts])
    order = np.argsort(-level, kind="stable")
    rank = np.cumsum(count[order])
    n = int(count.sum())
    return Curve(_expected(rank, n) if n else np.empty(0), level[order], n)


def _expected(rank: np.ndarray, n: int) -> np.ndarray:
    """-log10 of the median-like plotting position (rank - 1/2) / n."""
    return -np.log10((rank - 0.5) / n)
