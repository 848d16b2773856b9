"""How good predictions out of fold are, with intervals, and two kinds of predictions of the same people compared.

R2 by a bootstrap over families; the area under the ROC curve (AUC) by DeLong's variance, in which families count as
clusters (DeLong et al. 1988, Biometrics 44:837; Obuchowski 1997, Biometrics 53:567), which is DeLong's own where nobody
has relatives.

Both take the predictions as given. But a person who is tested in one fold has trained the models of the others. Where
predictions are all noise, this doubles the variance: sum over folds r_k . (R - r_k) has each product twice, where r_k
is the covariance of columns and target in a fold, and R its sum. Where they are all signal it adds nothing. So the
variance is multiplied by 1 + the share that is noise (`noise`).

Shapes: N people, F families, B draws, M models of the same people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

LEVEL = 0.95
_Z = float(special.ndtri((1 + LEVEL) / 2))


@dataclass(frozen=True)
class Estimate:
    """A value with its interval at LEVEL; `p` of its being 0, where that was asked."""

    value: float
    low: float
    high: float
    p: float = float("nan")


def draws(family_N: np.ndarray, number: int, seed: int) -> np.ndarray:
    """How often each family is in each bootstrap sample, float64 [B, F]."""
    n = int(family_N.max()) + 1
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=number).astype(np.float64)


def r2(truth_N: np.ndarray, models_MN: np.ndarray, mean_N: np.ndarray, family_N: np.ndarray, draws_BF: np.ndarray):
    """R2 = 1 - SSE / SST of M models and its draws, [M] and [M, B]; SST is about `mean_N`, the means of training."""
    total_F = np.bincount(family_N, (truth_N - mean_N) ** 2, minlength=draws_BF.shape[1])
    error_MF = np.stack(
        [np.bincount(family_N, (truth_N - one_N) ** 2, minlength=draws_BF.shape[1]) for one_N in models_MN]
    )
    return 1 - error_MF.sum(1) / total_F.sum(), 1 - (error_MF @ draws_BF.T) / (total_F @ draws_BF.T)


def noise(first_N: np.ndarray, second_N: np.ndarray, fold_N: np.ndarray) -> float:
    """The share of the variance of predictions that is noise of the training people: from those of two models of
    different halves, by the formula of Spearman and Brown; where these disagree, by its tangent at 0, so that the mean
    over targets that nothing is known of is 1."""
    centred = []
    for one_N in (first_N, second_N):
        mean_k = np.bincount(fold_N, one_N) / np.maximum(np.bincount(fold_N), 1)
        centred.append(one_N - mean_k[fold_N])
    size = np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    r = float(centred[0] @ centred[1] / size) if size > 0 else 0.0
    return (1 - r) / (1 + r) if r > 0 else 1 - 2 * r


def by_draws(value: float, drawn_B: np.ndarray, noise: float) -> Estimate:
    """The basic bootstrap's interval (Davison and Hinkley 1997, section 5.2), and a normal p of its being 0."""
    away_B = np.sqrt(1 + noise) * (drawn_B - value)
    low, high = np.quantile(away_B, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(value - high), float(value - low), _normal_p(value, float(away_B.std())))


def auc(case_N: np.ndarray, margins_MN: np.ndarray, family_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUC of M models [M], and the covariance of these [M, M]."""
    from scipy.stats import rankdata  # takes a second to import

    case_N = case_N.astype(bool)
    n_case, n_control, n_family = int(case_N.sum()), int((~case_N).sum()), int(family_N.max()) + 1
    area_M = np.empty(len(margins_MN))
    case_MF, control_MF = (np.empty((len(margins_MN), n_family)) for _ in range(2))
    for m, margin_N in enumerate(margins_MN):
        all_N = rankdata(margin_N)
        above_i = (all_N[case_N] - rankdata(margin_N[case_N])) / n_control  # of each case: controls below it
        below_j = 1 - (all_N[~case_N] - rankdata(margin_N[~case_N])) / n_case
        area_M[m] = above_i.mean()
        case_MF[m] = np.bincount(family_N[case_N], above_i - area_M[m], minlength=n_family)
        control_MF[m] = np.bincount(family_N[~case_N], below_j - area_M[m], minlength=n_family)
    with_case = len(np.unique(family_N[case_N]))
    with_control = len(np.unique(family_N[~case_N]))
    cross_MM = case_MF @ control_MF.T
    covariance_MM = (
        with_case / (with_case - 1) * (case_MF @ case_MF.T) / n_case**2
        + with_control / (with_control - 1) * (control_MF @ control_MF.T) / n_control**2
        + n_family / (n_family - 1) * (cross_MM + cross_MM.T) / (n_case * n_control)
    )
    return area_M, covariance_MM


def by_variance(value: float, variance: float, noise: float, null: float = 0.0) -> Estimate:
    """A normal interval, and the p of its being `null`."""
    se = float(np.sqrt((1 + noise) * max(variance, 0.0)))
    return Estimate(value, value - _Z * se, value + _Z * se, _normal_p(value - null, se))


def _normal_p(away: float, se: float) -> float:
    if se > 0:
        return float(2 * special.ndtr(-abs(away) / se))
    return 1.0 if away == 0 else 0.0
