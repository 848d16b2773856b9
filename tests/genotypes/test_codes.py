"""The loops over packed rows, against plain numpy on decoded genotypes."""

from __future__ import annotations

import numpy as np
import pytest

from udipdist.genotypes import codes
from udipdist.genotypes.source import decode

B = 9


@pytest.fixture(params=[1, 3, 4, 31, 32, 33, 257])
def packed(request):
    """Packed rows of so many people [B, Q], their copies of A1, and people analysed."""
    n = request.param
    rng = np.random.default_rng(n)
    code_BR = rng.choice(4, (B, -(-n // 4) * 4), p=[0.2, 0.1, 0.3, 0.4]).astype(np.uint8)
    code_BR[0], code_BR[1], code_BR[2] = 1, 0, 3  # nobody called, everybody the same
    packed_BQ = (code_BR.reshape(B, -1, 4) << np.array([0, 2, 4, 6], np.uint8)).sum(axis=2).astype(np.uint8)
    person_n = np.sort(rng.choice(n, max(1, 2 * n // 3), replace=False))
    return packed_BQ, decode(packed_BQ, np.arange(n)), person_n


def counts_of(copies_BN: np.ndarray) -> np.ndarray:
    return np.stack([(copies_BN == value).sum(axis=1) for value in (2, -1, 1, 0)], axis=1)


def count(packed_BQ: np.ndarray, person_n: np.ndarray) -> np.ndarray:
    out_B4 = np.empty((len(packed_BQ), 4), np.int64)
    codes.count_codes(packed_BQ, codes.keep_bytes(person_n), len(person_n), out_B4)
    return out_B4


def test_counts(packed):
    packed_BQ, copies_BN, person_n = packed
    np.testing.assert_array_equal(count(packed_BQ, person_n), counts_of(copies_BN[:, person_n]))


def test_gathered_rows_are_those_of_the_people(packed):
    packed_BQ, copies_BN, person_n = packed
    out_BQ = np.empty((B, -(-len(person_n) // 4)), np.uint8)
    codes.gather_rows(packed_BQ, person_n, out_BQ)
    np.testing.assert_array_equal(decode(out_BQ, np.arange(len(person_n))), copies_BN[:, person_n])


@pytest.mark.parametrize("flipped", [False, True])
def test_lists_and_rows_of_the_minor_allele(packed, flipped):
    packed_BQ, copies_BN, person_n = packed
    keep_Q = codes.keep_bytes(person_n)
    row_b, flipped_b = np.array([8, 3, 0, 1, 2, 5]), np.full(6, flipped)
    count_b4 = counts_of(copies_BN[:, person_n])[row_b]
    minor_bR = np.zeros((6, 4 * len(keep_Q)))
    minor_bR[:, person_n] = (2 - copies_BN if flipped else copies_BN)[row_b][:, person_n]
    missing_bR = np.zeros(minor_bR.shape, bool)
    missing_bR[:, person_n] = copies_BN[row_b][:, person_n] < 0
    value_4 = np.array([0, 9, 1, 2] if flipped else [0, 1, 9, 2])  # 9: missing
    minor_bR[missing_bR] = 9
    for only_missing, expected_bR in ((False, minor_bR), (True, np.where(missing_bR, 9, 0))):
        start_b, entry_L = np.empty(7, np.int64), np.empty((expected_bR != 0).sum(), np.int32)
        codes.list_people(packed_BQ, row_b, flipped_b, keep_Q, count_b4[:, 1], only_missing, start_b, entry_L)
        found_bR = np.zeros_like(expected_bR)
        for b in range(6):
            entry = entry_L[start_b[b] : start_b[b + 1]]
            assert (np.diff(entry >> 2) > 0).all()
            found_bR[b, entry >> 2] = value_4[entry & 3]
        np.testing.assert_array_equal(found_bR, expected_bR)
    dose_bR = np.empty(minor_bR.shape, np.int8)
    codes.decode_doses(packed_BQ, row_b, flipped_b, keep_Q, dose_bR.view(np.uint32))
    np.testing.assert_array_equal(dose_bR, np.where(missing_bR, 0, minor_bR))
