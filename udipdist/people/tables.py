"""Tables of people: phenotypes and covariates, as Parquet or text, keyed by FID and IID."""

from __future__ import annotations

import gzip
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TextIO

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from udipdist.config.analyses import OVER_TRAITS

Match = Literal["fid_iid", "iid"]
MISSING_WORDS = ("NA", "na", "N/A", "NaN", "nan", "NAN", ".", "")
PLINK_MISSING = "-9"  # in a text phenotype file, as PLINK and GCTA have it
_NO_TEXT = (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error)


def keys(people: pd.DataFrame, match: Match) -> pd.Series:
    """One text a person, equal in two tables where the ids that `match` names are equal."""
    return people.IID if match == "iid" else people.FID + "\t" + people.IID


def describe_keys(some_keys: Iterable[str], limit: int = 3) -> str:
    """'F1 I1, F2 I2 and 7 more', for messages."""
    return some([key.replace("\t", " ") for key in some_keys], limit)


def refuse_duplicates(people: pd.DataFrame, match: Match, where: str | Path) -> None:
    """Raises InputError where two rows of a table are the same person."""
    key = keys(people, match)
    twice = key[key.duplicated()].unique()
    if len(twice):
        hint = " (match=iid ignores the FID; match=fid_iid does not)" if match == "iid" else ""
        raise InputError(
            f"{where}: {len(twice)} people are listed more than once ({describe_keys(twice)}); "
            f"keep one row per person{hint}"
        )


def read_phenotypes(path: Path, match: Match) -> tuple[pd.DataFrame, list[str], np.ndarray]:
    """People (FID IID), the P trait names, and values float64 [N, P] with NaN where missing.

    Text may be separated by tabs, commas or blanks; missing are NA, nan, empty and (text only) -9.
    Raises InputError for a trait that is not numeric or is infinite, naming the person.
    """
    table = read_table(path, match, extra_missing=(PLINK_MISSING,))
    refuse_duplicates(table, match, path)
    traits = list(table.columns[2:])
    if not traits:
        raise InputError(f"{path}: has no column besides FID and IID; each trait needs one")
    for name in traits:
        if name in OVER_TRAITS:
            raise InputError(f"{path}: a trait is called {name!r}, the name of a joint result; rename the column")
    values = np.empty((len(table), len(traits)))
    for p, name in enumerate(traits):
        column = table[name]
        number = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        text = np.flatnonzero(np.isnan(number) & column.notna().to_numpy())
        if len(text):
            raise InputError(
                f"{path}: trait {name} of {_person(table, text[0])} is {column.iloc[text[0]]!r}, not a number; "
                "write NA where it is missing, or leave the column out"
            )
        infinite = np.flatnonzero(np.isinf(number))
        if len(infinite):
            raise InputError(
                f"{path}: trait {name} of {_person(table, infinite[0])} is infinite; write NA where it is missing"
            )
        values[:, p] = number
    return table[["FID", "IID"]], traits, values


def read_covariates(path: Path, match: Match) -> pd.DataFrame:
    """FID IID as text, then columns that are float64 (NaN where missing) or text (categories, None where missing).

    Raises InputError for a column that is mostly numbers with some text in it.
    """
    table = read_table(path, match)
    refuse_duplicates(table, match, path)
    for name in table.columns[2:]:
        column = table[name]
        number = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        text = np.flatnonzero(np.isnan(number) & column.notna().to_numpy())
        if len(text) == 0:
            table[name] = number
        elif np.isfinite(number).sum() > len(text):
            raise InputError(
                f"{path}: covariate {name} of {_person(table, text[0])} is {column.iloc[text[0]]!r} among numbers; "
                "write NA where it is missing, or only text for categories"
            )
        else:
            table[name] = column.astype(object).where(column.notna(), None)
    return table


