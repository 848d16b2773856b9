"""Warnings of columns that may be codes, not measurements: yes/no traits, numbers of sites. They change nothing."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.errors import some
from udipdist.people.design import Formula

log = logging.getLogger(__name__)

FEW = 10  # different whole numbers, at most, that may be codes
MOST_CODES = 200  # of a column whose name says that it is a code
_SHARE = 0.2  # different values, at most, of all: more are measurements of few people
_CODED_NAMES = re.compile(
    r"site|cent(re|er)|scanner|batch|plate|array|chip|cohort|study|ethnic|field|centerid", re.IGNORECASE
)
_CODED_FIELDS = r"(^|\D)(54|22000|21000)(\D|$)"  # UK Biobank: centre, genotyping batch, ethnic background


def warn_of_traits(path: Path, traits: list[str], y_NP: np.ndarray) -> None:
    """Warn of traits that have two values, or few whole numbers."""
    by_values: dict[tuple[float, ...], list[str]] = {}
    for p, name in enumerate(traits):
        values = _levels(y_NP[:, p], FEW, two_are_codes=True)
        if values is not None:
            by_values.setdefault(values, []).append(name)
    for values, names in by_values.items():
        words = [f"{value:g}" for value in values]
        spelled = some(words, FEW) if len(words) > 2 else " and ".join(words)
        if len(values) == 2:
            coded = ", as PLINK codes controls and cases" if values == (1, 2) else ""
            log.warning(
                "%s: %s: the only values are %s%s. They are tested as numbers by a linear model: beta is a difference "
                "in frequency, not a log odds ratio, and p is too small for rare cases and rare variants. A logistic "
                "program (regenie --bt, SAIGE) suits case-control traits",
                path, some(names, 6), spelled, coded,
            )  # fmt: skip
        else:
            zero = " If 0 means missing, as in a .fam, type missing=[-9, 0]." if values == (0, 1, 2) else ""
            log.warning(
                "%s: %s: the only values are %s. They are tested as measurements with equal steps between them; "
                "categories without an order need a column of 0 and 1 each.%s", path, some(names, 6), spelled, zero,
            )  # fmt: skip


def warn_of_covariates(path: Path, table: pd.DataFrame, formula: Formula) -> None:
    """Warn of covariates that look like codes and count as one slope each, with the formula that makes categories of
    them. `table` has the people analysed."""
    coded = [name for name in formula.slopes if _is_code(name, table[name])]
    if not coded:
        return
    spelled = {name: f"C({_quoted(name)})" for name in coded}
    instead = (
        " + ".join(spelled.values())
        if formula.given
        else " + ".join(spelled.get(name, _quoted(name)) for name in formula.columns)
    )
    n = some([f"{table[name].nunique()} in {name}" for name in coded], 6)
    log.warning(
        "%s: %s: whole numbers of few different values (%s), each used as one slope. If they are codes, as of a site, "
        "type formula='%s'", path, some(coded, 6), n, instead if not formula.given else f"... {instead} ...",
    )  # fmt: skip


def _is_code(name: str, column: pd.Series) -> bool:
    if not pd.api.types.is_numeric_dtype(column):
        return False
    named = _CODED_NAMES.search(name) or re.search(_CODED_FIELDS, name)
    return _levels(column.to_numpy(np.float64), MOST_CODES if named else FEW) is not None


def _levels(value_N: np.ndarray, most: int, two_are_codes: bool = False) -> tuple[float, ...] | None:
    """The different values, where they are few; two of any kind, three and more if they are whole numbers."""
    value_N = value_N[np.isfinite(value_N)]
    start = np.unique(value_N[: 20 * most])
    if len(start) > most:
        return None
    levels = np.unique(value_N)
    few = 2 <= len(levels) <= min(most, max(2, _SHARE * len(value_N)))
    whole = bool((levels == np.rint(levels)).all())
    if not few or (len(levels) == 2 and not two_are_codes) or (len(levels) > 2 and not whole):
        return None
    return tuple(levels.tolist())


def _quoted(name: str) -> str:
    return name if name.isidentifier() else f"`{name}`"
