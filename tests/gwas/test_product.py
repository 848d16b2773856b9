"""Products of allele counts with a matrix by its digits, against integers of any size and against float64."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from udipdist.gwas import product
from udipdist.gwas.product import Product, resolution, split

KINDS = ["int8", "float64"]


def matrix(rows: int) -> np.ndarray:
    rng = np.random.default_rng(rows)
    matrix_RC = rng.standard_normal((rows, 6)) * 10.0 ** np.arange(-3, 3)
    matrix_RC[:, 2] = 0
    matrix_RC[0, 3] = -1e3  # one entry far above the others
    return matrix_RC


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("digits", [3, 4, 5])
@pytest.mark.parametrize(("rows", "b"), [(1, 1), (5, 1), (300, 7), (3001, 33)])
def test_it_is_the_product_with_the_rounded_matrix(kind, digits, rows, b):
    matrix_RC = matrix(rows)
    digits_RX, unit_C = split(matrix_RC, digits)
    dose_bR = np.random.default_rng(b).integers(0, 3, (b, rows)).astype(np.int8)
    found = Product(digits_RX, unit_C, kind)(dose_bR)
    whole_RC = np.rint(matrix_RC / unit_C).astype(np.int64)
    np.testing.assert_array_equal(found, (dose_bR.astype(np.int64) @ whole_RC) * unit_C)
    largest_C = abs(matrix_RC).max(axis=0)
    assert (abs(whole_RC * unit_C - matrix_RC) <= resolution(rows, digits) * largest_C * (1 + 1e-6)).all()


def test_more_digits_are_better_and_sums_stay_exact():
    assert resolution(23_000, 3) > 200 * resolution(23_000, 4) > 30 * resolution(23_000, 5)
    for rows in (10, 23_000, 500_000):
        whole = round(0.5 / resolution(rows, 5))
        assert Fraction(2 * rows * whole) < 2**53 and whole < 2**39


@pytest.mark.parametrize("kind", KINDS)
def test_a_transposed_row_and_no_rows(kind):
    matrix_RC = matrix(40)
    digits_RX, unit_C = split(matrix_RC, 4)
    dose_R1 = np.random.default_rng(3).integers(0, 3, (40, 1)).astype(np.int8)
    found = Product(digits_RX, unit_C, kind)(dose_R1.T)
    np.testing.assert_allclose(found, dose_R1.T @ matrix_RC, atol=1e-5)
    assert Product(digits_RX, unit_C, kind)(np.empty((0, 40), np.int8)).shape == (0, 6)


def test_the_fastest_way_is_one_of_them():
    assert product.fastest() in KINDS
