"""Lists of people (.fam, .grm.id): headers that stand there although the format has none, and ids that do not match."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from hpc.errors import InputError, some

_NAMES = {"fid", "iid", "id", "famid", "family", "individual", "sid"}  # of columns of ids, in lower case
_CODE_NAME = re.compile(r"sex|gender|phen(o|otype)?[_.]?\d*|trait[_.]?\d*|status|aff(ection|ected)?", re.IGNORECASE)
_CODES = {  # of a person's sex and phenotype that are no numbers, in lower case
    "na", "n/a", "nan", ".", "?", "-", "", "u", "unk", "unknown", "none", "null", "missing", "m", "f", "male", "female",
    "case", "control", "ctrl",
}  # fmt: skip
_SHOWN = 2  # ids of each side in a message
_POOR = 0.5  # with less than this share of the smaller side in common, the ids are looked at


def header_rows(table: pd.DataFrame, where: str, codes: Sequence[str] = ()) -> int:
    """How many rows at the top of a list of people are its header. Ids are the first two columns; `codes` are columns
    of codes (sex, phenotype).

    A header is a row that begins with `#`, as plink skips it, a row whose ids are names of columns (FID IID), and a
    first row whose codes are names of columns. Raises InputError where neither that nor a person can be seen in the
    first row: words that are no codes, where the second row has numbers.
    """
    n = 0
    while n < len(table) and str(table.iat[n, 0]).startswith("#"):
        n += 1
    if n < len(table) and {str(value).lower() for value in table.iloc[n, :2]} <= _NAMES:
        n += 1
    if n or len(table) < 2 or not codes:
        return n
    first, second = (table[list(codes)].iloc[row].astype(str) for row in (0, 1))
    words = [value for value in first[~_numbers(first)] if value.lower() not in _CODES]
    if len(words) < len(codes) or not _numbers(second).all():
        return 0
    if any(_CODE_NAME.fullmatch(value) for value in words):
        return 1
    raise InputError(
        f"{where}, line 1: {' '.join(map(str, table.iloc[0]))} is a header or a person, which cannot be told by "
        f"{' and '.join(codes)} ({', '.join(words)}); put # before a header, or write -9 where a person's are missing"
    )


def told(header: int) -> str:
    """What is said of a header of so many lines."""
    return "its first line is a header" if header == 1 else f"its first {header} lines are a header"


def _numbers(values: pd.Series) -> np.ndarray:
    return pd.to_numeric(values, errors="coerce").notna().to_numpy()


def mismatch(ours: pd.DataFrame, theirs: pd.DataFrame) -> str:
    """Two lists of people (FID IID) that hardly match: ids of both sides, and what would make them match."""
    shown = f"{_first(ours)} against {_first(theirs)}"
    advice = hint(ours, theirs)
    return f"{shown}; {advice}" if advice else shown


def hint(ours: pd.DataFrame, theirs: pd.DataFrame) -> str:
    """What would make two lists of people match; empty where that cannot be seen."""
    if ours.IID.isin(theirs.IID).mean() > _POOR:
        return "the IIDs agree: type match=iid to match on them alone"
    if ours.IID.str.lstrip("0").isin(theirs.IID.str.lstrip("0")).mean() > _POOR:
        return "the IIDs agree but for leading zeros, which one of the files has lost: write ids as text in both"
    if ours.IID.str.lower().isin(theirs.IID.str.lower()).mean() > _POOR:
        return "the IIDs agree but for capital letters: spell them alike"
    if (ours.FID + "_" + ours.IID).isin(theirs.IID).any() or (theirs.FID + "_" + theirs.IID).isin(ours.IID).any():
        return "one side joins FID and IID with _: split them, or join them, in one of the files"
    return ""


def _first(people: pd.DataFrame) -> str:
    return some((f"{fid} {iid}" for fid, iid in zip(people.FID, people.IID, strict=True)), _SHOWN)
