"""Covariates: formulas, dummies, and columns that cannot be used."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hpc.errors import InputError
from udipdist.people import design as designs


def table_of(**columns) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    ids = {"FID": [f"F{i}" for i in range(n)], "IID": [f"I{i}" for i in range(n)]}
    return pd.DataFrame(
        ids | {name: np.array(v, object if isinstance(v[0], str) else float) for name, v in columns.items()}
    )


def encoded(formula: str | None, table: pd.DataFrame) -> pd.DataFrame:
    parsed = designs.Formula.parse(formula, list(table.columns[2:]))
    return designs.encode(table, parsed, "t.txt")


def test_the_formula_of_the_manual():
    rng = np.random.default_rng(0)
    age, sex = rng.normal(60, 8, 50), rng.integers(0, 2, 50).astype(float)
    table = table_of(age=age, sex=sex, site=list("abcab" * 10))
    found = encoded("age + I(age**2) + sex + sex:age + C(site)", table)
    expected = {
        "age": age,
        "I(age ** 2)": age**2,
        "sex": sex,
        "C(site)[T.b]": table.site == "b",
        "C(site)[T.c]": table.site == "c",
        "sex:age": sex * age,
    }
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], np.asarray(values, float))


def test_without_a_formula_every_column_counts_and_text_becomes_dummies():
    table = table_of(**{"f.1.0": [1, 2, 3, 4.0], "site": ["x", "y", "x", "z"]})
    assert list(encoded(None, table)) == ["f.1.0", "site[T.y]", "site[T.z]"]
    assert list(encoded("`f.1.0` + I(`f.1.0`**2)", table)) == ["f.1.0", "I(f.1.0 ** 2)"]
    assert encoded("1", table).shape == (4, 0)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("agee", "agee is not a covariate; did you mean age?"),
        ("age**2", r"must be written I\(age\*\*2\)"),
        ("age - 1", "leaves out the intercept"),
        ("y ~ age", "right side only"),
        ("age +", "Operator"),
        ("I(__import__('os').getpid())", "is not allowed"),
        ("I(age.real)", "is not allowed"),
        ("open(age)", r"open\(\) is not allowed"),
        ("f.1.0", "odd characters"),
        ("log(age)", "log.age. of F2 I2 is -inf; it must be finite"),
    ],
)
def test_formulas_that_cannot_be_used(formula, message):
    with pytest.raises(InputError, match=message):
        encoded(formula, table_of(age=[1, 2, 0.0, 3], sex=[0, 1, 0, 1.0]))


def test_constant_and_collinear_columns_are_dropped_by_name(caplog):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 30))
    columns = pd.DataFrame(
        {"a": a, "one": 7.0, "b": b, "sum": 2 * a - b + 5, "tiny": 1e-9 * (a * b), "again": a + 1e-9 * b}
    )
    found = designs.design(columns)
    assert (found.names, found.constant, found.collinear) == (["a", "b", "tiny"], ["one"], ["sum", "again"])
    np.testing.assert_allclose(found.q_NK.T @ found.q_NK, np.eye(4), atol=1e-12)
    designs.warn_dropped(found)
    assert "constant covariate columns are dropped: one" in caplog.text and "dropped: sum, again" in caplog.text


def test_a_text_column_with_too_many_values_is_refused():
    with pytest.raises(InputError, match="text covariate id has 201 different values"):
        encoded(None, table_of(id=[f"v{i}" for i in range(201)]))
