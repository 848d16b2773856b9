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


def test_ones_are_those_of_numpy():
    word_W = np.random.default_rng(0).integers(0, 2**64, 1001, dtype=np.uint64)
    word_W[:3] = 0, 2**64 - 1, 2**63
    for some_W in (word_W, word_W[:1], word_W[:0]):
        assert codes.count_ones(some_W) == np.bitwise_count(some_W).sum()


def test_planes_and_words_of_a_person(packed):
    """Words person by person have the calls of the rows, and planes tell what each of them is."""
    packed_BQ, copies_BN, _ = packed
    n = copies_BN.shape[1]
    word_N1 = np.empty((n, 1), np.uint64)
    codes.transpose(packed_BQ, n, word_N1)
    for person in range(n):
        wanted = np.full(codes.PER_WORD, -1)
        wanted[:B] = copies_BN[:, person]
        planes = [int(plane) for plane in codes.planes(word_N1[person, 0])]
        hom, het, called, low = (np.array([plane >> 2 * i & 3 for i in range(codes.PER_WORD)]) for plane in planes)
        np.testing.assert_array_equal(hom == 1, (wanted == 0) | (wanted == 2))
        np.testing.assert_array_equal(het == 1, wanted == 1)
        np.testing.assert_array_equal(called == 1, wanted >= 0)
        np.testing.assert_array_equal(low[hom == 1] == 1, wanted[hom == 1] == 0)
        assert max(map(np.max, (hom, het, called, low))) == 1


def test_a_table_of_bytes_decodes_four_calls_at_once(packed):
    packed_BQ, copies_BN, _ = packed
    table = codes.byte_table(np.array([2, -1, 1, 0], np.int8))
    np.testing.assert_array_equal(table[packed_BQ].view(np.int8)[:, : copies_BN.shape[1]], copies_BN)
