"""Linkage disequilibrium straight from the 2-bit rows of a .bed file.

r2 is the squared Pearson correlation of allele counts over the people in whom both SNPs were called (what plink calls
--r2, with every person a founder). Counts come from population counts of bit planes: exact integers, no decoding.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from udipdist.gwas.genotypes import Bed

ROWS = 512  # rows copied at once
EVEN = np.uint64(0x5555555555555555)


class LinkageReader:
    """r2 between SNPs of a .bed; N people, W = ceil(N/32) words a SNP."""

    def __init__(self, bed: Bed):
        self.bed = bed
        self.n_words = -(-bed.n_samples // 32)
        people = np.zeros(self.n_words * 32, bool)
        people[: bed.n_samples] = True
        bits = np.zeros(self.n_words * 64, np.uint8)
        bits[::2] = people
        self.people_W = np.packbits(bits, bitorder="little").view(np.uint64)

    def r2(self, row: int, others: np.ndarray) -> np.ndarray:
        """r2 of SNP `row` with the rows `others` (ascending), float64 [len(others)]; 0 where either is constant."""
        planes = self._planes(row)
        result = np.empty(len(others))
        for start, stop in _runs(others):
            words_BW = self._words(int(others[start]), int(others[stop - 1]) + 1)
            _r2_rows(*planes, words_BW, result[start:stop])
        return result

    def minor_frequency(self, row: int) -> float:
        """Frequency of the rarer allele of SNP `row`; 0 where nobody was called."""
        called, two, zero = (int(np.bitwise_count(plane).sum()) for plane in self._planes(row))
        frequency = (called + two - zero) / (2 * called) if called else 0.0
        return min(frequency, 1 - frequency)

    def _planes(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bit planes of one SNP over the people: called, two copies of A1, no copy."""
        (words,) = self._words(row, row + 1)
        low, high = words & EVEN, (words >> np.uint64(1)) & EVEN
        return (~low | high) & self.people_W, ~(low | high) & self.people_W, low & high & self.people_W

    def _words(self, start: int, stop: int) -> np.ndarray:
        """Rows of the .bed padded to whole 64-bit words, uint64 [B, W]."""
        packed = self.bed.packed(start, stop)
        padded = np.zeros((stop - start, self.n_words * 8), np.uint8)
        padded[:, : packed.shape[1]] = packed
        return padded.view(np.uint64)


def _runs(rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """(start, stop) of stretches of consecutive numbers in `rows`, at most ROWS long."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for first, last in zip([0, *breaks], [*breaks, len(rows)], strict=True):
        for start in range(int(first), int(last), ROWS):
            yield start, min(start + ROWS, int(last))


@intrinsic
def _popcount(typing_context, word):
    """The processor's population count of a 64-bit word."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@njit(cache=True)
def _r2_rows(called_W, two_W, zero_W, words_BW, result_B):
    """r2 of one SNP (its planes) with B others. Allele counts are shifted by one to -1, 0, 1: r2 does not change."""
    even = np.uint64(0x5555555555555555)
    one = np.uint64(1)
    for b in range(words_BW.shape[0]):
        n = sum_x = sum_y = square_x = square_y = product = 0
        for w in range(words_BW.shape[1]):
            low = words_BW[b, w] & even
            high = (words_BW[b, w] >> one) & even
            called = (~low | high) & called_W[w]  # called in both, people only
            two = ~(low | high) & called
            zero = low & high & called
            two_x = two_W[w] & called
            zero_x = zero_W[w] & called
            n += _popcount(called)
            sum_x += _popcount(two_x) - _popcount(zero_x)
            square_x += _popcount(two_x | zero_x)
            sum_y += _popcount(two) - _popcount(zero)
            square_y += _popcount(two | zero)
            product += _popcount((two & two_x) | (zero & zero_x)) - _popcount((two & zero_x) | (zero & two_x))
        variance_x = n * square_x - sum_x * sum_x
        variance_y = n * square_y - sum_y * sum_y
        covariance = float(n * product - sum_x * sum_y)
        if variance_x > 0 and variance_y > 0:
            result_B[b] = covariance * covariance / (float(variance_x) * float(variance_y))
        else:
            result_B[b] = 0.0
