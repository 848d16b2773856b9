"""Imputation quality (INFO) of variants, from the lists that other programs write.

Known layouts: UK Biobank's ukb_mfi_chr*_v3.txt (no header; alternate id, rsid, position, two alleles, MAF, minor
allele, INFO); a header with an id and an INFO or R2 column (plink2 --freq cols=+machr2, Minimac .info, bcftools
query -H, snptest, IMPUTE2); or two columns, id and INFO. Where the list has alleles they must agree too, in either
order.
"""

from __future__ import annotations

import gzip
import itertools
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

from hpc.errors import InputError, some
from udipdist.genome import chromosomes
from udipdist.genotypes.bim import Column, find, hashes

log = logging.getLogger(__name__)

_ID = ("rsid", "rs_id", "id", "snp", "snpid", "markername", "marker", "variant_id", "variant")
_INFO = (
    "info", "info_score", "impute_info", "imputationinfo", "minimac3_r2", "mach_r2", "machr2", "rsq", "r2", "dr2",
)  # fmt: skip
_ALLELES = (("ref", "alt"), ("a1", "a2"), ("allele1", "allele2"), ("a0", "a1"), ("allele0", "allele1"))
_MFI = 8  # columns
_COMMENT = re.compile(r"##|# (?!\[)")  # `# [1]ID` is the header that bcftools query -H writes
_NONE = ["NA", "na", "NaN", "nan", ".", "-", ""]


def files(pattern: str, chromosome_codes: np.ndarray) -> dict[int | None, Path]:
    """The files behind `info=`: {chr} stands for each chromosome (codes) of the variants; None: one file for all.

    Raises InputError where one is missing.
    """
    if "{chr}" not in pattern:
        if not Path(pattern).is_file():
            raise InputError(f"{pattern}: does not exist (info)")
        return {None: Path(pattern)}
    found: dict[int | None, Path] = {}
    for code in np.unique(chromosome_codes).tolist():
        name = chromosomes.NAMES[code]
        spellings = chromosomes.IN_FILE_NAMES.get(code, (name,))
        there = [path for path in (Path(pattern.replace("{chr}", word)) for word in spellings) if path.is_file()]
        if not there:
            raise InputError(
                f"{pattern.replace('{chr}', name)}: not found (info), but the genotypes have variants of chromosome "
                f"{name}; give its list, or leave the chromosome out with region="
            )
        found[code] = there[0]
    return found


def read(pattern: str, variants: pd.DataFrame, code_M: np.ndarray) -> np.ndarray:
    """INFO of the variants (snp a1 a2, and their chromosomes' codes), float64 [M]; NaN where no list has it.

    Of an id that stands there with several values the smallest counts, with a warning. Raises InputError for a file of
    another layout, or one that knows none of the variants.
    """
    info_M = np.full(len(variants), np.nan)
    for code, path in files(pattern, code_M).items():
        rows = np.arange(len(variants)) if code is None else np.flatnonzero(code_M == code)
        here = variants if code is None else variants.iloc[rows]
        info_M[rows] = _match(path, here)
    return info_M


def _match(path: Path, variants: pd.DataFrame) -> np.ndarray:
    layout = _Layout.of(path)
    info, examples, by_id = layout.read()
    mine = _keys(variants["snp"], *((variants["a1"], variants["a2"]) if layout.alleles else ()))
    best, best_row, best_order = 0, np.empty(0, np.int64), np.empty(0, np.int64)
    for theirs in by_id:  # UK Biobank's list has two ids: the one that knows more variants
        order = np.lexsort((info, theirs))  # of a key that repeats the smallest INFO comes first, NaN last
        row = find(mine, theirs[order])
        if (row >= 0).sum() > best:
            best, best_row, best_order, best_keys = (row >= 0).sum(), row, order, theirs
    if best == 0:
        raise InputError(
            f"{path}: has none of the {len(variants):,} variants of the genotypes by id"
            f"{' and alleles' if layout.alleles else ''} (there {some(examples)}; "
            f"in the .bim {some(variants['snp'].iloc[:3])}); info= needs the same ids"
        )
    known = np.flatnonzero(best_row >= 0)
    here, after = best_order[best_row[known]], best_order[np.minimum(best_row[known] + 1, len(best_order) - 1)]
    several = known[(best_keys[after] == best_keys[here]) & (info[after] > info[here])]
    if len(several):
        log.warning(
            "%s: %d variants have several values of INFO (first %s); the smallest counts",
            path, len(several), variants["snp"].iloc[several[0]],
        )  # fmt: skip
    return np.where(best_row >= 0, info[best_order[best_row]], np.nan)


def _keys(snp: Column, *alleles: Column) -> np.ndarray:
    """A number for id and alleles, in whichever order these are."""
    key = hashes(snp)
    for allele in alleles:
        key = key + _turned(hashes(allele))
    return key


def _turned(key: np.ndarray) -> np.ndarray:
    """Other numbers, so that an allele is none of the ids."""
    return (key << np.uint64(17) | key >> np.uint64(47)) * np.uint64(0xD6E8FEB86659FD93)


