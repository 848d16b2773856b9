"""Diseases of the tested people, with known causes, as a phecode table and as dated hospital records; and targets for
probes.

liability = b x factor + age + sex + noise, and who is above the quantile of the prevalence has the disease. All codes,
names and the map between them are invented: no published map may be passed on under this licence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from udipdist.cohort.factors import NAMES
from udipdist.cohort.people import SITE_NAMES, People

CATEGORIES = ("circulatory", "endocrine", "neurological", "mental", "musculoskeletal", "genitourinary")
FIRST_CODES = (391, 8, 330, 290, 710, 580)  # of the parents of each category
PARENTS, CHILDREN = 5, 2  # of a category, of a parent
PREVALENCE = (0.002, 0.15)
EFFECT = (0.15, 0.6)  # |b|, per SD of the factor
AGE_EFFECT, SEX_EFFECT = 0.3, 0.15  # on liabilities, per SD of age and between the sexes
SHARE_ONCE = 0.004  # share of those without a disease who have one record of it
CONTROL, CASE, ONCE, OTHER_SEX = range(4)
OF_ONE_SEX = {"580.1": "Male", "580.2": "Male", "581.1": "Female", "581.2": "Female"}
DATES = (np.datetime64("2006-01-01"), np.datetime64("2025-12-31"))
MISSING = 0.05  # share of a target's values that are missing
TARGET_NULLS = {"null_0": None, "null_1": None, "null_2": None, "null_half": 0.5, "null_fifth": 0.2, "null_tenth": 0.1}


@dataclass(frozen=True)
class Diseases:
    """`truth` has a row a disease (phecode, category, sex, prevalence, factor, b, cases); `phecodes` FID IID and a
    column a disease (0, 1, NA: one record, or the other sex); `events` IID code vocabulary date; `map` code vocabulary
    phecode; `definitions` phecode phenotype phecode_exclude_range sex category."""

    truth: pd.DataFrame
    phecodes: pd.DataFrame
    events: pd.DataFrame
    map: pd.DataFrame
    definitions: pd.DataFrame


def draw(people: People, factors_NK: np.ndarray, rng: np.random.Generator) -> Diseases:
    """60 diseases in 6 categories; every other one, by prevalence, has no effect of any factor."""
    codes = _codes()
    truth = _architecture(codes, rng)
    unit = people.standardised()
    factor_NK = (factors_NK - factors_NK.mean(0)) / factors_NK.std(0)
    states = {}
    for row in truth.itertuples():
        value = AGE_EFFECT * unit["age"] + SEX_EFFECT * unit["sex"] + rng.standard_normal(len(people.table))
        if row.factor:
            value += row.b * factor_NK[:, NAMES.index(row.factor)]
        states[row.phecode] = _states(value, row.prevalence, row.sex, people, rng)
    state = pd.DataFrame(states)
    truth["cases"] = (state == CASE).sum().to_numpy()
    known = state.where(state.isin([CASE, CONTROL])).astype("Int8")
    phecodes = pd.concat([people.table[["FID", "IID"]], known], axis=1)
    icd = _map(codes)
    return Diseases(truth, phecodes, _events(people, state, icd, rng), icd, _definitions(truth))


def targets(people: People, factors_NK: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Targets for probes, FID IID first: each factor, age, sex, site; a reading that depends on the scanner's site
    alone; and nulls, continuous and binary. 5 % of all but the factors are missing."""
    table, n = people.table, len(people.table)
    found = {f"factor_{name}": factors_NK[:, k] for k, name in enumerate(NAMES)}
    mine = {"age": table["age"].to_numpy(float), "sex": table["sex"].to_numpy(float)}
    site = table["site"].to_numpy()
    mine["site_reading"] = np.array([-1.2, -0.4, 0.4, 1.2])[site] + 0.5 * rng.standard_normal(n)
    mine |= {f"site_{SITE_NAMES[0].lower()}": (site == 0).astype(float)}
    for name, share in TARGET_NULLS.items():
        mine[name] = rng.standard_normal(n) if share is None else (rng.random(n) < share).astype(float)
    mine = {name: np.where(rng.random(n) < MISSING, np.nan, value) for name, value in mine.items()}
    return pd.concat([table[["FID", "IID"]], pd.DataFrame(found | mine)], axis=1)


