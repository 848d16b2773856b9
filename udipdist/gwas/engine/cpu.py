"""The association test of a block of variants with all traits that share their people.

Shapes: B variants of a block, b of those done together, P traits, K columns of the design, r rank of the weights, R
places of a row, O people with weights (udipdist.gwas.engine.prepared).

A variant whose minor allele few people carry is a list of carriers, and its products are sums of rows of the model's
matrices: the work is proportional to the number of carriers, in float64. Any other is a row of allele counts, and its
products are exact products of whole numbers (gwas.engine.digits). Missing calls are the variant's mean either way.
Which way a variant goes, and every sum, depends on that variant alone: results do not depend on the block.

Genotypes are counted from the homozygote of the major allele; the constant this shifts them by is taken out with the
intercept. chi2 comes within 1e-6 (relative) of dense float64 least squares: tests/property.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from hpc.int8 import Kind
from udipdist.genotypes import codes
from udipdist.gwas.engine import kernels
from udipdist.gwas.engine.digits import Product
from udipdist.gwas.engine.prepared import Model

UNEXPLAINED = (
    1e-3  # a variant is not tested where covariates explain all but this share of its variance: no longer exact
)
LITTLE_LEFT = 0.1  # where covariates leave less than this share of a variant, what they explain is summed in float64
CANCELLED = 1e-4  # where less is left of y'y than this share, the residuals are summed themselves
CONSTANT = 1e-9  # a smaller share of x'x that the intercept leaves is rounding: everybody has the same genotype
DENSE_SHARE = 0.18  # above this share of carriers a dense product takes less time
ENTRIES = 8_000_000  # carriers listed at once
DENSE_BYTES = 100_000_000  # allele counts held at once
CACHE_BYTES = 600_000  # of a matrix, walked while it stays in the cache
COLUMNS = 192

HOM1, MISSING, HET, HOM2 = range(4)  # columns of counts: two copies of A1, missing, one, none


@dataclass(frozen=True)
class Result:
    """Statistics of a block: effects of A1 and their standard errors float32 [B, P], z = beta / se float64 [B, P]; NaN
    where not tested."""

    beta_BP: np.ndarray
    se_BP: np.ndarray
    z_BP: np.ndarray


_Sums = tuple[np.ndarray, np.ndarray, np.ndarray]  # x'right [b, C], x'weighted [b, r K] and x'G_j x [b, r]


class Tester:
    """Tests blocks of variants against one model. One thread at a time may use it, and its `buffers`."""

    def __init__(self, model: Model, kind: Kind, buffers: dict[str, np.ndarray]):
        self.model = model
        self._people, self._products, self._families = model.people, model.products, model.families
        self._weights, self._traits = model.weights, model.traits
        self._right = Product(model.products.right, kind)
        self._weighted = Product(model.products.weighted, kind)
        self._forms = Product(model.families.form, kind)
        self._kept = buffers

    def test(self, packed_BQ: np.ndarray, count_B4: np.ndarray, wanted_B: np.ndarray) -> Result:
        """Statistics of the variants in raw .bed rows [B, bytes] that are `wanted`.

        `count_B4`: of the people of the model, those with two copies of A1, missing, one copy, none.
        """
        b, p = len(packed_BQ), len(self._traits.trait_P)
        beta_BP, se_BP = np.full((b, p), np.nan, np.float32), np.full((b, p), np.nan, np.float32)
        z_BP = np.full((b, p), np.nan)
        packed_BQ = self._rows(packed_BQ)
        for rows_b, sums in self._runs(np.flatnonzero(wanted_B), count_B4):
            minor = _Minor(count_B4[rows_b], rows_b)
            sums_b = sums(packed_BQ, minor)
            beta_BP[rows_b], se_BP[rows_b], z_BP[rows_b] = self._statistics(packed_BQ, minor, *sums_b)
        return Result(beta_BP, se_BP, z_BP)

    def _rows(self, packed_BQ: np.ndarray) -> np.ndarray:
        """Rows of the places of the model, from those of the file."""
        if not len(self._people.gather_N):
            return packed_BQ
        out_BQ = np.empty((len(packed_BQ), len(self._people.keep_Q)), np.uint8)
        codes.gather_rows(packed_BQ, self._people.gather_N, out_BQ)
        return out_BQ

    def _runs(
        self, rows: np.ndarray, count_B4: np.ndarray
    ) -> Iterator[tuple[np.ndarray, Callable[[np.ndarray, _Minor], _Sums]]]:
        """Rows to be done together, and the method that does it."""
        carriers = self._people.n - np.maximum(count_B4[rows, HOM1], count_B4[rows, HOM2])
        many = carriers > DENSE_SHARE * self._people.n
        dense = rows[many]
        row_bytes = len(self._people.other_R) + 2 * len(self._people.place_O) + len(self._families.first_T)
        at_once = max(1, DENSE_BYTES // row_bytes)
        for low in range(0, len(dense), at_once):
            yield dense[low : low + at_once], self._dense
        sparse, run = rows[~many], np.cumsum(carriers[~many]) // ENTRIES
        for which in np.unique(run):
            yield sparse[run == which], self._sparse

    def _sparse(self, packed_BQ: np.ndarray, minor: _Minor) -> _Sums:
        """x'right [b, C], x'weighted [b, r K] and x'G_j x [b, r] from the lists of carriers."""
        families, b = self._families, len(minor.row_b)
        start_b, entry_L = self._list(packed_BQ, minor, only_missing=False)
        out_bC = np.zeros((b, self._products.right_RC.shape[1]))
        _add_rows(start_b, entry_L, minor.value_b4, self._products.right_RC, out_bC)
        other = self._translate(start_b, entry_L)
        e_bX = np.zeros((b, self._products.coarse_OX.shape[1]))
        _add_rows(*other, minor.value_b4, self._products.coarse_OX, e_bX)
        g_br = np.empty((b, len(self._weights.mix_rD)))
        kernels.quadratic_lists(
            *other, minor.value_b4, families.diagonal_Or, families.pair_O, families.partner_T, families.pair_Tr, g_br
        )
        self._large_families(None, other, minor, g_br)
        return out_bC, e_bX, g_br

    def _dense(self, packed_BQ: np.ndarray, minor: _Minor) -> _Sums:
        """The same from rows of allele counts, and the lists of missing calls."""
        families, b = self._families, len(minor.row_b)
        dose_bR = self._buffer("dose", (b, len(self._people.other_R)))
        codes.decode_doses(packed_BQ, minor.row_b, minor.flipped_b, self._people.keep_Q, dose_bR.view(np.uint32))
        start_b, entry_L = self._list(packed_BQ, minor, only_missing=True)
        out_bC = self._right(dose_bR)
        _add_rows(start_b, entry_L, minor.value_b4, self._products.right_RC, out_bC)
        dose_Ob = self._buffer("other", (len(self._people.place_O), b))
        kernels.gather_doses(dose_bR, self._people.place_O, dose_Ob)
        other = self._translate(start_b, entry_L)
        e_bX = self._weighted(dose_Ob.T)
        _add_rows(*other, minor.value_b4, self._products.weighted_OX, e_bX)
        both_Tb = self._buffer("both", (len(dose_Ob) + len(families.first_T), b))
        np.multiply(dose_Ob, dose_Ob, out=both_Tb[: len(dose_Ob)])
        kernels.multiply_rows(dose_Ob, families.first_T, families.partner_T, both_Tb[len(dose_Ob) :])
        g_br = self._forms(both_Tb.T)
        kernels.quadratic_missing(
            dose_Ob, *other, minor.value_b4, families.diagonal_Or, families.mate_O, families.mate_M, families.pair_M,
            families.pair_Tr, g_br,
        )  # fmt: skip
        self._large_families(dose_Ob, other, minor, g_br)
        return out_bC, e_bX, g_br

    def _buffer(self, name: str, shape: tuple[int, int]) -> np.ndarray:
        """An int8 array for one block, in memory that the last block used: fresh pages cost more than the work."""
        size = shape[0] * shape[1]
        if name not in self._kept or self._kept[name].size < size:
            self._kept[name] = np.empty(size, np.int8)
        return self._kept[name][:size].reshape(shape)

    def _list(self, packed_BQ: np.ndarray, minor: _Minor, only_missing: bool) -> tuple[np.ndarray, np.ndarray]:
        """Where each variant's entries begin, and the entries."""
        start_b = np.empty(len(minor.row_b) + 1, np.int64)
        entry_L = np.empty(minor.missing_b.sum() if only_missing else minor.carriers, np.int32)
        codes.list_people(
            packed_BQ,
            minor.row_b,
            minor.flipped_b,
            self._people.keep_Q,
            minor.missing_b,
            only_missing,
            start_b,
            entry_L,
        )
        return start_b, entry_L

    def _translate(self, start_b: np.ndarray, entry_L: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The entries of people with weights, by their number."""
        start_o, entry_o = np.empty_like(start_b), np.empty(len(entry_L) + 1, np.int32)
        kernels.translate(start_b, entry_L, self._people.other_R, start_o, entry_o)
        return start_o, entry_o

    def _large_families(
        self, dose_Ob: np.ndarray | None, other: tuple[np.ndarray, np.ndarray], minor: _Minor, g_br: np.ndarray
    ) -> None:
        """Add the part of families that are rotated as a whole to `g_br`; `dose_Ob` lacks the listed entries, and is
        None where all else is 0."""
        large, (start_b, entry_o) = self._families.large, other
        size_l = len(large.basis_Lr)
        if size_l == 0:
            return
        member_O = large.column_O >= 0
        at_once = max(1, DENSE_BYTES // (8 * size_l))
        for low in range(0, len(g_br), at_once):
            rows = slice(low, min(low + at_once, len(g_br)))
            x_bL = np.zeros((rows.stop - low, size_l))
            if dose_Ob is not None:
                x_bL[:, large.column_O[member_O]] = dose_Ob[member_O, rows].T
            kernels.spread(start_b[low : rows.stop + 1], entry_o, minor.value_b4[rows], large.column_O, x_bL)
            for start, size, offset in zip(large.start_F, large.size_F, large.offset_F, strict=True):
                x_bi = x_bL[:, start : start + size]
                there = np.flatnonzero(x_bi.any(axis=1))
                u = large.u[offset : offset + size * size].reshape(size, size)
                g_br[low + there] += (x_bi[there] @ u) ** 2 @ large.basis_Lr[start : start + size]

    def _statistics(
        self, packed_BQ: np.ndarray, minor: _Minor, out_bC: np.ndarray, e_bX: np.ndarray, g_br: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """beta, se and z [b, P]."""
        traits, p = self._traits, len(self._traits.trait_P)
        whole_bD, left_bD = self._variance_left(minor.xx_b, out_bC[:, p:], e_bX, g_br)
        little = np.flatnonzero((left_bD < LITTLE_LEFT * whole_bD).any(axis=1))
        if len(little) and e_bX.shape[1]:
            fine_bX = self._weighted_in_float64(packed_BQ, minor.only(little))
            whole_bD[little], left_bD[little] = self._variance_left(
                minor.xx_b[little], out_bC[little, p:], fine_bX, g_br[little]
            )
        varying_b = 1 - self._people.n * minor.mean_b**2 / minor.xx_b  # the share of x'x that the intercept leaves
        left_bD[left_bD <= UNEXPLAINED * np.maximum(varying_b, CONSTANT)[:, None] * whole_bD] = np.nan
        left_bD[varying_b < CONSTANT] = np.nan
        denominator_bP = left_bD[:, self._weights.which_P] / traits.variance_P
        beta_bP = minor.sign_b[:, None] * out_bC[:, :p] / denominator_bP
        if traits.linear:
            rest_bP = traits.yy_P - denominator_bP * beta_bP**2
            for i, trait in np.argwhere(rest_bP < CANCELLED * traits.yy_P):
                beta_bP[i, trait], rest_bP[i, trait] = self._residual(packed_BQ, minor, i, trait)
            se_bP = np.sqrt(rest_bP / (traits.df * denominator_bP))
        else:
            se_bP = 1 / np.sqrt(denominator_bP)
        z_bP = beta_bP / se_bP
        return beta_bP * traits.scale_P, se_bP * traits.scale_P, z_bP

    def _variance_left(
        self, xx_b: np.ndarray, design_bK: np.ndarray, e_bX: np.ndarray, g_br: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """x'W_d x of each variant, and what covariates leave of it, [b, D] each."""
        weights = self._weights
        whole_bD, left_bD = (
            np.empty((len(xx_b), weights.mix_rD.shape[1])),
            np.empty((len(xx_b), weights.mix_rD.shape[1])),
        )
        kernels.variance_left(
            np.ascontiguousarray(design_bK), e_bX, xx_b, g_br, weights.mix_rS, weights.middle_SKK,
            weights.gls, weights.mix_rD, weights.spread_DS, whole_bD, left_bD,
        )  # fmt: skip
        return whole_bD, left_bD

    def _weighted_in_float64(self, packed_BQ: np.ndarray, minor: _Minor) -> np.ndarray:
        """x'weighted [b, r K] from all carriers, without the rounding of float32 rows and of digits."""
        other = self._translate(*self._list(packed_BQ, minor, only_missing=False))
        e_bX = np.zeros((len(minor.row_b), self._products.weighted_OX.shape[1]))
        _add_rows(*other, minor.value_b4, self._products.weighted_OX, e_bX)
        return e_bX

    def _residual(self, packed_BQ: np.ndarray, minor: _Minor, i: int, trait: int) -> tuple[float, float]:
        """Effect and residual sum of squares of a trait that one variant all but explains, from the residuals."""
        one = minor.only(np.array([i]))
        _, entry_L = self._list(packed_BQ, one, only_missing=False)
        x_R = np.zeros(len(self._people.other_R))
        x_R[entry_L >> 2] = one.sign_b[0] * one.value_b4[0, entry_L & 3]
        p = len(self._traits.trait_P)
        y_R, q_RK = self._products.right_RC[:, trait], self._products.right_RC[:, p:]
        for _ in range(2):  # what rounding leaves the first time
            x_R = x_R - q_RK @ (q_RK.T @ x_R)
        beta = (x_R @ y_R) / (x_R @ x_R)
        rest_R = y_R - beta * x_R
        return beta, max(rest_R @ rest_R, self._traits.yy_P[trait] * np.finfo(float).eps ** 2)


class _Minor:
    """Rows in copies of the minor allele: value_b4 by code of the turned row, mean, sum of squares, sign of A1."""

    def __init__(self, count_b4: np.ndarray, row_b: np.ndarray):
        hom1_b, self.missing_b, het_b, hom2_b = count_b4.T
        called_b = hom1_b + het_b + hom2_b
        self.row_b, self.flipped_b = row_b, hom1_b > hom2_b
        fewer_b = np.minimum(hom1_b, hom2_b)
        self.mean_b = (2 * fewer_b + het_b) / called_b
        self.sign_b = np.where(self.flipped_b, -1.0, 1.0)
        self.xx_b = het_b + 4.0 * fewer_b + self.mean_b**2 * self.missing_b
        self.carriers = int((het_b + fewer_b + self.missing_b).sum())
        self.value_b4 = np.zeros((len(row_b), 4))
        self.value_b4[:, 1] = np.where(self.flipped_b, self.mean_b, 1.0)
        self.value_b4[:, 2] = np.where(self.flipped_b, 1.0, self.mean_b)
        self.value_b4[:, 3] = 2.0
        self._count_b4 = count_b4

    def only(self, which: np.ndarray) -> _Minor:
        """The rows with these numbers."""
        return _Minor(self._count_b4[which], self.row_b[which])


def _add_rows(
    start_b: np.ndarray, entry_L: np.ndarray, value_b4: np.ndarray, right_RC: np.ndarray, out_bC: np.ndarray
) -> None:
    columns = right_RC.shape[1]
    if columns == 0 or start_b[-1] == 0:
        return
    at_once = -(-columns // -(-columns // COLUMNS))
    run = max(1, CACHE_BYTES // (right_RC.itemsize * at_once))
    kernels.add_rows(start_b, entry_L, value_b4, right_RC, run, at_once, out_bC)
