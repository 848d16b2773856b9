"""One test of all traits of a table at once, from their z-scores.

Shapes: B variants, P traits, q rank of the traits' correlation.
"""

from __future__ import annotations

import numpy as np

from udipdist.gwas.engine.prepared import Model
from udipdist.sumstats import pvalues

SAME_TRAIT = 1e-8  # eigenvalues of the traits' correlation below this (times the largest) are linear dependence
FEWEST_ROWS = 16


class JointTest:
    """Linear: Pillai's trace, whose F is exact. Mixed: z' R^-1 z as chi2_q, R the correlation of the residuals."""

    def __init__(self, model: Model, column_P: np.ndarray):
        """`column_P`: which traits of the model."""
        self._traits, self._column_P = model.traits, column_P
        self._whiten_Pq = whitening(model.traits.residual_PP[np.ix_(column_P, column_P)])

    def log10p(self, z_BP: np.ndarray) -> np.ndarray:
        """-log10 p [B] from beta / se of all traits of the model; NaN where they are, or where people are too few."""
        traits, q = self._traits, self._whiten_Pq.shape[1]
        z_BP = z_BP[:, self._column_P]
        if not traits.linear:
            return pvalues.log10p_from_chi2(self._squares(z_BP), q)
        df2 = traits.df + 1 - q
        if df2 <= 0:
            return np.full(len(z_BP), np.nan)
        # t^2 = df s^2 / (y'y - s^2) for s = x'y / |x|, the product of the residualised trait with the unit variant
        with np.errstate(divide="ignore"):
            share_BP = 1 / (1 + traits.df / z_BP**2)
        score_BP = np.sign(z_BP) * np.sqrt(share_BP * traits.yy_P[self._column_P])
        share_B = np.minimum(self._squares(score_BP), 1 - 1e-15)
        return pvalues.log10p_from_f((share_B / q) / ((1 - share_B) / df2), q, df2)

    def _squares(self, score_BP: np.ndarray) -> np.ndarray:
        """Sum of squares of the whitened scores [B]. A few rows are filled up: BLAS would add them in another order."""
        padded_BP = np.zeros((max(len(score_BP), FEWEST_ROWS), score_BP.shape[1]))
        padded_BP[: len(score_BP)] = score_BP
        return ((padded_BP @ self._whiten_Pq) ** 2).sum(axis=1)[: len(score_BP)]


def whitening(residual_PP: np.ndarray) -> np.ndarray:
    """A [P, q] with A' R A = I, q the rank of R."""
    size_P = np.sqrt(np.diag(residual_PP))
    value_P, vector_PP = np.linalg.eigh(residual_PP / np.outer(size_P, size_P))
    keep = value_P > SAME_TRAIT * value_P[-1]
    return vector_PP[:, keep] / np.sqrt(value_P[keep]) / size_P[:, None]
