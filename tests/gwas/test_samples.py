"""People, phenotypes and covariates: matching, encoding, and every table that is not what it should be."""

from __future__ import annotations

import gzip
import logging

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hpc.errors import InputError
from udipdist.genotypes.plink1 import read_fam
from udipdist.gwas.samples import assemble, normal_scores
from udipdist.people import design as designs
from udipdist.people import tables


@pytest.fixture
def cohort(make_cohort, tmp_path):
    return make_cohort(tmp_path / "c", seed=1, n=60, m=5)


def sample_of(cohort, **keys):
    config = cohort.config(**keys)
    return assemble(config, read_fam(str(cohort.folder / "c")))


def rewrite(cohort, name: str, change) -> None:
    """Change the table c.NAME of a cohort."""
    path = cohort.folder / f"c.{name}"
    table = pd.read_csv(path, sep="\t", dtype={"FID": str, "IID": str})
    change(table).to_csv(path, sep="\t", index=False, na_rep="NA")


# ------------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("kind", ["tab", "comma", "blank", "gzip", "hash", "windows", "spaced", "parquet"])
def test_tables_of_every_kind_read_alike(tmp_path, kind):
    table = pd.DataFrame({"FID": ["01", "b"], "IID": ["1", "002"], "x": [1.5, np.nan], "y": [-3.0, 1e-30]})
    path = tmp_path / ("t.parquet" if kind == "parquet" else "t.tsv.gz" if kind == "gzip" else "t.txt")
    if kind == "parquet":
        table.to_parquet(path)
    else:
        text = table.to_csv(sep={"comma": ",", "blank": " "}.get(kind, "\t"), index=False, na_rep="NA")
        text = "#" + text if kind == "hash" else text
        if kind == "windows":
            text = "\ufeff" + text.replace("\n", "\r\n")
        elif kind == "spaced":
            text = text.replace("\t", " , ")
        path.write_bytes(gzip.compress(text.encode()) if kind == "gzip" else text.encode())
    people, traits, values = tables.read_phenotypes(path, "fid_iid")
    assert people.to_numpy().tolist() == [["01", "1"], ["b", "002"]] and traits == ["x", "y"]
    np.testing.assert_array_equal(values, [[1.5, -3.0], [np.nan, 1e-30]])
    assert tables.column_names(path) == ["x", "y"]


def test_minus_nine_is_missing_in_a_text_phenotype_only(tmp_path):
    (tmp_path / "t.txt").write_text("FID IID x\na 1 -9\nb 2 -9.5\n")
    assert np.isnan(tables.read_phenotypes(tmp_path / "t.txt", "fid_iid")[2]).ravel().tolist() == [True, False]
    assert tables.read_covariates(tmp_path / "t.txt", "fid_iid").x.tolist() == [-9, -9.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FID\tIID\tx\na\t1\t2\na\t1\t3\n", r"1 people stand there more than once \(a 1\)"),
        ("FID\tIID\tx\na\t1\t2\nb\t2\tlow\n", r"trait x of b 2 \(row 2\) is 'low', not a number"),
        ("FID\tIID\tx\na\t1\tinf\n", r"trait x of a 1 \(row 1\) is infinite"),
        ("FID\tIID\tminp\na\t1\t2\n", "a trait is called 'minp'"),
        ("FID\tIID\na\t1\n", "has no column beside FID and IID"),
        ("IID\tx\n1\t2\n", "has no column FID .*match=iid will do without FID"),
        ("a\tb\tx\n1\t2\t3\n", "has no column IID .*the first line must name the columns"),
        ("FID\tIID\tx\tx\na\t1\t2\t3\n", "two columns called 'x'"),
        ("FID\tIID\tx\n\t1\t2\n", "row 1: has no FID"),
        ("FID\tIID\tx\na\t1\t2\t3\t4\n", "line 2: is not a table row with 3 columns but 5 cells"),
        ("FID\tIID\tx\ty\na\t1\t2\t3\nb\t2\t3", "line 3: is not a table row with 4 columns but 3 cells"),
        ("FID IID x\na 1 2\nb 2\n", "line 3: is not a table row with 3 columns but 2 cells"),
        ("FID\tIID\tx\n", "has columns but no rows"),
        ("", "is empty"),
    ],
)
def test_broken_phenotype_tables_are_refused(tmp_path, text, message):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        tables.read_phenotypes(tmp_path / "t.txt", "fid_iid")


