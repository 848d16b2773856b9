"""One test of all traits of a table at once, from their z-scores.

Let s_p = P_p y be what the test of trait p multiplies a genotype x with, 0 for people who lack the trait. Condition on
the traits and let x be random: under the null, given kinship and covariates, Cov x = var(x) G. So the scores
U_p = x's_p have mean 0 and Cov(U_p, U_q) = var(x) s_p'G s_q, whatever the distribution of the traits and whether or not
their heritabilities are right. With R the correlation of S'GS, z'R^-1 z over the effective number of people n_e is a
share of variance, and is referred to Pillai's F (Pillai 1955). In linear regression of the same people G = I and
n_e = N - K, and the test is Pillai's, exactly.

n_e = tr(A)^2 / tr(A^2) - K with A = W G and W the mean weight matrix of the traits (Satterthwaite 1946); in the rotated
space of one group of traits that is (sum d w)^2 / sum (d w)^2 - K.

Shapes: N people, B variants, P traits, D distinct heritabilities, K columns of the design, q rank of R.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from udipdist.gwas.engine.prepared import Model, Traits
from udipdist.gwas.null.reml import Gram
from udipdist.relatedness.grm import Families
from udipdist.sumstats import pvalues

SAME_TRAIT = 1e-8  # eigenvalues of R below this (times the largest) are linear dependence
FEWEST_ROWS = 16
TRAITS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class NullScores:
    """How the scores of a table's traits vary under the null.

    `score_PP` = S'GS and `trace_P` = tr(P_p G), float64, for traits as `residualise` scales them; a score is
    beta / se^2 on that scale. `n_effective` is n_e.
    """

    score_PP: np.ndarray
    trace_P: np.ndarray
    n_effective: float

    @property
    def testable(self) -> bool:
        """False where the people are too few for so many traits."""
        return self.n_effective > self.whitening().shape[1]

    def whitening(self) -> np.ndarray:
        """A [P, q] with A' R A = I, q the rank of R."""
        size_P = np.sqrt(np.diag(self.score_PP))
        value_P, vector_PP = np.linalg.eigh(self.score_PP / np.outer(size_P, size_P))
        keep = value_P > SAME_TRAIT * value_P[-1]
        return np.asarray(vector_PP[:, keep] / np.sqrt(value_P[keep]))


class JointTest:
    """The test of one table. It needs as many effective people as traits, or it gives NaN."""

    def __init__(self, null: NullScores, chi2: bool):
        """`chi2`: a trait alone is tested by chi2 (a table of one trait is so tested here, too)."""
        self._whiten_Pq, self._people = null.whitening(), null.n_effective
        self._alone = chi2 and len(null.trace_P) == 1

    def log10p(self, score_BP: np.ndarray) -> np.ndarray:
        """-log10 p [B] from `scores` of all traits of the table; NaN where one of them is."""
        if self._alone:
            return pvalues.log10p_from_z(score_BP[:, 0])
        q = self._whiten_Pq.shape[1]
        df2 = self._people - q
        if df2 <= 0:
            return np.full(len(score_BP), np.nan)
        share_B = np.minimum(self._squares(score_BP) / self._people, 1 - 1e-15)
        return pvalues.log10p_from_f((share_B / q) / ((1 - share_B) / df2), q, df2)

    def _squares(self, score_BP: np.ndarray) -> np.ndarray:
        """Sum of squares of the whitened scores [B]. A few rows are filled up: BLAS would add them in another order."""
        padded_BP = np.zeros((max(len(score_BP), FEWEST_ROWS), score_BP.shape[1]))
        padded_BP[: len(score_BP)] = score_BP
        return np.asarray(((padded_BP @ self._whiten_Pq) ** 2).sum(axis=1)[: len(score_BP)])


def scores(traits: Traits, z_BP: np.ndarray) -> np.ndarray:
    """U_p over its standard deviation under the null [B, P], from beta / se of the traits of a model.

    In the mixed model that is z. In linear regression the variance in z is that of what x leaves:
    t^2 = df s^2 / (y'y - s^2) for s = x'y / |x|, the product of the residualised trait with the unit variant.
    """
    if not traits.linear:
        return z_BP
    with np.errstate(divide="ignore"):
        share_BP = 1 / (1 + traits.df / z_BP**2)
    return np.asarray(np.sign(z_BP) * np.sqrt(share_BP * (traits.df + 1)))


