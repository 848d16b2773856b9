"""Tables of kinships that other programs made: KING (.kin0, .kin, .seg), plink2 (.kin0), UK Biobank (ukb_rel.dat).

Their columns differ in name, order and number, but all have a header. A pair is named by two individual ids, with a
family id each (.kin0), one for both (.kin), or none (UK Biobank, and plink2 where there are no families).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from hpc.errors import InputError
from udipdist import delimited, ids
from udipdist.people.tables import Match, describe_keys, keys, refuse_duplicates

log = logging.getLogger(__name__)

_FIRST = ("ID1", "IID1")
_SECOND = ("ID2", "IID2")
_KINSHIP = "KINSHIP"
_RELATEDNESS = "PROPIBD"  # KING --ibdseg: the share of the genome identical by descent, twice the kinship
_ENCODING = "utf-8-sig"
_EXAMPLES = 1000  # people without genotypes, to see how their ids differ
LINES_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Relatives:
    """Pairs of different people of a .fam (rows low < high) with G = 2 x kinship >= cutoff, and what was left out."""

    low_L: np.ndarray
    high_L: np.ndarray
    value_L: np.ndarray
    facts: dict[str, int]


@dataclass(frozen=True)
class _Columns:
    """Places of the columns of one file: ids, family ids (two, one for both, or none), and the value."""

    ids: tuple[int, int]
    families: tuple[int, int] | None
    value: int
    number: int  # of columns
    name: str
    factor: float
    separator: str | None  # None for blanks and tabs in any number


def read(paths: Sequence[Path], samples: pd.DataFrame, match: Match, cutoff: float) -> Relatives:
    """The pairs of one or several tables among the people of a .fam (`samples`).

    A table of all pairs may be larger than memory: only pairs that reach the cutoff are kept.

    Raises InputError for a table without usable columns, a kinship that is no number or above 0.5, a person paired with
    itself, a pair that is to be kept twice, or where no pair is of the people.
    """
    chunks = [chunk for path in paths for chunk in _read(path, samples, match, cutoff)]
    n_lines, n_absent, n_below = (sum(getattr(chunk, name) for chunk in chunks) for name in _Chunk.COUNTS)
    names = ", ".join(str(path) for path in paths)
    if n_lines == 0:
        raise InputError(f"{names}: has no pairs; give a table with pairs, or test=linear if all are unrelated")
    if n_lines == n_absent:
        found = [name for chunk in chunks for name in chunk.examples]
        advice = ids.hint(_people_of(found), samples) or "give the table of the same people"
        raise InputError(
            f"{names}: none of the {n_lines:,} pairs is of two people of the .fam (which begins with "
            f"{samples.FID.iloc[0]} {samples.IID.iloc[0]}; the pairs with {describe_keys(found)}); {advice}"
        )
    kept = pd.concat([chunk.pairs for chunk in chunks], ignore_index=True)
    _refuse_twice(kept, samples)
    facts = {"n_lines": n_lines, "n_absent": n_absent, "n_below": n_below, "n_pairs": len(kept)}
    if n_absent:
        log.warning("%s: %s of %s pairs are of people who are not in the .fam", names, f"{n_absent:,}", f"{n_lines:,}")
    return Relatives(kept.low.to_numpy(), kept.high.to_numpy(), kept.value.to_numpy(), facts)


@dataclass(frozen=True)
class _Chunk:
    """Some lines of one file: pairs of people of the .fam at or above the cutoff (low, high, value, path, line), and
    how many pairs are of others or below it."""

    pairs: pd.DataFrame
    n_lines: int
    n_absent: int
    n_below: int
    examples: list[str]
    COUNTS: ClassVar = ("n_lines", "n_absent", "n_below")


def _read(path: Path, samples: pd.DataFrame, match: Match, cutoff: float) -> Iterator[_Chunk]:
    columns = _columns(path)
    families = columns.families if match == "fid_iid" else None
    used: Match = "iid" if families is None else "fid_iid"
    refuse_duplicates(samples, used, "the .fam (the pairs have no family ids)" if used != match else "the .fam")
    row_of = pd.Series(np.arange(len(samples)), index=keys(samples, used).to_numpy())
    try:
        with delimited.open_text(path, _ENCODING) as file:
            reader = pd.read_csv(
                file, sep=columns.separator or r"\s+", header=None, skiprows=1, dtype=str, keep_default_na=False,
                chunksize=LINES_AT_ONCE,
            )  # fmt: skip
            for part in reader:
                yield _match(path, part, columns, families, row_of, cutoff)
    except pd.errors.EmptyDataError:
        return
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        what = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        raise InputError(f"{path}: {what}; each line must have the columns of the header") from None


def _match(
    path: Path,
    part: pd.DataFrame,
    columns: _Columns,
    families: tuple[int, int] | None,
    row_of: pd.Series,
    cutoff: float,
) -> _Chunk:
    line = part.index.to_numpy() + 2
    if part.shape[1] != columns.number:
        raise InputError(f"{path}, line 2: has {part.shape[1]} columns, and the header has {columns.number}")
    wrong = np.flatnonzero((part.isna() | (part == "")).any(axis=1))
    if len(wrong):
        raise InputError(f"{path}, line {line[wrong[0]]}: has fewer columns than the header ({columns.number})")
    first, second = part[columns.ids[0]], part[columns.ids[1]]
    if families is not None:
        first, second = part[families[0]] + "\t" + first, part[families[1]] + "\t" + second
    same = np.flatnonzero(first == second)
    if len(same):
        raise InputError(
            f"{path}, line {line[same[0]]}: pairs {describe_keys([first.iloc[same[0]]])} with itself; remove the line"
        )
    kinship = pd.to_numeric(part[columns.value], errors="coerce").to_numpy(np.float64) * columns.factor
    wrong = np.flatnonzero(~(np.isfinite(kinship) & (kinship <= 0.5 + 1e-6)))
    if len(wrong):
        pair = describe_keys([first.iloc[wrong[0]], second.iloc[wrong[0]]])
        raise InputError(
            f"{path}, line {line[wrong[0]]}: {columns.name} of {pair} is {part[columns.value].iloc[wrong[0]]}; it must "
            f"be a number up to {0.5 / columns.factor:g} (negative: unrelated); correct or remove the line"
        )
    i, j = (row_of.reindex(names).to_numpy(np.float64) for names in (first, second))
    here = ~(np.isnan(i) | np.isnan(j))
    kept = here & (2 * kinship >= cutoff)
    low, high = np.minimum(i[kept], j[kept]).astype(np.int64), np.maximum(i[kept], j[kept]).astype(np.int64)
    pairs = pd.DataFrame({"low": low, "high": high, "value": 2 * kinship[kept], "path": str(path), "line": line[kept]})
    return _Chunk(pairs, len(part), int((~here).sum()), int((here & ~kept).sum()), list(first[~here][:_EXAMPLES]))


def _people_of(keys_of_people: list[str]) -> pd.DataFrame:
    """FID and IID of keys; a key without FID has the IID for both."""
    return pd.DataFrame([(key.split("\t")[0], key.split("\t")[-1]) for key in keys_of_people], columns=["FID", "IID"])


def _refuse_twice(table: pd.DataFrame, samples: pd.DataFrame) -> None:
    pair = table.low * len(samples) + table.high
    twice = np.flatnonzero(pair.duplicated())
    if len(twice) == 0:
        return
    again = table.iloc[twice[0]]
    before = table[(pair == pair.iloc[twice[0]]).to_numpy()].iloc[0]
    who = " and ".join(" ".join(samples.iloc[int(row)][["FID", "IID"]]) for row in (again.low, again.high))
    raise InputError(
        f"{again.path}, line {int(again.line)}: the pair {who} is already in {before.path}, line "
        f"{int(before.line)} ({len(twice):,} such lines); keep one"
    )


def _columns(path: Path) -> _Columns:
    """Find the columns by the header, whatever its case; plink2 puts # before it. Raises InputError."""
    try:
        with delimited.open_text(path, _ENCODING) as file:
            line = file.readline().lstrip("#")
        separator = next((mark for mark in ("\t", ",", ";") if mark in line), None)
        header = delimited.split(line, separator)
    except FileNotFoundError:
        raise InputError(f"{path}: does not exist; kinship= is a table of KING, plink2 or UK Biobank") from None
    except UnicodeDecodeError:
        raise InputError(
            f"{path}: is not text; give a table of kinships (plink2 --make-king-table, not --make-king)"
        ) from None
    place = {name.upper(): i for i, name in enumerate(header)}
    first = next((place[name] for name in _FIRST if name in place), None)
    second = next((place[name] for name in _SECOND if name in place), None)
    value = place.get(_KINSHIP, place.get(_RELATEDNESS))
    if first is None or second is None or value is None:
        raise InputError(
            f"{path}, line 1: the columns are {', '.join(header) or '(none)'}; needed are ID1 and ID2 (or IID1 and "
            "IID2) and Kinship (or PropIBD), as in KING's .kin0, plink2 --make-king-table and ukb_rel.dat"
        )
    families = None
    if "FID1" in place and "FID2" in place:
        families = (place["FID1"], place["FID2"])
    elif "FID" in place:
        families = (place["FID"], place["FID"])
    factor = 1.0 if _KINSHIP in place else 0.5
    return _Columns((first, second), families, value, len(header), header[value], factor, separator)
