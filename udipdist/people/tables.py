"""Tables of people: phenotypes and covariates, as Parquet or text, keyed by FID and IID."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from hpc.errors import InputError, some
from udipdist import delimited
from udipdist.config.analyses import OVER_TRAITS
from udipdist.people import fields
from udipdist.people import raw as raws
from udipdist.people.missing import PLINK, MissingCodes
from udipdist.people.raw import Cells, Kind, Raw

log = logging.getLogger(__name__)

Match = Literal["fid_iid", "iid"]
_DECIMAL_COMMA = r"[-+]?\d*,\d+([eE][-+]?\d+)?"
_DATE = r"\d{4}-\d{2}-\d{2}"


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


def read_phenotypes(
    path: Path, match: Match, missing: Sequence[str] | None = None
) -> tuple[pd.DataFrame, list[str], np.ndarray]:
    """People (FID IID), the P trait names, and values float64 [N, P] with NaN where missing (see people.missing).

    Raises InputError for a trait that is not numeric or is infinite, naming the person.
    """
    table = read_table(path, match, missing, "PHENO")
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
        if not pd.api.types.is_numeric_dtype(column):
            row, hint = _first_text(column)
            raise InputError(
                f"{path}: trait {name} of {_person(table, row)} is {column.iloc[row]!r}, not a number; "
                f"write NA where it is missing{hint}, or leave the column out"
            )
        infinite = np.flatnonzero(np.isinf(column))
        if len(infinite):
            raise InputError(
                f"{path}: trait {name} of {_person(table, infinite[0])} is infinite; write NA where it is missing"
            )
        values[:, p] = column
    return table[["FID", "IID"]], traits, values


def read_covariates(path: Path, match: Match, missing: Sequence[str] | None = None) -> pd.DataFrame:
    """FID IID as text, then columns that are float64 (NaN where missing) or text (categories, None where missing).

    Dates are years. Raises InputError.
    """
    table = read_table(path, match, missing, "COVAR")
    refuse_duplicates(table, match, path)
    for name in table.columns[2:]:
        column = table[name]
        if pd.api.types.is_numeric_dtype(column):
            continue
        known = column.dropna()
        if known.str.fullmatch(_DATE).all():
            table[name] = _years(column)
            log.info("%s: %s holds dates, and is used as years", path, name)
            continue
        table[name] = column.astype(object).where(column.notna(), None)
    return table


def refuse_mixed(path: Path, table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raises InputError for a covariate of `columns` that is mostly numbers with some text in it."""
    for name in columns:
        column = table[name]
        if pd.api.types.is_numeric_dtype(column):
            continue
        number = _numbers(column)
        if 2 * np.isfinite(number).sum() > column.notna().sum():
            row, hint = _first_text(column)
            raise InputError(
                f"{path}: covariate {name} of {_person(table, row)} is {column.iloc[row]!r} among numbers; "
                f"write NA where it is missing{hint}, or only text for categories"
            )


def read_table(path: Path, match: Match, missing: Sequence[str] | None = None, kind: Kind = "PHENO") -> pd.DataFrame:
    """A Parquet or text table with FID and IID first, as text, then its other columns: float64, or text where a cell is
    neither a number nor missing.

    The ids may be called as in people.fields. A table without FID will do with match=iid; one of UK Biobank (eid) or
    BIDS (participant_id) has its ids for both. Without a header, as PLINK and GCTA have it, the columns are FID, IID,
    and PHENO1, PHENO2 ... (or COVAR1 ...). `missing` are codes of missing values (see people.missing). Raises
    InputError.
    """
    path = Path(path)
    raw = raws.read(path, kind)
    ids = _ids(path, raw, match)
    used = [name for name in raw.columns if name not in (raw.family, raw.person)]
    plink = PLINK if raw.text and raw.family is not None else ()
    codes = MissingCodes(path, plink if missing is None else missing)
    columns = {name: _column(name, raw.columns[name], codes) for name in used}
    if raw.decimal_commas:
        _read_decimal_commas(path, columns)
    codes.tell()
    return pd.concat([ids, pd.DataFrame(columns, index=ids.index)], axis=1)