def test_files_that_are_no_tables_are_refused(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    (tmp_path / "t.txt").write_bytes(bytes(range(128, 256)))
    (tmp_path / "t.tsv.gz").write_bytes(gzip.compress(b"FID IID x\n" + b"a 1 2\n" * 99)[:-20])
    (tmp_path / "folder.tsv").mkdir()
    for name, message in (
        ("t.parquet", "not a Parquet"),
        ("t.txt", "not a text table"),
        ("t.csv", "no such file"),
        ("t.tsv.gz", "not a t"),
        ("folder.tsv", "is a folder"),
    ):
        with pytest.raises(InputError, match=message):
            tables.read_table(tmp_path / name, "fid_iid")


def test_a_number_column_with_a_word_in_it_is_refused(tmp_path):
    (tmp_path / "t.txt").write_text("FID IID age\na 1 50\nb 2 old\nc 3 60\n")
    with pytest.raises(InputError, match=r"covariate age of b 2 \(row 2\) is 'old' among numbers"):
        tables.read_covariates(tmp_path / "t.txt", "fid_iid")


# --------------------------------------------------------------------------------------------------- covariates


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
        ("agee", "agee is no covariate; did you mean age?"),
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


# -------------------------------------------------------------------------------------------------------- people


def test_people_are_those_with_everything_in_the_order_of_the_fam(cohort, caplog):
    caplog.set_level(logging.INFO)
    rewrite(cohort, "pheno", lambda t: t.iloc[np.r_[0:3, 5:60]].iloc[::-1])
    rewrite(cohort, "covar", lambda t: pd.concat([t.iloc[np.r_[0:10, 12:60]], t.iloc[:1].assign(IID="stranger")]))
    found = sample_of(cohort)
    expected = [i for i in range(60) if i not in (3, 4, 10, 11)]
    np.testing.assert_array_equal(found.fam_N, expected)
    assert list(found.people.IID) == [f"I{i}" for i in expected]
    np.testing.assert_allclose(found.y_NP, cohort.traits.to_numpy()[expected])
    np.testing.assert_allclose(found.covariates, cohort.covariates.to_numpy()[expected])
    reasons = {tuple(row) for row in found.tables[0].dropped[["IID", "reason"]].to_numpy()}
    assert reasons == {(f"I{i}", "no row in c.pheno") for i in (3, 4)} | {
        (f"I{i}", "no row in c.covar") for i in (10, 11)
    }
    assert "2 people are left out: no row in c.pheno (F3 I3, F4 I4)" in caplog.text


def test_traits_are_grouped_by_who_is_missing(cohort):
    def change(table):
        table.loc[[2, 5], ["y0", "y2"]] = np.nan
        table.loc[7] = table.loc[7].where(table.columns.isin(["FID", "IID"]))
        return table

    rewrite(cohort, "pheno", change)
    found = sample_of(cohort)
    assert found.n == 59 and "every trait is missing" in set(found.tables[0].dropped.reason)
    groups = [(len(group.row_N), group.trait_P.tolist()) for group in found.groups()]
    assert groups == [(57, [0, 2]), (59, [1])]


def test_ids_that_do_not_match(cohort):
    rewrite(cohort, "pheno", lambda t: t.assign(FID=t.IID))
    with pytest.raises(
        InputError, match=r"\(FID IID: I0 I0, I1 I1 and 58 more\).*\(F0 I0, .*60 of the IIDs agree: type match=iid"
    ):
        sample_of(cohort)
    rewrite(cohort, "covar", lambda t: t.drop(columns="FID"))
    assert sample_of(cohort, match="iid").n == 60
    rewrite(cohort, "pheno", lambda t: t.assign(IID="x" + t.IID))
    with pytest.raises(InputError, match=r"none of its 60 people \(IID: xI0.*make the ids agree"):
        sample_of(cohort, match="iid")


def test_duplicate_people_are_refused(cohort):
    rewrite(cohort, "covar", lambda t: pd.concat([t, t.iloc[:2]]))
    with pytest.raises(InputError, match=r"c.covar: 2 people stand there more than once \(F0 I0, F1 I1\)"):
        sample_of(cohort)
    fam = read_fam(str(cohort.folder / "c"))
    fam.loc[1, "IID"] = "I0"
    with pytest.raises(
        InputError, match=r"c.fam: 1 people stand there more than once \(I0\).*match=iid ignores the FID"
    ):
        assemble(cohort.config(match="iid"), fam)


@pytest.mark.parametrize(
    ("values", "message"),
    [(3.0, r"y1 is constant \(3.0\) over the people analysed"), (np.nan, "y1 has no value for any of the 60 people")],
)
def test_constant_and_empty_traits_are_refused(cohort, values, message):
    rewrite(cohort, "pheno", lambda t: t.assign(y1=values))
    with pytest.raises(InputError, match=message):
        sample_of(cohort)


@pytest.mark.parametrize("factor", [1e-40, 1e40, 1e300])
def test_a_trait_whose_effects_float32_cannot_hold_is_refused(cohort, factor):
    rewrite(cohort, "pheno", lambda t: t.assign(y1=t.y1 * factor))
    with pytest.raises(InputError, match=r"y1 varies by \d.*float32, which needs 1e-30 to 1e\+30: write the trait in"):
        sample_of(cohort)
    assert sample_of(cohort, normalise="rank").n == 60  # which have a unit of their own
    rewrite(cohort, "pheno", lambda t: t.assign(y1=t.y1 / factor * 1e20))
    assert sample_of(cohort).n == 60


def test_missing_covariates_are_refused_or_dropped(cohort):
    def change(table):
        table.loc[[3, 9], "c1"] = np.nan
        return table

    rewrite(cohort, "covar", change)
    with pytest.raises(
        InputError, match=r"c1 missing \(NA\) for 2 of 60 people \(F3 I3, F9 I9\).*type missing_covariates=drop"
    ):
        sample_of(cohort)
    found = sample_of(cohort, missing_covariates="drop")
    assert found.n == 58 and list(found.tables[0].dropped.reason) == ["missing covariates"] * 2
    assert sample_of(cohort, formula="c0").n == 60  # a column that is not used may have gaps


def test_a_formula_needs_covariates(cohort):
    with pytest.raises(InputError, match="needs covariates=FILE"):
        sample_of(cohort, formula="c0", covariates=None)


def test_normal_scores():
    y = np.array([[5.0, np.nan], [1.0, 2.0], [5.0, 1.0], [9.0, 3.0]])
    rank = np.array([[2.5, np.nan], [1, 2], [2.5, 1], [4, 3]])
    expected = stats.norm.ppf((rank - 0.375) / (np.array([4, 3]) + 0.25))
    np.testing.assert_allclose(normal_scores(y), expected)