def read_table(path: Path, match: Match, extra_missing: tuple[str, ...] = ()) -> pd.DataFrame:
    """A Parquet or text table with FID and IID first, as text, then its other columns as they are.

    A table without FID will do with match=iid. Raises InputError.
    """
    path = Path(path)
    _require_file(path)
    parquet = path.suffix in (".parquet", ".pq")
    table = _read_parquet(path) if parquet else _read_text(path, extra_missing)
    if "IID" not in table or ("FID" not in table and match != "iid"):
        hint = "; match=iid will do without FID" if "IID" in table else ""
        raise InputError(
            f"{path}: has no column {'FID' if 'IID' in table else 'IID'} (its columns are {some(table.columns)}); "
            f"the first line must name the columns FID IID and the others{hint}"
        )
    if "FID" not in table:
        table["FID"] = table.IID
    if table.empty:
        raise InputError(f"{path}: has columns but no rows; it needs one row per person")
    for column in ("FID", "IID"):
        ids = table[column].where(table[column].isna(), table[column].astype(str).str.strip())
        empty = np.flatnonzero(ids.isna() | (ids == ""))
        if len(empty):
            raise InputError(f"{path}, row {empty[0] + 1}: has no {column}; every row must name its person")
        table[column] = ids.astype(str)
    return table[["FID", "IID", *(c for c in table.columns if c not in ("FID", "IID"))]].reset_index(drop=True)


def column_names(path: Path) -> list[str]:
    """The columns of a table other than FID and IID, from its header only. Raises InputError."""
    path = Path(path)
    _require_file(path)
    if path.suffix in (".parquet", ".pq"):
        import pyarrow.parquet

        names = pyarrow.parquet.read_schema(path).names
    else:
        names = _header(path)[0]
    return [name for name in names if name not in ("FID", "IID", "__index_level_0__")]


def _strip(table: pd.DataFrame, missing: list[str]) -> pd.DataFrame:
    """Blanks around a cell are no part of it."""
    for name in table.columns.difference(["FID", "IID"]):
        if pd.api.types.is_string_dtype(table[name]):
            text = table[name].str.strip()
            table[name] = text.where(~text.isin(missing))
    return table


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a Parquet file or a text table")
    if not path.is_file():
        raise InputError(f"{path}: does not exist")


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except PermissionError:
        raise InputError(f"{path}: cannot be read (permission denied)") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is not a Parquet file ({error})") from None
    table.columns = [str(name) for name in table.columns]
    _refuse_twice(path, list(table.columns))
    return table if "IID" in table else table.reset_index()


def _read_text(path: Path, extra_missing: tuple[str, ...]) -> pd.DataFrame:
    names, separator = _header(path)
    _refuse_twice(path, names)
    ids = {name: str for name in ("FID", "IID") if name in names}
    missing = [*MISSING_WORDS, *extra_missing]
    try:
        _refuse_ragged(path, names, separator)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # lines longer than the header would lose data
            table = pd.read_csv(
                path,
                sep=separator,
                header=0,
                names=names,
                dtype=ids,
                na_values={name: missing for name in names if name not in ids},
                keep_default_na=False,
                index_col=False,
                skipinitialspace=True,
                low_memory=False,
            )
    except (*_NO_TEXT, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise InputError(f"{path}: is not a table with {len(names)} columns ({str(error).strip()})") from None
    return _strip(table, missing)


def _header(path: Path) -> tuple[list[str], str]:
    """Column names of the first line (a leading # is dropped), and the separator as a pandas pattern."""
    try:
        with _open_text(path) as file:
            line = file.readline().rstrip("\r\n")
    except _NO_TEXT:
        raise InputError(f"{path}: is not a text table; give Parquet (.parquet) or text with a header") from None
    separator = "\t" if "\t" in line else "," if "," in line else r"\s+"
    names = line.split() if separator == r"\s+" else [name.strip() for name in line.split(separator)]
    if not names:
        raise InputError(f"{path}: is empty; the first line must name the columns FID IID and the others")
    names[0] = names[0].lstrip("#\ufeff")
    return names, separator


def _refuse_ragged(path: Path, names: list[str], separator: str) -> None:
    """A line that is cut off would read as missing values. Lines with quotes, which may hide separators, pass."""
    with _open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if '"' in line or not line.strip():
                continue
            cells = len(line.split()) if separator == r"\s+" else line.count(separator) + 1
            if cells != len(names):
                raise InputError(
                    f"{path}, line {number}: is not a table row with {len(names)} columns but {cells} cells; "
                    "write NA where a value is missing"
                )


def _open_text(path: Path) -> TextIO:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def _refuse_twice(path: Path, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: has two columns called {name!r}; column names must be unique")


def _person(table: pd.DataFrame, row: int) -> str:
    return f"{table.FID.iloc[row]} {table.IID.iloc[row]} (row {row + 1})"
