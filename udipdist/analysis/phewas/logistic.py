"""Logistic regressions: of covariates alone for many codes at once, with score tests; exact; and Firth's.

Shapes: n people, K columns of covariates with the intercept (orthonormal), B codes. A status is 1 (case), 0
(control) or -1 (not known: the person does not count for this code).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

ITERATIONS = 25
SETTLED = 1e-6  # of a Newton step, in units of the linear predictor; the error left is its square
LONGEST = 4.0  # step
FARTHEST = 30.0  # a linear predictor beyond it is separation
SINGULAR = 1e-9
UNSTABLE = 5.0  # |log odds ratio| per SD that is not believed without Firth's penalty


@dataclass(frozen=True)
class NullModels:
    """Codes on covariates alone: residuals and weights [B, n] (0 where the person does not count), the inverse
    information [B, K, K], and which fits have settled."""

    q_nK: np.ndarray
    residual_Bn: np.ndarray
    weight_Bn: np.ndarray
    inverse_BKK: np.ndarray
    settled_B: np.ndarray

    def score(self, c_Bn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Score U and its variance V [B] of one more column for each code; z = U / sqrt(V) is standard normal without
        an effect, and U / V is one Newton step to it (Rao 1948)."""
        u_B = np.einsum("bn,bn->b", c_Bn, self.residual_Bn)
        wc_Bn = self.weight_Bn * c_Bn
        cross_BK = wc_Bn @ self.q_nK
        v_B = np.einsum("bn,bn->b", wc_Bn, c_Bn)
        v_B -= np.einsum("bk,bkl,bl->b", cross_BK, self.inverse_BKK, cross_BK)
        return u_B, np.maximum(v_B, np.finfo(np.float64).tiny)


def null_models(q_nK: np.ndarray, status_Bn: np.ndarray) -> NullModels:
    """Maximum likelihood of every code on the covariates, by Newton steps for all codes together."""
    n, k = q_nK.shape
    case_Bn, known_Bn = (status_Bn == 1).astype(np.float64), (status_Bn >= 0).astype(np.float64)
    rows, columns = np.triu_indices(k)
    products_nJ = q_nK[:, rows] * q_nK[:, columns]
    share_B = np.clip(case_Bn.sum(axis=1) / np.maximum(known_Bn.sum(axis=1), 1), 1e-9, 1 - 1e-9)
    beta_BK = special.logit(share_B)[:, None] * q_nK.sum(axis=0)
    weight_Bn, residual_Bn = np.empty_like(case_Bn), np.empty_like(case_Bn)
    inverse_BKK = np.empty((len(share_B), k, k))
    settled_B = np.zeros(len(share_B), bool)
    for _ in range(ITERATIONS):
        at = np.flatnonzero(~settled_B)
        mu_An = beta_BK[at] @ q_nK.T
        special.expit(np.clip(mu_An, -FARTHEST, FARTHEST, out=mu_An), out=mu_An)
        mu_An *= known_Bn[at]
        residual_Bn[at] = case_Bn[at] - mu_An
        weight_An = mu_An - mu_An**2
        weight_Bn[at] = weight_An
        entry_AJ = weight_An @ products_nJ
        information_AKK = np.empty((len(at), k, k))
        information_AKK[:, rows, columns] = entry_AJ
        information_AKK[:, columns, rows] = entry_AJ
        inverse_BKK[at] = np.linalg.pinv(information_AKK, rcond=SINGULAR, hermitian=True)
        step_AK = np.einsum("bkl,bl->bk", inverse_BKK[at], residual_Bn[at] @ q_nK)
        size_A = np.abs(step_AK).max(axis=1) / np.sqrt(n)  # of the linear predictor: the columns have length 1
        settled_B[at] = size_A < SETTLED
        if settled_B.all():
            break
        beta_BK[at] += step_AK * np.minimum(1, LONGEST / np.maximum(size_A, LONGEST))[:, None]
    return NullModels(q_nK, residual_Bn, weight_Bn, inverse_BKK, settled_B)


@dataclass(frozen=True)
class Effect:
    """The effect of a component (per unit) on one code: log odds ratio, its standard error, and the signed root of the
    likelihood ratio. `settled` is False where the maximum does not exist or is not believed."""

    beta: float
    se: float
    z: float
    settled: bool


def likelihood_ratio(q_nK: np.ndarray, case_n: np.ndarray, c_n: np.ndarray) -> Effect:
    """Logistic regression with and without the component, by maximum likelihood."""
    without, _, _, fine = _fit(q_nK, case_n)
    together_nK = np.column_stack([q_nK, c_n - q_nK @ (q_nK.T @ c_n)])
    value, beta_K, covariance_KK, settled = _fit(together_nK, case_n)
    beta = float(beta_K[-1])
    z = float(np.sign(beta) * np.sqrt(max(0.0, 2 * (value - without))))
    return Effect(beta, float(np.sqrt(covariance_KK[-1, -1])), z, fine and settled and abs(beta) < UNSTABLE)


def _fit(x_nK: np.ndarray, case_n: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, bool]:
    """Log likelihood, coefficients, their covariance, and whether Newton's method has settled."""
    y_n = case_n.astype(np.float64)
    share = y_n.mean()
    beta_K = np.linalg.lstsq(x_nK, np.full(len(y_n), special.logit(share)), rcond=None)[0]
    value, settled, inverse_KK = -np.inf, False, np.zeros((x_nK.shape[1],) * 2)
    for _ in range(ITERATIONS):
        eta_n = np.clip(x_nK @ beta_K, -FARTHEST, FARTHEST)
        mu_n = special.expit(eta_n)
        before, value = value, float((special.log_expit(np.where(case_n, eta_n, -eta_n))).sum())
        inverse_KK = np.linalg.pinv((x_nK.T * (mu_n * (1 - mu_n))) @ x_nK, rcond=SINGULAR, hermitian=True)
        if abs(value - before) < SETTLED**2 * (1 + abs(value)):
            settled = bool(np.abs(eta_n).max() < FARTHEST)
            break
        beta_K = beta_K + inverse_KK @ (x_nK.T @ (y_n - mu_n))
    return value, beta_K, inverse_KK, settled


def firth(q_nK: np.ndarray, case_n: np.ndarray, c_n: np.ndarray) -> Effect:
    """Firth's penalised likelihood ratio (Firth 1993; Heinze and Schemper 2002), by the package firthmodels; finite
    also where the component separates cases from controls."""
    from firthmodels import FirthLogisticRegression

    x_nK = np.column_stack([c_n, q_nK[:, 1:] * np.sqrt(len(c_n))])
    model = FirthLogisticRegression(backend="numpy", max_iter=100).fit(x_nK, case_n.astype(np.int64))
    model.lrt(features=[0])
    beta, p = float(model.coef_[0]), float(model.lrt_pvalues_[0])
    z = float(np.sign(beta) * np.sqrt(special.chdtri(1, p))) if np.isfinite(p) else np.nan
    return Effect(beta, float(model.bse_[0]), z, bool(model.converged_) and np.isfinite(p))
