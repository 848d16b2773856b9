"""PLINK 1 genotypes, read out of core: .bed (packed, variant-major) with .bim and .fam, one set or one a chromosome.

A1 (column 5 of .bim) is the effect allele: genotypes are counts of it. On chromosome X males are 0 or 2, as they stand
in the .bed; nothing is special about X here.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from udipdist.gwas import kernels

log = logging.getLogger(__name__)

CHROMOSOMES = tuple(range(1, 23))
_MAGIC = b"\x6c\x1b\x01"
_FAM = ["FID", "IID", "father", "mother", "sex", "phenotype"]
_BIM = ["chrom", "snp", "cm", "position", "a1", "a2"]


@dataclass
class PackedRows:
    """The packed rows of one or several .bed files, end to end. Small and picklable: files are mapped when read."""

    paths: list[str]
    counts: list[int]
    n_samples: int
    _maps: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_maps": {}}

    @property
    def row_bytes(self) -> int:
        """Bytes of one variant."""
        return (self.n_samples + 3) // 4

    def packed(self, start: int, stop: int) -> np.ndarray:
        """Raw rows start..stop-1, uint8 [B, row_bytes]: a view of the file where they lie in one file."""
        pieces, first = [], 0
        for i, count in enumerate(self.counts):
            low, high = max(start, first), min(stop, first + count)
            if low < high:
                pieces.append(self._map(i)[low - first : high - first])
            first += count
        if not 0 <= start <= stop <= first:
            raise IndexError(f"rows {start}..{stop} of {first}")
        if not pieces:
            return np.empty((0, self.row_bytes), np.uint8)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _map(self, i: int) -> np.ndarray:
        if i not in self._maps:
            shape = (self.counts[i], self.row_bytes)
            self._maps[i] = np.memmap(self.paths[i], np.uint8, "r", offset=len(_MAGIC), shape=shape)
        return self._maps[i]


@dataclass
class Bed:
    """Genotypes of N people (`samples`: FID IID father mother sex phenotype, all text) at M variants
    (`variants`: chrom snp cm position a1 a2; chrom as text)."""

    rows: PackedRows
    samples: pd.DataFrame
    variants: pd.DataFrame

    @classmethod
    def open(cls, prefix: str | Path) -> Bed:
        """Open PREFIX.bed/.bim/.fam; `{chr}` in the prefix stands for 1..22 (those that exist, in that order).

        Raises InputError for missing files, a wrong magic or size, broken .bim or .fam lines, duplicate people.
        """
        prefixes = find_sets(prefix)
        _tell_absent(prefix, prefixes)
        samples = read_fam(prefixes[0])
        for other in prefixes[1:]:
            _same_people(prefixes[0], samples, other)
        tables = [read_bim(p) for p in prefixes]
        for p, table in zip(prefixes, tables, strict=True):
            _check_bed(p, len(samples), len(table))
        rows = PackedRows([f"{p}.bed" for p in prefixes], [len(t) for t in tables], len(samples))
        return cls(rows, samples, pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0])

    @property
    def n_samples(self) -> int:
        """People in the .fam."""
        return len(self.samples)

    @property
    def n_variants(self) -> int:
        """Variants in the .bim, or in all of them."""
        return len(self.variants)

    def packed(self, start: int, stop: int) -> np.ndarray:
        """Raw rows of the variants start..stop-1, uint8 [B, ceil(N/4)]: a view of the file where possible."""
        return self.rows.packed(start, stop)

    def counts(self, start: int, stop: int, sample_index: np.ndarray | None = None) -> np.ndarray:
        """Copies of A1, int8 [B, n], -1 where missing, of the people `sample_index` (default all)."""
        index = np.arange(self.n_samples) if sample_index is None else sample_index
        return decode(self.packed(start, stop), index)


def decode(packed: np.ndarray, sample_index: np.ndarray) -> np.ndarray:
    """Copies of A1 from raw rows uint8 [B, ceil(N/4)] for people `sample_index` [n]: int8 [B, n], -1 = missing."""
    index = np.ascontiguousarray(sample_index, dtype=np.int64)
    if len(index) and not 0 <= index.min() <= index.max() < 4 * packed.shape[1]:
        raise IndexError(f"sample_index reaches from {index.min()} to {index.max()}")
    out = np.empty((len(packed), len(index)), np.int8)
    kernels.decode_rows(packed, index, out)
    return out


def find_sets(prefix: str | Path) -> list[str]:
    """The prefixes behind `prefix`: itself, or with `{chr}` those of 1..22 that exist. Raises InputError."""
    text = str(prefix).removesuffix(".bed")
    if "{chr}" not in text:
        _require_files(text)
        return [text]
    found = {c: text.replace("{chr}", str(c)) for c in CHROMOSOMES}
    found = {c: p for c, p in found.items() if Path(f"{p}.bed").exists()}
    if not found:
        raise InputError(f"{text}.bed: none of the files for chr = 1..22 exists; give the prefix of .bed/.bim/.fam")
    for p in found.values():
        _require_files(p)
    return list(found.values())


def _tell_absent(prefix: str | Path, prefixes: list[str]) -> None:
    text = str(prefix).removesuffix(".bed")
    absent = [c for c in CHROMOSOMES if "{chr}" in text and text.replace("{chr}", str(c)) not in prefixes]
    if absent:
        log.warning("%s.bed: no file for chr = %s; the other %d are used", text, some(absent, 22), len(prefixes))


def read_fam(prefix: str) -> pd.DataFrame:
    """PREFIX.fam as text columns FID IID father mother sex phenotype. Raises InputError."""
    table = _read_columns(f"{prefix}.fam", _FAM)
    twice = table[table.duplicated(["FID", "IID"])]
    if len(twice):
        ids = some(f"{fid} {iid}" for fid, iid in zip(twice.FID, twice.IID, strict=True))
        raise InputError(f"{prefix}.fam: {len(twice)} people stand there twice ({ids}); FID IID must be unique")
    return table


def read_bim(prefix: str) -> pd.DataFrame:
    """PREFIX.bim: chrom snp a1 a2 text, cm float, position int. Raises InputError."""
    table = _read_columns(f"{prefix}.bim", _BIM)
    for column, kind in (("position", np.int64), ("cm", np.float64)):
        number = pd.to_numeric(table[column], errors="coerce")
        wrong = np.flatnonzero(~(np.isfinite(number) & ((number >= 0) | (column == "cm"))))
        if len(wrong):
            raise InputError(
                f"{prefix}.bim, line {wrong[0] + 1}: {table[column].iloc[wrong[0]]!r} is no {column}; "
                "the columns are chromosome, id, centimorgan, position, A1, A2"
            )
        table[column] = number.astype(kind)
    return table


def count_from_size(prefix: str | Path) -> tuple[int, int]:
    """People and variants of a set, from the .fam and the size of the .bed only. Raises InputError."""
    prefixes = find_sets(prefix)
    n = len(read_fam(prefixes[0]))
    row = max((n + 3) // 4, 1)
    return n, sum((Path(f"{p}.bed").stat().st_size - len(_MAGIC)) // row for p in prefixes)


def _require_files(prefix: str) -> None:
    absent = [suffix for suffix in (".bed", ".bim", ".fam") if not Path(prefix + suffix).is_file()]
    if absent:
        raise InputError(f"{prefix}{absent[0]}: no such file; give the prefix that .bed, .bim and .fam share")


def _read_columns(path: str, names: list[str]) -> pd.DataFrame:
    """A headerless table with white space between exactly the columns `names`, as text."""
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(itertools.islice(file, 1000), start=1):
                if len(line.split()) != len(names):
                    raise InputError(f"{path}, line {number}: has {len(line.split())} columns, not {len(names)}")
        table = pd.read_csv(path, sep=r"\s+", header=None, names=names, dtype=str, keep_default_na=False, quoting=3)
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text; it must hold {len(names)} columns ({', '.join(names)})") from None
    except pd.errors.ParserError as error:
        raise InputError(f"{path}: {error}; each line must have {len(names)} columns") from None
    if table.empty:
        raise InputError(f"{path}: is empty; it must hold {len(names)} columns ({', '.join(names)})")
    short = np.flatnonzero(table[names[-1]].isna() | (table[names[-1]] == ""))
    if len(short):
        raise InputError(f"{path}, line {short[0] + 1}: has fewer than {len(names)} columns ({', '.join(names)})")
    return table


def _check_bed(prefix: str, n_samples: int, n_variants: int) -> None:
    path = Path(f"{prefix}.bed")
    with path.open("rb") as file:
        magic = file.read(len(_MAGIC))
    if magic[:2] == _MAGIC[:2] and magic[2:] == b"\x00":
        raise InputError(f"{path}: is in the old person-major order; write it anew with plink --make-bed")
    if magic != _MAGIC:
        raise InputError(f"{path}: is no PLINK 1 .bed (it begins with {magic.hex(' ')}, not {_MAGIC.hex(' ')})")
    expected = len(_MAGIC) + n_variants * ((n_samples + 3) // 4)
    size = path.stat().st_size
    if size != expected:
        raise InputError(
            f"{path}: has {size:,} bytes, but {n_samples:,} people (.fam) and {n_variants:,} variants (.bim) need "
            f"{expected:,}; the file is cut off, or .bim and .fam belong to another .bed"
        )


def _same_people(first: str, samples: pd.DataFrame, other: str) -> None:
    theirs = read_fam(other)
    if len(theirs) != len(samples):
        raise InputError(f"{other}.fam: has {len(theirs):,} people, {first}.fam has {len(samples):,}; they must agree")
    differ = np.flatnonzero((theirs[["FID", "IID"]] != samples[["FID", "IID"]]).any(axis=1))
    if len(differ):
        i = differ[0]
        raise InputError(
            f"{other}.fam, line {i + 1}: is {theirs.FID[i]} {theirs.IID[i]}, but {samples.FID[i]} {samples.IID[i]} in "
            f"{first}.fam; all chromosomes must list the same people in the same order"
        )
