"""Covariates: formulas, dummies, and columns that cannot be used."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hpc.errors import InputError
from udipdist.people import design as designs
from udipdist.people import fields


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


UKB = ("21003-2.0", "f.31.0.0", "p25735_i2", "n_54_2_0", "22009-0.1")


@pytest.mark.parametrize(
    ("formula", "columns"),
    [
        ('Q("21003-2.0") + sex', ("21003-2.0", "f.31.0.0")),
        ("Q('21003-2.0')", ("21003-2.0",)),
        ("`21003-2.0` + f.31.0.0", ("21003-2.0", "f.31.0.0")),
        ("21003-2.0 + I(21003-2.0**2)", ("21003-2.0",)),
        ("p21003_i2 + p31 + Q('25735-2.0')", ("21003-2.0", "f.31.0.0", "p25735_i2")),
        ("age + I(age**2) + inverted_cnr + C(centre) + PC1", ("21003-2.0", "p25735_i2", "n_54_2_0", "22009-0.1")),
        ("p22009_a1", ("22009-0.1",)),
        ("31-0.0 + f.25735.2.0 + participant.p21003_i2", ("f.31.0.0", "p25735_i2", "21003-2.0")),
    ],
)
def test_fields_of_uk_biobank_in_a_formula(formula, columns):
    aliases = fields.read_aliases(None)
    parsed = designs.Formula.parse(formula, list(UKB), aliases)
    assert parsed.columns == columns
    table = pd.DataFrame({"FID": "f", "IID": list("abcd")} | {name: [1.0, 2.0, 3.0, 5.0] for name in UKB})
    made = designs.encode(table, parsed, "t.csv")
    assert made.iloc[:, 0].tolist() == table[columns[0]].tolist() and np.isfinite(made).all(axis=None)


def test_aliases_of_the_user_and_those_that_are_not_there(tmp_path):
    (tmp_path / "a.tsv").write_text("name\tfield\nheight\t50-2.0\nage\tyears\n")
    aliases = fields.read_aliases(tmp_path / "a.tsv")
    assert designs.Formula.parse("height + age", ["p50_i2", "years"], aliases).columns == ("p50_i2", "years")
    assert designs.Formula.parse("age", ["age", "years"], aliases).columns == ("age",)
    with pytest.raises(InputError, match="centre is the alias of 54-2.0, which is not a covariate"):
        designs.Formula.parse("C(centre)", ["years"], aliases)
    (tmp_path / "a.tsv").write_text("name\tcolumn\nheight\t50-2.0\n")
    with pytest.raises(InputError, match="must have name and field"):
        fields.read_aliases(tmp_path / "a.tsv")


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("21003-2.0", (21003, 2, 0)), ("f.21003.2.0", (21003, 2, 0)), ("X21003.2.0", (21003, 2, 0)),
        ("p21003_i2", (21003, 2, 0)), ("participant.p22009_a3", (22009, 0, 3)), ("n_21003_2_0", (21003, 2, 0)),
        ("age_when_attended_f21003_2_0", (21003, 2, 0)), ("p31", (31, 0, 0)), ("21003-2", (21003, 2, 0)),
        ("age", None), ("PC1", None), ("2.0", None), ("x_1_2", None),
    ],
)  # fmt: skip
def test_spellings_of_fields(name, field):
    assert fields.parse(name) == field


def test_arithmetic_that_looks_like_a_field_stays_arithmetic():
    table = pd.DataFrame({"FID": "f", "IID": list("abcd"), "age": [2.0, 3.0, 5.0, 9.0]})
    parsed = designs.Formula.parse("I(age * (20-1.5))", ["age"])
    assert designs.encode(table, parsed, "t.csv").iloc[:, 0].tolist() == [37, 55.5, 92.5, 166.5]
