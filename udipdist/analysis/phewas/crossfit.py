"""Directions from one half of the people, tested in the other, and both halves put together.

Shapes: N people, L latents, K covariate columns with the intercept, B codes. A status is 1, 0 or -1 (not known).

The two halves share their data: with u the score of a code over the latents, standardised, half A's statistic is
u_A'u_B / |u_A| and half B's is u_A'u_B / |u_B|. Without an effect they are nearly the same number, so their plain
Stouffer sum has twice the variance, not a half more. It is therefore divided by its own standard deviation, from the
expected correlation of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from udipdist.analysis.phewas.logistic import NullModels, null_models

Rule = Literal["lda", "centroid"]
DRAWS = 4000


@dataclass(frozen=True)
class Latents:
    """Latents without the covariates [N, L], the half (0 or 1) of each person, and for each half the matrix [L, L] that
    makes a direction from a difference of means there. `correlation`: of the two halves' statistics, without an
    effect."""

    x_NL: np.ndarray
    half_N: np.ndarray
    metrics: tuple[np.ndarray, np.ndarray]
    correlation: float


def prepare(x_NL: np.ndarray, q_NK: np.ndarray, half_N: np.ndarray, rule: Rule) -> Latents:
    """Take the covariates (orthonormal columns) out of the latents, and find both halves' metrics.

    centroid: the difference of the means itself, as published. lda: times the inverse covariance within the half,
    shrunk (Ledoit and Wolf 2004) in units of the latents' standard deviations.
    """
    left_NL = x_NL - q_NK @ (q_NK.T @ x_NL)
    sd_L = left_NL.std(axis=0)
    left_NL = left_NL / np.where(sd_L > 0, sd_L, 1) if rule == "lda" else left_NL
    metrics = tuple(_metric(left_NL[half_N == half], rule) for half in (0, 1))
    covariance_LL = left_NL.T @ left_NL / len(left_NL)
    weight_L = np.linalg.eigvals((metrics[0] + metrics[1]) / 2 @ covariance_LL).real
    return Latents(left_NL, half_N, (metrics[0], metrics[1]), null_correlation(weight_L))


def _metric(x_NL: np.ndarray, rule: Rule) -> np.ndarray:
    if rule == "centroid":
        return np.eye(x_NL.shape[1])
    from sklearn.covariance import ledoit_wolf

    return np.linalg.pinv(ledoit_wolf(x_NL)[0], hermitian=True)


def null_correlation(weight_L: np.ndarray) -> float:
    """Correlation of the statistics of both halves where a code has no effect, E[s^2 / (|a| |b|)] with s = sum w g h,
    |a|^2 = sum w^2 g^2, |b|^2 = sum w^2 h^2 and standard normal g, h [L]: 2 / pi for one latent, near 1 for many."""
    rng = np.random.default_rng(0)
    square_L = (weight_L / np.abs(weight_L).max()) ** 2
    g_DL, h_DL = rng.standard_normal((2, DRAWS, len(weight_L))) ** 2
    together_D = (g_DL * h_DL) @ square_L
    return float(np.mean(together_D / np.sqrt((g_DL @ square_L) * (h_DL @ square_L))))


@dataclass(frozen=True)
class Halves:
    """Statuses [B, N] of some codes with the models of covariates alone in each half."""

    status_BN: np.ndarray
    models: tuple[NullModels, NullModels]


def models_of(status_BN: np.ndarray, q_NK: np.ndarray, half_N: np.ndarray) -> Halves:
    """Fit both halves. The columns are made orthonormal in each."""
    fitted = [null_models(np.linalg.qr(q_NK[half_N == half])[0], status_BN[:, half_N == half]) for half in (0, 1)]
    return Halves(status_BN, (fitted[0], fitted[1]))


def components(latents: Latents, status_BN: np.ndarray, half: int, x_NL: np.ndarray | None = None) -> np.ndarray:
    """Projections [B, n] of the people of `half`, SD 1, onto the directions of the other half; cases lie higher there.

    `x_NL` stands for the latents where they are shuffled.
    """
    x_NL = latents.x_NL if x_NL is None else x_NL
    there_N = latents.half_N != half
    x_nL, status_Bn = x_NL[there_N], status_BN[:, there_N]
    case_Bn, control_Bn = (status_Bn == 1).astype(np.float64), (status_Bn == 0).astype(np.float64)
    mean_BL = (case_Bn @ x_nL) / np.maximum(case_Bn.sum(axis=1), 1)[:, None]
    mean_BL -= (control_Bn @ x_nL) / np.maximum(control_Bn.sum(axis=1), 1)[:, None]
    found_Bn = mean_BL @ latents.metrics[1 - half] @ x_NL[~there_N].T
    found_Bn -= found_Bn.mean(axis=1, keepdims=True)
    sd_B = found_Bn.std(axis=1)
    return found_Bn / np.where(sd_B > 0, sd_B, 1)[:, None]


def stouffer(z_2B: np.ndarray, correlation: float) -> np.ndarray:
    """Both halves' z [2, B] as one, with variance 1 where they have this correlation. Its p is one-sided: a direction
    that tells a code tells it with the sign of the other half."""
    found: np.ndarray = z_2B.sum(axis=0) / np.sqrt(2 * (1 + correlation))
    return found


def one_sided(z: np.ndarray) -> np.ndarray:
    """p of a z that only counts where it is positive."""
    return np.asarray(special.ndtr(-np.asarray(z)))


def score_z(latents: Latents, halves: Halves, x_NL: np.ndarray | None = None) -> np.ndarray:
    """z [2, B] of the score test in each half."""
    found = []
    for half, models in enumerate(halves.models):
        u_B, v_B = models.score(components(latents, halves.status_BN, half, x_NL))
        found.append(u_B / np.sqrt(v_B))
    return np.array(found)


def shuffled(latents: Latents, rng: np.random.Generator) -> np.ndarray:
    """The latents [N, L] of other people of the same half."""
    row_N = np.arange(len(latents.x_NL))
    for half in (0, 1):
        here = np.flatnonzero(latents.half_N == half)
        row_N[here] = rng.permutation(here)
    return latents.x_NL[row_N]
