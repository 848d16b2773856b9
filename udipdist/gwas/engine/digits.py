"""Products of small whole numbers with a float64 matrix, exact to the last digit kept.

A column of the matrix becomes whole numbers, and those a few digits to the base 256 between -128 and 127. Then
X @ matrix, for X of allele counts, is as many products of 8-bit integers, summed in 32 bits without rounding: with the
processor's dot-product instructions four digits take the time of one product in float32. The sums do not depend on
their order, so the result has the same bits whatever the block or the thread, and, as long as it stays below 2^53
units, with either kind of product.

The error is that of rounding the matrix to whole units, half a unit an entry.

(Splitting a matrix into exact slices: Ozaki et al. 2012, Numer. Algorithms 59:95; with integers: Ootomo et al. 2024,
Int. J. High Perform. Comput. Appl. 38:297.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpc import int8
from hpc.int8 import Kind
from udipdist.gwas.engine import kernels

PANEL = 256  # people converted to float64 at once, where the processor has no fast 8-bit products
_LARGEST_TERM = 4 * 128
_EXACT = 2.0**53  # whole numbers up to this are exact in float64


@dataclass(frozen=True, kw_only=True)
class Digits:
    """A float64 matrix [R, C] as whole numbers of a `unit_C` of each column, in digits to the base 256.

    `digit_RX` int8: X digits, which belong to the columns `column_X` and count `weight_X` (a power of 256) each.
    """

    digit_RX: np.ndarray
    column_X: np.ndarray
    weight_X: np.ndarray
    unit_C: np.ndarray


def finest(matrix_RC: np.ndarray, digits: int) -> np.ndarray:
    """The units [C] in which the largest entry of each column has so many digits.

    Sums over all rows of twice an entry must be exact in float64, which limits what a fifth digit can add.
    """
    largest_C = np.abs(matrix_RC).max(axis=0, initial=0.0)
    top = min(0.99 * 2.0 ** (8 * digits - 1), _EXACT / (4 * max(len(matrix_RC), 1)))
    return np.where(largest_C > 0, largest_C, 1.0) / top


def split(matrix_RC: np.ndarray, unit_C: np.ndarray) -> Digits:
    """The matrix rounded to whole units, with as many digits in each column as its largest entry needs."""
    rows = len(matrix_RC)
    largest_C = np.rint(np.abs(matrix_RC).max(axis=0, initial=0.0) / unit_C)
    number_C = np.zeros(len(unit_C), int)
    while (short_C := largest_C > 127 * (256.0**number_C - 1) / 255).any():  # the largest number of balanced digits
        number_C += short_C
    column_X = np.concatenate([np.flatnonzero(number_C > digit) for digit in range(number_C.max(initial=0))] + [[]])
    column_X = column_X.astype(np.int64)
    weight_X = np.concatenate(
        [np.full((number_C > digit).sum(), 256.0**digit) for digit in range(number_C.max(initial=0))] + [[]]
    )
    digit_RX = np.empty((rows, len(column_X)), np.int8)
    for start in range(0, rows, PANEL):
        rest = np.rint(matrix_RC[start : start + PANEL] / unit_C).astype(np.int64)
        at = 0
        for digit in range(number_C.max(initial=0)):
            low = (rest + 128 & 255) - 128
            here = np.flatnonzero(number_C > digit)
            digit_RX[start : start + PANEL, at : at + len(here)] = low[:, here]
            at += len(here)
            rest = (rest - low) >> 8
    return Digits(digit_RX=digit_RX, column_X=column_X, weight_X=weight_X, unit_C=unit_C)


class Product:
    """X @ matrix for int8 X with entries 0..4, the matrix given by its digits."""

    def __init__(self, digits: Digits, kind: Kind):
        if _LARGEST_TERM * len(digits.digit_RX) >= 2**31:  # a sum could leave int32
            kind = "float64"
        self.digits, self.kind = digits, kind

    def __call__(self, dose_bR: np.ndarray) -> np.ndarray:
        """Float64 [b, C]."""
        out_bC = np.zeros((len(dose_bR), len(self.digits.unit_C)))
        if len(dose_bR) == 0 or self.digits.digit_RX.size == 0:
            return out_bC
        if self.kind == "int8":
            part_bX = int8.product(_own_row(dose_bR), self.digits.digit_RX)
            kernels.join_digits(part_bX, self.digits.column_X, self.digits.weight_X, out_bC)
        else:
            self._add_in_float64(dose_bR, out_bC)
        out_bC *= self.digits.unit_C
        return out_bC

    def _add_in_float64(self, dose_bR: np.ndarray, out_bC: np.ndarray) -> None:
        """The same whole numbers by float64 products, in which they are exact too."""
        for start in range(0, len(self.digits.digit_RX), PANEL):
            panel_IX = self.digits.digit_RX[start : start + PANEL]
            whole_IC = np.zeros((len(panel_IX), out_bC.shape[1]))
            for weight in np.unique(self.digits.weight_X):
                here_X = self.digits.weight_X == weight
                whole_IC[:, self.digits.column_X[here_X]] += weight * panel_IX[:, here_X]
            out_bC += dose_bR[:, start : start + PANEL].astype(np.float64) @ whole_IC


def _own_row(dose_bR: np.ndarray) -> np.ndarray:
    """A single row that is a column transposed is copied: its strides, which mean nothing, mislead the product."""
    if len(dose_bR) > 1:
        return dose_bR
    row_1R = np.empty(dose_bR.shape, np.int8)
    row_1R[:] = dose_bR
    return row_1R
