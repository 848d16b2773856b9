"""Columns that may be codes are named, with what to type; measurements are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from udipdist.people import coding
from udipdist.people.design import Formula

N = 200
RNG = np.random.default_rng(1)


@pytest.mark.parametrize(
    ("levels", "told"),
    [
        ((0, 1), "y: the only values are 0 and 1. They are tested as numbers by a linear model"),
        ((1, 2), "the only values are 1 and 2, as PLINK codes controls and cases"),
        ((0, 1, 2), "type missing=[-9, 0]"),
        ((1, 2, 3, 4, 5), "tested as measurements with equal steps"),
        ((0.5, 1.5), "a difference in frequency"),
        ((0.1, 0.2, 0.7), None),
        (tuple(range(40)), None),
    ],
)
def test_traits(levels, told, caplog):
    y_NP = np.array([levels[i % len(levels)] for i in range(N)], float)[:, None]
    y_NP[3] = np.nan
    coding.warn_of_traits(Path("p.tsv"), ["y"], y_NP)
    assert told in caplog.text if told else not caplog.text


def test_traits_with_the_same_values_share_a_warning(caplog):
    y_NP = RNG.integers(0, 2, (N, 3)).astype(float)
    coding.warn_of_traits(Path("p.tsv"), ["a", "b", "c"], np.column_stack([y_NP, RNG.standard_normal(N)]))
    assert len(caplog.records) == 1 and "a, b, c:" in caplog.text


@pytest.mark.parametrize(
    ("name", "values", "formula", "told"),
    [
        ("site", [11025, 11026, 11027], None, "type formula='age + C(site)'"),
        ("54-2.0", [11025, 11026, 11027], None, "type formula='age + C(`54-2.0`)'"),
        ("site", [11025, 11026, 11027], "age + site", "type formula='... C(site) ...'"),
        ("batch", list(range(30)), None, "30 in batch"),
        ("site", [11025, 11026, 11027], "age + C(site)", None),
        ("site", [1, 2], None, None),
        ("PC1", [0.1, 0.2, 0.3], None, None),
        ("years", list(range(45, 81)), None, None),
    ],
)
def test_covariates(name, values, formula, told, caplog):
    table = pd.DataFrame({"age": RNG.uniform(45, 80, N), name: [float(values[i % len(values)]) for i in range(N)]})
    coding.warn_of_covariates(Path("c.tsv"), table, Formula.parse(formula, ["age", name]))
    assert told in caplog.text if told else not caplog.text
