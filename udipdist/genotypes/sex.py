"""Chromosome X outside the pseudo-autosomal part: males have one copy, written 0 or 2 in the .bed.

As in PLINK: a male heterozygote is no genotype and counts as missing; males count one allele in the frequency of A1;
people of unknown sex are taken as having two copies. Hardy-Weinberg equilibrium is tested in females (PLINK's own test
on X also compares their frequency with the males'). The pseudo-autosomal part must be coded XY (25), as
`plink --split-x` does.

What a block of rows of X goes through, where `code_N` are the sexes of the people in the order of the packed rows
(all people of the .fam, or those analysed), and `count(rows, flags)` counts genotypes (genotypes.codes.count_codes, its
order: A1 A1, missing, A1 A2, A2 A2) among the flagged people:

    rows, masked_B = mask_male_hets(rows, two_bits(code_N == MALE))     before anything else sees them
    af1_B = frequency(*copies(count(rows, analysed), count(rows, two_bits(analysed_N & (code_N == MALE)))))
    female_B4 = count(rows, two_bits(analysed_N & (code_N == FEMALE)))
    hwe_log10p_B = hardy.log10p(female_B4[:, 0], female_B4[:, 2], female_B4[:, 3])

Shapes: B variants, Q bytes of a packed row, N people.
"""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from udipdist.genome import chromosomes
from udipdist.genotypes import codes

log = logging.getLogger(__name__)

UNKNOWN, MALE, FEMALE = 0, 1, 2
_MANY_HETS = 0.02  # of the calls of males; more is not error of genotyping


def sex_codes(fam: pd.DataFrame) -> np.ndarray:
    """MALE, FEMALE or UNKNOWN of the people of a .fam (column `sex`: 1, 2, anything else), uint8 [N]."""
    return np.select([fam["sex"] == "1", fam["sex"] == "2"], [MALE, FEMALE], UNKNOWN).astype(np.uint8)


def tell_unknown(code_N: np.ndarray, n_x: int, where: str) -> int:
    """Warn of people of unknown sex where `n_x` variants of X are to be tested; the number of such people."""
    unknown = int((code_N == UNKNOWN).sum())
    if unknown and n_x:
        log.warning(
            "%s.fam: %d of %d people have no sex (column 5 is 1 for male, 2 for female); on the %d variants of "
            "chromosome X they are taken as having two copies, and are left out of the test of Hardy-Weinberg "
            "equilibrium",
            where, unknown, len(code_N), n_x,
        )  # fmt: skip
    return unknown


def tell_masked(masked: int, male_calls: int) -> None:
    """Warn where more of the males' calls on X were heterozygous than errors explain."""
    if masked > _MANY_HETS * male_calls:
        log.warning(
            "%.1f %% of the calls of males on chromosome X are heterozygous, and were taken as missing: either "
            "column 5 of the .fam is wrong, or the pseudo-autosomal part is coded X (plink --split-x codes it XY)",
            100 * masked / male_calls,
        )  # fmt: skip


def x_runs(chrom_M: np.ndarray) -> list[list[int]]:
    """[start, stop] of the runs of variants on X, from their codes (chromosomes.codes); XY is not among them."""
    edges = np.diff(np.r_[False, chrom_M == chromosomes.X, False].astype(np.int8))
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], axis=1).tolist()


def rows_on_x(runs: list[list[int]], start: int, stop: int) -> slice | np.ndarray | None:
    """Which rows of the block of variants start..stop-1 are on X: None, a slice, or row numbers [b]."""
    inside = [(max(low, start) - start, min(high, stop) - start) for low, high in runs if low < stop and high > start]
    if not inside:
        return None
    if len(inside) == 1:
        return slice(*inside[0])
    return np.concatenate([np.arange(low, high) for low, high in inside])


def mask_male_hets(packed_BQ: np.ndarray, male_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A copy of packed rows in which heterozygous males (code 10) are missing (01), and how many they were, int64 [B].

    `male_Q` is `two_bits` of who is male, in the order of the people in the rows.
    """
    if male_Q.shape != packed_BQ.shape[1:]:
        raise AssertionError(f"{male_Q.shape[0]} bytes of sexes for rows of {packed_BQ.shape[1]}")
    out_BQ, masked_B = np.empty_like(packed_BQ), np.empty(len(packed_BQ), np.int64)
    codes.mask_hets(packed_BQ, male_Q, out_BQ, masked_B)
    return out_BQ, masked_B


def copies(count_B4: np.ndarray, male_B4: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Copies of A1, and of either allele, int64 [B], from numbers of A1 A1, missing, A1 A2, A2 A2.

    On X give the males' numbers too (they are among `count_B4`): each has one copy.
    """
    copies_B = 2 * count_B4[:, 0] + count_B4[:, 2]
    alleles_B = 2 * (count_B4[:, 0] + count_B4[:, 2] + count_B4[:, 3])
    if male_B4 is not None:
        copies_B = copies_B - male_B4[:, 0]
        alleles_B = alleles_B - male_B4[:, 0] - male_B4[:, 3]
    return copies_B, alleles_B


def frequency(copies_B: np.ndarray, alleles_B: np.ndarray) -> np.ndarray:
    """Frequency of an allele, float64 [B]; NaN where nobody is called."""
    return np.divide(copies_B, alleles_B, out=np.full(len(copies_B), np.nan), where=alleles_B > 0)
