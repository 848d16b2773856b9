"""Chromosomes: one code for the many ways of writing them, and what the assemblies differ in."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from hpc.errors import InputError
from udipdist.genome import chromosomes

X = chromosomes.X
UNPLACED = chromosomes.OTHER
MHC = (6, 29_614_758, 33_170_276)  # FUMA's default, GRCh37
MHC_OF = {"GRCh37": MHC[1:], "GRCh38": (29_646_981, 33_202_499), "NR": MHC[1:]}

Text = Iterable[str]

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

# GRCh38 (hg38) lengths
LENGTHS_38 = dict(
    enumerate(
        [
            248_956_422, 242_193_529, 198_295_559, 190_214_555, 181_538_259, 170_805_979, 159_345_973, 145_138_636,
            138_394_717, 133_797_422, 135_086_622, 133_275_309, 114_364_328, 107_043_718, 101_991_189, 90_338_345,
            83_257_441, 80_373_285, 58_617_616, 64_444_167, 46_709_983, 50_818_468, 156_040_895,
        ],
        start=1,
    )
)  # fmt: skip
LENGTHS_OF = {"GRCh37": LENGTHS, "GRCh38": LENGTHS_38}


def code(label: object) -> int:
    """1..22, 23 for X (and its pseudo-autosomal part), 24 for Y, 26 for MT; UNPLACED for anything else.

    '1', '01', 'chr1' and 1 are the same chromosome.
    """
    number = chromosomes.code(label)
    return X if number == chromosomes.XY else number


def codes(labels: Iterable[object]) -> np.ndarray:
    """`code` of each label, int64."""
    if isinstance(labels, pd.Series) and isinstance(labels.dtype, pd.CategoricalDtype):
        numbers, names = labels.cat.codes.to_numpy(), labels.cat.categories.to_numpy()
    else:
        numbers, names = pd.factorize(np.asarray(labels, dtype=object))
    return np.array([*(code(name) for name in names), UNPLACED], np.int64)[numbers]


def label(number: int) -> str:
    """The name of a chromosome: '1'..'22', 'X', 'Y', 'MT'."""
    return {X: "X", 24: "Y", 26: "MT"}.get(int(number), str(int(number)))


def unique_ids(chromosome: int, position: np.ndarray, a1: Text, a2: Text) -> np.ndarray:
    """FUMA's uniqID chr:pos:allele:allele with the alleles in alphabetical order, object [M]."""
    first, second = (pc.utf8_upper(pa.array(alleles, pa.large_string())) for alleles in (a1, a2))
    turned = pc.greater(first, second)
    low, high = pc.if_else(turned, second, first), pc.if_else(turned, first, second)
    parts = [pa.scalar(str(chromosome), pa.large_string()), pa.array(position).cast(pa.large_string()), low, high]
    return pc.binary_join_element_wise(*parts, pa.scalar(":", pa.large_string())).to_numpy(zero_copy_only=False)


def check_build(chrom_M: np.ndarray, position_M: np.ndarray, assembly: str, where: object) -> None:
    """Raises InputError where a position lies beyond the end of its chromosome in the assembly that was stated."""
    for chromosome, length in LENGTHS_OF.get(assembly, {}).items():
        beyond = position_M[(chrom_M == chromosome) & (position_M > length)]
        if len(beyond):
            raise InputError(
                f"{where}: holds position {int(beyond.max()):,} of chromosome {label(chromosome)}, which ends at "
                f"{length:,} in {assembly}; the positions are of another build: give the right assembly="
            )
