"""Who has which diagnosis: cases, controls, and those who count as neither.

Shapes: N people, P phecodes. A status is 1 (case), 0 (control) or -1 (not known).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from udipdist.analysis.phewas import icd
from udipdist.people.tables import Match, describe_keys, keys, read_phenotypes

log = logging.getLogger(__name__)
NO_CATEGORY = "other"


@dataclass(frozen=True)
class Phenome:
    """`people` (FID IID; None: whoever has latents), the `codes`, their statuses int8 [P, N] and which people have any
    record of a code [P, N]; and counts for the manifest."""

    path: Path
    people: pd.DataFrame
    codes: list[str]
    status_PN: np.ndarray
    record_PN: np.ndarray
    facts: dict[str, int]


def from_table(path: Path, match: Match, missing: Sequence[str] | None) -> Phenome:
    """A table with FID, IID and a column of 0, 1 or NA for each phecode. Raises InputError."""
    people, codes, value_NP = read_phenotypes(path, match, missing)
    icd.refuse_numbers(codes, path)
    odd_NP = ~(np.isnan(value_NP) | (value_NP == 0) | (value_NP == 1))
    if odd_NP.any():
        n, p = np.argwhere(odd_NP)[0]
        who = describe_keys(keys(people.iloc[[n]], "fid_iid"))
        raise InputError(f"{path}: phecode {codes[p]} of {who} is {value_NP[n, p]:g}; it must be 0, 1 or NA")
    status_PN = np.where(np.isnan(value_NP), -1, value_NP).astype(np.int8).T.copy()
    return Phenome(path, people, codes, status_PN, status_PN == 1, {})


def from_events(events: Path, codes: Path, people: pd.DataFrame, dates: int, rollup: bool) -> Phenome:
    """Of these people (matched by IID): with `dates` different dates or more a case, with fewer not known, with none a
    control. Raises InputError."""
    days, facts = icd.days_of(events, codes, rollup)
    here = days["IID"].isin(people["IID"])
    if not here.any():
        raise InputError(
            f"{events}: none of its {days['IID'].nunique():,} people ({some(days['IID'].unique(), 2)}) is among the "
            f"{len(people):,} with latents ({some(people['IID'], 2)}); give events of the same people"
        )
    twice = people["IID"][people["IID"].duplicated()]
    if len(twice):
        raise InputError(
            f"{events}: events name people by IID, and {some(twice, 2)} is the IID of two people with latents; "
            "make IIDs unique, or give phecodes=TABLE with FID and IID"
        )
    days = days[here]
    names = sorted(days["phecode"].unique())
    status_PN = np.zeros((len(names), len(people)), np.int8)
    row = pd.Series(np.arange(len(people)), index=people["IID"].to_numpy())
    at = np.searchsorted(names, days["phecode"].to_numpy(str)), row[days["IID"]].to_numpy()
    status_PN[at] = np.where(days["days"] >= dates, 1, -1)
    without = len(people) - days["IID"].nunique()
    log.info("%d of %d people have no diagnosis with a phecode: they are controls of every one", without, len(people))
    return Phenome(events, people, names, status_PN, status_PN != 0, facts | {"without_diagnosis": without})


def read_definitions(path: Path | None, codes: Sequence[str]) -> pd.DataFrame:
    """For each code (the index): phenotype, category, sex (Both, Male, Female) and the range of exclusion, all text.
    Raises InputError where the table and the codes have nothing in common."""
    columns = {"phenotype": "", "category": NO_CATEGORY, "sex": "Both", "exclude": ""}
    empty = pd.DataFrame({name: [value] * len(codes) for name, value in columns.items()}, index=list(codes))
    if path is None:
        return empty
    table = icd.read_text(path, ("phecode",), "definitions of phecodes").dropna(subset=["phecode"])
    range_of = next((name for name in table if "exclude" in str(name) and "range" in str(name)), None)
    table = table.rename(columns={range_of: "exclude"} if range_of else {}).drop_duplicates("phecode")
    table = table.set_index("phecode").reindex(columns=list(columns))
    if not table.index.isin(codes).any():
        raise InputError(
            f"{path}: defines none of the {len(codes)} phecodes ({some(codes, 3)} against {some(table.index, 3)})"
        )
    unknown = [code for code in codes if code not in table.index]
    if unknown:
        log.warning("%s: does not define %d of %d phecodes: %s", path, len(unknown), len(codes), some(unknown))
    return table.reindex(list(codes)).astype(object).fillna(columns)


def refine(
    phenome: Phenome, definitions: pd.DataFrame, male_N: np.ndarray | None, exclusions: bool
) -> tuple[np.ndarray, dict[str, int]]:
    """Statuses [P, N] in which the other sex, and controls with a record in the code's range of exclusion, are not
    known; and how many that are. Raises InputError where sexes are needed and not there."""
    status_PN = phenome.status_PN.copy()
    sex_P = definitions["sex"].str.lower().str[:1].to_numpy()
    if male_N is None and (sex_P != "b").any():
        log.warning("definitions name codes of one sex, and the covariates have no column for it: type sex=COLUMN")
    found = {"of_other_sex": 0, "excluded": 0}
    value_P = np.array([_number(code) for code in phenome.codes])
    for p, (sex, text) in enumerate(zip(sex_P, definitions["exclude"], strict=True)):
        if male_N is not None and sex in ("m", "f"):
            other_N = (male_N != (sex == "m")) & (status_PN[p] >= 0)
            found["of_other_sex"] += int(other_N.sum())
            status_PN[p, other_N] = -1
        near_P = _within(value_P, text) if exclusions and text else np.zeros(len(value_P), bool)
        if near_P.any():
            near_N = phenome.record_PN[near_P].any(axis=0) & (status_PN[p] == 0)
            found["excluded"] += int(near_N.sum())
            status_PN[p, near_N] = -1
    return status_PN, found


def _number(code: str) -> float:
    try:
        return float(code)
    except ValueError:
        return np.nan


def _within(value_P: np.ndarray, text: str) -> np.ndarray:
    """Which codes are in a range as '390-400.99', or several with commas between them."""
    inside_P = np.zeros(len(value_P), bool)
    for part in text.split(","):
        ends = [_number(end) for end in part.strip().split("-")]
        if len(ends) in (1, 2) and not np.isnan(ends).any():
            inside_P |= (value_P >= ends[0]) & (value_P <= ends[-1])
    return inside_P
