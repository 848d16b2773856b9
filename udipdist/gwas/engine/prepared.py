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

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import sparse

from udipdist.genotypes import codes
from udipdist.gwas.engine import saved, weights
from udipdist.gwas.engine.digits import Digits, finest, split
from udipdist.gwas.engine.weights import WeightedFamilies, Weights
from udipdist.gwas.null.reml import Gram
from udipdist.relatedness.grm import Families

GATHER_BELOW = 0.5  # where fewer of the people of the file are analysed, their codes are copied together first
DIGITS = 5  # of numerators and design
WEIGHTED_UNIT = 2.0**-28  # of the largest entry of a column of the design
MANY_PEOPLE = 8192  # with fewer that is divided by 256, and float64 in place of float32
MODEST_WEIGHTS = 32  # float32 only where weights are at most so large
TRAITS_AT_ONCE = 256
Adjust = Literal["gls", "project", "phenotype"]
Test = Literal["mixed", "linear"]


@dataclass(frozen=True, kw_only=True)
class NullTraits:
    """The traits of a group under their null models, in the order of the people of relatedness.grm.Families.

    `trait_P`: columns of the output. `y_NP` and `scale_P` are what `residualise` gives; Vg and Ve are on that scale.
    """

    trait_P: np.ndarray
    y_NP: np.ndarray
    scale_P: np.ndarray
    vg_P: np.ndarray
    ve_P: np.ndarray


@dataclass(frozen=True, kw_only=True)
class People:
    """Who is tested, and where they stand in packed rows.

    `fam_N` their rows in the .fam, ascending; `gather_N` the same where codes are to be copied together (else empty);
    `keep_Q` as genotypes.codes has it. `other_R` numbers the O people with weights (-1: none), `place_O` is the
    inverse.
    """

    fam_N: np.ndarray
    gather_N: np.ndarray
    keep_Q: np.ndarray
    other_R: np.ndarray
    place_O: np.ndarray
    relatives: int
    largest_family: int

    @property
    def n(self) -> int:
        """Number of people."""
        return len(self.fam_N)


