"""Chromosomes: one code for the many ways of writing them, and their lengths in GRCh37."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

X = 23
UNPLACED = 0
MHC = (6, 29_614_758, 33_170_276)  # FUMA's default, GRCh37

_LETTERS = {"X": X, "Y": 24, "XY": X, "PAR": X, "PAR1": X, "PAR2": X, "25": X, "M": 26, "MT": 26}

# GRCh37 (hg19) lengths in base pairs, chromosomes 1..22 and X
LENGTHS = dict(
    enumerate(
        [
            249_250_621, 243_199_373, 198_022_430, 191_154_276, 180_915_260, 171_115_067, 159_138_663, 146_364_022,
            141_213_431, 135_534_747, 135_006_516, 133_851_895, 115_169_878, 107_349_540, 102_531_392, 90_354_753,
            81_195_210, 78_077_248, 59_128_983, 63_025_520, 48_129_895, 51_304_566, 155_270_560,
        ],
        start=1,
    )
)  # fmt: skip


def code(label: object) -> int:
    """1..22, 23 for X (and its pseudo-autosomal part), 24 for Y, 26 for MT; UNPLACED for anything else.

    '1', '01', 'chr1' and 1 are the same chromosome.
    """
    text = str(label).strip().upper().removeprefix("CHR").lstrip("0")
    if text in _LETTERS:
        return _LETTERS[text]
    number = int(text) if text.isascii() and text.isdigit() else UNPLACED
    return number if number <= 26 else UNPLACED


def codes(labels: Iterable[object]) -> np.ndarray:
    """`code` of each label, int64."""
    numbers, names = pd.factorize(np.asarray(labels, dtype=object))
    return np.array([code(name) for name in names], np.int64)[numbers]


def label(number: int) -> str:
    """The name of a chromosome: '1'..'22', 'X', 'Y', 'MT'."""
    return {X: "X", 24: "Y", 26: "MT"}.get(int(number), str(int(number)))


def unique_ids(chromosome: int, variants: pd.DataFrame) -> np.ndarray:
    """FUMA's uniqID chr:pos:allele:allele with the alleles in alphabetical order, object [M]."""
    first, second = variants.a1.str.upper().tolist(), variants.a2.str.upper().tolist()
    rows = zip(variants.position.tolist(), first, second, strict=True)
    return np.array([f"{chromosome}:{p}:{min(a, b)}:{max(a, b)}" for p, a, b in rows], object)
