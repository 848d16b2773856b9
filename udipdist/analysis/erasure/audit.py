"""How well confounders are still predicted by latents, linearly and by boosted trees, in people held out.

Shapes: N people, L latents, K confounders.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hpc.progress import Progress

PENALTIES = 10.0 ** np.arange(-2, 7)
BRANCHES = {"max_iter": 100, "max_leaf_nodes": 15, "random_state": 0}
Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def linear_r2(x_NL: np.ndarray, z_NK: np.ndarray, fold_N: np.ndarray) -> np.ndarray:
    """Out-of-fold R^2 [K] of each confounder from the latents, by ridge with generalised cross-validation."""
    return _out_of_fold(_ridge, x_NL, z_NK, fold_N)


def boosted_r2(x_NL: np.ndarray, z_NK: np.ndarray, fold_N: np.ndarray, progress: Progress) -> np.ndarray:
    """Out-of-fold R^2 [K] by boosted trees, which see what is not linear. Costs about a second a confounder."""
    found_K = np.empty(z_NK.shape[1])
    for k in range(len(found_K)):
        found_K[k] = _out_of_fold(_trees, x_NL, z_NK[:, k : k + 1], fold_N)[0]
        progress.advance()
    return found_K


def _out_of_fold(predict: Predict, x_NL: np.ndarray, z_NK: np.ndarray, fold_N: np.ndarray) -> np.ndarray:
    """1 - SSE / SST over all folds, against the mean of the other folds. NaN for a confounder that is constant."""
    error_K, total_K = np.zeros(z_NK.shape[1]), np.zeros(z_NK.shape[1])
    for fold in np.unique(fold_N):
        held_N = fold_N == fold
        mean_L, sd_L = x_NL[~held_N].mean(axis=0), x_NL[~held_N].std(axis=0)
        unit_NL = (x_NL - mean_L) / np.where(sd_L > 0, sd_L, 1)
        guess = predict(unit_NL[~held_N], z_NK[~held_N], unit_NL[held_N])
        error_K += ((z_NK[held_N] - guess) ** 2).sum(axis=0)
        total_K += ((z_NK[held_N] - z_NK[~held_N].mean(axis=0)) ** 2).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total_K > 0, 1 - error_K / total_K, np.nan)


def _ridge(x_NL: np.ndarray, z_NK: np.ndarray, new_ML: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import RidgeCV

    fitted = RidgeCV(alphas=PENALTIES, alpha_per_target=True).fit(x_NL, z_NK)
    return np.asarray(fitted.predict(new_ML)).reshape(-1, z_NK.shape[1])


def _trees(x_NL: np.ndarray, z_NK: np.ndarray, new_ML: np.ndarray) -> np.ndarray:
    from sklearn.ensemble import HistGradientBoostingRegressor

    fitted = HistGradientBoostingRegressor(**BRANCHES).fit(x_NL, z_NK[:, 0])
    return np.asarray(fitted.predict(new_ML))[:, None]
