"""Products of allele counts with a matrix by its digits, against integers of any size."""

from __future__ import annotations

import numpy as np
import pytest

from hpc import int8
from udipdist.gwas.engine.digits import Product, finest, split

NOT_EXACT = pytest.mark.skipif(int8.fastest() != "int8", reason="8-bit products are not exact on this processor")
KINDS = [pytest.param("int8", marks=NOT_EXACT), "float64"]


def matrix(rows: int) -> np.ndarray:
    rng = np.random.default_rng(rows)
    matrix_RC = rng.standard_normal((rows, 6)) * 10.0 ** np.arange(-3, 3)
    matrix_RC[:, 2] = 0
    matrix_RC[0, 3] = -1e3  # one entry far above the others
    return matrix_RC


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("digits", [1, 3, 4, 5])
@pytest.mark.parametrize(("rows", "b"), [(1, 1), (5, 1), (300, 7), (3001, 33)])
def test_it_is_the_product_with_the_rounded_matrix(kind, digits, rows, b):
    matrix_RC = matrix(rows)
    unit_C = finest(matrix_RC, digits)
    parts = split(matrix_RC, unit_C)
    assert np.bincount(parts.column_X, minlength=6).tolist() == [digits, digits, 0, digits, digits, digits]
    dose_bR = np.random.default_rng(b).integers(0, 3, (b, rows)).astype(np.int8)
    whole_RC = np.rint(matrix_RC / unit_C).astype(np.int64)
    np.testing.assert_array_equal(Product(parts, kind)(dose_bR), (dose_bR.astype(np.int64) @ whole_RC) * unit_C)


def test_more_digits_are_finer_and_sums_stay_exact():
    for rows in (10, 23_000, 500_000):
        ones_R1 = np.ones((rows, 1))
        three, four, five = (float(finest(ones_R1, digits)[0]) for digits in (3, 4, 5))
        assert three > 200 * four and four > five
        assert rows * 4 / five <= 2**53
    assert four / five > 2  # half a million people still gain by a fifth digit


def test_a_coarser_unit_takes_fewer_digits():
    matrix_RC = np.array([[1.0, 1e-3], [-0.9, 2e-4]])
    parts = split(matrix_RC, np.full(2, 2.0**-22))
    assert np.bincount(parts.column_X).tolist() == [3, 2]
    found = Product(parts, "float64")(np.array([[1, 2]], np.int8))
    np.testing.assert_allclose(found, [[1 - 1.8, 1e-3 + 4e-4]], atol=2.0**-21)


@pytest.mark.parametrize("kind", KINDS)
def test_a_transposed_row_and_no_rows(kind):
    matrix_RC = matrix(40)
    parts = split(matrix_RC, finest(matrix_RC, 4))
    dose_R1 = np.random.default_rng(3).integers(0, 3, (40, 1)).astype(np.int8)
    np.testing.assert_allclose(Product(parts, kind)(dose_R1.T), dose_R1.T @ matrix_RC, atol=1e-5)
    assert Product(parts, kind)(np.empty((0, 40), np.int8)).shape == (0, 6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_matrix_without_columns_or_of_zeros(kind):
    dose_bR = np.ones((3, 5), np.int8)
    for columns in (0, 2):
        empty_RC = np.zeros((5, columns))
        found = Product(split(empty_RC, finest(empty_RC, 4)), kind)(dose_bR)
        np.testing.assert_array_equal(found, np.zeros((3, columns)))


@pytest.mark.parametrize(
    ("instructions", "off_by", "expected"), [(True, 0, "int8"), (True, 1, "float64"), (False, 0, "float64")]
)
def test_8_bit_products_are_used_where_they_are_quick_and_exact(monkeypatch, instructions, off_by, expected):
    monkeypatch.setattr("torch.cpu._is_vnni_supported", lambda: instructions)
    monkeypatch.setattr(int8, "product", lambda left, right: left.astype(np.int32) @ right.astype(np.int32) + off_by)
    assert int8.fastest.__wrapped__() == expected
