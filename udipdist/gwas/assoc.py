"""The association test of a block of variants with all traits that share their people: one product, exact statistics.

Shapes: B variants of a block, N people (in the order of grm.Families), P traits, D distinct heritabilities among them,
K columns of the design, r rank of the weights, q rank of the traits' correlation.

With weights w_d(i) = 1 / (1 + h_d (d_i - 1)) and x a centred genotype, for trait p with h_d and s2 = Vg + Ve
  gls              numerator x'P y,  denominator x'V^-1 x - x'V^-1 C (C'V^-1 C)^-1 C'V^-1 x
  project          numerator z'V^-1 y, denominator z'V^-1 z, z = x - C C'x (least squares), y likewise
  phenotype        the same with C the intercept only, y free of covariates (what GCTA does)
so beta = numerator / denominator and se = denominator^-1/2 (mixed) or from the residual sum of squares (linear). The
N x D weights are B T with r columns (their rank is tiny), so x'V^-1 x and x'V^-1 C of every trait come from r and r K
numbers a variant, and the K x K algebra is done with those.

Arithmetic: genotypes are float32, in which they are exact (kernels.centre_rows), squares of rotated genotypes are
rounded to float32, and everything else is float64, one product for numerators and design together. chi2 came within
4e-8 (relative) of dense float64 least squares for 23,000 people; the tests hold it to 1e-6, also where covariates
leave 1 % of a variant unexplained.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import linalg

from udipdist.gwas import kernels, tails
from udipdist.gwas.grm import Families
from udipdist.gwas.null import Gram

PANEL = 256  # people converted to float64 at once
UNEXPLAINED = 1e-4  # a variant is not tested where covariates explain all but this share of its (weighted) variance
SAME_TRAIT = 1e-8  # eigenvalues of the traits' correlation below this (times the largest) are linear dependence
Adjust = Literal["gls", "project", "phenotype"]
Test = Literal["mixed", "linear"]


@dataclass(frozen=True)
class Model:
    """All that the test of a group of traits needs, in the order of grm.Families. Plain arrays, so that it can be
    saved and loaded without pickle.

    `fam_N` rows of the .fam; `trait_P` columns of the output; `right_NC` = [numerators P | weighted design r K |
    design K, least squares only]; `basis_Nr` and `mix_rD`: the weights; `which_P` the weights' column of a trait;
    `middle_DKK`: C'WC, or for GLS the inverse of its Cholesky factor; `variance_P`: s2 (1 in linear); `scale_P`:
    standard deviation by which the trait was divided; `yy_P` its sum of squares; `whiten_Pq` with whiten' R whiten = I
    for R the correlation of the traits' residuals; `df` residual degrees of freedom; `chi2`: the squared statistic is
    chi2_1 (mixed, and GCTA's linear regression), else it is t.
    """

    fam_N: np.ndarray
    trait_P: np.ndarray
    n_single: int
    start_F: np.ndarray
    size_F: np.ndarray
    offset_F: np.ndarray
    u: np.ndarray
    right_NC: np.ndarray
    basis_Nr: np.ndarray
    mix_rD: np.ndarray
    which_P: np.ndarray
    middle_DKK: np.ndarray
    variance_P: np.ndarray
    scale_P: np.ndarray
    yy_P: np.ndarray
    whiten_Pq: np.ndarray
    df: int
    gls: bool
    linear: bool
    chi2: bool
    weight_error: float

    @property
    def n(self) -> int:
        """Number of people."""
        return len(self.fam_N)

    def save(self, path: Path) -> None:
        """Write an .npz."""
        with path.open("wb") as file:
            np.savez(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Model:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{name: arrays[name] if arrays[name].ndim else arrays[name].item() for name in arrays})


@dataclass(frozen=True)
class Result:
    """Statistics of a block, float64; NaN where not tested. `called_B`, `copies_B`: calls and copies of A1."""

    beta_BP: np.ndarray
    se_BP: np.ndarray
    multivariate_log10p_B: np.ndarray
    called_B: np.ndarray
    copies_B: np.ndarray


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


def factorise(w_ND: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray, float]:
    """W = B T with as few columns as give every entry to a relative error of at most `tolerance`.

    Returns B [N, r] with columns of mean square 1, T [r, D] and the error, max |W - B T| / W, which is measured.
    Raises ArithmeticError where no rank reaches the tolerance (it is below the rounding of float64).
    """
    n = len(w_ND)
    left_Nr, size_r, right_rD = linalg.svd(w_ND, full_matrices=False)
    for rank in range(1, len(size_r) + 1):
        basis_Nr = left_Nr[:, :rank] * np.sqrt(n)
        mix_rD = right_rD[:rank] * size_r[:rank, None] / np.sqrt(n)
        if rank < len(size_r) and size_r[rank] > tolerance * np.sqrt(w_ND.size) * w_ND.max():
            continue
        error = float(np.max(np.abs(basis_Nr @ mix_rD - w_ND) / w_ND))
        if error <= tolerance:
            return basis_Nr, mix_rD, error
    raise ArithmeticError(f"the weights' factorisation reaches {error:.1e}, not weight_tolerance={tolerance:.1e}")


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
) -> Model:
    """The model of a group of traits. People are in the order of `families`; `y_NP` and `scale_P` are what
    `residualise` gives, Vg and Ve are on that scale; `q_NK` are the orthonormal columns taken out of the genotypes."""
    n, k = q_NK.shape
    linear = test == "linear"
    gls = linear or adjust == "gls"  # with V = s2 I both are the same projection
    total_P = np.ones(len(vg_P)) if linear else vg_P + ve_P
    h_D, which_P = np.unique(np.zeros(len(vg_P)) if linear else vg_P / total_P, return_inverse=True)
    w_ND = 1 / (1 + h_D * (families.d_N[:, None] - 1))
    basis_Nr, mix_rD, error = factorise(w_ND, weight_tolerance)

    u_NN = families.matrix()
    uq_NK, uy_NP = u_NN.T @ q_NK, u_NN.T @ y_NP
    w_NP = w_ND[:, which_P]
    qwq_DKK = Gram(uq_NK)(w_ND)
    if gls:
        middle_DKK = np.linalg.inv(np.linalg.cholesky(qwq_DKK))
        a_PK = np.linalg.solve(qwq_DKK[which_P], (uq_NK.T @ (w_NP * uy_NP)).T[..., None])[..., 0]
        residual_NP = uy_NP - uq_NK @ a_PK.T
        numerator_NP = u_NN @ (w_NP * residual_NP) / total_P
    else:
        middle_DKK = qwq_DKK
        residual_NP = uy_NP
        numerator_NP = u_NN @ (w_NP * residual_NP) / total_P
        numerator_NP -= q_NK @ (q_NK.T @ numerator_NP)
    columns = [numerator_NP]
    columns += [u_NN @ (basis_Nr[:, j : j + 1] * uq_NK) for j in range(basis_Nr.shape[1])]
    columns += [] if gls else [q_NK]
    return Model(
        fam_N=np.ascontiguousarray(fam_N, np.int64),
        trait_P=trait_P,
        n_single=families.n_single,
        start_F=families.start_F,
        size_F=families.size_F,
        offset_F=families.offset_F,
        u=families.u,
        right_NC=np.concatenate(columns, axis=1),
        basis_Nr=basis_Nr,
        mix_rD=mix_rD,
        which_P=which_P,
        middle_DKK=middle_DKK,
        variance_P=total_P,
        scale_P=scale_P,
        yy_P=(y_NP**2).sum(axis=0),
        whiten_Pq=_whitening(np.sqrt(w_NP) * residual_NP, unit=not linear),
        df=n - k - 1,
        gls=gls,
        linear=linear,
        chi2=not linear or adjust == "phenotype",
        weight_error=error,
    )


def _whitening(residual_NP: np.ndarray, unit: bool) -> np.ndarray:
    """A [P, q] with A' R A = I, for R the traits' sums of products (`unit`: their correlations); q is the rank."""
    product_PP = residual_NP.T @ residual_NP
    size_P = np.sqrt(np.diag(product_PP))
    value_P, vector_PP = np.linalg.eigh(product_PP / np.outer(size_P, size_P))
    keep = value_P > SAME_TRAIT * value_P[-1]
    whiten_Pq = vector_PP[:, keep] / np.sqrt(value_P[keep])
    return whiten_Pq if unit else whiten_Pq / size_P[:, None]


def product(x_BN: np.ndarray, right_NC: np.ndarray) -> np.ndarray:
    """x @ right in float64 for float32 x, which is converted a panel of people at a time (it stays in the cache)."""
    total_BC = np.zeros((len(x_BN), right_NC.shape[1]))
    part_BC = np.empty_like(total_BC)
    for start in range(0, x_BN.shape[1], PANEL):
        x_BI = x_BN[:, start : start + PANEL].astype(np.float64)
        total_BC += np.matmul(x_BI, right_NC[start : start + PANEL], out=part_BC)
    return total_BC


class Tester:
    """Tests blocks of variants against one model."""

    def __init__(self, model: Model, min_maf: float, max_missing: float, multivariate: bool):
        self.model, self.min_maf, self.max_missing, self.multivariate = model, min_maf, max_missing, multivariate

    def test(self, packed_BQ: np.ndarray, workspace: np.ndarray) -> Result:
        """Statistics of the variants in raw .bed rows [B, bytes]. `workspace` holds float32 genotypes, at least B N
        numbers, which are overwritten: testers of one thread may share it."""
        model, b = self.model, len(packed_BQ)
        x_BN = workspace[: b * model.n].reshape(b, model.n)
        called_B, copies_B = np.empty(b, np.int64), np.empty(b, np.int64)
        kernels.centre_rows(packed_BQ, model.fam_N, x_BN, called_B, copies_B)
        product_BC = product(x_BN, model.right_NC)
        numerator_BP, design_BC = np.split(product_BC, [len(model.trait_P)], axis=1)
        denominator_BD, enough_BD = self._denominators(x_BN, design_BC)

        ok_BP = (enough_BD & self._common(called_B, copies_B)[:, None])[:, model.which_P]
        denominator_BP = np.where(ok_BP, denominator_BD[:, model.which_P], np.nan) / model.variance_P
        beta_BP = numerator_BP / denominator_BP
        if model.linear:
            left_BP = np.maximum(model.yy_P - numerator_BP * beta_BP, 0.0)
            se_BP = np.sqrt(left_BP / (model.df * denominator_BP))
        else:
            se_BP = 1 / np.sqrt(denominator_BP)
        log10p_B = self._multivariate(numerator_BP, denominator_BP) if self.multivariate else np.full(b, np.nan)
        return Result(beta_BP * model.scale_P, se_BP * model.scale_P, log10p_B, called_B, copies_B)

    def _denominators(self, x_BN: np.ndarray, design_BC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x' M x for each of the D weights (s2 = 1), and whether covariates leave enough of x. Overwrites x."""
        model, (b, _) = self.model, x_BN.shape
        rank, d, k = *model.mix_rD.shape, model.middle_DKK.shape[1]
        kernels.square_rotated(x_BN, model.n_single, model.start_F, model.size_F, model.offset_F, model.u)
        whole_BD = product(x_BN, model.basis_Nr) @ model.mix_rD
        v_rBK = design_BC[:, : rank * k].reshape(b, rank, k).transpose(1, 0, 2).reshape(rank, b * k)
        v_DBK = (model.mix_rD.T @ v_rBK).reshape(d, b, k)
        if model.gls:
            loss_DB = ((v_DBK @ model.middle_DKK.transpose(0, 2, 1)) ** 2).sum(axis=2)
        else:
            c_BK = design_BC[:, rank * k :]
            loss_DB = ((2 * v_DBK - c_BK @ model.middle_DKK) * c_BK).sum(axis=2)
        left_BD = whole_BD - loss_DB.T
        return left_BD, left_BD > UNEXPLAINED * whole_BD

    def _common(self, called_B: np.ndarray, copies_B: np.ndarray) -> np.ndarray:
        """Variants that vary, are frequent enough and called often enough."""
        minor_B = np.minimum(copies_B, 2 * called_B - copies_B)
        frequent_B = minor_B >= self.min_maf * 2 * called_B * (1 - 1e-12)
        return (minor_B > 0) & frequent_B & (self.model.n - called_B <= self.max_missing * self.model.n)

    def _multivariate(self, numerator_BP: np.ndarray, denominator_BP: np.ndarray) -> np.ndarray:
        """-log10 p of all traits jointly: F of Pillai's trace (linear; exact), or z'R^-1 z as chi2_q (mixed)."""
        model, q = self.model, self.model.whiten_Pq.shape[1]
        if not model.linear:
            z_BP = numerator_BP / np.sqrt(denominator_BP)
            return tails.log10p_from_chi2(((z_BP @ model.whiten_Pq) ** 2).sum(axis=1), q)
        df2 = model.df + 1 - q
        if df2 <= 0:
            return np.full(len(numerator_BP), np.nan)
        share_B = ((numerator_BP @ model.whiten_Pq) ** 2).sum(axis=1) / denominator_BP[:, 0]
        share_B = np.minimum(share_B, 1 - 1e-15)
        return tails.log10p_from_f((share_B / q) / ((1 - share_B) / df2), q, df2)