def _ids(path: Path, raw: Raw, match: Match) -> pd.DataFrame:
    """FID and IID of the rows. Raises InputError."""
    plink_like = raw.person is not None and fields.plain(raw.person) == "iid"
    if raw.person is None or (raw.family is None and plink_like and match != "iid"):
        hint = "; match=iid will do without FID" if raw.person is not None else ""
        raise InputError(
            f"{path}: has no column {'FID' if raw.person is not None else 'IID'} (its columns are "
            f"{some(raw.columns)}); the first line must name the columns FID IID and the others{hint}"
        )
    person = _id_texts(path, "IID", raw.columns[raw.person], fields.plain(raw.person) == fields.BIDS)
    family = person if raw.family is None else _id_texts(path, "FID", raw.columns[raw.family], False)
    return pd.DataFrame({"FID": family, "IID": person}, dtype="str")


def _id_texts(path: Path, name: str, column: Cells, bids: bool) -> list[str]:
    if isinstance(column, np.ndarray):
        whole = np.isfinite(column) & (column == np.rint(column))
        column = pa.chunked_array([[str(int(v)) if w else None for v, w in zip(column, whole, strict=True)]])
    texts = [(text or "").strip() for text in column.to_pylist()]
    if not texts:
        raise InputError(f"{path}: has columns but no rows; it needs one row per person")
    if "" in texts:
        raise InputError(f"{path}, row {texts.index('') + 1}: has no {name}; every row must name its person")
    return [text.removeprefix("sub-") for text in texts] if bids else texts


def _column(name: str, column: Cells, codes: MissingCodes) -> np.ndarray:
    """float64, or text (object, None where missing) where a cell is neither a number nor missing."""
    if isinstance(column, np.ndarray):
        return codes.of_numbers(name, column)
    known, value_N = codes.of_text(name, column)
    if (np.isnan(value_N) & pc.is_valid(known).to_numpy()).any():
        return np.array(known.to_pylist(), object)
    return value_N


def _read_decimal_commas(path: Path, columns: dict[str, np.ndarray]) -> None:
    """In a table separated by semicolons 2,0143 is a number, where no cell of its column has a decimal point."""
    read = []
    for name, column in columns.items():
        if column.dtype != object:
            continue
        known = pd.Series(column).dropna().astype("str")
        commas = known.str.fullmatch(_DECIMAL_COMMA)
        if commas.any() and (commas | known.str.fullmatch(r"[-+]?\d+")).all():
            texts = [None if text is None else text.replace(",", ".") for text in column]
            columns[name] = delimited.numbers(pa.chunked_array([texts], pa.string()))
            read.append(name)
    if read:
        log.info("%s: decimal commas are read as points: %s", path, some(read, 6))


def _first_text(column: pd.Series) -> tuple[int, str]:
    """The row of the first cell that is no number, and a hint at what it is."""
    number = _numbers(column)
    row = int(np.flatnonzero(np.isnan(number) & column.notna().to_numpy())[0])
    comma = re.fullmatch(_DECIMAL_COMMA, str(column.iloc[row]))
    return row, ", and decimal points, not commas" if comma else ""


def _numbers(column: pd.Series) -> np.ndarray:
    return delimited.numbers(pa.chunked_array([pa.array(column, pa.string(), from_pandas=True)]))


def _years(column: pd.Series) -> np.ndarray:
    days = pd.to_datetime(column, errors="coerce").to_numpy("datetime64[D]")
    return np.where(np.isnat(days), np.nan, 1970 + days.astype(np.float64) / 365.25)


def _person(table: pd.DataFrame, row: int) -> str:
    return f"{table.FID.iloc[row]} {table.IID.iloc[row]} (row {row + 1})"
