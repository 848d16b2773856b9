"""Tables of places with a header in the usual spellings, and BED: read as chrom, start, end, lead."""

from __future__ import annotations

import csv
import gzip
import io
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from udipdist.genome import assemblies

_NAMES = {
    "chrom": ("chr", "chrom", "chromosome", "chrid", "chrname", "leadchr"),
    "start": ("start", "chromstart", "startbp", "begin", "from", "bpstart"),
    "end": ("end", "chromend", "endbp", "stop", "to", "bpend"),
    "position": ("pos", "position", "bp", "basepairlocation", "basepair", "chrpos", "bppos", "leadpos", "leadposition"),
    "lead": ("rsid", "snp", "leadsnp", "lead", "leadrsid", "rsids", "name", "locus", "id", "uniqid", "genomiclocus"),
    "gene": ("gene", "genename", "symbol", "genesymbol", "hgncsymbol", "name2", "name"),
}
_COMMENT = ("##", "#!", "# ", "track", "browser")
_UNREADABLE = (
    UnicodeDecodeError, pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, EOFError,
    gzip.BadGzipFile, zipfile.BadZipFile,
)  # fmt: skip


def is_bed(path: Path) -> bool:
    """True where the name says BED."""
    return path.name.lower().endswith((".bed", ".bed.gz"))


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """The text of a file, of a .gz, or of the one file in a .zip."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if len(names) != 1:
                raise InputError(f"{path}: holds {len(names)} files ({some(names)}); unpack it and give one of them")
            with archive.open(names[0]) as raw, io.TextIOWrapper(raw, encoding="utf-8") as file:
                yield file
    elif path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield file
    else:
        with path.open(encoding="utf-8") as file:
            yield file


def head(path: Path) -> tuple[list[str], str]:
    """The comments at the head of a file, and the first other line ('' where there is none). Raises InputError."""
    comments: list[str] = []
    try:
        with opened(path) as file:
            for line in file:
                if line.strip() and not line.lower().startswith(_COMMENT):
                    return comments, line.rstrip("\r\n")
                comments.append(line.rstrip("\r\n"))
    except _UNREADABLE as error:
        raise _not_text(path, error) from None
    return comments, ""


def read(path: Path, columns: Sequence[str] | None = None, quoted: bool = True) -> pd.DataFrame:
    """A table as text, with its separator (tab, comma, semicolon or spaces) taken from the header; `attrs["above"]` is
    the number of lines above its first row. Without `quoted` quotation marks are text. Raises InputError."""
    comments, header = head(path)
    separator = next((s for s in ("\t", ",", ";") if s in header), r"\s+")
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    try:
        with warnings.catch_warnings(), opened(path) as file:
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a first row longer than the header
            table = pd.read_csv(
                file, sep=separator, dtype=str, keep_default_na=False, skipinitialspace=True, index_col=False,
                skiprows=len(comments), usecols=columns, quoting=quoting,
            )  # fmt: skip
    except _UNREADABLE as error:
        raise _not_text(path, error) from None
    table.attrs["above"] = len(comments) + 1
    return table


def of_file(path: Path, extra: Sequence[str] = ()) -> pd.DataFrame:
    """chrom (code), start, end, lead, and the columns of `extra` that there are, of BED (its name says so; it counts
    from 0, its fourth column is the lead) or of a table with a header. Raises InputError."""
    if is_bed(path):
        return _of_bed(path)
    table = read(path)
    if len(table.columns) > 1 and assemblies.code(table.columns[0]) and table.columns[1].isdigit():
        raise InputError(
            f"{path}: has no header; write one (chr start end, or chr pos), or name it NAME.bed if it is BED, whose "
            "positions count from 0"
        )
    return of_table(table, path, extra)


def of_table(table: pd.DataFrame, path: Path, extra: Sequence[str] = ()) -> pd.DataFrame:
    """chrom (code), start, end, lead of a table of text, its columns found by their usual names. Raises InputError."""
    spelling = {"".join(filter(str.isalnum, name.lower())): name for name in table.columns}
    column = {key: next((spelling[n] for n in names if n in spelling), None) for key, names in _NAMES.items()}
    start, end = column["start"], column["end"]
    if start is None or end is None:
        start = end = column["position"]
    if column["chrom"] is None or start is None:
        raise InputError(
            f"{path}: lacks the columns chr, start and end (or chr and pos); its columns are {some(table.columns, 20)}"
        )
    chrom = assemblies.codes(table[column["chrom"]])
    _refuse(table, chrom == assemblies.UNPLACED, column["chrom"], path, "is not a chromosome; write 1..22, X, Y or MT")
    result = {"chrom": chrom}
    for key, name in (("start", start), ("end", end)):
        number = pd.to_numeric(table[name], errors="coerce")
        _refuse(table, ~(number >= 0) | (number % 1 != 0), name, path, "is not a position; write an integer")
        result[key] = number.astype(np.int64)
    result = pd.DataFrame(result)
    _refuse(table, result.end < result.start, end, path, "is before the start of its interval")
    lead = table[column["lead"]] if column["lead"] else _place_names(result)
    return result.assign(lead=lead, **{key: table[column[key]] for key in extra if column[key]})


def _of_bed(path: Path) -> pd.DataFrame:
    """BED: chrom, start (from 0), end, and perhaps a name."""
    with path.open("rb") as file:
        if file.read(2) == b"\x6c\x1b":
            raise InputError(f"{path}: is a PLINK .bed of genotypes; give a table of places (BED of UCSC, or TSV)")
    comments, line = head(path)
    above = len(comments) + (line.startswith("#") or line.lower().startswith("chrom\t"))
    try:
        with opened(path) as file:
            lines = file.read().splitlines()[above:]
    except _UNREADABLE as error:
        raise _not_text(path, error) from None
    rows = [(line.split("\t") if "\t" in line else line.split()) for line in lines]
    short = next((i for i, row in enumerate(rows) if any(row) and len(row) < 3), None)
    if short is not None:
        raise InputError(f"{path}, line {short + 1 + above}: has fewer than the columns chrom, start, end of BED")
    rows = [row for row in rows if any(row)]
    table = pd.DataFrame([row[:3] for row in rows], columns=["chrom", "start", "end"], dtype=str)
    table.attrs["above"] = above
    result = of_table(table, path)
    result["start"] = np.minimum(result.start + 1, np.maximum(result.end, 1))  # start = end: between two bases
    names = [row[3] if len(row) > 3 else "" for row in rows]
    return result.assign(lead=[name or place for name, place in zip(names, _place_names(result), strict=True)])


def _refuse(table: pd.DataFrame, wrong, name: str, path: Path, why: str) -> None:
    """Raise InputError with the line of the first row that is `wrong`, if any is."""
    rows = np.flatnonzero(wrong)
    if len(rows):
        more = f" ({len(rows):,} such rows)" if len(rows) > 1 else ""
        line = rows[0] + 1 + table.attrs["above"]
        raise InputError(f"{path}, line {line}: {name}={table[name].iloc[rows[0]]!r} {why}{more}")


def _place_names(table: pd.DataFrame) -> list[str]:
    return [f"{assemblies.label(c)}:{s}" for c, s in zip(table.chrom, table.start, strict=True)]


def _not_text(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: is not a text table with a header ({str(error).strip()})")