@dataclass(frozen=True, kw_only=True)
class Products:
    """What genotypes are multiplied by: `right_RC` = [numerators P | design K], and `right` the same in digits;
    `weighted_OX`, `weighted` = the rows of G_j C [O, r K], and `coarse_OX` = the first in float32 where there are many
    people, for variants of which covariates explain little."""

    right_RC: np.ndarray
    right: Digits
    weighted_OX: np.ndarray
    coarse_OX: np.ndarray
    weighted: Digits


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What makes statistics of products.

    `trait_P`: columns of the output; `variance_P` s2 (1 in linear); `scale_P` the standard deviation by which the trait
    was divided; `yy_P` its sum of squares; `df` residual degrees of freedom; `chi2`: the squared statistic is chi2_1
    (mixed, and GCTA's linear regression), else it is t.
    """

    trait_P: np.ndarray
    variance_P: np.ndarray
    scale_P: np.ndarray
    yy_P: np.ndarray
    df: int
    linear: bool
    chi2: bool


@dataclass(frozen=True, kw_only=True)
class Model:
    """The test of a group of traits with the same people. Its arrays may be shared by the processes of a machine."""

    people: People
    products: Products
    families: WeightedFamilies
    weights: Weights
    traits: Traits

    @property
    def n(self) -> int:
        """Number of people."""
        return self.people.n

    @property
    def fam_N(self) -> np.ndarray:
        """Rows of the people in the .fam, ascending."""
        return self.people.fam_N

    @property
    def trait_P(self) -> np.ndarray:
        """Columns of the output."""
        return self.traits.trait_P

    @property
    def df(self) -> int:
        """Residual degrees of freedom."""
        return self.traits.df

    @property
    def chi2(self) -> bool:
        """Whether the squared statistic is chi2 with one degree of freedom; else it is that of t with `df`."""
        return self.traits.chi2

    @property
    def relatives(self) -> int:
        """Number of people in families."""
        return self.people.relatives

    @property
    def largest_family(self) -> int:
        """People of the largest family; 1 where nobody is related."""
        return self.people.largest_family

    @property
    def weight_rank(self) -> int:
        """Columns of the weights' factorisation, with the constant."""
        return self.weights.rank

    @property
    def weight_error(self) -> float:
        """The largest relative error of a weight."""
        return self.weights.error

    def scores(self, column_P: np.ndarray) -> np.ndarray:
        """What genotypes are multiplied by for some traits [N, P], people as in `fam_N`."""
        place_N = np.arange(self.n) if len(self.people.gather_N) else self.fam_N
        return np.asarray(self.products.right_RC[np.ix_(place_N, column_P)])

    def save(self, folder: Path) -> None:
        """Write one .npy an array into `folder`, which is made."""
        saved.save(self, folder)

    @classmethod
    def load(cls, folder: Path) -> Model:
        """Map what `save` wrote: pages are read when used, and shared by the processes of a machine."""
        return saved.load(cls, folder)


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
    *,
    families: Families,
    fam_N: np.ndarray,
    traits: NullTraits,
    q_NK: np.ndarray,
    test: Test,
    adjust: Adjust,
    weight_tolerance: float,
) -> Model:
    """The model of a group of traits. People, with the rows `fam_N` in the .fam, are in the order of `families`.

    `q_NK` are the orthonormal columns taken out of the genotypes. Raises ArithmeticError where the weights cannot be
    factorised to `weight_tolerance`, or where there are more people than can be counted.
    """
    n, k = q_NK.shape
    linear = test == "linear"
    gls = linear or adjust == "gls"  # with V = s2 I both are the same projection
    total_P = np.ones(len(traits.vg_P)) if linear else traits.vg_P + traits.ve_P
    h_D, which_P = np.unique(np.zeros(len(total_P)) if linear else traits.vg_P / total_P, return_inverse=True)
    special_N, w_OD, basis_Or, mix_rD, error = _factorise(families, h_D, weight_tolerance)
    u_NN = families.matrix()
    uq_NK = u_NN.T @ q_NK
    qwq_DKK = np.eye(k) + Gram(uq_NK[special_N])(w_OD - 1)
    numerator_NP = _numerators(u_NN, special_N, w_OD, which_P, qwq_DKK, uq_NK, traits.y_NP, q_NK, gls)
    numerator_NP /= total_P
    basis_Nr = np.zeros((n, basis_Or.shape[1]))
    basis_Nr[special_N] = basis_Or
    weighted_NX = np.concatenate(
        [np.empty((n, 0))] + [u_NN @ (basis_Nr[:, j : j + 1] * uq_NK) for j in range(basis_Nr.shape[1])], axis=1
    )
    places = _Places.of(fam_N)
    right_RC = places.rows(np.concatenate([numerator_NP, q_NK], axis=1))
    # The people with weights, in the order of their places, so that lists of carriers are in the order of both.
    special = np.flatnonzero(special_N)
    special = special[np.argsort(places.place_N[special])]
    number_N = np.full(n, -1)
    number_N[special] = np.arange(len(special))
    other_R = np.full(places.size, -1, np.int32)
    other_R[places.place_N[special]] = np.arange(len(special))
    many = n >= MANY_PEOPLE and w_OD.max(initial=1.0) <= MODEST_WEIGHTS
    weighted_OX = weighted_NX[special]
    return Model(
        people=People(
            fam_N=np.sort(fam_N).astype(np.int64),
            gather_N=places.gather_N,
            keep_Q=codes.keep_bytes(places.place_N),
            other_R=other_R,
            place_O=places.place_N[special],
            relatives=int(families.size_F.sum()),
            largest_family=int(families.size_F.max(initial=1)),
        ),
        products=Products(
            right_RC=right_RC,
            right=split(right_RC, finest(right_RC, DIGITS)),
            weighted_OX=weighted_OX,
            coarse_OX=weighted_OX.astype(np.float32 if many else np.float64),
            weighted=split(weighted_OX, _weighted_units(q_NK, mix_rD, many)),
        ),
        families=WeightedFamilies.of(
            families=families, basis_Nr=basis_Nr, mix_rD=mix_rD, number_N=number_N, n_other=len(special)
        ),
        weights=Weights.of(mix_rD=mix_rD, which_P=which_P, qwq_DKK=qwq_DKK, gls=gls, error=error),
        traits=Traits(
            trait_P=traits.trait_P,
            variance_P=total_P,
            scale_P=traits.scale_P,
            yy_P=(traits.y_NP**2).sum(axis=0),
            df=n - k - 1,
            linear=linear,
            chi2=not linear or adjust == "phenotype",
        ),
    )


