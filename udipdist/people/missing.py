"""Which cells of a table of people are missing values, and a line that says how many were taken as that.

An empty cell and the words NA, nan, . and their spellings (WORDS) always are. So are the codes of `missing=`; without
that key, -9 in text tables with FID and IID, which is what PLINK and GCTA mean by it. A code that is a number is
compared as a number: -9.0 is -9, and -9.3 is not.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hpc.errors import some
from udipdist.delimited import numbers

log = logging.getLogger(__name__)

WORDS = (
    "", ".", "NA", "na", "Na", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "-nan", "NULL", "null",
)  # fmt: skip
PLINK = ("-9",)
_MOST_COLUMNS_TOLD = 6
_NEAR_SD = 4.0  # a code this near to the other values may be one of them
_FAR_SD = 10.0  # and one this far from them is none
_NINES = np.array(
    [-9.0, *(sign * (10.0**digits - 1) for digits in range(2, 10) for sign in (-1, 1))]
)  # -9, 99, -99 ...


class MissingCodes:
    """The codes of one table, and what was found of them."""

    def __init__(self, path: Path, codes: Sequence[str]):
        self._path = path
        codes = [code.strip() for code in codes]
        values = numbers(pa.chunked_array([codes], pa.string())).tolist()
        self._numbers = {value: code for value, code in zip(values, codes, strict=True) if np.isfinite(value)}
        words = [*WORDS, *(code for code in codes if code not in self._numbers.values())]
        self._words = pa.array(dict.fromkeys(words), pa.string())
        self._found: dict[str, Counter[str]] = {}

    def of_text(self, name: str, column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, np.ndarray]:
        """The column with null where it is missing, and its numbers [N] (NaN where missing or no number)."""
        is_word = pc.is_in(column, value_set=self._words)
        known = pc.if_else(is_word, pa.scalar(None, pa.string()), column)
        value_N = numbers(known)
        coded = np.isin(value_N, list(self._numbers))
        if coded.any():
            known = pc.if_else(pa.array(coded), pa.scalar(None, pa.string()), known)
        self._count(name, Counter(pc.filter(column, is_word).to_pylist()))
        return known, self.of_numbers(name, value_N)

    def of_numbers(self, name: str, value_N: np.ndarray) -> np.ndarray:
        """The numbers with NaN where they are a code."""
        coded = np.isin(value_N, list(self._numbers))
        self._tell_unlisted(name, value_N[~coded & np.isfinite(value_N)])
        if not coded.any():
            return value_N
        self._count(name, Counter(self._numbers[value] for value in value_N[coded].tolist()))
        rest_N = np.where(coded, np.nan, value_N)
        self._tell_plausible(name, value_N[coded], rest_N[np.isfinite(rest_N)])
        return rest_N

    def tell(self) -> None:
        """Say how many values were taken as missing, and in which columns where these are few."""
        if not self._found:
            return
        spelled = [repr(code) if code else "empty" for code in sum(self._found.values(), Counter())]
        total = sum(sum(counts.values()) for counts in self._found.values())
        line = f"{total:,} in {len(self._found):,} columns ({some(spelled, 8)})"
        if len(self._found) <= _MOST_COLUMNS_TOLD:
            line = "; ".join(f"{name}: {_spelled(counts)}" for name, counts in self._found.items())
        log.info("%s: values taken as missing: %s", self._path, line)

    def _count(self, name: str, found: Counter[str]) -> None:
        if found:
            self._found.setdefault(name, Counter()).update(found)

    def _tell_plausible(self, name: str, coded: np.ndarray, rest: np.ndarray) -> None:
        """Warn where a code lies among the other values of its column."""
        if len(rest) < 2:
            return
        near = np.abs(coded - rest.mean()) <= _NEAR_SD * rest.std()
        if near.any():
            log.warning(
                "%s: %s is %g for %d people, and is taken as missing, but its other values go from %g to %g; if it is "
                "a value here, type missing=[NA]",
                self._path, name, coded[near][0], int(near.sum()), rest.min(), rest.max(),
            )  # fmt: skip

    def _tell_unlisted(self, name: str, values: np.ndarray) -> None:
        """Warn of -9, 99, -999 ... that are values here, but lie far from all others."""
        for code in np.intersect1d(values, _NINES).tolist():
            rest = values[values != code]
            if len(rest) > 1 and abs(code - rest.mean()) > _FAR_SD * rest.std() > 0:
                n, also = len(values) - len(rest), ", ".join(self._numbers.values())
                log.warning(
                    "%s: %s is %.0f for %d people, far from all other values (%g to %g), and is used as it is; if it "
                    "means missing, type missing=[%s]",
                    self._path, name, code, n, rest.min(), rest.max(), f"{also}, {code:.0f}".removeprefix(", "),
                )  # fmt: skip


def _spelled(counts: Counter[str]) -> str:
    return ", ".join(f"{n:,} {code or 'empty'}" for code, n in counts.items())