@dataclass(frozen=True, kw_only=True)
class GroupWeights:
    """Of a group of traits with the same people: what the joint test of a table needs beside the model.

    `families` give the order of people, `h_P` is of each trait (0 in linear), `trace_P` = tr(P_p G), and the design
    has `k` columns.
    """

    families: Families
    h_P: np.ndarray
    trace_P: np.ndarray
    k: int

    @classmethod
    def of(
        cls, families: Families, vg_P: np.ndarray, ve_P: np.ndarray, q_NK: np.ndarray, linear: bool, gls: bool
    ) -> GroupWeights:
        """From the variance components and the orthonormal design, people in the order of `families`."""
        n, k = q_NK.shape
        if linear:
            return cls(families=families, h_P=np.zeros(len(vg_P)), trace_P=np.full(len(vg_P), float(n - k)), k=k)
        total_P = vg_P + ve_P
        h_D, which_P = np.unique(vg_P / total_P, return_inverse=True)
        trace_D = _traces(families, h_D, q_NK, gls)
        return cls(families=families, h_P=vg_P / total_P, trace_P=trace_D[which_P] / total_P, k=k)

    def weight(self, column_P: np.ndarray) -> sparse.csr_array:
        """The sum of W_p over some traits [N, N], people in the order of `families`."""
        d_N = self.families.d_N
        sum_N = np.zeros(len(d_N))
        for h, count in zip(*np.unique(self.h_P[column_P], return_counts=True), strict=True):
            sum_N += count / (1 + h * (d_N - 1))
        u_NN = self.families.matrix()
        return (u_NN * sum_N) @ u_NN.T


def _traces(families: Families, h_D: np.ndarray, q_NK: np.ndarray, gls: bool) -> np.ndarray:
    """tr(P G) [D] for s2 = 1. People with d = 1 have weight 1, so only the others are summed."""
    n, k = q_NK.shape
    uq_NK = families.matrix().T @ q_NK
    other_N = families.d_N != 1
    d_O = families.d_N[other_N, None]
    w_OD = 1 / (1 + h_D * (d_O - 1))
    gram, unit_KK = Gram(uq_NK[other_N]), np.eye(k)
    whole_D = (n - len(d_O)) + (d_O * w_OD).sum(axis=0)
    qwq_DKK = unit_KK + gram(w_OD - 1)
    if gls:  # W - W C (C'WC)^-1 C'W
        return np.asarray(
            whole_D - np.trace(np.linalg.solve(qwq_DKK, unit_KK + gram(d_O * w_OD**2 - 1)), axis1=1, axis2=2)
        )
    # (1 - C C') W (1 - C C')
    twice_DKK = unit_KK + gram(d_O * w_OD - 1)
    qgq_KK = unit_KK + gram(d_O - 1)[0]
    return np.asarray(
        whole_D - 2 * np.trace(twice_DKK, axis1=1, axis2=2) + np.trace(qwq_DKK @ qgq_KK, axis1=1, axis2=2)
    )


class TableScores:
    """Adds up what the groups of a table's traits give, and makes the NullScores of the table."""

    def __init__(self, row_N: np.ndarray, traits: int):
        """`row_N`: the rows of the sample, ascending, of the people with any of the table's traits."""
        self._row_N = row_N
        self._weight_NN = sparse.csr_array((len(row_N), len(row_N)))
        self._trace_P = np.full(traits, np.nan)
        self._k = 0

    def add(self, row_N: np.ndarray, of_P: np.ndarray, weights: GroupWeights, column_P: np.ndarray) -> None:
        """A group with the people `row_N` of the sample: its traits `column_P` are the table's `of_P`."""
        place_N = np.searchsorted(self._row_N, row_N)[weights.families.order_N]
        entries = weights.weight(column_P).tocoo()
        there = (place_N[entries.row], place_N[entries.col])
        self._weight_NN = self._weight_NN + sparse.coo_array((entries.data, there), shape=self._weight_NN.shape).tocsr()
        self._trace_P[of_P] = weights.trace_P[column_P]
        self._k = max(self._k, weights.k)

    def null_scores(
        self, parts: list[tuple[np.ndarray, np.ndarray, Model, np.ndarray]], matrix: sparse.csr_array | None
    ) -> NullScores:
        """`parts` are the groups as they were added, each with its model: row_N, of_P, model, column_P; `matrix` is G
        of the sample (None: everybody is unrelated)."""
        score_NP = np.zeros((len(self._row_N), len(self._trace_P)))
        for row_N, of_P, model, column_P in parts:
            score_NP[np.ix_(np.searchsorted(self._row_N, row_N), of_P)] = model.scores(column_P)
        g_NN = sparse.eye_array(len(self._row_N), format="csr")
        if matrix is not None:
            g_NN = matrix[self._row_N][:, self._row_N].tocsr()
        score_PP = np.empty((score_NP.shape[1],) * 2)
        for start in range(0, len(score_PP), TRAITS_AT_ONCE):
            some = slice(start, start + TRAITS_AT_ONCE)
            score_PP[:, some] = score_NP.T @ np.asarray(g_NN @ score_NP[:, some])
        return NullScores(
            score_PP=(score_PP + score_PP.T) / 2,
            trace_P=self._trace_P,
            n_effective=_people(self._weight_NN, g_NN) - self._k,
        )


def _people(weight_NN: sparse.csr_array, g_NN: sparse.csr_array) -> float:
    """tr(A)^2 / tr(A^2) of A = W G."""
    a_NN = (weight_NN @ g_NN).tocsr()
    return float(a_NN.trace() ** 2 / (a_NN * a_NN.T).sum())
