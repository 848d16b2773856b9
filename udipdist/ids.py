"""Lists of people (.fam, .grm.id): headers that stand there although the format has none, and ids that do not match."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hpc.errors import some

_NAMES = {"fid", "iid", "id", "famid", "family", "individual", "sid"}  # of columns of ids, in lower case
_SHOWN = 2  # ids of each side in a message
_POOR = 0.5  # with less than this share of the smaller side in common, the ids are looked at


def header_rows(table: pd.DataFrame, numeric: Sequence[str] = ()) -> int:
    """How many rows at the top of a list of people are its header.

    These are rows that begin with `#`, as plink skips them, a row whose ids are names of columns (FID IID), and a first
    row with words in the columns `numeric` where the second one has numbers. Ids are the first two columns.
    """
    n = 0
    while n < len(table) and str(table.iat[n, 0]).startswith("#"):
        n += 1
    if n < len(table) and {str(value).lower() for value in table.iloc[n, :2]} <= _NAMES:
        n += 1
    if n == 0 and len(table) > 1 and len(numeric):
        first, second = (_numbers(table[list(numeric)].iloc[row]) for row in (0, 1))
        n = int((~first & second).all())
    return n


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
