"""The source of PLINK 1: .bed (packed, variant-major) with .bim and .fam, one set or one a chromosome, out of core.

A1 (column 5 of .bim) is the effect allele: genotypes are counts of it. On chromosome X males are 0 or 2, as they stand
in the .bed; nothing is special about X here (see genotypes.sex).
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from hpc.errors import InputError, some
from udipdist import ids
from udipdist.genome.chromosomes import AUTOSOMES, IN_FILE_NAMES
from udipdist.genotypes import source
from udipdist.genotypes.bim import read_bim, read_columns
from udipdist.genotypes.source import FileSet, GenotypeFormat, GenotypeRows, GenotypeSource, Selection

log = logging.getLogger(__name__)

_MAGIC = b"\x6c\x1b\x01"
_RESTORE = "restore it as it was and run the same command, or start again with overwrite=true"
_LOOK_AT = 100  # rows whose padding is looked at
_FAM = ["FID", "IID", "father", "mother", "sex", "phenotype"]


@dataclass
class PackedRows(GenotypeRows):
    """The packed rows of one or several .bed files, end to end, or those of them that `selection` names (ascending
    numbers, or the .npy file that holds them). Small and picklable: files are opened when read.

    `stamps`: size and time of change (ns) that each file must have (`stamp_of`). Rows are read, not mapped: a file that
    is cut off while it is mapped ends the process without a word (SIGBUS).
    """

    paths: list[str]
    counts: list[int]
    n_people: int
    selection: np.ndarray | None = None
    stamps: list[list[int]] | None = None
    _files: dict[int, io.FileIO] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.selection is not None:
            self.selection = source.read_selection(self.selection)

    def __getstate__(self) -> dict[str, Any]:  # of a mapped file the name is enough
        return self.__dict__ | {"_files": {}, "selection": source.file_of(self.selection) or self.selection}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def __len__(self) -> int:
        return sum(self.counts) if self.selection is None else len(self.selection)

    @property
    def where(self) -> str:
        """The first .bed."""
        return self.paths[0]

    def facts(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "paths": [str(Path(path).absolute()) for path in self.paths],
            "counts": self.counts,
            "n_people": self.n_people,
            "stamps": self.stamps,
            "selection": source.recorded(self.selection),
        }

    def select(self, selection: Selection) -> PackedRows:
        """Only the rows `selection` of the files, in that order: row i is then selection[i]."""
        return replace(self, selection=source.read_selection(selection), _files={})

    def packed(self, start: int, stop: int) -> np.ndarray:
        """Raw rows start..stop-1, uint8 [B, row_bytes]. Raises InputError where a file has changed or is gone."""
        source.check_range(start, stop, len(self))
        out, filled, seen = np.empty((stop - start, self.row_bytes), np.uint8), 0, set()
        for i, low, high in self._runs(start, stop):
            self._read(i, low, out[filled : filled + high - low])
            filled += high - low
            seen.add(i)
        for i in seen:
            self._check(i)
        return out

    def _runs(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(file, low, high): the neighbouring rows that make up the rows start..stop-1."""
        if start == stop:
            return
        ends = np.cumsum(self.counts)
        for low, high in [(start, stop)] if self.selection is None else source.runs(self.selection[start:stop]):
            for i in range(int(np.searchsorted(ends, low, side="right")), len(ends)):
                first = int(ends[i]) - self.counts[i]
                if first >= high:
                    break
                yield i, max(low, first) - first, min(high, int(ends[i])) - first

    def _read(self, i: int, row: int, out: np.ndarray) -> None:
        """Fill `out` [B, row_bytes] with the rows `row`, `row` + 1, ... of file i."""
        left, offset = out.reshape(-1).data, len(_MAGIC) + row * self.row_bytes
        try:
            file = self._files.get(i) or self._files.setdefault(i, io.FileIO(self.paths[i]))
            while left:
                n = os.preadv(file.fileno(), [left], offset)
                if n == 0:
                    raise InputError(
                        f"{self.paths[i]}: ends at byte {offset:,}, in the middle of its variants; it was cut off "
                        f"after it was opened: {_RESTORE}"
                    )
                left, offset = left[n:], offset + n
        except OSError as error:
            raise InputError(f"{self.paths[i]}: cannot be read any more ({error.strerror}); {_RESTORE}") from None

    def _check(self, i: int) -> None:
        """Raises InputError where file i is not the one that was opened first."""
        if self.stamps is None:
            return
        try:
            stamp = stamp_of(self.paths[i])
        except OSError as error:
            raise InputError(f"{self.paths[i]}: disappeared ({error.strerror}) while it was read; {_RESTORE}") from None
        if stamp != list(self.stamps[i]):
            raise InputError(
                f"{self.paths[i]}: has changed since it was opened ({self.stamps[i][0]:,} bytes of "
                f"{_when(self.stamps[i][1])}, now {stamp[0]:,} bytes of {_when(stamp[1])}); {_RESTORE}"
            )


