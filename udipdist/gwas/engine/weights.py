"""Weights of people in the denominators of all traits, in few columns: W_d = I + sum_j mix[j, d] G_j.

Shapes: N people, O of them with weights, P traits, D distinct heritabilities, r columns, K columns of the design, S
nodes, T pairs of relatives (udipdist.gwas.engine.prepared).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from udipdist.gwas.engine.digits import Digits, split
from udipdist.relatedness.grm import Families

DENSE_FAMILY = 16  # from this size on a family is rotated as a whole instead of pair by pair
FORM_UNIT = 2.0**-36  # of what a person without relatives adds to a denominator
ROUNDING = 4 * np.finfo(float).eps  # of a sum of a few tens of terms, by their size: what their order may change
PROBES = 128  # random vectors that find and check the nodes
NODE_ERROR = 1e-11  # of the largest value
TRAITS_AT_ONCE = 256


def factorise(w_ND: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray, float]:
    """W = 1 + B T with as few columns as give every entry to a relative error of at most `tolerance`.

    Returns B [N, r] with columns of mean square 1, T [r, D] and the error, max |W - 1 - B T| / W, which is measured; it
    includes what another processor's order of sums may add (ROUNDING), so the promise holds on all of them.
    Raises ArithmeticError where no rank reaches the tolerance (it is below the rounding of float64).
    """
    n, d = w_ND.shape
    over_ND = w_ND - 1
    # A few hundred columns spread over the range span the others; the error is measured on all of them.
    some = np.unique(np.linspace(0, d - 1, min(d, TRAITS_AT_ONCE)).astype(int))
    left_Nr, size_r, _ = linalg.svd(over_ND[:, some], full_matrices=False)
    error = np.inf
    for rank in range(len(size_r) + 1):
        if rank < len(size_r) and size_r[rank] > tolerance * np.sqrt(w_ND[:, some].size) * w_ND.max():
            continue
        basis_Nr = left_Nr[:, :rank] * np.sqrt(n)
        mix_rD = basis_Nr.T @ over_ND / n
        blocks = (slice(i, i + TRAITS_AT_ONCE) for i in range(0, d, TRAITS_AT_ONCE))
        error = max((_error(basis_Nr, mix_rD[:, p], over_ND[:, p], w_ND[:, p]) for p in blocks), default=0.0)
        if error <= tolerance:
            return basis_Nr, mix_rD, error
    raise ArithmeticError(f"the weights' factorisation reaches {error:.1e}, not weight_tolerance={tolerance:.1e}")


def _error(basis_Nr: np.ndarray, mix_rP: np.ndarray, over_NP: np.ndarray, w_NP: np.ndarray) -> float:
    """max |W - 1 - B T| / W, and what rounding may add to it."""
    apart_NP = np.abs(basis_Nr @ mix_rP - over_NP) + ROUNDING * (np.abs(basis_Nr) @ np.abs(mix_rP))
    return float(np.max(apart_NP / w_NP, initial=0.0))


def units(unit_k: np.ndarray, mix_rD: np.ndarray) -> np.ndarray:
    """Units [r k] for r groups of k columns, which are multiplied by `mix` and added up: such that all groups are
    rounded to `unit_k` there, whatever the trait. Groups that add little so need few digits."""
    size_r = np.abs(mix_rD).max(axis=1, initial=0.0)
    return np.outer(1 / np.where(size_r > 0, size_r, 1.0), unit_k).ravel()


def nodes(mix_rD: np.ndarray, middle_DKK: np.ndarray, gls: bool) -> tuple[np.ndarray, np.ndarray]:
    """Columns S of the D from which what covariates explain is interpolated to all, and the coefficients [D, S].

    The space of these functions is found from random variants by a pivoted QR decomposition and checked with others:
    to NODE_ERROR of the largest value, or all D columns are nodes.
    """
    r, d = mix_rD.shape
    k = middle_DKK.shape[1]
    rng = np.random.default_rng(0)
    size_r = np.abs(mix_rD).max(axis=1, initial=0.0)

    def explained() -> np.ndarray:
        u_bK = rng.standard_normal((PROBES, k))
        e_brK = rng.standard_normal((PROBES, r, k)) / np.maximum(size_r, 1e-300)[:, None]
        v_DbK = u_bK + np.einsum("brk,rd->dbk", e_brK, mix_rD)
        if gls:
            return (v_DbK * (v_DbK @ middle_DKK)).sum(axis=2)
        return (u_bK * (2 * v_DbK - u_bK @ middle_DKK)).sum(axis=2)

    found_Db, fresh_Db = explained(), explained()
    _, triangle, order = linalg.qr(found_Db.T, mode="economic", pivoting=True)
    size = np.abs(np.diag(triangle))
    for count in range(max(1, int((size > 1e-8 * size[0]).sum())), min(d, PROBES)):
        node_S = np.sort(order[:count])
        spread_DS = linalg.lstsq(found_Db[node_S].T, found_Db.T)[0].T
        error = np.abs(spread_DS @ fresh_Db[node_S] - fresh_Db).max() / np.abs(fresh_Db).max()
        if error <= NODE_ERROR:
            return node_S, np.ascontiguousarray(spread_DS)
    return np.arange(d), np.eye(d)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """W_d = I + sum_j mix[j, d] G_j, and what covariates explain of a variant under each W_d.

    `mix_rD`; `which_P` the column d of a trait; at the nodes `mix_rS` and `middle_SKK` = (C'WC)^-1 for GLS, else C'WC;
    `spread_DS` interpolates from the nodes. `error`: the largest relative error of a weight.
    """

    mix_rD: np.ndarray
    which_P: np.ndarray
    mix_rS: np.ndarray
    middle_SKK: np.ndarray
    spread_DS: np.ndarray
    gls: bool
    error: float

    @classmethod
    def of(cls, *, mix_rD: np.ndarray, which_P: np.ndarray, qwq_DKK: np.ndarray, gls: bool, error: float) -> Weights:
        """From the factorised weights and C'WC of each heritability."""
        middle_DKK = np.linalg.inv(qwq_DKK) if gls else qwq_DKK
        node_S, spread_DS = nodes(mix_rD, middle_DKK, gls)
        return cls(
            mix_rD=mix_rD,
            which_P=which_P,
            mix_rS=np.ascontiguousarray(mix_rD[:, node_S]),
            middle_SKK=np.ascontiguousarray(middle_DKK[node_S]),
            spread_DS=spread_DS,
            gls=gls,
            error=error,
        )

    @property
    def rank(self) -> int:
        """Columns of the factorisation, with the constant."""
        return len(self.mix_rD) + 1


@dataclass(frozen=True, kw_only=True)
class LargeFamilies:
    """G_j within families of DENSE_FAMILY people or more, of L people together: U diag(B_j) U' of each.

    `column_O`: which of the L a person with weights is (-1: none); `start_F`, `size_F`, `offset_F`, `u` as in
    relatedness.grm.Families, counted within the L; `basis_Lr` weights in the rotated space.
    """

    column_O: np.ndarray
    start_F: np.ndarray
    size_F: np.ndarray
    offset_F: np.ndarray
    u: np.ndarray
    basis_Lr: np.ndarray


@dataclass(frozen=True, kw_only=True)
class WeightedFamilies:
    """The matrices G_j = U diag(B_j) U' among the O people with weights.

    `diagonal_Or`, and above the diagonal `pair_Tr` / 2 at (first_T, partner_T), those of person i from pair_O[i]; the
    same pairs seen from either side are `mate_M`, `pair_M` from mate_O[i]; `form` has both in digits. Families that are
    rotated as a whole are in `large` instead.
    """

    diagonal_Or: np.ndarray
    pair_O: np.ndarray
    first_T: np.ndarray
    partner_T: np.ndarray
    pair_Tr: np.ndarray
    mate_O: np.ndarray
    mate_M: np.ndarray
    pair_M: np.ndarray
    form: Digits
    large: LargeFamilies

    @classmethod
    def of(
        cls, *, families: Families, basis_Nr: np.ndarray, mix_rD: np.ndarray, number_N: np.ndarray, n_other: int
    ) -> WeightedFamilies:
        """`basis_Nr` is B in the order of `families`; `number_N` numbers the `n_other` people with weights, others have
        -1 there."""
        r = basis_Nr.shape[1]
        diagonal_Or = np.zeros((n_other, r))
        single = np.flatnonzero(number_N[: families.n_single] >= 0)
        diagonal_Or[number_N[single]] = basis_Nr[single]
        first, second, value = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty((0, r))]
        size_F = families.size_F if n_other else np.empty(0, np.int64)
        for size in np.unique(size_F[size_F < DENSE_FAMILY]):
            f = np.flatnonzero(size_F == size)
            member_fi = families.start_F[f][:, None] + np.arange(size)
            u_fij = families.u[families.offset_F[f][:, None] + np.arange(size * size)].reshape(-1, size, size)
            form_fikr = np.einsum("fia,far,fka->fikr", u_fij, basis_Nr[member_fi], u_fij, optimize=True)
            number_fi = number_N[member_fi]
            diagonal_Or[number_fi.ravel()] = form_fikr[:, np.arange(size), np.arange(size)].reshape(-1, r)
            i, k = np.triu_indices(size, 1)
            low, high = np.sort([number_fi[:, i].ravel(), number_fi[:, k].ravel()], axis=0)
            first.append(low)
            second.append(high)
            value.append(form_fikr[:, i, k].reshape(-1, r))
        first_T, second_T = np.concatenate(first), np.concatenate(second)
        order = np.argsort(first_T, kind="stable")
        first_T, second_T, pair_Tr = first_T[order], second_T[order], 2 * np.concatenate(value)[order]
        both_M, mate_M = np.concatenate([first_T, second_T]), np.concatenate([second_T, first_T])
        by_person = np.argsort(both_M, kind="stable")
        form_Ur = np.concatenate([diagonal_Or, pair_Tr])
        return cls(
            diagonal_Or=diagonal_Or,
            pair_O=np.searchsorted(first_T, np.arange(n_other + 1)),
            first_T=first_T,
            partner_T=second_T,
            pair_Tr=pair_Tr,
            mate_O=np.searchsorted(both_M[by_person], np.arange(n_other + 1)),
            mate_M=mate_M[by_person],
            pair_M=by_person % max(len(first_T), 1),
            form=split(form_Ur, units(np.array([FORM_UNIT]), mix_rD)),
            large=_large(families, np.flatnonzero(size_F >= DENSE_FAMILY), basis_Nr, number_N, n_other),
        )


def _large(
    families: Families, large: np.ndarray, basis_Nr: np.ndarray, number_N: np.ndarray, n_other: int
) -> LargeFamilies:
    """Of the families with the numbers `large`."""
    size_F = families.size_F[large]
    member_L = np.concatenate(
        [np.empty(0, np.int64)] + [families.start_F[f] + np.arange(families.size_F[f]) for f in large]
    )
    column_O = np.full(n_other, -1, np.int64)
    column_O[number_N[member_L]] = np.arange(len(member_L))
    return LargeFamilies(
        column_O=column_O,
        start_F=np.cumsum(size_F) - size_F,
        size_F=size_F,
        offset_F=np.cumsum(size_F**2) - size_F**2,
        u=np.concatenate(
            [np.empty(0)] + [families.u[families.offset_F[f] :][: families.size_F[f] ** 2] for f in large]
        ),
        basis_Lr=basis_Nr[member_L],
    )
