"""Which variants relatedness is estimated from: common, well called, autosomal, spread evenly over the genome.

Nobody needs millions of variants to know relatives, and neighbours say the same thing twice. The genome is cut into
bins of equal length, as many as variants are wanted, and each bin gives its best variant. Only a few variants of a bin
are read, so that a .bed of 100 GB costs seconds.
"""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from hpc.errors import InputError
from udipdist.genotypes import codes
from udipdist.genotypes.source import GenotypeSource

log = logging.getLogger(__name__)

AT_ONCE = 4  # variants of a bin read in one round
ROUNDS = 16  # a bin without a usable variant among AT_ONCE * ROUNDS is left empty


def choose(source: GenotypeSource, most: int, min_maf: float, max_missing: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of at most `most` variants of a source in the order of the genome, [m], and the frequency of A1 of each [m].

    Raises InputError where there is no autosomal variant, or none that is common and called well enough.
    """
    place = _autosomal(source.variants)
    if len(place) == 0:
        raise InputError(
            f"{source.rows.where}: no variant is on chromosomes 1..22 (the .bim begins with "
            f"{source.variants.chrom.iloc[0]!r}); relatedness is estimated from autosomes"
        )
    bin_M = _bins(place.chrom.to_numpy(), place.position.to_numpy(), most)
    rows_M = place.index.to_numpy()
    order = np.lexsort((np.random.default_rng(0).random(len(rows_M)), bin_M))
    start_B = np.flatnonzero(np.diff(bin_M[order], prepend=-1))
    stop_B = np.append(start_B[1:], len(order))
    chosen_B, frequency_B = np.full(len(start_B), -1), np.zeros(len(start_B))
    rounds = -(-int((stop_B - start_B).max()) // AT_ONCE)
    for turn in range(min(rounds, ROUNDS)):
        open_B = np.flatnonzero((chosen_B < 0) & (start_B + turn * AT_ONCE < stop_B))
        trial = [order[start_B[b] + turn * AT_ONCE : min(start_B[b] + (turn + 1) * AT_ONCE, stop_B[b])] for b in open_B]
        if trial:
            of_bin = np.repeat(open_B, [len(some) for some in trial])
            _fill(source, rows_M[np.concatenate(trial)], of_bin, min_maf, max_missing, chosen_B, frequency_B)
    filled_B = chosen_B >= 0
    if not filled_B.any():
        raise InputError(
            f"{source.rows.where}: none of the variants looked at has a minor allele frequency of at least "
            f"min_maf={min_maf:g} and at most max_missing={max_missing:g} missing calls; change these, or give array "
            "genotypes"
        )
    place_of = pd.Series(np.arange(len(rows_M)), index=rows_M)
    by_genome = np.argsort(place_of[chosen_B[filled_B]].to_numpy())
    return chosen_B[filled_B][by_genome], frequency_B[filled_B][by_genome]


def _autosomal(variants: pd.DataFrame) -> pd.DataFrame:
    """Chromosome (number) and position of the autosomal variants in the order of the genome; the index is the row."""
    name = {text: str(text).lower().removeprefix("chr") for text in variants.chrom.unique()}
    value = {text: int(bare) if bare.isdecimal() else 0 for text, bare in name.items()}
    number = variants.chrom.map(value).astype(np.int64)
    place = pd.DataFrame({"chrom": number, "position": variants.position})[number.between(1, 22)]
    return place.sort_values(["chrom", "position"], kind="stable")


def _bins(chrom_M: np.ndarray, position_M: np.ndarray, most: int) -> np.ndarray:
    """The bin of each variant (they are in order): bins of equal length, as short as leaves at most `most` non-empty
    ones; every variant its own where there are no more of them."""
    if len(chrom_M) <= most:
        return np.arange(len(chrom_M))

    def cut(length: float) -> np.ndarray:
        cell_M = np.floor_divide(position_M, length)
        fresh_M = (np.diff(chrom_M, prepend=-1) != 0) | (np.diff(cell_M, prepend=-1) != 0)
        return np.cumsum(fresh_M) - 1

    short, long = 1.0, float(position_M.max() + 2)
    while long > 1.001 * short:
        middle = np.sqrt(short * long)
        if cut(middle)[-1] < most:
            long = middle
        else:
            short = middle
    bin_M = cut(long)
    if bin_M[-1] >= most:  # fewer variants are wanted than there are chromosomes
        raise InputError(f"max_variants={most}: is too small; give at least a few thousand")
    return bin_M


def _fill(
    source: GenotypeSource,
    rows: np.ndarray,
    bin_of: np.ndarray,
    min_maf: float,
    max_missing: float,
    chosen_B: np.ndarray,
    frequency_B: np.ndarray,
) -> None:
    """Give each bin the most heterozygous of its variants that pass."""
    everybody_Q, count_b4 = codes.two_bits(np.ones(source.n_people, bool)), np.empty((len(rows), 4), np.int64)
    for i, row in enumerate(rows):
        codes.count_codes(source.packed(row, row + 1), everybody_Q, source.n_people, count_b4[i : i + 1])
    called = source.n_people - count_b4[:, 1]
    frequency = (2 * count_b4[:, 0] + count_b4[:, 2]) / np.maximum(2 * called, 1)
    maf = np.minimum(frequency, 1 - frequency)
    passes = (maf >= min_maf) & (maf > 0) & (count_b4[:, 1] <= max_missing * source.n_people)
    worth = np.where(passes, maf * called, -1.0)
    best = np.lexsort((-worth, bin_of))
    best = best[np.flatnonzero(np.diff(bin_of[best], prepend=-1))]
    best = best[passes[best]]
    chosen_B[bin_of[best]] = rows[best]
    frequency_B[bin_of[best]] = frequency[best]
