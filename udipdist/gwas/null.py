"""Null models: variance components of each trait without a variant, by REML in the rotated space.

V = Vg G + Ve I = s2 (h G + (1 - h) I). After rotation by U' (grm.Families) V is diagonal with entries
s2 / w, w(h) = 1 / (1 + h (d - 1)), so a likelihood costs O(N) and all traits are searched together: a grid over h, then
the root of the derivative between grid points. Shapes: N people, P traits, K columns of the design.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from dask.system import cpu_count
from scipy.optimize import elementwise
from threadpoolctl import threadpool_limits

from hpc.errors import InputError, some

log = logging.getLogger(__name__)

GRID = 65
NEAR_ONE = 1 - 1e-4  # largest h of the free search: V stays well conditioned even where G is singular
GCTA_LIMIT = 1.6  # largest Vg / Vp of the constrained search (GCTA --h2-limit)
SAME = 1e-8  # eigenvalues closer than this hold no information about h
TRAITS_AT_ONCE = 32  # by one thread


@dataclass(frozen=True)
class NullModels:
    """Variance components of P traits, their standard errors (average information; NaN where not estimated), and
    `boundary`: "" inside, "lower" (Vg = 0), "upper", or "flat" (the GRM has no relatives, Vg is set to 0)."""

    vg_P: np.ndarray
    ve_P: np.ndarray
    vg_se_P: np.ndarray
    ve_se_P: np.ndarray
    h2_se_P: np.ndarray
    boundary_P: list[str]

    @property
    def h2_P(self) -> np.ndarray:
        """Vg / (Vg + Ve)."""
        return self.vg_P / (self.vg_P + self.ve_P)

    def frame(self, traits: list[str]) -> pd.DataFrame:
        """One row a trait: trait vg ve h2 h2_se vg_se ve_se boundary."""
        return pd.DataFrame(
            {
                "trait": traits,
                "vg": self.vg_P,
                "ve": self.ve_P,
                "h2": self.h2_P,
                "h2_se": self.h2_se_P,
                "vg_se": self.vg_se_P,
                "ve_se": self.ve_se_P,
                "boundary": self.boundary_P,
            }
        )


def given(vg_P: np.ndarray, ve_P: np.ndarray) -> NullModels:
    """Null models with known components."""
    nan_P = np.full(len(vg_P), np.nan)
    return NullModels(vg_P, ve_P, nan_P, nan_P, nan_P, [""] * len(vg_P))


def read_components(path: Path, traits: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Vg and Ve of the traits from a text table with the columns trait, Vg, Ve. Raises InputError."""
    try:
        table = pd.read_csv(path, sep=None, engine="python", dtype={0: str})
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; null.variance= is a table with the columns trait, Vg, Ve") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not a text table with the columns trait, Vg, Ve ({error})") from None
    table.columns = [str(name).lower() for name in table.columns]
    lacks = [name for name in ("trait", "vg", "ve") if name not in table]
    if lacks:
        raise InputError(f"{path}: has no column {some(lacks)}; it must have trait, Vg, Ve")
    table["trait"] = table.trait.astype(str)
    absent = [trait for trait in traits if trait not in set(table.trait)]
    if absent:
        raise InputError(f"{path}: has no row for {some(absent)}; each trait needs its Vg and Ve")
    twice = table.trait[table.trait.duplicated() & table.trait.isin(traits)]
    if len(twice):
        raise InputError(f"{path}: has several rows for {some(twice.unique())}; keep one a trait")
    chosen = table.set_index("trait").loc[traits, ["vg", "ve"]].apply(pd.to_numeric, errors="coerce")
    wrong = ~((chosen.vg >= 0) & np.isfinite(chosen.vg) & np.isfinite(chosen.ve) & (chosen.vg + chosen.ve > 0))
    if wrong.any():
        raise InputError(f"{path}: Vg and Ve of {some(chosen.index[wrong])} are not numbers with Vg >= 0, Vg + Ve > 0")
    return chosen.vg.to_numpy(np.float64), chosen.ve.to_numpy(np.float64)


