"""Null models: variance components of each trait without a variant, by REML in the rotated space.

V = Vg G + Ve I = s2 (h G + (1 - h) I). After rotation by U' (grm.Families) V is diagonal with entries
s2 / w, w(h) = 1 / (1 + h (d - 1)). As functions of d the w(h) of all h are combinations of those of a few nodes S of h
(15 to 70, to 1e-11), so people are gone through once: after C'WC, C'Wy and y'Wy at the nodes, a likelihood costs O(S K)
a trait, and all traits are searched together: a grid over h, then the root of the derivative between grid points.
Shapes: N people, P traits, K columns of the design, S nodes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy import linalg

from hpc.errors import InputError, some
from udipdist import delimited

log = logging.getLogger(__name__)

GRID = 65
NEAR_ONE = 1 - 1e-4  # largest h of the free search: V stays well conditioned even where G is singular
GCTA_LIMIT = 1.6  # largest Vg / Vp of the constrained search (GCTA --h2-limit)
SAME = 1e-8  # eigenvalues closer than this hold no information about h
PEOPLE_AT_ONCE = 2048
NODE_TOLERANCE = 1e-13  # smallest singular value, of the largest, that a node adds


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
    if not path.is_file():
        raise InputError(f"{path}: does not exist; null_model.variance= is a table with the columns trait, Vg, Ve")
    table = delimited.read(path).frame()
    table.columns = [str(name).lower() for name in table.columns]
    lacks = [name for name in ("trait", "vg", "ve") if name not in table]
    if lacks:
        raise InputError(f"{path}: has no column {some(lacks)}; it must have trait, Vg, Ve")
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
    n, p = y_NP.shape
    limit = _limit(d_N, total_variance)
    nodes = Nodes.between(d_N.min(), d_N.max(), limit)
    total_P = (y_NP**2).sum(axis=0) / (n - 1) if total_variance == "sample" else None
    reml = Reml(y_NP, c_NK, d_N, nodes, total_P)
    if np.ptp(d_N) < SAME:
        s2_P, nan_P = reml.total(np.zeros(p)), np.full(p, np.nan)
        return NullModels(np.zeros(p), s2_P, nan_P, nan_P, nan_P, ["flat"] * p)
    h_P, boundary_P = _search(reml, limit)
    s2_P = reml.total(h_P)
    return NullModels(h_P * s2_P, (1 - h_P) * s2_P, *reml.standard_errors(h_P, s2_P), boundary_P)


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
        from scipy.optimize import elementwise  # a fifth of a second to import

        found = elementwise.find_root(reml.slope, (low, high), args=(inside,), tolerances={"xatol": 1e-12})
        if not found.success.all():
            log.warning("REML: %d traits keep h2 to within %.2g, the step of the grid", (~found.success).sum(), grid[1])
        h_P[inside] = np.where(found.success, found.x, h_P[inside])
    return h_P, [str(flag) for flag in boundary_P]


class Gram:
    """C' diag(w) C for many columns of weights, by one product with the products of C's columns."""

    def __init__(self, c_NK: np.ndarray):
        self._c_NK = c_NK

    def __call__(self, w_Np: np.ndarray) -> np.ndarray:
        """[p, K, K], one matrix for each column of `w_Np`."""
        n, k = self._c_NK.shape
        upper = np.triu_indices(k)
        values = np.zeros((w_Np.shape[1], len(upper[0])))
        cc_IL = np.empty((PEOPLE_AT_ONCE, len(upper[0])))
        for start in range(0, n, PEOPLE_AT_ONCE):
            c_IK = self._c_NK[start : start + PEOPLE_AT_ONCE]
            place = 0
            for i in range(k):
                np.multiply(c_IK[:, i, None], c_IK[:, i:], out=cc_IL[: len(c_IK), place : place + k - i])
                place += k - i
            values += w_Np[start : start + PEOPLE_AT_ONCE].T @ cc_IL[: len(c_IK)]
        out_pKK = np.empty((w_Np.shape[1], k, k))
        out_pKK[:, upper[0], upper[1]] = values
        out_pKK[:, upper[1], upper[0]] = values
        return out_pKK


@dataclass(frozen=True)
class Nodes:
    """Values `h_S` from which w(h) = 1 / (1 + h (d - 1)) follows for all h from 0 to `limit` and d in a range.

    The functions of d are sampled at `d_L`, weighted by `root_L`; nodes are the columns that a pivoted QR decomposition
    takes first (an interpolative decomposition: Cheng, Gimbutas, Martinsson & Rokhlin 2005).
    """

    h_S: np.ndarray
    d_L: np.ndarray
    root_L: np.ndarray
    q_LS: np.ndarray
    triangle_SS: np.ndarray

    @classmethod
    def between(cls, low: float, high: float, limit: float) -> Nodes:
        """Nodes for d from `low` to `high`, where 1 + limit (low - 1) > 0."""
        pole = 1 - 1 / limit  # the largest d at which a w(h) is infinite
        step = 0.25  # groups of traits whose people differ a little share their nodes
        start, stop = np.floor(np.log(low - pole) / step), np.ceil(np.log(high - pole) / step)
        return _nodes(limit, float(start * step), float(max(stop, start + 1) * step))

    def combine(self, values_Lp: np.ndarray) -> np.ndarray:
        """Coefficients [S, p] that give functions of d, known at `d_L`, from the w of the nodes."""
        return linalg.solve_triangular(self.triangle_SS, self.q_LS.T @ (self.root_L[:, None] * values_Lp))

    def weights(self, h_p: np.ndarray, power: int = 1) -> np.ndarray:
        """w(h)^power at `d_L`, [L, p]."""
        return (1 + h_p * (self.d_L[:, None] - 1)) ** -power


@lru_cache(maxsize=8)
def _nodes(limit: float, start: float, stop: float) -> Nodes:
    """Nodes for the logarithm of d's distance from the pole from `start` to `stop`."""
    above_L = np.exp(np.linspace(start, stop, 400))
    d_L, root_L = above_L + (1 - 1 / limit), np.sqrt(above_L)
    near = 10 ** -np.linspace(0, 5, 60)
    h = np.unique(np.concatenate([np.linspace(0, limit, 130), limit * (1 - near), limit * near]))
    w_LH = root_L[:, None] / (1 + h * (d_L[:, None] - 1))
    _, triangle, order = linalg.qr(w_LH / np.abs(w_LH).max(axis=0), mode="economic", pivoting=True)
    size = np.abs(np.diag(triangle))
    chosen = np.sort(order[: int((size > NODE_TOLERANCE * size[0]).sum())])
    q_LS, triangle_SS = np.linalg.qr(w_LH[:, chosen])
    return Nodes(h[chosen], d_L, root_L, q_LS, triangle_SS)


