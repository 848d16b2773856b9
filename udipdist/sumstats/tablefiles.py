"""Tables written block by block: text, gzip or Parquet. The same blocks give the same bytes."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Self

import pyarrow as pa
from pyarrow import csv, parquet

from hpc.errors import InputError

SUFFIXES = {"text": "", "gz": ".gz", "parquet": ".parquet"}
BYTES_A_ROW = {"text": 90, "gz": 35, "parquet": 40}  # of summary statistics, about
_LEVEL = 4  # a third of the time of gzip's own 6, for some per cent of size


def encoding_of(path: Path) -> str:
    """What a file's suffix says."""
    return {".gz": "gz", ".parquet": "parquet"}.get(path.suffix.lower(), "text")


def lines(table: pa.Table, separator: str) -> pa.Buffer:
    """The rows of a table of text, NA where null, without header.

    Raises InputError for a text that holds the separator or a quotation mark.
    """
    filled = [array.fill_null("NA") if array.null_count else array for array in table.columns]
    sink = pa.BufferOutputStream()
    options = csv.WriteOptions(include_header=False, delimiter=separator, quoting_style="none")
    try:
        csv.write_csv(pa.table(filled, names=table.column_names), sink, options)
    except pa.ArrowInvalid as error:
        name, value = _unfit(table, separator)
        raise InputError(
            f"{name} {value!r}: holds a quotation mark or the separator of the table, so that no program could read it "
            "back; write Parquet (a name that ends in .parquet, or encoding=parquet), or rename it and run gwas again"
        ) from error
    return sink.getvalue()


def _unfit(table: pa.Table, separator: str) -> tuple[str, str]:
    for name in table.column_names:
        text = table[name].to_pandas()
        unfit = text[text.str.contains(f'["\r\n{separator}]', na=False)]
        if len(unfit):
            return name, unfit.iloc[0]
    raise AssertionError("every text fits")


def packed(data: bytes | pa.Buffer, encoding: str) -> bytes | pa.Buffer:
    """Text as it stands in the file; gzip as a member of its own, without a time stamp (members may be joined)."""
    return gzip.compress(data, _LEVEL, mtime=0) if encoding == "gz" else data


class TextFile:
    """A file of packed blocks, of which `head` is the first."""

    def __init__(self, path: Path, head: bytes | pa.Buffer):
        self._file = path.open("wb")
        self._file.write(head)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, block: bytes | pa.Buffer) -> None:
        """Add a packed block."""
        self._file.write(block)


class ParquetFile:
    """A Parquet file in row groups of about `group_rows` rows."""

    def __init__(self, path: Path, group_rows: int):
        self._path, self._group_rows = path, group_rows
        self._tables: list[pa.Table] = []
        self._writer: parquet.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def write(self, table: pa.Table) -> None:
        """Add a table; all have the same columns."""
        self._tables.append(table)
        if sum(len(one) for one in self._tables) >= self._group_rows:
            self._flush()

    def _flush(self) -> None:
        if not self._tables:
            return
        table = pa.concat_tables(self._tables)
        self._tables = []
        if self._writer is None:
            self._writer = parquet.ParquetWriter(self._path, table.schema, compression="zstd")
        self._writer.write_table(table)
