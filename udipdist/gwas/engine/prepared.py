"""What the test of a group of traits needs, made once by the plan: numerators, exact denominators, digits.

Shapes: N people, P traits, D distinct heritabilities among them, K columns of the design, r rank of the weights, S
nodes, R places of a packed row (rows of zeros for people who are not analysed), O people with weights, T pairs of them.

With V = s2 W^-1, W_d = U diag(1 / (1 + h_d (lambda - 1))) U', and x a genotype, for trait p with h_d and s2 = Vg + Ve
  gls              numerator x'P y,  denominator x'W x - x'W C (C'W C)^-1 C'W x
  project          numerator z'W y,  denominator z'W z, z = x - C C'x (least squares), y likewise
  phenotype        the same with C the intercept only, y free of covariates (what GCTA does)
each over s2. Three things keep the denominators exact and cheap. People without relatives whose G_ii is 1 have weight
1 for every trait, so only the O others need weights. Their N x D weights have tiny rank: W_d = I + sum_j T_jd G_j with
r matrices G_j that are as sparse as G. And what covariates explain of x is a smooth function of h, known at all D
values from its values at S nodes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np

from udipdist.genotypes import codes
from udipdist.gwas.engine import weights
from udipdist.gwas.engine.digits import Digits, finest, split
from udipdist.gwas.null.reml import Gram
from udipdist.relatedness.grm import Families

SAME_TRAIT = 1e-8  # eigenvalues of the traits' correlation below this (times the largest) are linear dependence
GATHER_BELOW = 0.5  # where fewer of the people of the file are analysed, their codes are copied together first
DIGITS = 5  # of numerators and design
WEIGHTED_UNIT = 2.0**-28  # of the largest entry of a column of the design
MANY_PEOPLE = 8192  # with fewer that is divided by 256, and float64 in place of float32
MODEST_WEIGHTS = 32  # float32 only where weights are at most so large
TRAITS_AT_ONCE = 256
Adjust = Literal["gls", "project", "phenotype"]
Test = Literal["mixed", "linear"]


@dataclass(frozen=True)
class Model:
    """Plain arrays, each saved as one .npy file, so that processes of one machine share the pages.

    People: `fam_N` their rows in the .fam; `gather_N` the same where codes are to be copied together (else empty);
    `keep_Q` (genotypes.codes.keep_bytes). `trait_P`: columns of the output.
    Products: `right_RC` = [numerators P | design K], and `right` the same in digits; `other_R` numbers the O people
    with weights (-1: none), `place_O` is the inverse; `weighted_OX`, `weighted` = the rows of G_j C [O, r K].
    G_j: `diagonal_Or`, and above the diagonal `pair_Tr` / 2 at (first_T, partner_T), those of person i from pair_O[i];
    the same pairs seen from either side are `mate_M`, `pair_M` from mate_O[i]; `form` has both in digits.
    Families of DENSE_FAMILY or more instead by `dense_O` (column among the L people of such families, or -1),
    `dense_start_F` ... `dense_u` (as in Families), and weights in the rotated space `dense_basis_Lr`.
    Denominators: `mix_rD` (W_d = I + sum_j mix[j, d] G_j), `which_P` the column d of a trait; at the nodes `mix_rS` and
    `middle_SKK` = (C'WC)^-1 for GLS, else C'WC; `spread_DS` interpolates from the nodes.
    Traits: `variance_P` s2 (1 in linear); `scale_P` the standard deviation by which the trait was divided; `yy_P` its
    sum of squares; `residual_PP` correlation of residuals in a table (linear: sums of products); `df` residual degrees
    of freedom; `chi2`: the squared statistic is chi2_1 (mixed, and GCTA's linear regression), else it is t.
    """

    fam_N: np.ndarray
    gather_N: np.ndarray
    keep_Q: np.ndarray
    trait_P: np.ndarray
    right_RC: np.ndarray
    right: Digits
    other_R: np.ndarray
    place_O: np.ndarray
    weighted_OX: np.ndarray
    weighted: Digits
    diagonal_Or: np.ndarray
    pair_O: np.ndarray
    first_T: np.ndarray
    partner_T: np.ndarray
    pair_Tr: np.ndarray
    mate_O: np.ndarray
    mate_M: np.ndarray
    pair_M: np.ndarray
    form: Digits
    dense_O: np.ndarray
    dense_start_F: np.ndarray
    dense_size_F: np.ndarray
    dense_offset_F: np.ndarray
    dense_u: np.ndarray
    dense_basis_Lr: np.ndarray
    mix_rD: np.ndarray
    which_P: np.ndarray
    mix_rS: np.ndarray
    middle_SKK: np.ndarray
    spread_DS: np.ndarray
    variance_P: np.ndarray
    scale_P: np.ndarray
    yy_P: np.ndarray
    residual_PP: np.ndarray
    df: int
    relatives: int
    largest_family: int
    gls: bool
    linear: bool
    chi2: bool
    weight_error: float

    @property
    def n(self) -> int:
        """Number of people."""
        return len(self.fam_N)

    @property
    def weight_rank(self) -> int:
        """Columns of the weights' factorisation, with the constant."""
        return len(self.mix_rD) + 1

    def save(self, folder: Path) -> None:
        """Write one .npy an array into `folder`, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            value = getattr(self, field.name)
            parts = asdict(value) if isinstance(value, Digits) else {"": value}
            for name, array in parts.items():
                np.save(folder / f"{field.name}{name and '.'}{name}.npy", array, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Model:
        """Map what `save` wrote: pages are read when used, and shared by the processes of a machine."""

        def mapped(name: str) -> np.ndarray:
            return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False))

        values = {}
        for field in fields(cls):
            if field.type == "Digits":
                values[field.name] = Digits(
                    **{part.name: mapped(f"{field.name}.{part.name}") for part in fields(Digits)}
                )
            else:
                array = mapped(field.name)
                values[field.name] = array if array.ndim else array.item()
        return cls(**values)


class TraitInDesign(ValueError):
    """A trait is a linear function of the covariates; `args[0]` is its column."""


def residualise(y_NP: np.ndarray, q_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Traits without the orthonormal columns q, scaled to variance 1, and the standard deviations they had.

    Raises TraitInDesign where nothing is left.
    """
    centred_NP = y_NP - y_NP.mean(axis=0)
    left_NP = centred_NP - q_NK @ (q_NK.T @ centred_NP)
    left_NP -= q_NK @ (q_NK.T @ left_NP)
    size_P = np.linalg.norm(left_NP, axis=0)
    empty = np.flatnonzero(size_P < 1e-7 * np.linalg.norm(centred_NP, axis=0))
    if len(empty):
        raise TraitInDesign(int(empty[0]))
    scale_P = size_P / np.sqrt(len(y_NP) - 1)
    return left_NP / scale_P, scale_P


def prepare(
    families: Families,
    fam_N: np.ndarray,
    trait_P: np.ndarray,
    y_NP: np.ndarray,
    scale_P: np.ndarray,
    q_NK: np.ndarray,
    vg_P: np.ndarray,
    ve_P: np.ndarray,
    adjust: Adjust,
    test: Test,
    weight_tolerance: float,
    table_P: np.ndarray | None = None,
) -> Model:
    """The model of a group of traits. People are in the order of `families`; `y_NP` and `scale_P` are what
    `residualise` gives, Vg and Ve are on that scale; `q_NK` are the orthonormal columns taken out of the genotypes.
    `table_P` numbers the tables that traits are of (default one): only traits of one table are tested jointly."""
    n, k = q_NK.shape
    linear = test == "linear"
    gls = linear or adjust == "gls"  # with V = s2 I both are the same projection
    total_P = np.ones(len(vg_P)) if linear else vg_P + ve_P
    h_D, which_P = np.unique(np.zeros(len(vg_P)) if linear else vg_P / total_P, return_inverse=True)

    special_N = np.ones(n, bool)  # whose weight differs from 1
    special_N[: families.n_single] = np.abs(families.d_N[: families.n_single] - 1) > 0
    special_N &= bool((h_D != 0).any())
    w_OD = 1 / (1 + h_D * (families.d_N[special_N, None] - 1))
    basis_Or, mix_rD, error = weights.factorise(w_OD, weight_tolerance)
    if len(mix_rD) == 0:  # to the tolerance, all weights are 1
        special_N[:] = False
        basis_Or, w_OD = basis_Or[:0], w_OD[:0]

    u_NN = families.matrix()
    uq_NK = u_NN.T @ q_NK
    qwq_DKK = np.eye(k) + Gram(uq_NK[special_N])(w_OD - 1)
    numerator_NP, white_NP = _numerators(u_NN, special_N, w_OD, which_P, qwq_DKK, uq_NK, y_NP, q_NK, gls)
    residual_PP = _within_tables(white_NP, np.zeros(len(vg_P), int) if table_P is None else table_P, not linear)
    numerator_NP /= total_P
    basis_Nr = np.zeros((n, basis_Or.shape[1]))
    basis_Nr[special_N] = basis_Or
    weighted_NX = np.concatenate(
        [np.empty((n, 0))] + [u_NN @ (basis_Nr[:, j : j + 1] * uq_NK) for j in range(basis_Nr.shape[1])], axis=1
    )
    middle_DKK = np.linalg.inv(qwq_DKK) if gls else qwq_DKK
    node_S, spread_DS = weights.nodes(mix_rD, middle_DKK, gls)
    places = _Places.of(fam_N)
    right_RC = places.rows(np.concatenate([numerator_NP, q_NK], axis=1))
    # The people with weights, in the order of their places, so that lists of carriers are in the order of both.
    special = np.flatnonzero(special_N)
    special = special[np.argsort(places.place_N[special])]
    number_N = np.full(n, -1)
    number_N[special] = np.arange(len(special))
    weighted_OX, many = weighted_NX[special], n >= MANY_PEOPLE and w_OD.max(initial=1.0) <= MODEST_WEIGHTS
    largest_k = np.abs(q_NK).max(axis=0)
    largest_k[np.ptp(q_NK, axis=0) < 1e-9 * largest_k] /= 256  # rounding of alike rows (the intercept's) adds up
    weighted_unit_X = weights.units(largest_k * WEIGHTED_UNIT / (1 if many else 256), mix_rD)
    other_R = np.full(places.size, -1, np.int32)
    other_R[places.place_N[special]] = np.arange(len(special))
    return Model(
        fam_N=np.sort(fam_N).astype(np.int64),
        gather_N=places.gather_N,
        keep_Q=codes.keep_bytes(places.place_N),
        trait_P=trait_P,
        right_RC=right_RC,
        right=split(right_RC, finest(right_RC, DIGITS)),
        other_R=other_R,
        place_O=places.place_N[special],
        weighted_OX=weighted_OX.astype(np.float32 if many else np.float64),
        weighted=split(weighted_OX, weighted_unit_X),
        **weights.forms(families, basis_Nr, mix_rD, number_N, len(special)),
        mix_rD=mix_rD,
        which_P=which_P,
        mix_rS=np.ascontiguousarray(mix_rD[:, node_S]),
        middle_SKK=np.ascontiguousarray(middle_DKK[node_S]),
        spread_DS=spread_DS,
        variance_P=total_P,
        scale_P=scale_P,
        yy_P=(y_NP**2).sum(axis=0),
        residual_PP=residual_PP,
        df=n - k - 1,
        relatives=int(families.size_F.sum()),
        largest_family=int(families.size_F.max(initial=1)),
        gls=gls,
        linear=linear,
        chi2=not linear or adjust == "phenotype",
        weight_error=error,
    )


def _numerators(u_NN, special_N, w_OD, which_P, qwq_DKK, uq_NK, y_NP, q_NK, gls: bool) -> tuple[np.ndarray, np.ndarray]:
    """W (y - C a) of each trait in the order of people, and the whitened residuals, both [N, P]."""
    numerator_NP = np.empty_like(y_NP)
    white_NP = np.empty_like(y_NP)
    for start in range(0, y_NP.shape[1], TRAITS_AT_ONCE):
        p = slice(start, start + TRAITS_AT_ONCE)
        residual_Np = u_NN.T @ y_NP[:, p]
        w_Np = np.ones_like(residual_Np)
        w_Np[special_N] = w_OD[:, which_P[p]]
        if gls:
            a_pK = np.linalg.solve(qwq_DKK[which_P[p]], (uq_NK.T @ (w_Np * residual_Np)).T[..., None])[..., 0]
            residual_Np -= uq_NK @ a_pK.T
        numerator_NP[:, p] = u_NN @ (w_Np * residual_Np)
        white_NP[:, p] = np.sqrt(w_Np) * residual_Np
    if not gls:
        numerator_NP -= q_NK @ (q_NK.T @ numerator_NP)
    return numerator_NP, white_NP


def _within_tables(white_NP: np.ndarray, table_P: np.ndarray, unit: bool) -> np.ndarray:
    """The products of whitened residuals [P, P] (`unit`: their correlations); NaN between traits of two tables."""
    product_PP = np.full((white_NP.shape[1],) * 2, np.nan)
    for table in np.unique(table_P):
        own = np.flatnonzero(table_P == table)
        own_Np = white_NP[:, own]
        own_pp = own_Np.T @ own_Np
        size_p = np.sqrt(np.diag(own_pp))
        product_PP[np.ix_(own, own)] = own_pp / np.outer(size_p, size_p) if unit else own_pp
    return product_PP


def whitening(residual_PP: np.ndarray) -> np.ndarray:
    """A [P, q] with A' R A = I, q the rank of R."""
    size_P = np.sqrt(np.diag(residual_PP))
    value_P, vector_PP = np.linalg.eigh(residual_PP / np.outer(size_P, size_P))
    keep = value_P > SAME_TRAIT * value_P[-1]
    return vector_PP[:, keep] / np.sqrt(value_P[keep]) / size_P[:, None]


@dataclass(frozen=True)
class _Places:
    """Where people stand in the rows that the kernels see: as in the file, or copied together."""

    place_N: np.ndarray
    size: int
    gather_N: np.ndarray

    @classmethod
    def of(cls, fam_N: np.ndarray) -> _Places:
        """For people at the rows `fam_N` of the .fam, in any order."""
        n, last = len(fam_N), int(fam_N.max()) + 1
        if max(n, last) > codes.MOST_PEOPLE:
            raise ArithmeticError(f"{last:,} people; at most {codes.MOST_PEOPLE:,} can be counted")
        if n >= GATHER_BELOW * last:
            return cls(fam_N.astype(np.int64), -(-last // 4) * 4, np.empty(0, np.int64))
        sorted_N = np.sort(fam_N).astype(np.int64)
        return cls(np.searchsorted(sorted_N, fam_N), -(-n // 4) * 4, sorted_N)

    def rows(self, matrix_NC: np.ndarray) -> np.ndarray:
        """The matrix with its rows at the places of their people, zeros elsewhere."""
        out_RC = np.zeros((self.size, matrix_NC.shape[1]))
        out_RC[self.place_N] = matrix_NC
        return out_RC
