"""Text tables as people have them: any separator, quotes, packing and ends of lines, split in one way for all readers.

Columns may be separated by tabs, commas, semicolons, or blanks and tabs in any number. Cells may be quoted. A file may
be packed (gzip, bgzip, bz2, xz, zstd, by its first bytes, whatever its name), begin with a byte order mark, and end
its lines as Windows does. Row names as R writes them, and separators at the ends of all lines, are understood.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import itertools
import logging
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from hpc.errors import InputError

log = logging.getLogger(__name__)

SEPARATORS = ("\t", ",", ";", None)  # in the order in which they are tried; None: blanks and tabs in any number
_LOOKED_AT = 100
_ROWS_AT_ONCE = 20_000
_BLANK = re.compile(r"[^\S\t]")  # what may stand around a cell
_BROKEN = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_NO_TABLE = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save the sheet as CSV",
    b"PAR1": "Parquet; it must be called .parquet",
}
_BYTE_ORDER = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Form:
    """How a text table is written.

    `separator` is None for blanks and tabs in any number. `skip` lines stand before the header. The first of `names` is
    empty where rows have names (R) or numbers and the header has nothing above them. `trailing`: a separator ends each
    row.
    """

    names: list[str]
    separator: str | None
    encoding: str
    skip: int
    trailing: bool


@dataclass(frozen=True)
class TextTable:
    """A table as text: its form, a column of text for each name, and the line of the file of each row."""

    path: Path
    form: Form
    columns: list[pa.ChunkedArray]
    line_N: np.ndarray

    def rows(self) -> list[list[str]]:
        """The cells, a list a row."""
        return [list(row) for row in zip(*(column.to_pylist() for column in self.columns), strict=True)]

    def frame(self) -> pd.DataFrame:
        """The cells, a column of text for each name. Raises InputError where a name comes twice."""
        names = self.form.names
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InputError(f"{self.path}: has two columns called {twice[0]!r}; column names must be unique")
        return pd.DataFrame({name: column.to_pylist() for name, column in zip(names, self.columns, strict=True)})


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked. Raises InputError for what is no text table."""
    with path.open("rb") as file:
        first = file.read(8)
    for magic, what in _NO_TABLE.items():
        if first.startswith(magic):
            raise InputError(f"{path}: is {what}")
    packed = next((kind for magic, kind in _MAGIC.items() if first.startswith(magic)), None)
    if packed == "gzip":
        return cast(BinaryIO, gzip.open(path))
    if packed == "bz2":
        return cast(BinaryIO, bz2.open(path))
    if packed == "xz":
        return cast(BinaryIO, lzma.open(path))
    if packed == "zstd":
        return cast(BinaryIO, io.BufferedReader(pa.input_stream(str(path), compression="zstd")))
    return path.open("rb")


def open_text(path: Path, encoding: str) -> TextIO:
    """The lines of a file, unpacked; \\r\\n and \\r end lines as \\n does."""
    return io.TextIOWrapper(open_bytes(path), encoding=encoding)


def encoding_of(path: Path) -> str:
    """utf-8, utf-16 (by its byte order mark), or cp1252 (Latin-1) for what is text, but not UTF-8, with a warning.

    Raises InputError for what is no text, and for packed files that are cut off.
    """
    with _told(path), open_bytes(path) as file:
        first = file.read(1 << 20)
        for mark, name in _BYTE_ORDER.items():
            if first.startswith(mark):
                return name
        if b"\0" in first:
            raise InputError(f"{path}: is not a text table; give Parquet (.parquet) or text with a header")
        decoder, line, block = codecs.getincrementaldecoder("utf-8")(), 1, first
        try:
            while block:
                decoder.decode(block)
                line += block.count(b"\n")
                block = file.read(1 << 20)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            line += bytes(error.object[: error.start]).count(b"\n")
        else:
            return "utf-8"
    try:
        with open_text(path, "cp1252") as text:
            while text.read(1 << 20):
                pass
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not a text table; give Parquet (.parquet) or text with a header") from None
    log.warning("%s: is not UTF-8 (line %d); it is read as Windows-1252, which Latin-1 is a part of", path, line)
    return "cp1252"


def line_of(path: Path, row: int) -> int:
    """The line, from 1, on which row `row`, from 0, of the lines that are not blank stands."""
    with open_bytes(path) as file:
        lines = (number for number, line in enumerate(file, 1) if line.strip())
        return next(itertools.islice(lines, row, None))