def _codes() -> pd.DataFrame:
    rows = [
        (f"{first + parent:03d}.{child + 1}", category)
        for first, category in zip(FIRST_CODES, CATEGORIES, strict=True)
        for parent in range(PARENTS)
        for child in range(CHILDREN)
    ]
    return pd.DataFrame(rows, columns=["phecode", "category"])


def _architecture(codes: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Prevalences spread evenly on a logarithmic scale; with and without effects take turns."""
    n = len(codes)
    rank = rng.permutation(n)
    acts = rank % 2 == 1  # the most frequent one does
    b = np.exp(rng.uniform(*np.log(EFFECT), n)) * rng.choice([-1, 1], n)
    factor = np.array(NAMES)[rng.integers(0, len(NAMES), n)]
    return codes.assign(
        sex=[OF_ONE_SEX.get(code, "Both") for code in codes.phecode],
        prevalence=np.geomspace(*PREVALENCE, n)[rank],
        factor=np.where(acts, factor, ""),
        b=np.where(acts, b, 0.0),
    )


def _states(liability: np.ndarray, prevalence: float, sex: str, people: People, rng: np.random.Generator) -> np.ndarray:
    """CASE, CONTROL, ONCE or OTHER_SEX for each person, int8 [N]."""
    may = np.ones(len(liability), bool) if sex == "Both" else people.table["sex"].to_numpy() == int(sex == "Male")
    limit = np.quantile(liability[may], 1 - prevalence)
    state = np.where(liability > limit, CASE, CONTROL).astype(np.int8)
    state[(state == CONTROL) & (rng.random(len(state)) < SHARE_ONCE)] = ONCE
    state[~may] = OTHER_SEX
    return state


def _map(codes: pd.DataFrame) -> pd.DataFrame:
    """Two invented codes of a vocabulary for each phecode, one of them a category that has longer codes below it."""
    rows = []
    for i, phecode in enumerate(codes.phecode):
        stem = f"{'ABCDEF'[i // 10]}{i % 10}"
        rows += [(f"{stem}0", "ICD10", phecode), (f"{stem}1.{i % 7}", "ICD10", phecode)]
    return pd.DataFrame(rows, columns=["code", "vocabulary", "phecode"])


def _events(people: People, state: pd.DataFrame, icd: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Two to four records on different days of each case, and one of those with ONCE; as hospitals write them: with and
    without the dot, in capitals and not, with a digit behind a category."""
    days = int((DATES[1] - DATES[0]).astype(int))
    of, iid, rows = icd.groupby("phecode").code.agg(list), people.table["IID"].to_numpy(), []
    for phecode in state.columns:
        number_N = np.where(state[phecode] == CASE, rng.integers(2, 5, len(iid)), state[phecode] == ONCE)
        for i in np.flatnonzero(number_N).tolist():
            when = rng.choice(days, number_N[i], replace=False).tolist()
            rows += [(iid[i], _spelt(of[phecode], rng), "ICD10", str(DATES[0] + day)) for day in when]
    return pd.DataFrame(rows, columns=["IID", "code", "vocabulary", "date"])


def _spelt(codes: list[str], rng: np.random.Generator) -> str:
    """One of the codes in one of its spellings."""
    code = codes[rng.integers(len(codes))]
    code = code if "." in code else f"{code}{['', '.0', '9'][rng.integers(3)]}"
    return [code, code.replace(".", ""), code.lower()][rng.integers(3)]


def _definitions(truth: pd.DataFrame) -> pd.DataFrame:
    """Names, categories, sexes and ranges of exclusion, of the diseases and of the parents of each two."""
    parents = truth.assign(phecode=truth.phecode.str.split(".").str[0]).drop_duplicates("phecode")
    both = pd.concat([truth, parents], ignore_index=True).sort_values("phecode", ignore_index=True)
    stem = both.phecode.str[:3]
    return pd.DataFrame(
        {
            "phecode": both.phecode,
            "phenotype": [f"invented disease {code}" for code in both.phecode],
            "phecode_exclude_range": stem + "-" + stem + ".99",
            "sex": both.sex,
            "category": both.category,
        }
    )
