"""Dated diagnoses to phecodes: spellings of ICD codes, the user's map, and how many days each person has each phecode.

No map is shipped. Phecodes are text: "008" is not 8.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from udipdist import delimited

log = logging.getLogger(__name__)
SHORTEST = 3  # characters of a category of ICD
_NAMES = {"iid": "IID", "eid": "IID", "participant_id": "IID", "person_id": "IID"}
_SHORT_NUMBER = re.compile(r"\d{1,2}(\.\d*)?")


def normalise(code: str) -> str:
    """An ICD code without dots and blanks, in capitals: 'i48.9' and 'I489' are the same."""
    return re.sub(r"[.\s]", "", code).upper()


def read_text(path: Path, needed: Iterable[str], what: str) -> pd.DataFrame:
    """A table of text, Parquet or delimited, with at least these columns; column names in any case. Empty cells are
    None. Raises InputError; a phecode that is a number is one."""
    if not path.is_file():
        raise InputError(f"{path}: does not exist; give {what}")
    table = pd.read_parquet(path) if path.suffix in (".parquet", ".pq") else delimited.read(path).frame()
    table = table.rename(columns={name: _NAMES.get(str(name).lower(), str(name).lower()) for name in table})
    lost = [name for name in needed if name not in table]
    if lost:
        raise InputError(
            f"{path}: has no column {some(lost)} (its columns are {some(table.columns)}); {what} needs {some(needed)}"
        )
    if "phecode" in table and pd.api.types.is_numeric_dtype(table["phecode"]):
        raise InputError(
            f"{path}: phecode is a column of numbers, which have lost zeros (008 became 8); write it as text"
        )
    for name in table:
        column = table[name].astype(object)
        text = column.where(column.isna(), column.astype(str).str.strip())
        table[name] = text.where(~text.isin(["", "NA", "nan", "None"]) & text.notna(), None)
    if "phecode" in table:
        refuse_numbers(table["phecode"].dropna(), path)
    return table


def refuse_numbers(phecodes: Iterable[str], path: Path) -> None:
    """Raises InputError for phecodes that have been a number: 8 where 008 is meant."""
    short = [code for code in phecodes if _SHORT_NUMBER.fullmatch(code)]
    if short:
        raise InputError(
            f"{path}: phecode {some(sorted(set(short)))} has lost its zeros (it should have three digits, as "
            f"{short[0].split('.')[0].zfill(3)}); write phecodes as text"
        )


def read_map(path: Path) -> dict[str, dict[str, list[str]]]:
    """For each vocabulary the phecodes of each normalised code. Raises InputError."""
    table = read_text(path, ("code", "vocabulary", "phecode"), "a map of codes to phecodes")
    table = table.dropna(subset=["code", "vocabulary", "phecode"])
    if table.empty:
        raise InputError(f"{path}: has no row with code, vocabulary and phecode; give a map of codes to phecodes")
    found: dict[str, dict[str, list[str]]] = {}
    for code, vocabulary, phecode in zip(table["code"], table["vocabulary"], table["phecode"], strict=True):
        found.setdefault(_vocabulary(vocabulary), {}).setdefault(normalise(code), []).append(phecode)
    return found


def _vocabulary(text: str) -> str:
    return re.sub(r"[-_\s]", "", text).upper()


def phecodes_of(code: str, known: dict[str, list[str]]) -> list[str]:
    """The phecodes of the longest beginning of a code that the map has, of SHORTEST characters or more."""
    plain = normalise(code)
    for length in range(len(plain), SHORTEST - 1, -1):
        if plain[:length] in known:
            return known[plain[:length]]
    return known.get(plain, [])


def parents(phecode: str) -> list[str]:
    """The phecodes above one: 411.11 has 411.1 and 411."""
    found = []
    while "." in phecode:
        phecode = phecode[:-1].rstrip(".")
        found.append(phecode)
    return found


def days_of(events: Path, codes: Path, rollup: bool) -> tuple[pd.DataFrame, dict[str, int]]:
    """IID, phecode, and on how many different dates; with `rollup` also of the phecodes above. And what was counted:
    events, events without a phecode. Raises InputError."""
    table = read_text(events, ("IID", "code", "vocabulary", "date"), "a table of dated diagnoses")
    known = read_map(codes)
    for name in ("IID", "code", "date"):
        lost = np.flatnonzero(table[name].isna())
        if len(lost):
            raise InputError(
                f"{events}: {len(lost):,} of {len(table):,} events have no {name} (the first in row {lost[0] + 1}); "
                "leave these rows out, or complete them"
            )
    date = pd.to_datetime(table["date"], errors="coerce", format="ISO8601")
    wrong = np.flatnonzero(date.isna())
    if len(wrong):
        raise InputError(
            f"{events}: row {wrong[0] + 1} has the date {table['date'].iloc[wrong[0]]!r}; write dates as 2023-01-31"
        )
    table["day"] = date.dt.normalize()
    table["vocabulary"] = table["vocabulary"].fillna("").map(_vocabulary)
    unknown = sorted(set(table["vocabulary"]) - set(known))
    if unknown:
        log.warning("%s: %s has no code of vocabulary %s", events, codes, some(unknown))
    pairs = table[["vocabulary", "code"]].drop_duplicates()
    pairs["phecode"] = [
        phecodes_of(code, known.get(vocabulary, {}))
        for vocabulary, code in zip(pairs["vocabulary"], pairs["code"], strict=True)
    ]
    if rollup:
        pairs["phecode"] = [sorted({up for code in own for up in (code, *parents(code))}) for own in pairs["phecode"]]
    long = table.merge(pairs, on=["vocabulary", "code"])
    without = int((long["phecode"].str.len() == 0).sum())
    if without == len(table):
        raise InputError(
            f"{events}: none of its codes ({some(table['code'].unique(), 3)}) is in {codes} "
            f"({some(sorted({code for one in known.values() for code in one}), 3)}); give the map of this vocabulary"
        )
    long = long.explode("phecode").dropna(subset=["phecode"])
    days = long.groupby(["IID", "phecode"])["day"].nunique().rename("days").reset_index()
    return days, {"events": len(table), "events_without_phecode": without}
