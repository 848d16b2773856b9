"""Linkage disequilibrium straight from the 2-bit rows of hard calls.

r2 is the squared Pearson correlation of allele counts over the people in whom both SNPs were called (what plink calls
--r2, with every person a founder). Counts come from population counts of bit planes: exact integers, no decoding.
On chromosome X males have one allele: 0 or 1 copies, and heterozygous calls of theirs are missing (plink's
--ld-xchr 1, its default); people whose sex is unknown count as females.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np

from hpc.compiled import njit
from udipdist.genome import chromosomes
from udipdist.genotypes.codes import LOW, count_ones, ones
from udipdist.genotypes.source import GenotypeSource

ROWS = 512  # rows copied at once
KEPT_BYTES = 256_000_000  # of rows that were read already

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]


class LinkageReader:
    """r2 between SNPs of a source; N people, W = ceil(N/32) words a SNP. Its rows are read in blocks of the order
    `rows_S` (any numbers of rows, such as those near hits by position), and the last ones are kept."""

    def __init__(self, source: GenotypeSource, rows_S: np.ndarray | None = None):
        self.source = source
        self.rows_S = np.arange(source.n_variants) if rows_S is None else rows_S
        self.n_words = -(-source.n_people // 32)
        self._people_W = self._mask(np.ones(source.n_people, bool))
        self._male_W = self._mask((source.people["sex"] == "1").to_numpy())
        names = source.variants["chrom"].iloc[self.rows_S].astype("category").cat
        on_x = np.array([*(chromosomes.code(name) == chromosomes.X for name in names.categories), False])
        self._haploid_S = on_x[names.codes]
        self._blocks: OrderedDict[int, np.ndarray] = OrderedDict()

    def r2(self, i: int, start: int, stop: int) -> np.ndarray:
        """r2 of SNP i of `rows_S` with the SNPs start..stop-1 of it, float64; 0 where either is constant."""
        planes, result = self._planes(i), np.empty(stop - start)
        for number in range(start // ROWS, -(-stop // ROWS)):
            first, words_BW = number * ROWS, self._block(number)
            low, high = max(start, first), min(stop, first + ROWS)
            haploid_B = self._haploid_S[low:high]
            _r2_rows(
                *planes,
                words_BW[low - first : high - first],
                haploid_B,
                self._male_W,
                result[low - start : high - start],
            )
        return result

    def minor_frequency(self, i: int) -> float:
        """Frequency of the rarer allele of SNP i; 0 where nobody was called."""
        called, two, zero = self._planes(i)
        once = self._male_W if self._haploid_S[i] else np.zeros_like(called)
        n_called, n_once = count_ones(called), count_ones(called & once)
        alleles = 2 * n_called - n_once
        copies = (
            n_called + count_ones(two) - count_ones(zero)
        )  # a man without A1 has -1 here as if he had 0 of 2, with it 0
        frequency = copies / alleles if alleles else 0.0
        return min(frequency, 1 - frequency)

    def _planes(self, i: int) -> Planes:
        """Bit planes of one SNP over the people: called, one copy more than the middle, one less."""
        words = self._block(i // ROWS)[i % ROWS]
        low, high = words & LOW, (words >> np.uint64(1)) & LOW
        called, two, zero = (~low | high) & self._people_W, ~(low | high) & self._people_W, low & high & self._people_W
        if self._haploid_S[i]:
            called, two = called & ~(self._male_W & ~low & high), two & ~self._male_W
        return called, two, zero

    def _block(self, number: int) -> np.ndarray:
        """Rows ROWS*number.. of `rows_S`, padded to whole 64-bit words, uint64 [B, W]."""
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        rows = self.rows_S[number * ROWS : (number + 1) * ROWS]
        padded = np.zeros((len(rows), self.n_words * 8), np.uint8)
        for start, stop in _runs(rows):
            packed = self.source.packed(int(rows[start]), int(rows[stop - 1]) + 1)
            padded[start:stop, : packed.shape[1]] = packed
        while self._blocks and (len(self._blocks) + 1) * ROWS * self.n_words * 8 > KEPT_BYTES:
            self._blocks.popitem(last=False)
        self._blocks[number] = padded.view(np.uint64)
        return self._blocks[number]

    def _mask(self, people: np.ndarray) -> np.ndarray:
        """The low bits of the calls of `people` (bool [N]), uint64 [W]."""
        bits = np.zeros(self.n_words * 64, np.uint8)
        bits[: 2 * len(people) : 2] = people
        return np.packbits(bits, bitorder="little").view(np.uint64)


def _runs(rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """(start, stop) of stretches of consecutive numbers in `rows`."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for first, last in zip([0, *breaks], [*breaks, len(rows)], strict=True):
        yield int(first), int(last)


@njit(cache=True, nogil=True)
def _r2_rows(
    called_W: np.ndarray,
    two_W: np.ndarray,
    zero_W: np.ndarray,
    words_BW: np.ndarray,
    haploid_B: np.ndarray,
    male_W: np.ndarray,
    result_B: np.ndarray,
) -> None:
    """r2 of one SNP (its planes) with B others. Allele counts are shifted by one to -1, 0, 1: r2 does not change."""
    one = np.uint64(1)
    for b in range(words_BW.shape[0]):
        n = n_two = n_zero = n_two_x = n_zero_x = same = opposite = 0
        for w in range(words_BW.shape[1]):
            low = words_BW[b, w] & LOW
            high = (words_BW[b, w] >> one) & LOW
            male = male_W[w] if haploid_B[b] else np.uint64(0)
            called = (~low | high) & called_W[w] & ~(male & ~low & high)  # called in both, people only
            two = ~(low | high) & called & ~male
            zero = low & high & called
            two_x = two_W[w] & called
            zero_x = zero_W[w] & called
            n += ones(called)
            n_two += ones(two)
            n_zero += ones(zero)
            n_two_x += ones(two_x)
            n_zero_x += ones(zero_x)
            same += ones((two & two_x) | (zero & zero_x))
            opposite += ones((two & zero_x) | (zero & two_x))
        sum_x, sum_y = n_two_x - n_zero_x, n_two - n_zero
        variance_x = n * (n_two_x + n_zero_x) - sum_x * sum_x
        variance_y = n * (n_two + n_zero) - sum_y * sum_y
        covariance = float(n * (same - opposite) - sum_x * sum_y)
        if variance_x > 0 and variance_y > 0:
            result_B[b] = covariance * covariance / (float(variance_x) * float(variance_y))
        else:
            result_B[b] = 0.0
