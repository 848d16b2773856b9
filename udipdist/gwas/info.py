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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from hpc.errors import InputError, some
from udipdist.gwas import chromosomes

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
            raise InputError(f"{pattern}: no such file (info)")
        return {None: Path(pattern)}
    found: dict[int | None, Path] = {}
    for code in np.unique(chromosome_codes).tolist():
        name = chromosomes.NAMES[code]
        spellings = chromosomes.IN_FILE_NAMES.get(code, (name,))
        there = [path for path in (Path(pattern.replace("{chr}", word)) for word in spellings) if path.is_file()]
        if not there:
            raise InputError(
                f"{pattern.replace('{chr}', name)}: no such file (info), but the genotypes have variants of chromosome "
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
    table = layout.table()
    ours = {name: _text(variants[name]) for name in ("snp", "a1", "a2")}
    best, best_row = -1, None
    for column in layout.ids:  # UK Biobank's list has two: that which knows more variants
        theirs = _keys(table[column], *(table[name] for name in layout.alleles))
        mine = _keys(ours["snp"], *((ours["a1"], ours["a2"]) if layout.alleles else ()))
        row = pc.index_in(mine, value_set=theirs)
        known = len(row) - row.null_count
        if known > best:
            best, best_row, best_key = known, row, theirs
    if best == 0:
        raise InputError(
            f"{path}: has none of the {len(variants):,} variants of the genotypes by id"
            f"{' and alleles' if layout.alleles else ''} (there {some(table[layout.ids[0]][:3].to_pylist())}; "
            f"in the .bim {some(variants['snp'].iloc[:3])}); info= needs the same ids"
        )
    info = table["info"].to_numpy(zero_copy_only=False)
    _tell_conflicts(path, best_key, info, best_row)
    row = pc.fill_null(best_row, -1).to_numpy(zero_copy_only=False)
    return np.where(row >= 0, info[row], np.nan)


def _tell_conflicts(path: Path, key: pa.ChunkedArray, info: np.ndarray, row: pa.ChunkedArray) -> None:
    """The table is in order of INFO, so a match is the smallest value; say where there were others."""
    first = pc.index_in(key, value_set=key).to_numpy(zero_copy_only=False)
    other = first != np.arange(len(first))
    other &= (info != info[first]) & ~np.isnan(info)
    wanted = np.zeros(len(first), bool)
    wanted[row.drop_null().to_numpy()] = True
    ids = np.unique(first[other & wanted[first]])
    if len(ids):
        log.warning(
            "%s: %d variants stand there with several values of INFO (first %s); the smallest counts",
            path, len(ids), key[int(ids[0])].as_py().replace("\t", " "),
        )  # fmt: skip


def _keys(snp: pa.ChunkedArray, one: pa.ChunkedArray | None = None, two: pa.ChunkedArray | None = None):
    """The id, and after it the alleles in alphabetical order."""
    if one is None:
        return snp
    first, second = pc.min_element_wise(one, two), pc.max_element_wise(one, two)
    return pc.binary_join_element_wise(snp, first, second, pa.scalar("\t", pa.large_string()))


def _text(column: pd.Series) -> pa.ChunkedArray:
    return pa.chunked_array(pa.array(column)).cast(pa.large_string())


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

    def table(self) -> pa.Table:
        """Ids and alleles as text and `info` as a number (NaN where missing), in ascending order of `info`."""
        text = [*self.ids, *self.alleles]
        columns = self._fast(text) if self.delimiter is not None else self._slow(text)
        table = pa.table({name: columns[name] for name in text} | {"info": columns[self.info]})
        info = table["info"]
        order = pc.sort_indices(info)
        return table.take(order) if len(table) else table

    def _fast(self, text: list[str]) -> pa.Table:
        types = {name: pa.large_string() for name in text} | {self.info: pa.float64()}
        try:
            return csv.read_csv(
                self.path,
                read_options=csv.ReadOptions(column_names=self.names, skip_rows=self.skip, block_size=1 << 24),
                parse_options=csv.ParseOptions(delimiter=self.delimiter, quote_char=False),
                convert_options=csv.ConvertOptions(
                    column_types=types, include_columns=list(types), null_values=_NONE, strings_can_be_null=False
                ),
            )
        except pa.ArrowInvalid as error:
            raise self._broken(error) from None

    def _slow(self, text: list[str]) -> pa.Table:
        try:
            frame = pd.read_csv(
                self.path, sep=r"\s+", header=None, names=self.names, skiprows=self.skip, quoting=3, na_values=_NONE,
                keep_default_na=False, dtype={name: "str" for name in text} | {self.info: "float64"},
                usecols=[*text, self.info], skip_blank_lines=True,
            )  # fmt: skip
        except (ValueError, pd.errors.ParserError) as error:
            raise self._broken(error) from None
        columns = {name: _text(frame[name].fillna(".")) for name in text}
        return pa.table(columns | {self.info: pa.array(frame[self.info], from_pandas=True)})

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
