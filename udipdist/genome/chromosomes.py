"""Chromosomes as PLINK numbers them: 1..22, X 23, Y 24, XY (the pseudo-autosomal part of X) 25, MT 26."""

from __future__ import annotations

import numpy as np
import pandas as pd

OTHER = 0  # unplaced variants, contigs, and names that are no human chromosome
X, Y, XY, MT = 23, 24, 25, 26
AUTOSOMES = tuple(range(1, 23))

_LETTERS = {"X": X, "Y": Y, "XY": XY, "PAR": XY, "PAR1": XY, "PAR2": XY, "M": MT, "MT": MT}
NAMES = {**{c: str(c) for c in AUTOSOMES}, X: "X", Y: "Y", XY: "XY", MT: "MT", OTHER: "other"}

# What {chr} in the name of a set stands for; of several spellings of a chromosome one may exist.
IN_FILE_NAMES = {**{c: (str(c),) for c in AUTOSOMES}, X: ("X", "23"), XY: ("XY", "25")}


def code(label: object) -> int:
    """1..26, OTHER for anything else; '6', '06', '6.0', 'chr6', 'Chr6' and 6 are the same."""
    text = str(label).strip().upper().removeprefix("CHR").removeprefix("_").lstrip("0").removesuffix(".0")
    if text in _LETTERS:
        return _LETTERS[text]
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 2 and int(text) <= MT else OTHER


def codes(labels: pd.Series) -> np.ndarray:
    """`code` of each label, int16 [M]; fast where `labels` is categorical, as `GenotypeSource.variants.chrom` is."""
    names = labels.astype("category").cat
    return np.array([*(code(name) for name in names.categories), OTHER], np.int16)[names.codes]