@dataclass(frozen=True)
class _Layout:
    """Where the columns of a list are: all `names`, the one or two with ids, that with INFO, and those with alleles."""

    path: Path
    names: list[str]
    ids: list[str]
    info: str
    alleles: tuple[str, ...]
    skip: int
    delimiter: str | None

    @classmethod
    def of(cls, path: Path) -> _Layout:
        """Raises InputError."""
        lines = _first_lines(path)
        skip = sum(1 for _ in itertools.takewhile(_COMMENT.match, lines))
        lines = lines[skip:]
        if not lines:
            raise InputError(f"{path}: is empty; {_WANTED}")
        lines[0] = re.sub(r"^#\s+", "#", lines[0])
        delimiter = next((mark for mark in "\t ," if _separates(mark, lines)), None)
        words = lines[0].split("," if delimiter == "," else None)
        for number, line in enumerate(lines if delimiter is None else (), start=skip + 1):
            if len(line.split()) != len(words):
                raise InputError(f"{path}, line {number}: has {len(line.split())} columns, not {len(words)}; {_WANTED}")
        if len(words) == _MFI and _is_number(words[2]) and _is_number(words[5]) and _is_number(words[7], "NA"):
            names = ["alternate", "rsid", "position", "allele1", "allele2", "maf", "minor", "info_"]
            return cls(path, names, ["rsid", "alternate"], "info_", ("allele1", "allele2"), skip, delimiter)
        if len(words) == 2 and _is_number(words[1], "NA"):
            return cls(path, ["id", "info_"], ["id"], "info_", (), skip, delimiter)
        plain = [_plain(word) for word in words]
        at_id = next((plain.index(name) for name in _ID if name in plain), 0 if len(words) == 2 else None)
        at_info = next((plain.index(name) for name in _INFO if name in plain), 1 if len(words) == 2 else None)
        if at_id is None or at_info is None or at_id == at_info:
            raise InputError(f"{path}: its first line is {lines[0][:80]!r}; {_WANTED}")
        names = [f"{word}:{i}" for i, word in enumerate(words)]
        pair = next((pair for pair in _ALLELES if set(pair) <= set(plain)), ())
        alleles = tuple(names[plain.index(name)] for name in pair)
        return cls(path, names, [names[at_id]], names[at_info], alleles, skip + 1, delimiter)

    def read(self) -> tuple[np.ndarray, list[str], list[np.ndarray]]:
        """INFO of all lines (NaN where missing), the first three ids, and `_keys` by each column of ids."""
        infos: list[np.ndarray] = []
        keys: list[list[np.ndarray]] = []
        examples: list[str] = []
        for table in self._fast() if self.delimiter is not None else self._slow():
            examples = examples or table[self.ids[0]][:3].to_pylist()
            alleles = [table[name] for name in self.alleles]
            keys.append([_keys(table[name], *alleles) for name in self.ids])
            infos.append(table[self.info].to_numpy())
        if not sum(map(len, infos)):
            raise InputError(f"{self.path}: has a header and nothing below it; {_WANTED}")
        return np.concatenate(infos), examples, [np.concatenate(column) for column in zip(*keys, strict=True)]

    def _fast(self) -> Iterator[pa.Table]:
        types = {name: pa.large_string() for name in (*self.ids, *self.alleles)} | {self.info: pa.float64()}
        try:
            with csv.open_csv(
                self.path,
                read_options=csv.ReadOptions(column_names=self.names, skip_rows=self.skip, block_size=1 << 24),
                parse_options=csv.ParseOptions(delimiter=self.delimiter, quote_char=False),
                convert_options=csv.ConvertOptions(
                    column_types=types, include_columns=list(types), null_values=_NONE, strings_can_be_null=False
                ),
            ) as reader:
                for batch in reader:
                    yield pa.Table.from_batches([batch])
        except pa.ArrowInvalid as error:
            raise self._broken(error) from None

    def _slow(self) -> Iterator[pa.Table]:
        text = [*self.ids, *self.alleles]
        try:
            for frame in pd.read_csv(
                self.path, sep=r"\s+", header=None, names=self.names, skiprows=self.skip, quoting=3,
                keep_default_na=False, na_values={self.info: _NONE}, usecols=[*text, self.info], chunksize=500_000,
                dtype=dict.fromkeys(text, "str") | {self.info: "float64"},
            ):  # fmt: skip
                yield pa.Table.from_pandas(frame, preserve_index=False)
        except ValueError as error:  # a number, or pandas' ParserError
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> InputError:
        return InputError(f"{self.path}: {str(error).splitlines()[0]}; {_WANTED}")


_WANTED = (
    "info= takes UK Biobank's ukb_mfi_chr*_v3.txt, a table with the columns ID and INFO (or R2) under a header, or two "
    "columns, id and INFO"
)


def _first_lines(path: Path) -> list[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            lines = [line.rstrip("\r\n") for line in itertools.islice(file, 1000)]
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError):
        raise InputError(f"{path}: is not text; {_WANTED}") from None
    return [line for line in lines if line.strip()]


def _separates(mark: str, lines: list[str]) -> bool:
    """Whether every line has the same columns, two or more, with one `mark` between them."""
    widths = {len(line.split(mark)) for line in lines}
    return (
        len(widths) == 1
        and max(widths) > 1
        and (mark == "," or all(line.split(mark) == line.split() for line in lines))
    )


def _plain(word: str) -> str:
    """A column's name without case, '#' and what bcftools query -H puts around it: '# [3]INFO/R2' is 'r2'."""
    word = re.sub(r"^#?\s*(\[\d+\])?", "", word).rsplit("/", 1)[-1].lower()
    return re.sub(r"\(.*\)$", "", word)


def _is_number(word: str, *others: str) -> bool:
    return bool(re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", word)) or word in others
