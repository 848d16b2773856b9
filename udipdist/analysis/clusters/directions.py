"""Directions of SNPs in latent space, and how alike two of them are.

Let z [P] be the z-scores of a SNP over P traits and R [P, P] their correlation under the null. w = A'z with A'RA = I is
the effect in units of its error, which is N(0, I): all directions are equally hard to measure, and cosines compare
effects rather than the correlations of latents. Which allele is counted is arbitrary, so the similarity is |cos|.
|w|^2 is the statistic of the joint test, of which errors alone make q, the rank of R.

Shapes: L lead SNPs, P traits, q rank of R, M variants.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special  # scipy.stats takes half a second to import

SAME_TRAIT = 1e-8  # eigenvalues of R below this, times the largest, are linear dependence: as in the joint test


@dataclass(frozen=True)
class Whitening:
    """A of the docstring [P, q], and B [q, P] = A'R, with which z = w B where z is in the span of R."""

    whiten_Pq: np.ndarray
    colour_qP: np.ndarray

    @classmethod
    def of(cls, covariance_PP: np.ndarray) -> Whitening:
        """From any covariance of the z-scores under the null; only its correlations count."""
        size_P = np.sqrt(np.diag(covariance_PP))
        value_P, vector_PP = np.linalg.eigh(covariance_PP / np.outer(size_P, size_P))
        kept = value_P > SAME_TRAIT * value_P[-1]
        root_q, vector_Pq = np.sqrt(value_P[kept]), vector_PP[:, kept]
        return cls(vector_Pq / root_q, (vector_Pq * root_q).T)

    @property
    def rank(self) -> int:
        """q, the number of independent traits."""
        return self.whiten_Pq.shape[1]


@dataclass(frozen=True)
class Directions:
    """Effects of L lead SNPs: `w_Lq` with error N(0, I).

    `published`: the vectors are the effects themselves, z times `se_LP`, and signs count; otherwise they are w.
    """

    w_Lq: np.ndarray
    whitening: Whitening
    se_LP: np.ndarray
    published: bool = False

    @classmethod
    def of(cls, z_LP: np.ndarray, se_LP: np.ndarray, whitening: Whitening, published: bool = False) -> Directions:
        """From z-scores and standard errors, float64."""
        return cls(z_LP @ whitening.whiten_Pq, whitening, se_LP, published)

    def similarity(self, noise_Lq: np.ndarray | None = None) -> np.ndarray:
        """|cos| of all pairs (published: cos) [L, L], 1 on the diagonal; with `noise_Lq` of directions w + noise."""
        w_Lq = self.w_Lq if noise_Lq is None else self.w_Lq + noise_Lq
        vector_Lv = (w_Lq @ self.whitening.colour_qP) * self.se_LP if self.published else w_Lq
        cosine_LL = cosines(vector_Lv)
        return cosine_LL if self.published else np.abs(cosine_LL)

    @property
    def chi2_L(self) -> np.ndarray:
        """|w|^2, the statistic of the joint test."""
        return np.square(self.w_Lq).sum(axis=1)

    @property
    def reliability_L(self) -> np.ndarray:
        """The share of |w|^2 that is not error, (|w|^2 - q) / |w|^2, 0 where that is negative: the squared cosine to
        expect between a direction and the true one."""
        return np.maximum(0.0, 1 - self.w_Lq.shape[1] / self.chi2_L)

    def corrected(self) -> np.ndarray:
        """|cos| of all pairs free of noise [L, L]: over the root of both reliabilities, 1 at most; NaN where one is 0.

        Two measured directions look less alike than they are, by that root (Spearman 1904, Am. J. Psychol. 15:72).
        """
        root_L = np.sqrt(self.reliability_L)
        with np.errstate(divide="ignore", invalid="ignore"):
            corrected_LL = np.abs(cosines(self.w_Lq)) / np.outer(root_L, root_L)
        corrected_LL[~np.isfinite(corrected_LL)] = np.nan
        np.fill_diagonal(corrected_LL, np.where(root_L > 0, 1.0, np.nan))
        return np.minimum(corrected_LL, 1.0)


def cosines(vector_Lv: np.ndarray) -> np.ndarray:
    """Cosines of all pairs of rows [L, L], exactly symmetric, between -1 and 1."""
    unit_Lv = vector_Lv / np.linalg.norm(vector_Lv, axis=1, keepdims=True)
    cosine_LL = unit_Lv @ unit_Lv.T
    cosine_LL = np.clip((cosine_LL + cosine_LL.T) / 2, -1.0, 1.0)
    np.fill_diagonal(cosine_LL, 1.0)
    return cosine_LL


def main_direction(w_mq: np.ndarray) -> tuple[np.ndarray, float]:
    """The direction [q] that m directions have in common whatever their signs, and its squared cosine to expect with
    the true one; 0 where they are no longer than errors are.

    It is the first right singular vector of w = one direction + errors N(0, 1). Its singular value s tells how strong
    the signal l is, s^2 = (l + m)(l + q) / l, and the squared cosine is (l^2 - m q) / (l (l + q)) (Benaych-Georges and
    Nadakuditi 2012, J. Multivariate Anal. 111:120, theorems 2.8 and 2.9); of a direction alone |w|^2 is known better.
    """
    m, q = w_mq.shape
    if m == 1:
        chi2 = float(np.square(w_mq).sum())
        return w_mq[0] / np.sqrt(chi2), max(0.0, 1 - q / chi2)
    _, singular, vector_mq = np.linalg.svd(w_mq, full_matrices=False)
    excess = float(singular[0] ** 2) - m - q
    if excess <= 2 * np.sqrt(m * q):
        return vector_mq[0], 0.0
    strength = (excess + np.sqrt(excess**2 - 4 * m * q)) / 2
    return vector_mq[0], float((strength**2 - m * q) / (strength * (strength + q)))


def chance_cosine(q: int, leads: int, level: float = 0.05) -> float:
    """What |cos| of no pair of `leads` unrelated directions in q dimensions exceeds, but with probability `level`.

    cos^2 of two random directions has the distribution Beta(1/2, (q - 1) / 2); Bonferroni over the pairs.
    """
    pairs = leads * (leads - 1) / 2
    return float(np.sqrt(special.betaincinv(0.5, (q - 1) / 2, 1 - level / pairs))) if q > 1 else 1.0