def fit(
    y_NP: np.ndarray, c_NK: np.ndarray, d_N: np.ndarray, total_variance: Literal["free", "sample"] = "free"
) -> NullModels:
    """REML of each trait, all in the rotated space: U'y, U'C (full column rank), eigenvalues d of G.

    `free` estimates Vg and Ve (h from 0 to 0.9999); `sample` fixes Vg + Ve to y'y / (N - 1), as GCTA's fastGWA does,
    with Vg up to 1.6 times that; y must then be free of covariates. Standard errors are from the average information
    matrix (Gilmour, Thompson & Cullis 1995).
    """
    chunks = [y_NP[:, p : p + TRAITS_AT_ONCE] for p in range(0, y_NP.shape[1], TRAITS_AT_ONCE)]
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(cpu_count()) as pool:
        parts = list(pool.map(lambda chunk_NP: _fit(chunk_NP, c_NK, d_N, total_variance), chunks))
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("vg_P", "ve_P", "vg_se_P", "ve_se_P", "h2_se_P")
    }
    return NullModels(**arrays, boundary_P=[flag for part in parts for flag in part.boundary_P])


def _fit(y_NP: np.ndarray, c_NK: np.ndarray, d_N: np.ndarray, total_variance: str) -> NullModels:
    n, p = y_NP.shape
    total_P = (y_NP**2).sum(axis=0) / (n - 1) if total_variance == "sample" else None
    reml = Reml(y_NP, c_NK, d_N, total_P)
    if np.ptp(d_N) < SAME:
        h_P, boundary_P = np.zeros(p), ["flat"] * p
    else:
        h_P, boundary_P = _search(reml, _limit(d_N, total_variance))
    s2_P = reml.total(h_P)
    vg_P, ve_P = h_P * s2_P, (1 - h_P) * s2_P
    if np.ptp(d_N) < SAME:
        nan_P = np.full(p, np.nan)
        return NullModels(vg_P, ve_P, nan_P, nan_P, nan_P, boundary_P)
    vg_se_P, ve_se_P, h2_se_P = _standard_errors(reml, vg_P, ve_P)
    return NullModels(vg_P, ve_P, vg_se_P, ve_se_P, h2_se_P, boundary_P)


def _limit(d_N: np.ndarray, total_variance: str) -> float:
    """The largest h at which V is positive definite and the search is allowed."""
    if total_variance == "free":
        return NEAR_ONE
    lowest = d_N.min()
    return min(GCTA_LIMIT, NEAR_ONE / (1 - lowest)) if lowest < 1 else GCTA_LIMIT


def _search(reml: Reml, limit: float) -> tuple[np.ndarray, list[str]]:
    """The h of the largest likelihood for each trait, and what boundary it lies on."""
    grid = np.linspace(0.0, limit, GRID)
    best_P = np.argmax(np.stack([reml.likelihood(h) for h in grid]), axis=0)
    every = np.arange(len(best_P))
    h_P = grid[best_P]
    slope_P = reml.slope(h_P, every)
    boundary_P = np.where(
        (best_P == 0) & (slope_P <= 0), "lower", np.where((best_P == GRID - 1) & (slope_P >= 0), "upper", "")
    )
    inside = np.flatnonzero(boundary_P == "")
    if len(inside):
        rising = slope_P[inside] > 0
        low = grid[np.where(rising, best_P[inside], best_P[inside] - 1)]
        high = grid[np.where(rising, best_P[inside] + 1, best_P[inside])]
        found = elementwise.find_root(reml.slope, (low, high), args=(inside,), tolerances={"xatol": 1e-12})
        if not found.success.all():
            log.warning("REML: %d traits keep h2 to within %.2g, the step of the grid", (~found.success).sum(), grid[1])
        h_P[inside] = np.where(found.success, found.x, h_P[inside])
    return h_P, [str(flag) for flag in boundary_P]


class Gram:
    """C' diag(w) C for many columns of weights, by one product with the products of C's columns."""

    def __init__(self, c_NK: np.ndarray):
        self.k = c_NK.shape[1]
        self.upper = np.triu_indices(self.k)
        self.cc_NL = c_NK[:, self.upper[0]] * c_NK[:, self.upper[1]]

    def __call__(self, w_Np: np.ndarray) -> np.ndarray:
        """[p, K, K], one matrix for each column of `w_Np`."""
        out_pKK = np.empty((w_Np.shape[1], self.k, self.k))
        values = w_Np.T @ self.cc_NL
        out_pKK[:, self.upper[0], self.upper[1]] = values
        out_pKK[:, self.upper[1], self.upper[0]] = values
        return out_pKK