def _factorise(
    families: Families, h_D: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
    """Who has weights other than 1 (bool [N]), these weights [O, D], and their factors B [O, r], T [r, D] and error."""
    special_N = np.ones(len(families.d_N), bool)
    special_N[: families.n_single] = np.abs(families.d_N[: families.n_single] - 1) > 0
    special_N &= bool((h_D != 0).any())
    w_OD = 1 / (1 + h_D * (families.d_N[special_N, None] - 1))
    basis_Or, mix_rD, error = weights.factorise(w_OD, tolerance)
    if len(mix_rD) == 0:  # to the tolerance, all weights are 1
        special_N[:] = False
        basis_Or, w_OD = basis_Or[:0], w_OD[:0]
    return special_N, w_OD, basis_Or, mix_rD, error


def _weighted_units(q_NK: np.ndarray, mix_rD: np.ndarray, many: bool) -> np.ndarray:
    """Units [r K] of the rows of G_j C."""
    largest_K = np.abs(q_NK).max(axis=0)
    largest_K[np.ptp(q_NK, axis=0) < 1e-9 * largest_K] /= 256  # rounding of alike rows (the intercept's) adds up
    return weights.units(largest_K * WEIGHTED_UNIT / (1 if many else 256), mix_rD)


def _numerators(
    u_NN: sparse.csr_array,
    special_N: np.ndarray,
    w_OD: np.ndarray,
    which_P: np.ndarray,
    qwq_DKK: np.ndarray,
    uq_NK: np.ndarray,
    y_NP: np.ndarray,
    q_NK: np.ndarray,
    gls: bool,
) -> np.ndarray:
    """W (y - C a) of each trait in the order of people [N, P]."""
    numerator_NP = np.empty_like(y_NP)
    for start in range(0, y_NP.shape[1], TRAITS_AT_ONCE):
        p = slice(start, start + TRAITS_AT_ONCE)
        residual_Np = u_NN.T @ y_NP[:, p]
        w_Np = np.ones_like(residual_Np)
        w_Np[special_N] = w_OD[:, which_P[p]]
        if gls:
            a_pK = np.linalg.solve(qwq_DKK[which_P[p]], (uq_NK.T @ (w_Np * residual_Np)).T[..., None])[..., 0]
            residual_Np -= uq_NK @ a_pK.T
        numerator_NP[:, p] = u_NN @ (w_Np * residual_Np)
    if not gls:
        numerator_NP -= q_NK @ (q_NK.T @ numerator_NP)
    return numerator_NP


@dataclass(frozen=True, kw_only=True)
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
            return cls(place_N=fam_N.astype(np.int64), size=-(-last // 4) * 4, gather_N=np.empty(0, np.int64))
        sorted_N = np.sort(fam_N).astype(np.int64)
        return cls(place_N=np.searchsorted(sorted_N, fam_N), size=-(-n // 4) * 4, gather_N=sorted_N)

    def rows(self, matrix_NC: np.ndarray) -> np.ndarray:
        """The matrix with its rows at the places of their people, zeros elsewhere."""
        out_RC = np.zeros((self.size, matrix_NC.shape[1]))
        out_RC[self.place_N] = matrix_NC
        return out_RC