class Reml:
    """Restricted likelihood of P traits as a function of h; s2 is profiled out, or fixed to `total_P`."""

    def __init__(
        self, y_NP: np.ndarray, c_NK: np.ndarray, d_N: np.ndarray, nodes: Nodes, total_P: np.ndarray | None = None
    ):
        self.e_N, self.nodes, self.total_P = d_N - 1, nodes, total_P
        self.n, self.k = c_NK.shape
        s, p = len(nodes.h_S), y_NP.shape[1]
        w_NS = 1 / (1 + nodes.h_S * self.e_N[:, None])
        self.cc_SKK = Gram(c_NK)(w_NS)
        self.yy_SP = np.zeros((s, p))
        cy_XP = np.zeros((s * self.k, p))
        for start in range(0, self.n, PEOPLE_AT_ONCE):
            i = slice(start, start + PEOPLE_AT_ONCE)
            cy_XP += (w_NS[i, :, None] * c_NK[i, None, :]).reshape(-1, s * self.k).T @ y_NP[i]
            self.yy_SP += w_NS[i].T @ y_NP[i] ** 2
        self.cy_PSK = np.ascontiguousarray(cy_XP.reshape(s, self.k, p).transpose(2, 0, 1))
        self.ew_S = self.e_N @ w_NS

    def likelihood(self, h: float) -> np.ndarray:
        """Restricted log-likelihood [P] at one h for all traits, up to a constant."""
        t_S = self.nodes.combine(self.nodes.weights(np.array([h])))[:, 0]
        cwc_KK, cwy_PK = np.tensordot(t_S, self.cc_SKK, 1), np.einsum("s,psk->pk", t_S, self.cy_PSK)
        ypy_P = t_S @ self.yy_SP - (cwy_PK * np.linalg.solve(cwc_KK, cwy_PK.T).T).sum(axis=1)
        determinants = np.log1p(h * self.e_N).sum() + np.linalg.slogdet(cwc_KK)[1]
        if self.total_P is None:
            return -0.5 * ((self.n - self.k) * np.log(ypy_P) + determinants)
        return -0.5 * (ypy_P / self.total_P + determinants)

    def slope(self, h_p: np.ndarray, which_p: np.ndarray) -> np.ndarray:
        """Derivative of the log-likelihood with respect to h, each trait `which_p` at its own h."""
        t_Sp, a_pK, s2_p, cwc_pKK = self._solve(h_p, which_p)
        change_Sp = self.nodes.combine(self.nodes.weights(h_p, 2) * (self.nodes.d_L[:, None] - 1))
        change_pKK = np.tensordot(change_Sp.T, self.cc_SKK, 1)
        trace_p = self.ew_S @ t_Sp - np.trace(np.linalg.solve(cwc_pKK, change_pKK), axis1=1, axis2=2)
        return -0.5 * (trace_p - self._squares(change_Sp, a_pK, change_pKK, which_p) / s2_p)

    def total(self, h_P: np.ndarray) -> np.ndarray:
        """Vg + Ve of each trait at its h."""
        return self._solve(h_P, np.arange(len(h_P)))[2]

    def standard_errors(self, h_P: np.ndarray, s2_P: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Standard errors of Vg, Ve and h2 (delta method) from the average information of (Vg, Ve)."""
        every = np.arange(len(h_P))
        _, a_PK, _, cwc_PKK = self._solve(h_P, every)
        d_L1, w2_LP, w3_LP = self.nodes.d_L[:, None], self.nodes.weights(h_P, 2), self.nodes.weights(h_P, 3)

        def information(power: int, left_PK: np.ndarray, right_PK: np.ndarray) -> np.ndarray:
            """r'G^i P G^j r / 2 for the residuals r = P y and i + j = `power`; left, right: C'W G^i r, C'W G^j r."""
            t_SP = self.nodes.combine(w3_LP * d_L1**power)
            whole_P = self._squares(t_SP, a_PK, np.tensordot(t_SP.T, self.cc_SKK, 1), every)
            return 0.5 * (whole_P - (left_PK * np.linalg.solve(cwc_PKK, right_PK[..., None])[..., 0]).sum(axis=1))

        products = []
        for power in (0, 1):  # C'W G^i r
            t_SP = self.nodes.combine(w2_LP * d_L1**power)
            cwc = np.tensordot(t_SP.T, self.cc_SKK, 1)
            products.append(self._products(t_SP, every) - (cwc @ a_PK[..., None])[..., 0])
        plain_PK, genetic_PK = products
        gg = information(2, genetic_PK, genetic_PK)
        ge = information(1, genetic_PK, plain_PK)
        ee = information(0, plain_PK, plain_PK)
        determinant = (gg * ee - ge**2) / s2_P**3  # each is over s2^3: r = P y holds 1 / s2, as does P between
        vg_P, ve_P = h_P * s2_P, (1 - h_P) * s2_P
        with np.errstate(divide="ignore", invalid="ignore"):
            var_g, var_e, covariance = ee / determinant, gg / determinant, -ge / determinant
            var_h = (ve_P**2 * var_g + vg_P**2 * var_e - 2 * vg_P * ve_P * covariance) / s2_P**4
            return np.sqrt(var_g), np.sqrt(var_e), np.sqrt(var_h)

    def _solve(self, h_p: np.ndarray, which_p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """At each trait's h: coefficients of w [S, p], effects of C [p, K], s2 [p] and C'WC [p, K, K]."""
        t_Sp = self.nodes.combine(self.nodes.weights(h_p))
        cwc_pKK = np.tensordot(t_Sp.T, self.cc_SKK, 1)
        cwy_pK = self._products(t_Sp, which_p)
        a_pK = np.linalg.solve(cwc_pKK, cwy_pK[..., None])[..., 0]
        if self.total_P is not None:
            return t_Sp, a_pK, self.total_P[which_p], cwc_pKK
        ypy_p = (t_Sp * self.yy_SP[:, which_p]).sum(axis=0) - (a_pK * cwy_pK).sum(axis=1)
        return t_Sp, a_pK, ypy_p / (self.n - self.k), cwc_pKK

    def _products(self, t_Sp: np.ndarray, which_p: np.ndarray) -> np.ndarray:
        """C' diag(f) y [p, K] for the functions f with the coefficients t."""
        return np.einsum("sp,psk->pk", t_Sp, self.cy_PSK[which_p])

    def _squares(self, t_Sp: np.ndarray, a_pK: np.ndarray, cfc_pKK: np.ndarray, which_p: np.ndarray) -> np.ndarray:
        """Sum of f (y - C a)^2 for the functions f with the coefficients t; `cfc` is C' diag(f) C."""
        cfy_pK = self._products(t_Sp, which_p)
        across_p = (a_pK * ((cfc_pKK @ a_pK[..., None])[..., 0] - 2 * cfy_pK)).sum(axis=1)
        return (t_Sp * self.yy_SP[:, which_p]).sum(axis=0) + across_p