class Reml:
    """Restricted likelihood of P traits as a function of h; s2 is profiled out, or fixed to `total_P`."""

    def __init__(self, y_NP: np.ndarray, c_NK: np.ndarray, d_N: np.ndarray, total_P: np.ndarray | None):
        self.y_NP, self.c_NK, self.e_N, self.d_N, self.total_P = y_NP, c_NK, d_N - 1, d_N, total_P
        self.n, self.k = c_NK.shape
        self.gram = Gram(c_NK)

    def likelihood(self, h: float) -> np.ndarray:
        """Restricted log-likelihood [P] at one h for all traits, up to a constant."""
        w_N = 1 / (1 + h * self.e_N)
        wc_NK = w_N[:, None] * self.c_NK
        cwc_KK = self.c_NK.T @ wc_NK
        cwy_KP = wc_NK.T @ self.y_NP
        ypy_P = w_N @ self.y_NP**2 - (cwy_KP * np.linalg.solve(cwc_KK, cwy_KP)).sum(axis=0)
        determinants = -np.log(w_N).sum() + np.linalg.slogdet(cwc_KK)[1]
        if self.total_P is None:
            return -0.5 * ((self.n - self.k) * np.log(ypy_P) + determinants)
        return -0.5 * (ypy_P / self.total_P + determinants)

    def slope(self, h_p: np.ndarray, which_p: np.ndarray) -> np.ndarray:
        """Derivative of the log-likelihood with respect to h, each trait `which_p` at its own h."""
        w_Np = 1 / (1 + h_p * self.e_N[:, None])
        cwc_pKK = self.gram(w_Np)
        r_Np = self._residuals(w_Np, cwc_pKK, which_p)
        spread_p = self.e_N @ r_Np**2
        change_pKK = self.gram(w_Np**2 * self.e_N[:, None])
        trace_p = self.e_N @ w_Np - np.trace(np.linalg.solve(cwc_pKK, change_pKK), axis1=1, axis2=2)
        if self.total_P is None:
            s2_p = (self.y_NP[:, which_p] * r_Np).sum(axis=0) / (self.n - self.k)
        else:
            s2_p = self.total_P[which_p]
        return -0.5 * (trace_p - spread_p / s2_p)

    def total(self, h_P: np.ndarray) -> np.ndarray:
        """Vg + Ve of each trait at its h."""
        if self.total_P is not None:
            return self.total_P
        w_NP = 1 / (1 + h_P * self.e_N[:, None])
        r_NP = self._residuals(w_NP, self.gram(w_NP), np.arange(len(h_P)))
        return (self.y_NP * r_NP).sum(axis=0) / (self.n - self.k)

    def _residuals(self, w_Np: np.ndarray, cwc_pKK: np.ndarray, which_p: np.ndarray) -> np.ndarray:
        """P y [N, p] for s2 = 1: w (y - C a) with the GLS coefficients a."""
        return self.project(w_Np, cwc_pKK, self.y_NP[:, which_p])

    def project(self, w_Np: np.ndarray, cwc_pKK: np.ndarray, z_Np: np.ndarray) -> np.ndarray:
        """P z = W z - W C (C'WC)^-1 C'W z for each column, with the column's own weights."""
        wz_Np = w_Np * z_Np
        a_pK = np.linalg.solve(cwc_pKK, (self.c_NK.T @ wz_Np).T[..., None])[..., 0]
        return wz_Np - w_Np * (self.c_NK @ a_pK.T)


def _standard_errors(reml: Reml, vg_P: np.ndarray, ve_P: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standard errors of Vg, Ve and h2 (delta method) from the average information of (Vg, Ve)."""
    w_NP = 1 / (vg_P * reml.d_N[:, None] + ve_P)
    cwc_PKK = reml.gram(w_NP)
    r_NP = reml.project(w_NP, cwc_PKK, reml.y_NP)
    g_NP = reml.d_N[:, None] * r_NP
    pg_NP, pr_NP = reml.project(w_NP, cwc_PKK, g_NP), reml.project(w_NP, cwc_PKK, r_NP)
    gg, ge, ee = (0.5 * (a * b).sum(axis=0) for a, b in ((g_NP, pg_NP), (g_NP, pr_NP), (r_NP, pr_NP)))
    determinant = gg * ee - ge**2
    with np.errstate(divide="ignore", invalid="ignore"):
        var_g, var_e, covariance = ee / determinant, gg / determinant, -ge / determinant
        total = vg_P + ve_P
        var_h = (ve_P**2 * var_g + vg_P**2 * var_e - 2 * vg_P * ve_P * covariance) / total**4
        return np.sqrt(var_g), np.sqrt(var_e), np.sqrt(var_h)