def split(line: str, separator: str | None) -> list[str]:
    """The cells of a line, without quotes and without blanks around them. Raises ValueError for an open quote."""
    line = line.rstrip("\r\n")
    if '"' not in line:
        if separator is None:
            return line.split()
        cells = line.split(separator)
        return [cell.strip() for cell in cells] if separator != "\t" or _BLANK.search(line) else cells
    if separator is None:
        line = re.sub(r"\s+", " ", line).strip()
    try:
        cells = next(csv.reader([line], delimiter=separator or " ", skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return [cell.strip() for cell in cells]


def form_of(path: Path) -> Form:
    """How a file is to be read, by its header and the lines below it. Raises InputError."""
    encoding = encoding_of(path)
    with _told(path), open_text(path, encoding) as file:
        return _form(path, encoding, list(itertools.islice(file, _LOOKED_AT)))


def read(path: Path) -> TextTable:
    """A whole table as text. Raises InputError for a row that has more or fewer cells than the header, naming it."""
    form = form_of(path)
    blocks: list[list[pa.Array]] = []
    lines: list[int] = []
    rows = _rows(path, form)
    while block := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        lines += [line for line, _ in block]
        blocks.append([pa.array(cells, pa.string()) for cells in zip(*(cells for _, cells in block), strict=True)])
    columns = [pa.chunked_array([block[i] for block in blocks], pa.string()) for i in range(len(form.names))]
    return TextTable(path, form, columns, np.array(lines, np.int64))


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """float64, correctly rounded; NaN where a text is no number, is NaN or null."""
    try:
        return pc.cast(column, pa.float64()).to_numpy().copy()
    except pa.ArrowInvalid:
        encoded = column.combine_chunks().dictionary_encode()
        values = np.array([*map(_number, encoded.dictionary.to_pylist()), np.nan])
        return values[pc.fill_null(encoded.indices, len(values) - 1).to_numpy()]


def _number(text: str) -> float:
    try:
        return np.nan if "_" in text else float(text)
    except ValueError:
        return np.nan


class _told:
    """What is wrong with a packed file, as an InputError."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, PermissionError):
            raise InputError(f"{self.path}: cannot be read (permission denied)") from None
        if isinstance(error, UnicodeDecodeError):
            raise InputError(f"{self.path}: is not a text table ({error.encoding}: {error.reason})") from None
        if isinstance(error, _BROKEN) or (isinstance(error, OSError) and not error.errno):
            raise InputError(f"{self.path}: is not a text table, or cut off ({str(error).strip()})") from None


def _form(path: Path, encoding: str, lines: list[str]) -> Form:
    skip = len(list(itertools.takewhile(lambda line: line.startswith("##") or not line.strip(), lines)))
    told = re.fullmatch(r'"?sep=(.)"?\s*', lines[skip]) if skip < len(lines) else None
    skip += told is not None
    lines = [line for line in lines[skip:] if line.strip()]
    if not lines:
        raise InputError(f"{path}: is empty; the first line must name the columns")
    for separator in (told[1],) if told else SEPARATORS:
        try:
            names, rows = split(lines[0], separator), [split(line, separator) for line in lines[1:]]
        except ValueError:
            continue
        if len(names) < 2 and rows:
            continue
        counts = {len(row) for row in rows} or {len(names)}
        if counts == {len(names)}:
            trailing = separator is not None and names[-1] == "" and not any(row[-1] for row in rows)
            return Form(names[:-1] if trailing else names, separator, encoding, skip, trailing)
        if counts == {len(names) + 1}:
            trailing = separator is not None and not any(row[-1] for row in rows)
            return Form(names if trailing else ["", *names], separator, encoding, skip, trailing)
        if counts == {len(names) - 1} and names[-1] == "":
            return Form(names[:-1], separator, encoding, skip, False)
    separator = next((mark for mark in SEPARATORS if mark is None or mark in lines[0]), None)
    try:
        return Form(split(lines[0], separator), separator, encoding, skip, False)
    except ValueError as error:
        raise InputError(f"{path}, line {skip + 1}: has a quote that does not end ({error})") from None


def _rows(path: Path, form: Form) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells of the rows below the header."""
    header = False
    with _told(path), open_text(path, form.encoding) as file:
        for number, line in enumerate(file, start=1):
            if number <= form.skip or not line.strip():
                continue
            if not header:
                header = True
                continue
            try:
                cells = split(line, form.separator)
            except ValueError as error:
                raise InputError(f"{path}, line {number}: has a quote that does not end ({error})") from None
            if form.trailing and cells and cells[-1] == "":
                cells.pop()
            if len(cells) != len(form.names):
                raise InputError(
                    f"{path}, line {number}: is not a table row with {len(form.names)} columns but {len(cells)} cells; "
                    "write NA where a value is missing"
                )
            yield number, cells
