"""Products of small whole numbers with a float64 matrix, exact to the last digit kept.

A column of the matrix becomes whole numbers, and those a few digits to the base 256 between -128 and 127. Then
X @ matrix, for X of allele counts, is as many products of 8-bit integers, summed in 32 bits without rounding: with the
processor's dot-product instructions four digits take the time of one product in float32. The sums do not depend on
their order, so the result has the same bits whatever the block, the thread or the machine.

The error is that of rounding the matrix: at most `resolution` of the largest entry of a column.

(Splitting a matrix into exact slices: Ozaki et al. 2012, Numer. Algorithms 59:95; with integers: Ootomo et al. 2024,
Int. J. High Perform. Comput. Appl. 38:297.)
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import torch

from udipdist.gwas import kernels

PANEL = 256  # people converted to float64 at once, where the processor has no fast 8-bit products
_EXACT = 2.0**52  # whole numbers below twice this are exact in float64

Kind = Literal["int8", "float64"]


def resolution(rows: int, digits: int) -> float:
    """The largest error of an entry of a matrix with so many rows, as a share of the largest entry of its column.

    Sums over all rows of twice an entry stay exact in float64, which limits what digits above the fourth can add.
    """
    return 0.5 / _top(rows, digits)


def _top(rows: int, digits: int) -> float:
    """The number that stands for the largest entry."""
    return min(0.99 * 2.0 ** (8 * digits - 1), _EXACT / (2 * max(rows, 1)))


def split(matrix_RC: np.ndarray, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """Digits of a float64 matrix, int8 [R, digits C] (the lowest of all columns first), and each column's unit [C]."""
    rows, columns = matrix_RC.shape
    largest_C = np.abs(matrix_RC).max(axis=0, initial=0.0)
    unit_C = np.where(largest_C > 0, largest_C, 1.0) / _top(rows, digits)
    digits_RX = np.empty((rows, digits * columns), np.int8)
    for start in range(0, rows, PANEL):
        rest = np.rint(matrix_RC[start : start + PANEL] / unit_C).astype(np.int64)
        for digit in range(digits):
            low = (rest + 128 & 255) - 128
            digits_RX[start : start + PANEL, digit * columns : (digit + 1) * columns] = low
            rest = (rest - low) >> 8
    return digits_RX, unit_C


class Product:
    """X @ matrix for int8 X with entries 0, 1, 2: `matrix` given by its digits and units (`split`)."""

    def __init__(self, digits_RX: np.ndarray, unit_C: np.ndarray, kind: Kind):
        self.unit_C, self.kind = unit_C, kind
        self._digits = torch.from_numpy(digits_RX) if kind == "int8" else digits_RX

    def __call__(self, dose_bR: np.ndarray) -> np.ndarray:
        """Float64 [b, C]."""
        out_bC = np.empty((len(dose_bR), len(self.unit_C)))
        if len(dose_bR) == 0 or out_bC.shape[1] == 0:
            return out_bC
        if self.kind == "int8":
            part = torch._int_mm(torch.from_numpy(_own_row(dose_bR)), self._digits).numpy()
        else:
            part = self._in_float64(dose_bR)
        kernels.join_digits(part, self.unit_C, out_bC)
        return out_bC

    def _in_float64(self, dose_bR: np.ndarray) -> np.ndarray:
        """The same whole numbers by float64 products, in which they are exact too."""
        n_c = len(self.unit_C)
        total_bC = np.zeros((len(dose_bR), n_c))
        for start in range(0, len(self._digits), PANEL):
            panel_IX = self._digits[start : start + PANEL]
            whole_IC = panel_IX[:, -n_c:].astype(np.float64)
            for digit in range(panel_IX.shape[1] // n_c - 2, -1, -1):
                whole_IC = whole_IC * 256 + panel_IX[:, digit * n_c : (digit + 1) * n_c]
            total_bC += dose_bR[:, start : start + PANEL].astype(np.float64) @ whole_IC
        return total_bC


def _own_row(dose_bR: np.ndarray) -> np.ndarray:
    """A single row that is a column transposed is copied: its strides, which mean nothing, mislead the product."""
    if len(dose_bR) > 1:
        return dose_bR
    row_1R = np.empty(dose_bR.shape, np.int8)
    row_1R[:] = dose_bR
    return row_1R


@cache
def fastest() -> Kind:
    """int8 where the processor has 8-bit dot products and they prove exact, else float64."""
    if not torch.cpu._is_vnni_supported():
        return "float64"
    dose, digits = np.full((64, 512), 2, np.int8), np.full((512, 32), -128, np.int8)
    digits[:, ::2] = 127  # pairs of products of this size overflow where sums are kept in 16 bits
    exact = dose.astype(np.int64) @ digits.astype(np.int64)
    product = torch._int_mm(torch.from_numpy(dose), torch.from_numpy(digits)).numpy()
    return "int8" if np.array_equal(product, exact) else "float64"