def stamp_of(path: str | Path) -> list[int]:
    """Size in bytes and time of the last change in ns, by which a changed file is known."""
    seen = os.stat(path)
    return [seen.st_size, seen.st_mtime_ns]


def _when(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns / 1e9):%Y-%m-%d %H:%M:%S}"


class Plink1(GenotypeFormat):
    """PREFIX.bed/.bim/.fam; `{chr}` in the prefix stands for 1..22, X, XY (those that exist, in that order)."""

    name = "PLINK 1"

    def claims(self, pattern: str) -> bool:
        """Whether there is a .bed of that prefix."""
        return any(Path(f"{one}.bed").exists() for spellings in _candidates(_prefix(pattern)) for one in spellings)

    def find_sets(self, pattern: str) -> list[FileSet]:
        """The .bed, .bim and .fam of each chromosome. Raises InputError."""
        return [
            FileSet({"bed": Path(f"{one}.bed"), "bim": Path(f"{one}.bim")}, {"fam": Path(f"{one}.fam")})
            for one in find_prefixes(pattern)
        ]

    def open(self, pattern: str | Path) -> GenotypeSource:
        """Raises InputError for missing files, a wrong magic or size, broken .bim or .fam lines, duplicate people."""
        prefixes = find_prefixes(pattern)
        _tell_absent(pattern, prefixes)
        people = read_fam(prefixes[0])
        for other in prefixes[1:]:
            _same_people(prefixes[0], people, other)
        tables = [read_bim(p) for p in prefixes]
        for p, table in zip(prefixes, tables, strict=True):
            _check_bed(p, len(people), len(table))
        paths = [f"{p}.bed" for p in prefixes]
        rows = PackedRows(paths, [len(t) for t in tables], len(people), stamps=[stamp_of(path) for path in paths])
        return GenotypeSource(rows, people, _end_to_end(tables))

    def moved(self, facts: dict[str, Any], pattern: str) -> dict[str, Any]:
        """With the paths of the .bed files as they are now."""
        return facts | {"paths": [str(Path(f"{prefix}.bed").absolute()) for prefix in find_prefixes(pattern)]}

    def read_people(self, pattern: str | Path) -> pd.DataFrame:
        """The first .fam. Raises InputError."""
        return read_fam(find_prefixes(pattern)[0])

    def count(self, pattern: str | Path) -> tuple[int, int]:
        """From the .fam and the size of the .bed only. Raises InputError."""
        prefixes = find_prefixes(pattern)
        n = len(read_fam(prefixes[0]))
        row = max((n + 3) // 4, 1)
        return n, sum((Path(f"{p}.bed").stat().st_size - len(_MAGIC)) // row for p in prefixes)


PLINK1 = Plink1()


def find_prefixes(pattern: str | Path) -> list[str]:
    """The prefixes behind `pattern`: itself, or with `{chr}` those of 1..22, X (or 23), XY (or 25) that exist.

    Raises InputError.
    """
    text = _prefix(pattern)
    if "{chr}" not in text:
        _require_files(text)
        return [text]
    found = []
    for spellings in _candidates(text):
        there = [p for p in spellings if Path(f"{p}.bed").exists()]
        if len(there) > 1:
            raise InputError(f"{there[0]}.bed, {there[1]}.bed: are of the same chromosome; remove one of them")
        found += there
    if not found:
        raise InputError(
            f"{text}.bed: none of the files for chr = 1..22, X, XY exists; give the prefix of .bed/.bim/.fam"
        )
    for p in found:
        _require_files(p)
    return found


def _prefix(pattern: str | Path) -> str:
    return str(pattern).removesuffix(".bed")


def _candidates(text: str) -> list[list[str]]:
    """The prefixes that a set may have, a list for each chromosome, as X is also 23."""
    if "{chr}" not in text:
        return [[text]]
    return [[text.replace("{chr}", name) for name in spellings] for spellings in IN_FILE_NAMES.values()]


def _tell_absent(pattern: str | Path, prefixes: list[str]) -> None:
    text = _prefix(pattern)
    absent = [c for c in AUTOSOMES if "{chr}" in text and text.replace("{chr}", str(c)) not in prefixes]
    if absent:
        log.warning("%s.bed: no file for chr = %s; the other %d are used", text, some(absent, 22), len(prefixes))


def _end_to_end(tables: list[pd.DataFrame]) -> pd.DataFrame:
    if len(tables) == 1:
        return tables[0]
    chrom = union_categoricals([table.pop("chrom") for table in tables])
    whole = pd.concat(tables, ignore_index=True)
    whole.insert(0, "chrom", pd.Series(chrom))
    return whole


def read_fam(prefix: str) -> pd.DataFrame:
    """PREFIX.fam as text columns FID IID father mother sex phenotype. A header, which PLINK's own .fam has none of, is
    skipped with a line that says so. Raises InputError."""
    table = read_columns(f"{prefix}.fam", _FAM)
    header = ids.header_rows(table, f"{prefix}.fam", ("sex", "phenotype"))
    if header:
        log.info("%s.fam: %s, and skipped", prefix, ids.told(header))
        table = table.iloc[header:].reset_index(drop=True)
        table.attrs["header"] = header
        if table.empty:
            raise InputError(f"{prefix}.fam: holds a header and no people")
    twice = table[table.duplicated(["FID", "IID"])]
    if len(twice):
        names = some(f"{fid} {iid}" for fid, iid in zip(twice.FID, twice.IID, strict=True))
        raise InputError(f"{prefix}.fam: {len(twice)} people are listed twice ({names}); FID IID must be unique")
    return table


def _require_files(prefix: str) -> None:
    absent = [suffix for suffix in (".bed", ".bim", ".fam") if not Path(prefix + suffix).is_file()]
    if absent:
        raise InputError(f"{prefix}{absent[0]}: does not exist; give the prefix that .bed, .bim and .fam share")


def _check_bed(prefix: str, n_samples: int, n_variants: int) -> None:
    path = Path(f"{prefix}.bed")
    with path.open("rb") as file:
        magic = file.read(len(_MAGIC))
    if magic[:2] == _MAGIC[:2] and magic[2:] == b"\x00":
        raise InputError(f"{path}: is in the old person-major order; rewrite it with plink --make-bed")
    if magic != _MAGIC:
        raise InputError(f"{path}: is not a PLINK 1 .bed (it begins with {magic.hex(' ')}, not {_MAGIC.hex(' ')})")
    row_bytes = (n_samples + 3) // 4
    expected = len(_MAGIC) + n_variants * row_bytes
    size = path.stat().st_size
    if size != expected:
        raise InputError(
            f"{path}: has {size:,} bytes, but {n_samples:,} people (.fam) and {n_variants:,} variants (.bim) need "
            f"{expected:,}; {_people_of(size - len(_MAGIC), n_variants)}; the file is cut off, or .bim and .fam belong "
            "to another .bed"
        )
    unused = -n_samples % 4
    with path.open("rb") as file:
        file.seek(len(_MAGIC))
        rows = np.frombuffer(file.read(_LOOK_AT * row_bytes), np.uint8).reshape(-1, row_bytes)
    if unused and (rows[:, -1] >> (8 - 2 * unused)).any():
        raise InputError(
            f"{path}: holds genotypes of more people than the {n_samples:,} of {prefix}.fam: up to "
            f"{4 * row_bytes:,}. With a .fam that lacks people everybody would get the genotypes of somebody else; "
            "give the .fam that was made with this .bed"
        )


def _people_of(size: int, n_variants: int) -> str:
    """For how many people a .bed of so many bytes has room, in words."""
    if not n_variants or size % n_variants:
        return "it has no whole rows for so many variants"
    row = size // n_variants
    return f"it has room for {max(4 * row - 3, 0):,} to {4 * row:,} people"


_AGREE = (
    "all chromosomes must list the same people in the same order (plink2 --keep, --indiv-sort); one that cannot, as X "
    "often, goes to another folder and is tested by itself"
)


def _same_people(first: str, samples: pd.DataFrame, other: str) -> None:
    theirs = read_fam(other)
    if len(theirs) != len(samples):
        raise InputError(f"{other}.fam: has {len(theirs):,} people, {first}.fam has {len(samples):,}; {_AGREE}")
    apart = theirs[["FID", "IID"]] != samples[["FID", "IID"]]
    differ = np.flatnonzero(apart.any(axis=1))
    if not len(differ):
        return
    if not apart.IID.any() and samples.IID.is_unique:
        log.warning(
            "%s.fam: has other FIDs than %s.fam (%s %s, there %s %s) for the same IIDs in the same order; those of the "
            "latter are used", other, first, theirs.FID[differ[0]], theirs.IID[differ[0]], samples.FID[differ[0]],
            samples.IID[differ[0]],
        )  # fmt: skip
        return
    i = differ[0]
    raise InputError(
        f"{other}.fam, line {i + 1 + theirs.attrs.get('header', 0)}: is {theirs.FID[i]} {theirs.IID[i]}, but "
        f"{samples.FID[i]} {samples.IID[i]} in {first}.fam; {_AGREE}"
    )
