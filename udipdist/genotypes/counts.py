"""What the genotypes of a block are: numbers of genotypes, allele frequency and Hardy-Weinberg equilibrium.

Counted among each of several sets of people; on chromosome X with males haploid (genotypes.sex). Used like this:

    quality = Quality(people, sexes, x_runs)          # once; the plan has `people`, `sex` and `x_runs`
    packed_BQ, masked = quality.mask(packed_BQ, start)  # before anything else sees the rows
    numbers = quality.numbers(packed_BQ, start, i)    # among people[i]
    verdict_B = limits.verdict(numbers)               # gwas.engine.limits

Shapes: B variants of a block, Q bytes of a packed row, N people of the .fam.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from udipdist.genotypes import codes, hardy, sex
from udipdist.genotypes.sex import FEMALE, MALE


@dataclass(frozen=True)
class Numbers:
    """Among `n` people: how many have two copies of A1, miss the call, have one copy, none (int64 [B, 4]), frequency of
    A1 and -log10 p of Hardy-Weinberg equilibrium (float64 [B]; NaN where nobody, on X no female, is called), and copies
    of the rarer allele (int64 [B])."""

    n: int
    count_B4: np.ndarray
    af1_B: np.ndarray
    mac_B: np.ndarray
    hwe_log10p_B: np.ndarray

    @property
    def called_B(self) -> np.ndarray:
        """Calls, int64 [B]."""
        return self.n - self.count_B4[:, 1]


class Quality:
    """Counts blocks of variants. Only read after it is made, so threads may share it."""

    def __init__(self, people: list[np.ndarray], sex_N: np.ndarray | list[int], x_runs: list[list[int]]):
        """`people`: rows of the .fam of each set; `sex_N`: codes (genotypes.sex) of all people of the .fam, may be
        empty where `x_runs`, the [start, stop] of runs of variants on X, is."""
        self._x_runs = x_runs
        self._all = [_Set.of(fam_N) for fam_N in people]
        if x_runs:
            code_N = np.asarray(sex_N, np.uint8)
            self._male_Q = codes.two_bits(code_N == MALE)
            self._males = [_Set.of(fam_N[code_N[fam_N] == MALE]) for fam_N in people]
            self._females = [_Set.of(fam_N[code_N[fam_N] == FEMALE]) for fam_N in people]

    def mask(self, packed_BQ: np.ndarray, start: int) -> tuple[np.ndarray, int]:
        """The rows of the variants `start`, `start` + 1, ... with heterozygous males missing on X, and how many those
        are; the rows themselves where none is on X, else a copy."""
        on_x = sex.rows_on_x(self._x_runs, start, start + len(packed_BQ))
        if on_x is None:
            return packed_BQ, 0
        masked_bQ, masked_b = sex.mask_male_hets(packed_BQ[on_x], self._male_Q)
        packed_BQ = packed_BQ.copy()
        packed_BQ[on_x] = masked_bQ
        return packed_BQ, int(masked_b.sum())

    def numbers(self, packed_BQ: np.ndarray, start: int, i: int) -> Numbers:
        """Of the variants `start`, `start` + 1, ..., whose rows have been through `mask`, among people[i]."""
        count_B4 = self._all[i].count(packed_BQ)
        copies_B, alleles_B = sex.copies(count_B4)
        diploid_B4 = count_B4
        on_x = sex.rows_on_x(self._x_runs, start, start + len(packed_BQ))
        if on_x is not None:
            rows_bQ = np.ascontiguousarray(packed_BQ[on_x])
            copies_B[on_x], alleles_B[on_x] = sex.copies(count_B4[on_x], self._males[i].count(rows_bQ))
            diploid_B4 = count_B4.copy()
            diploid_B4[on_x] = self._females[i].count(rows_bQ)
        hwe_log10p_B = hardy.log10p(diploid_B4[:, 0], diploid_B4[:, 2], diploid_B4[:, 3])
        mac_B = np.minimum(copies_B, alleles_B - copies_B)
        return Numbers(self._all[i].n, count_B4, sex.frequency(copies_B, alleles_B), mac_B, hwe_log10p_B)


@dataclass(frozen=True)
class _Set:
    """A set of people as `codes.count_codes` wants it."""

    keep_Q: np.ndarray
    n: int

    @classmethod
    def of(cls, fam_N: np.ndarray) -> _Set:
        return cls(codes.keep_bytes(fam_N), len(fam_N))

    def count(self, packed_BQ: np.ndarray) -> np.ndarray:
        out_B4 = np.empty((len(packed_BQ), 4), np.int64)
        codes.count_codes(packed_BQ, self.keep_Q, self.n, out_B4)
        return out_B4
