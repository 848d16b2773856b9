"""How alike two tables of latents of the same people are, whatever the rotation of each.

Two trainings of one configuration may learn the same brain features and write them in other coordinates. Linear CKA and
canonical correlations do not see a rotation (the second none of any invertible linear map); the matching of latents
one to one does, and so tells how far the univariate associations can agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from scipy import linalg
from scipy.optimize import linear_sum_assignment

from hpc.errors import InputError

# A float32 carries seven digits: what varies less than this, against the largest, is rounding and no phenotype.
RESOLUTION = 1e-6
IDS = ["FID", "IID"]


@dataclass(frozen=True)
class Similarity:
    """Two tables of latents of the same `n` people, with `rank_a` and `rank_b` linearly independent latents.

    `cka`: linear CKA. `cca_r2`: mean squared canonical correlation over the smaller rank. `cca_top`: the largest
    canonical correlation, `cca_above_09`: how many exceed 0.9. `matched_r`: mean |r| of latents matched one to one.
    `cka_chance` and `cca_r2_chance`: their exact expectations if the people of one table were shuffled.
    """

    n: int
    rank_a: int
    rank_b: int
    cka: float
    cka_chance: float
    cca_r2: float
    cca_r2_chance: float
    cca_top: float
    cca_above_09: int
    matched_r: float


COLUMNS = tuple(field.name for field in fields(Similarity))


@dataclass(frozen=True)
class Latents:
    """A table of latents: `ids` [N] (FID, tab, IID; ascending) and `values_NP` float64 in that order."""

    ids: np.ndarray
    values_NP: np.ndarray

    @classmethod
    def read(cls, path: Path) -> Self:
        """Of a Parquet table FID IID z000 .... Raises InputError."""
        try:
            table = pd.read_parquet(path)
            ids = (table["FID"].astype(str) + "\t" + table["IID"].astype(str)).to_numpy(str)
            values_NP = table.drop(columns=IDS).to_numpy(np.float64)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{path}: is not a latents table ({error}); it should have FID, IID and a column of numbers for each "
                "latent; delete it, and run the sweep again"
            ) from None
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        twice = ids[1:][ids[1:] == ids[:-1]]
        if len(twice):
            raise InputError(f"{path}: has {twice[0].split()} twice; delete the table, and run the sweep again")
        bad = np.flatnonzero(~np.isfinite(values_NP).all(axis=1))
        if len(bad):
            raise InputError(
                f"{path}: row {bad[0]} has a value that is not a number; delete the table, and run the sweep again"
            )
        return cls(ids, values_NP[order])

    def of(self, ids: np.ndarray) -> Latents:
        """The rows of these people, who must be among ours, in their order."""
        return Latents(ids, self.values_NP[np.searchsorted(self.ids, ids)])


def shared_people(tables: Sequence[Latents]) -> list[Latents]:
    """The tables with the people of all of them, in the same order. Raises InputError where there are under three."""
    ids = tables[0].ids
    for table in tables[1:]:
        ids = np.intersect1d(ids, table.ids, assume_unique=True)
    if len(ids) < 3:
        raise InputError(f"the tables of latents share {len(ids)} people; they must be of the same cohort")
    return [table if np.array_equal(table.ids, ids) else table.of(ids) for table in tables]


@dataclass(frozen=True)
class Factored:
    """Latents X [N, P] with mean 0: `standard_NP` divided by their standard deviations `spread_P`, and `basis_NR`, an
    orthonormal basis of what they span."""

    standard_NP: np.ndarray
    spread_P: np.ndarray
    basis_NR: np.ndarray

    @classmethod
    def of(cls, values_NP: np.ndarray) -> Self:
        """Latents that vary by less than RESOLUTION of their size, and directions weaker than RESOLUTION of the
        strongest, are left out."""
        mean_P, spread_P = values_NP.mean(axis=0), values_NP.std(axis=0)
        varies_P = spread_P > RESOLUTION * np.abs(mean_P)
        spread_P = spread_P[varies_P]
        standard_NP = (values_NP[:, varies_P] - mean_P[varies_P]) / spread_P
        return cls(standard_NP, spread_P, leading(standard_NP)[0])


def leading(x_NP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors [N, r] and singular values [r], without those below RESOLUTION of the first."""
    if not x_NP.shape[1]:
        return x_NP, np.empty(0)
    u_NR, s_R, _ = linalg.svd(x_NP, full_matrices=False, check_finite=False)
    kept_R = s_R > RESOLUTION * s_R[0]
    return u_NR[:, kept_R], s_R[kept_R]


def compare(a: Factored, b: Factored) -> Similarity:
    """All measures of two tables with the same people in the same order.

    Linear CKA is |Y'X|^2 / (|X'X| |Y'Y|) in Frobenius norms of centred columns (Kornblith et al. 2019, ICML, section
    3); canonical correlations are the singular values of U_Y'U_X (Bjorck and Golub 1973, Math. Comp. 27). If the rows
    of one table are shuffled, the centred kernel matrices K and L [N, N] have E tr(KL) = tr K tr L / (N - 1): so both
    expectations are exact. Latents are matched by the assignment with the largest sum of |r|.
    """
    n = len(a.standard_NP)
    rank_a, rank_b = a.basis_NR.shape[1], b.basis_NR.shape[1]
    if not rank_a or not rank_b:
        nan = float("nan")
        return Similarity(n, rank_a, rank_b, nan, nan, nan, nan, nan, 0, nan)
    rho_R = np.clip(linalg.svdvals(a.basis_NR.T @ b.basis_NR), 0.0, 1.0)
    r_PQ = a.standard_NP.T @ b.standard_NP / n
    norms = (_covariance2(a, a) * _covariance2(b, b)) ** 0.5
    matched = linear_sum_assignment(np.abs(r_PQ), maximize=True)
    return Similarity(
        n, rank_a, rank_b,
        cka=_covariance2(a, b) / norms,
        cka_chance=float(np.sum(a.spread_P**2) * np.sum(b.spread_P**2)) / ((n - 1) * norms),
        cca_r2=float(np.mean(rho_R**2)),
        cca_r2_chance=max(rank_a, rank_b) / (n - 1),
        cca_top=float(rho_R[0]),
        cca_above_09=int(np.sum(rho_R > 0.9)),
        matched_r=float(np.abs(r_PQ)[matched].mean()),
    )  # fmt: skip


class Library:
    """Compares files of latents, and keeps those read last: 47 MB each at 23,000 people."""

    def __init__(self, kept: int = 24):
        self._read = lru_cache(maxsize=kept)(_read)

    def compare(self, a: Path, b: Path) -> Similarity:
        """Two Parquet tables over the people of both. Raises InputError."""
        one, other = self._read(a), self._read(b)
        if np.array_equal(one[0], other[0]):
            return compare(one[1], other[1])
        return compare(*(Factored.of(table.values_NP) for table in shared_people([Latents.read(a), Latents.read(b)])))


def _read(path: Path) -> tuple[np.ndarray, Factored]:
    latents = Latents.read(path)
    return latents.ids, Factored.of(latents.values_NP)


def _covariance2(a: Factored, b: Factored) -> float:
    """|X'Y / N|^2 in the Frobenius norm."""
    r_PQ = a.standard_NP.T @ b.standard_NP / len(a.standard_NP)
    return float(np.sum((a.spread_P[:, None] * r_PQ * b.spread_P) ** 2))
