"""Three ways to take confounders out of latents by a linear map: residuals, LEACE, and iterated projections (INLP).

Shapes: N people, L latents x_NL, K columns of confounders z_NK. Every fit standardises z, so units do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

TOLERANCE = 1e-9  # of a singular value, against the largest: below it is rounding
RESOLUTION = 1e-6  # of latents, which are float32 in most tables: what varies less is rounding
LEAST_R2 = 0.01  # of a confounder that INLP still removes
RIDGE = 1.0  # penalty of the published INLP (the default of scikit-learn's Ridge)
Inlp = Literal["published", "ravfogel"]


class Eraser(Protocol):
    """What a fit gives: a map of latents [N, L] of people with confounders [N, K]; the dimensions that it leaves."""

    dimensions: int

    def apply(self, x_NL: np.ndarray, z_NK: np.ndarray) -> np.ndarray:
        """Latents [N, L] without the confounders."""


@dataclass(frozen=True)
class Residual:
    """x - (z - mean) B: needs the confounders of whom it is applied to."""

    mean_K: np.ndarray
    slope_KL: np.ndarray
    dimensions: int

    def apply(self, x_NL: np.ndarray, z_NK: np.ndarray) -> np.ndarray:
        """Latents [N, L] without their regression on the confounders."""
        return x_NL - (z_NK - self.mean_K) @ self.slope_KL


@dataclass(frozen=True)
class Projection:
    """mean + (x - mean) P', for P = `keep_LL`: the same for everybody, whatever their confounders."""

    mean_L: np.ndarray
    keep_LL: np.ndarray
    dimensions: int

    def apply(self, x_NL: np.ndarray, z_NK: np.ndarray) -> np.ndarray:
        """Latents [N, L] after the projection; the confounders are not looked at."""
        return self.mean_L + (x_NL - self.mean_L) @ self.keep_LL.T


def residual(x_NL: np.ndarray, z_NK: np.ndarray) -> Residual:
    """Least squares of the latents on the confounders."""
    mean_K, unit_NK, sd_K = _standard(z_NK)
    centred_NL = x_NL - x_NL.mean(axis=0)
    slope_KL = np.linalg.lstsq(unit_NK, centred_NL, rcond=TOLERANCE)[0] / sd_K[:, None]
    left_NL = centred_NL - (z_NK - mean_K) @ slope_KL
    return Residual(mean_K, slope_KL, _rank(left_NL, float(np.abs(centred_NL).max())))


def leace(x_NL: np.ndarray, z_NK: np.ndarray) -> Projection:
    """The smallest change of x (least squares in any metric) after which no linear predictor of z beats its mean.

    P = I - W^+ U U' W with W = S_xx^(-1/2) and U an orthonormal basis of the columns of W S_xz (Belrose et al. 2023,
    NeurIPS, theorem 4.3). Singular values below TOLERANCE of the largest are rounding: confounders that are linear
    functions of the others add no dimension.
    """
    mean_L = x_NL.mean(axis=0)
    centred_NL, unit_NK = x_NL - mean_L, _standard(z_NK)[1]
    n = len(x_NL)
    value_L, vector_LL = np.linalg.eigh(centred_NL.T @ centred_NL / n)
    own_L = value_L > len(value_L) * np.finfo(np.float64).eps * value_L[-1]
    root_L = np.sqrt(value_L[own_L])
    whiten_LL = (vector_LL[:, own_L] / root_L) @ vector_LL[:, own_L].T
    colour_LL = (vector_LL[:, own_L] * root_L) @ vector_LL[:, own_L].T
    u_LK, s_K, _ = np.linalg.svd(whiten_LL @ (centred_NL.T @ unit_NK / n), full_matrices=False)
    u_LK = u_LK[:, s_K > TOLERANCE * s_K[0]]
    keep_LL = np.eye(len(mean_L)) - colour_LL @ u_LK @ u_LK.T @ whiten_LL
    return Projection(mean_L, keep_LL, int(own_L.sum()) - u_LK.shape[1])


