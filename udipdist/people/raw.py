"""The cells of a table of people as its file has them, and what its columns are called, with or without a header."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from hpc.errors import InputError, some
from udipdist import delimited
from udipdist.people import fields
from udipdist.people.missing import WORDS

log = logging.getLogger(__name__)

Kind = Literal["PHENO", "COVAR"]  # how PLINK calls the columns of a table that has no header: PHENO1, PHENO2 ...
Cells: TypeAlias = pa.ChunkedArray | np.ndarray  # text, or the numbers of a Parquet file
_FAM = ("FID", "IID", "PAT", "MAT", "SEX", "PHENO1")
_FAMILY_ONLY = ("pat", "mat", "sex", "sid")  # columns of a .fam or .psam that are no phenotypes


@dataclass(frozen=True)
class Raw:
    """A table as it is in its file: columns of text, or numbers; and which of them name the family and the person."""

    columns: dict[str, Cells]
    family: str | None
    person: str | None
    text: bool
    decimal_commas: bool = False


def read(path: Path, kind: Kind) -> Raw:
    """Raises InputError."""
    _require_file(path)
    return _read_parquet(path) if _is_parquet(path) else _read_text(path, kind)


def column_names(path: Path, kind: Kind = "PHENO") -> list[str]:
    """The columns of a table other than its ids, from its header only. Raises InputError."""
    path = Path(path)
    _require_file(path)
    if _is_parquet(path):
        import pyarrow.parquet

        names = [name for name in pyarrow.parquet.read_schema(path).names if name != "__index_level_0__"]
    else:
        names = _names(path, delimited.form_of(path).names, kind)[0]
    ids = fields.id_columns(names)
    return [name for name in _phenotypes(path, names) if name and name not in ids]


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a Parquet file or a text table")
    if not path.is_file():
        raise InputError(f"{path}: does not exist")


def _is_parquet(path: Path) -> bool:
    return path.suffix in (".parquet", ".pq")


def _read_parquet(path: Path) -> Raw:
    try:
        table = pd.read_parquet(path)
    except PermissionError:
        raise InputError(f"{path}: cannot be read (permission denied)") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is not a Parquet file ({error})") from None
    table.columns = [str(name) for name in table.columns]
    if fields.id_columns(list(table.columns))[1] is None:
        table = table.reset_index()
        table.columns = [str(name) for name in table.columns]
    names = list(table.columns)
    _refuse_twice(path, names)
    return Raw({name: _of_parquet(table[name]) for name in names}, *fields.id_columns(names), text=False)


def _of_parquet(column: pd.Series) -> Cells:
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float64, na_value=np.nan)
    known = column.notna()
    texts = [str(value).strip() if there else None for value, there in zip(column, known, strict=True)]
    return pa.chunked_array([pc.fill_null(pa.array(texts, pa.string()), "")])


def _read_text(path: Path, kind: Kind) -> Raw:
    table = delimited.read(path)
    names, header_is_row = _names(path, table.form.names, kind)
    _refuse_twice(path, names)
    columns = dict(zip(names, table.columns, strict=True))
    if header_is_row:
        first = [pa.chunked_array([[cell]], pa.string()) for cell in table.form.names]
        columns = {
            name: pa.chunked_array([*cell.chunks, *column.chunks])
            for (name, column), cell in zip(columns.items(), first, strict=True)
        }
        log.warning("%s: has no header; its columns are taken as %s", path, some(names, 8))
    family, person = fields.id_columns(names)
    if person is not None and columns.pop("", None) is not None:
        log.info("%s: its first column, which has no name, holds row names and is not used", path)
    columns = {name: columns[name] for name in _phenotypes(path, list(columns))}
    return Raw(columns, family, person, text=True, decimal_commas=table.form.separator == ";")


def _names(path: Path, header: list[str], kind: Kind) -> tuple[list[str], bool]:
    """The names of the columns, and whether the first line is a row: it names no ids and holds only values."""
    names = [name.lstrip("#") if i == 0 or fields.plain(name) == "iid" else name for i, name in enumerate(header)]
    if fields.id_columns(names)[1] is None and len(names) > 2 and all(map(_is_value, names[2:])):
        if ".fam" in path.suffixes and len(names) == len(_FAM):
            return list(_FAM), True
        return ["FID", "IID", *(f"{kind}{i}" for i in range(1, len(names) - 1))], True
    unnamed = [i for i, name in enumerate(names) if not name and i]
    if unnamed:
        raise InputError(f"{path}: column {unnamed[0] + 1} has no name; name it, or remove it")
    return names, False


def _is_value(text: str) -> bool:
    return text in WORDS or not np.isnan(delimited.numbers(pa.chunked_array([[text]], pa.string()))[0])


def _refuse_twice(path: Path, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: has two columns called {name!r}; column names must be unique")


def _phenotypes(path: Path, names: list[str]) -> list[str]:
    """Without the parents and the sex of a .fam or .psam."""
    family = {".fam", ".psam"} & {*path.suffixes}
    return [name for name in names if not (family and fields.plain(name) in _FAMILY_ONLY)]
