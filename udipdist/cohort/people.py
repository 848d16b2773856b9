"""Who the people are: ids, ancestry, age, sex, scanner, head size and head position.

The covariates are measured, and mostly environment: none carries a planted locus. Site, age and head size differ
between ancestries, and all of them move brain factors, so leaving them or the components out gives false loci.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from udipdist.cohort.brains import SITES
from udipdist.cohort.factors import NAMES
from udipdist.cohort.pedigree import Pedigree, singles_ancestry

AGE_MEAN, AGE_SD, AGE_MIN, AGE_MAX = 63.0, 7.5, 44.0, 83.0
OBSERVED_PARENT_AGE, THEIR_CHILD_AGE = 75.0, 50.0
SITE_NAMES = ("Ashford", "Barrow", "Corby", "Dover")
# Probability of each site, by population: clinics serve different towns.
SITE_BY_POPULATION = np.array(
    [[0.45, 0.35, 0.15, 0.05], [0.25, 0.25, 0.15, 0.35], [0.15, 0.15, 0.40, 0.30], [0.10, 0.20, 0.50, 0.20]]
)
AGE_BY_POPULATION = np.array([0.0, 0.0, -3.0, -3.0])  # years
HEAD_BY_POPULATION = np.array([0.0, -0.2, -0.6, -0.4])  # SDs of head size
HEAD_POSITION_MM = np.array(
    [[0.0, 60.0, -35.0], [1.0, 56.0, -30.0], [-0.5, 63.0, -42.0], [0.0, 58.0, -33.0]]
)  # by site
HEAD_POSITION_SD_MM = np.array([1.5, 5.0, 7.0])

# SDs of a factor per SD of a covariate (sex: between the sexes).
EFFECTS: dict[str, dict[str, float]] = {
    "age": {
        "ventricles": 0.55, "thick_global": -0.5, "int_wm_pv": 0.5, "hippocampus": -0.4, "int_putamen": -0.4,
        "callosum": -0.3, "thick_frontal": -0.25, "thick_temporal": -0.25, "int_gm": -0.2, "size": -0.1,
    },
    "sex": {
        "size": 0.7, "length": 0.3, "ventricles": 0.2, "cerebellum": 0.2, "int_gm": 0.15, "thick_global": -0.1,
    },
    "head_size": {"size": 0.35, "width": 0.2, "length": 0.15, "ventricles": 0.15, "thick_global": 0.1},
    "head_x": {"torque": 0.1},
    "head_y": {"int_wm_ap": 0.2, "int_gm": 0.1},
    "head_z": {"int_thalamus": 0.1, "shape00": 0.1, "int_wm_ap": 0.1},
}  # fmt: skip


@dataclass(frozen=True)
class People:
    """A group of people. `table` has FID IID age sex (1 male) site (0..3) head_size head_x head_y head_z."""

    table: pd.DataFrame
    ancestry: np.ndarray  # float64 [N, Q], expected shares
    family: np.ndarray  # int64 [N], 0 .. number of families - 1

    def standardised(self) -> dict[str, np.ndarray]:
        """Covariates in units of EFFECTS: fixed centres and scales, so that people do not depend on each other."""
        table = self.table
        head = table[["head_x", "head_y", "head_z"]].to_numpy()
        position = (head - HEAD_POSITION_MM.mean(0)) / HEAD_POSITION_SD_MM
        return {
            "age": (table["age"].to_numpy() - AGE_MEAN) / AGE_SD,
            "sex": table["sex"].to_numpy() - 0.5,
            "head_size": (table["head_size"].to_numpy() - 1.3) / 0.1,
            "head_x": position[:, 0],
            "head_y": position[:, 1],
            "head_z": position[:, 2],
        }

    def covariate_part(self) -> np.ndarray:
        """What the covariates add to the factors, float64 [N, K]."""
        values, part = self.standardised(), np.zeros((len(self.table), len(NAMES)))
        for covariate, effects in EFFECTS.items():
            for factor, effect in effects.items():
                part[:, NAMES.index(factor)] += effect * values[covariate]
        return part


def tested_people(pedigree: Pedigree, rng: np.random.Generator) -> People:
    """The people with genotypes, in the order of .fam. Fathers are men; parents are older than their children."""
    seen = pedigree.observed
    sex = rng.integers(0, 2, len(pedigree.father))
    parents = np.zeros(len(pedigree.father), bool)
    for side, value in ((pedigree.father, 1), (pedigree.mother, 0)):
        sex[side[side >= 0]] = value
        parents[side[side >= 0]] = True
    observed = np.zeros(len(pedigree.father), bool)
    observed[seen] = True
    descends = pedigree.father >= 0
    child = descends & (observed[pedigree.father] | observed[pedigree.mother])
    centre = np.where(parents, OBSERVED_PARENT_AGE, np.where(child, THEIR_CHILD_AGE, AGE_MEAN))[seen]
    spread = np.where(parents | child, AGE_SD / 2, AGE_SD)[seen]
    _, family = np.unique(pedigree.family[seen], return_inverse=True)
    ids = [f"G{i:06d}" for i in range(len(seen))]
    return _draw(ids, [f"F{f:06d}" for f in family], pedigree.ancestry[seen], family, sex[seen], centre, spread, rng)


def training_people(count: int, rng: np.random.Generator) -> People:
    """People with a scan only: no genotypes, no relatives."""
    ids = [f"T{i:06d}" for i in range(count)]
    ancestry, sex = singles_ancestry(count, rng), rng.integers(0, 2, count)
    return _draw(ids, ids, ancestry, np.arange(count), sex, np.full(count, AGE_MEAN), np.full(count, AGE_SD), rng)


def _draw(
    ids: list[str], families: list[str], ancestry: np.ndarray, family: np.ndarray, sex: np.ndarray,
    age_mean: np.ndarray, age_sd: np.ndarray, rng: np.random.Generator,
) -> People:  # fmt: skip
    n = len(ids)
    age = age_mean + ancestry @ AGE_BY_POPULATION + age_sd * rng.standard_normal(n)
    cumulative = np.cumsum(ancestry @ SITE_BY_POPULATION, 1)
    site = (cumulative < rng.random((n, 1))).sum(1).clip(0, len(SITES) - 1)
    head_size = 1.1 * (sex - 0.5) + ancestry @ HEAD_BY_POPULATION + 0.8 * rng.standard_normal(n)
    head = HEAD_POSITION_MM[site] + HEAD_POSITION_SD_MM * rng.standard_normal((n, 3))
    table = pd.DataFrame(
        {
            "FID": families,
            "IID": ids,
            "age": np.clip(age, AGE_MIN, AGE_MAX).round(2),
            "sex": sex,
            "site": site,
            "head_size": (1.3 + 0.1 * head_size).round(5),
            **{f"head_{axis}": head[:, i].round(3) for i, axis in enumerate("xyz")},
        }
    )
    return People(table, ancestry, family)