def inlp(x_NL: np.ndarray, z_NK: np.ndarray, rounds: int, rule: Inlp = "published") -> Projection:
    """Iterated null space projections: each round removes the directions that predict confounders best.

    published: as in the code of the registration paper (ml4h): a round fits a ridge regression of every confounder
    whose R^2, on the people of the fit, is above LEAST_R2, and removes all these directions together, `rounds` times at
    most. ravfogel: one confounder at a time, by a classifier (logistic) where it has two values and by least squares
    otherwise, until none is predicted (Ravfogel et al. 2020, ACL). The directions stay orthonormal in the metric of the
    latents as they are given, unlike LEACE's.
    """
    mean_L = x_NL.mean(axis=0)
    centred_NL, unit_NK = x_NL - mean_L, _standard(z_NK)[1]
    basis_LR = np.eye(len(mean_L))  # of what is kept
    for _ in range(rounds):
        before = basis_LR.shape[1]
        groups = [list(range(unit_NK.shape[1]))] if rule == "published" else [[k] for k in range(unit_NK.shape[1])]
        for group in groups:
            if not basis_LR.shape[1]:
                break
            basis_LR = basis_LR @ _null_space(_predictors(centred_NL @ basis_LR, unit_NK[:, group], rule))
        if basis_LR.shape[1] in (0, before):
            break
    return Projection(mean_L, basis_LR @ basis_LR.T, basis_LR.shape[1])


def _predictors(x_NR: np.ndarray, z_NK: np.ndarray, rule: Inlp) -> np.ndarray:
    """Directions [k, R] that predict those of the confounders that can be."""
    sd_R = x_NR.std(axis=0)
    sd_R[sd_R <= TOLERANCE * sd_R.max()] = np.inf
    unit_NR = x_NR / sd_R
    penalty = RIDGE if rule == "published" else TOLERANCE
    gram_RR = unit_NR.T @ unit_NR + penalty * np.eye(len(sd_R))
    slope_RK = np.linalg.solve(gram_RR, unit_NR.T @ z_NK)
    r2_K = 1 - ((z_NK - unit_NR @ slope_RK) ** 2).sum(axis=0) / (z_NK**2).sum(axis=0)
    chosen_K = np.flatnonzero(r2_K > LEAST_R2)
    if rule == "ravfogel":
        for k in chosen_K:
            if len(np.unique(z_NK[:, k])) == 2:
                slope_RK[:, k] = _classifier(unit_NR, z_NK[:, k] > 0)
    return (slope_RK[:, chosen_K] / sd_R[:, None]).T


def _classifier(unit_NR: np.ndarray, case_N: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    return np.asarray(LogisticRegression(max_iter=1000).fit(unit_NR, case_N).coef_[0], np.float64)


def _null_space(rows_kR: np.ndarray) -> np.ndarray:
    """An orthonormal basis [R, R - rank] of what these rows do not see."""
    width = rows_kR.shape[1]
    if not len(rows_kR):
        return np.eye(width)
    _, s_k, vh_RR = np.linalg.svd(rows_kR, full_matrices=True)
    return vh_RR[int((s_k > TOLERANCE * s_k[0]).sum()) :].T


def _standard(z_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means [K], standardised columns [N, K], standard deviations [K]; a constant column is 0."""
    mean_K, sd_K = z_NK.mean(axis=0), z_NK.std(axis=0)
    sd_K = np.where(sd_K > TOLERANCE * np.abs(mean_K), sd_K, np.inf)
    return mean_K, (z_NK - mean_K) / sd_K, sd_K


def _rank(x_NL: np.ndarray, scale: float) -> int:
    """Independent columns of x, for values of this size."""
    s_L = np.linalg.svd(x_NL, compute_uv=False)
    return int((s_L > RESOLUTION * scale * np.sqrt(len(x_NL))).sum())
