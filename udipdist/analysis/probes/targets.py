"""What is asked of latents: measurements, and yes or no; and what cannot be asked, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from udipdist.people.tables import Match, read_table, refuse_duplicates

CONTINUOUS, BINARY = "continuous", "binary"
LEAST_PEOPLE = 50  # of a measurement


@dataclass(frozen=True)
class Target:
    """One target: `value_N` float64, NaN where missing; of yes and no 1 for cases and 0 for controls."""

    name: str
    kind: str
    value_N: np.ndarray

    @property
    def known_N(self) -> np.ndarray:
        """Who has a value, bool [N]."""
        return ~np.isnan(self.value_N)


def read(
    path: Path, match: Match, missing: Sequence[str] | None, only: Sequence[str] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """People (FID IID), and the columns of a table of targets (`only` these). Raises InputError."""
    table = read_table(path, match, missing)
    refuse_duplicates(table, match, path)
    if table.shape[1] < 3:
        raise InputError(f"{path}: has no column besides FID and IID; each target needs one")
    columns = table.drop(columns=["FID", "IID"])
    unknown = [name for name in only or () if name not in columns]
    if unknown:
        raise InputError(f"only=: {some(unknown)} is no column of {path}; its columns are {some(columns, 20)}")
    return table[["FID", "IID"]], columns if only is None else columns[list(only)]


def sort(columns: pd.DataFrame, min_cases: int) -> tuple[list[Target], list[tuple[str, str]]]:
    """The targets among the columns of the people analysed, and those that are skipped, each with the reason."""
    targets, skipped = [], []
    for name in map(str, columns):
        if not pd.api.types.is_numeric_dtype(columns[name]):
            skipped.append((name, "holds text; give numbers, or 0 and 1 for each category"))
            continue
        value_N = columns[name].to_numpy(np.float64).copy()
        value_N[~np.isfinite(value_N)] = np.nan
        levels = np.unique(value_N[~np.isnan(value_N)])
        known = int((~np.isnan(value_N)).sum())
        if len(levels) < 2:
            skipped.append((name, "is missing for everybody" if not known else f"is {levels[0]:g} for everybody"))
        elif len(levels) == 2:
            case_N = np.where(np.isnan(value_N), np.nan, value_N == levels[1])
            rarer = int(min(np.nansum(case_N), known - np.nansum(case_N)))
            if rarer < min_cases:
                kind = "cases" if np.nansum(case_N) == rarer else "controls"
                skipped.append((name, f"has {rarer} {kind}, fewer than min_cases={min_cases}"))
            else:
                targets.append(Target(name, BINARY, case_N))
        elif known < LEAST_PEOPLE:
            skipped.append((name, f"is known of {known} people, fewer than {LEAST_PEOPLE}"))
        else:
            targets.append(Target(name, CONTINUOUS, value_N))
    return targets, skipped


def in_all_folds(
    targets: Sequence[Target], fold_N: np.ndarray, number: int
) -> tuple[list[Target], list[tuple[str, str]]]:
    """The targets that can be probed in so many folds, and the others with the reason: each fold has people of whom
    the target is known, and the other folds have cases and controls."""
    kept, unfit = [], []
    for target in targets:
        size_k = np.bincount(fold_N[target.known_N], minlength=number)
        case_k = np.bincount(fold_N[target.value_N == 1], minlength=number)
        control_k = np.bincount(fold_N[target.value_N == 0], minlength=number)
        if size_k.min() < 2:
            unfit.append((target.name, f"is known of {size_k.min()} people in one of {number} folds; give fewer folds"))
        elif target.kind == BINARY and min(k.sum() - k.max() for k in (case_k, control_k)) == 0:
            unfit.append((target.name, "has all cases, or all controls, in one fold: they are of few families"))
        else:
            kept.append(target)
    return kept, unfit


def refuse_none(targets: Sequence[Target], skipped: Sequence[tuple[str, str]], path: Path) -> None:
    """Raises InputError where no target is left."""
    if not targets:
        raise InputError(f"{path}: no target can be probed: {some([f'{n} {why}' for n, why in skipped], 3)}")


def groups(targets: Sequence[Target]) -> list[list[int]]:
    """Targets that are fitted together: measurements of the same people, and each yes or no by itself."""
    found: dict[bytes, list[int]] = {}
    alone = []
    for t, target in enumerate(targets):
        if target.kind == BINARY:
            alone.append([t])
        else:
            found.setdefault(np.packbits(target.known_N).tobytes(), []).append(t)
    return [*found.values(), *alone]
