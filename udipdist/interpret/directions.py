"""Directions in latent space: what is added to everybody's latents, scaled to one standard deviation of the people.

Let S be the covariance of the latents z over the population.

* A change v of the latents (a row of a table; the effects of a SNP, see `snp`): people's projections on v have the
  standard deviation sqrt(v'Sv)/|v|, so one SD along v adds v sqrt(v'Sv)/v'v. For a latent alone this is its own SD, the
  published perturbation (UDIP).
* A score w'z (a probe's weights) is not a change: what people with a higher score have in common is S w, and one SD of
  the score adds S w / sqrt(w'Sw) (Haufe et al. 2014, "On the interpretation of weight vectors", eq. 6).

Shapes: N people, L latents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from udipdist import delimited
from udipdist.latents import latent_names
from udipdist.people.tables import read_phenotypes

_FILE_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Population:
    """How latents spread over people."""

    covariance_LL: np.ndarray  # float64
    n: int

    @classmethod
    def of(cls, latents_NL: np.ndarray) -> Self:
        """From latents [N, L]. Raises InputError where there are fewer than two people."""
        n = len(latents_NL)
        if n < 2:
            raise InputError(
                f"{n} subject: a standard deviation needs two; give population=TABLE of latents of the cohort"
            )
        return cls(np.atleast_2d(np.cov(latents_NL.astype(np.float64), rowvar=False)), n)

    @property
    def sd_L(self) -> np.ndarray:
        """Standard deviation of each latent."""
        return np.sqrt(np.diag(self.covariance_LL))


@dataclass(frozen=True)
class Direction:
    """What one SD along it adds to the latents."""

    name: str  # also of its files
    kind: str  # latent, direction, probe, snp or control
    shift_L: np.ndarray  # float64
    facts: dict[str, Any] = field(default_factory=dict)


def file_name(name: str) -> str:
    """A name with nothing in it that a file's name may not have."""
    return _FILE_NAME.sub("_", name).strip("._") or "unnamed"


def of_latents(numbers: Sequence[int], people: Population) -> list[Direction]:
    """Single latents by number."""
    unit = np.eye(len(people.sd_L))
    named = zip(latent_names(numbers), numbers, strict=True)
    return [Direction(name, "latent", unit[k] * people.sd_L[k]) for name, k in named]


def of_change(name: str, kind: str, change_L: np.ndarray, people: Population, **facts: Any) -> Direction:
    """A change of the latents, scaled to one SD of people's projections on it. Raises InputError where it is none."""
    length = float(change_L @ change_L)
    if not np.isfinite(length) or length == 0:
        raise InputError(f"the direction {name} is zero or not finite; leave it out")
    spread = float(np.sqrt(change_L @ people.covariance_LL @ change_L))
    return Direction(file_name(name), kind, change_L * (spread / length), facts)


def of_score(name: str, weights_L: np.ndarray, people: Population) -> Direction:
    """What one SD of the score w'z adds to the latents. Raises InputError where nobody differs in the score."""
    pattern = people.covariance_LL @ weights_L
    spread = float(np.sqrt(weights_L @ pattern))
    if not np.isfinite(spread) or spread == 0:
        raise InputError(f"the score {name} is the same for everybody; leave it out")
    return Direction(file_name(name), "probe", pattern / spread)


def controls(count: int, people: Population, seed: int) -> list[Direction]:
    """Random directions with the latents' covariance: what the effects of a SNP without effect look like."""
    rng = np.random.default_rng([seed, 1])
    values, vectors = np.linalg.eigh(people.covariance_LL)
    root = vectors * np.sqrt(values.clip(min=0))
    draws = rng.standard_normal((count, len(values)))
    return [of_change(f"control{i:02d}", "control", root @ draw, people) for i, draw in enumerate(draws)]


def read_rows(path: Path, key: str, count: int) -> list[tuple[str, np.ndarray]]:
    """Rows of a table with the column `name` and one of numbers for each latent, [L] each; other columns are refused.

    Raises InputError that names the file and what is wrong in it.
    """
    table = _read(path, key)
    wanted = latent_names(range(count))
    lacks = [name for name in ("name", *wanted) if name not in table]
    stray = [name for name in table if name not in ("name", *wanted)]
    if lacks or stray:
        wrong = f"lacks {some(lacks)}" if lacks else f"has other columns: {some(stray)}"
        raise InputError(
            f"{path}: {wrong}; {key}= wants a table with the column name and {wanted[0]} to {wanted[-1]}, a row each"
        )
    if not len(table):
        raise InputError(f"{path}: has no rows; {key}= wants one for each direction")
    twice = table["name"][table["name"].duplicated()]
    if len(twice):
        raise InputError(f"{path}: the name {twice.iloc[0]} comes twice; names of {key}= must differ")
    numbers = table[wanted].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
    if len(bad):
        raise InputError(f"{path}: row {table['name'].iloc[bad[0]]} has a value that is not finite; correct it")
    return list(zip(table["name"], numbers, strict=True))


def read_population(path: Path, count: int) -> Population:
    """From a latents table. Raises InputError where its columns are not the network's latents."""
    _, traits, latents_NL = read_phenotypes(path, "fid_iid")
    if traits != latent_names(range(count)):
        raise InputError(
            f"{path}: its columns are {some(traits)}, not the {count} latents of the network; give the table that "
            "`udipdist embed` made with this run_dir and checkpoint"
        )
    return Population.of(latents_NL[np.isfinite(latents_NL).all(axis=1)])


def require_distinct(directions: Sequence[Direction]) -> None:
    """Raises InputError where two directions would write the same files."""
    seen = [direction.name for direction in directions]
    twice = sorted({name for name in seen if seen.count(name) > 1})
    if twice:
        raise InputError(f"two directions are called {twice[0]}, so their files would clash; rename one")


def _read(path: Path, key: str) -> pd.DataFrame:
    if not path.exists():
        raise InputError(f"{path}: does not exist; give {key}= a tab-separated table")
    return delimited.read(path).frame()
