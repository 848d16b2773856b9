"""Who is analysed: matching of people, phenotypes and covariates, groups of traits, and what is refused."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hpc.errors import InputError
from udipdist.genotypes.plink1 import read_fam
from udipdist.gwas.samples import assemble, normal_scores


@pytest.fixture
def cohort(make_cohort, tmp_path):
    return make_cohort(tmp_path / "c", seed=1, n=60, m=5)


def sample_of(cohort, **keys):
    config = cohort.config(**keys)
    return assemble(read_fam(str(cohort.folder / "c")), f"{config.genotypes}.fam", config.phenotypes, config)


def rewrite(cohort, name: str, change) -> None:
    """Change the table c.NAME of a cohort."""
    path = cohort.folder / f"c.{name}"
    table = pd.read_csv(path, sep="\t", dtype={"FID": str, "IID": str})
    change(table).to_csv(path, sep="\t", index=False, na_rep="NA")


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
    with pytest.raises(InputError, match=r"c.covar: 2 people are listed more than once \(F0 I0, F1 I1\)"):
        sample_of(cohort)
    fam = read_fam(str(cohort.folder / "c"))
    fam.loc[1, "IID"] = "I0"
    with pytest.raises(
        InputError, match=r"c.fam: 1 people are listed more than once \(I0\).*match=iid ignores the FID"
    ):
        assemble(fam, "c.fam", [cohort.folder / "c.pheno"], cohort.config(match="iid"))


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
        InputError, match=r"c1 missing for 2 of 60 people \(F3 I3, F9 I9\).*type missing_covariates=drop"
    ):
        sample_of(cohort)
    found = sample_of(cohort, missing_covariates="drop")
    assert found.n == 58 and list(found.tables[0].dropped.reason) == ["missing covariates"] * 2
    assert sample_of(cohort, formula="c0").n == 60  # a column that is not used may have gaps


def test_minus_nine_among_covariates_leaves_the_same_people_out_as_na(cohort):
    """As in a table of PLINK: -9 is no age."""
    rewrite(cohort, "covar", lambda t: t.assign(c1=t.c1.mask(t.index.isin([3, 9]), -9)))
    with pytest.raises(InputError, match=r"c1 missing for 2 of 60 people \(F3 I3, F9 I9\)"):
        sample_of(cohort)
    coded = sample_of(cohort, missing_covariates="drop")
    assert sample_of(cohort, missing=()).n == 60
    rewrite(cohort, "covar", lambda t: t.assign(c1=t.c1.mask(t.index.isin([3, 9]))))
    empty = sample_of(cohort, missing_covariates="drop")
    assert coded.n == empty.n == 58
    np.testing.assert_array_equal(coded.covariates, empty.covariates)
    np.testing.assert_array_equal(coded.y_NP, empty.y_NP)


def test_traits_and_covariates_that_look_like_codes_are_named(cohort, caplog):
    rewrite(cohort, "pheno", lambda t: t.assign(case=t.index % 2 + 1))
    rewrite(cohort, "covar", lambda t: t.assign(site=t.index % 4 + 11025))
    assert sample_of(cohort).covariates.site.tolist() == [11025.0 + i % 4 for i in range(60)]
    assert "case: the only values are 1 and 2, as PLINK codes controls and cases" in caplog.text
    assert "4 in site), each used as one slope" in caplog.text and "C(site)'" in caplog.text


def test_a_formula_needs_covariates(cohort):
    with pytest.raises(InputError, match="needs covariates=FILE"):
        sample_of(cohort, formula="c0", covariates=None)


def test_normal_scores():
    y = np.array([[5.0, np.nan], [1.0, 2.0], [5.0, 1.0], [9.0, 3.0]])
    rank = np.array([[2.5, np.nan], [1, 2], [2.5, 1], [4, 3]])
    expected = stats.norm.ppf((rank - 0.375) / (np.array([4, 3]) + 0.25))
    np.testing.assert_allclose(normal_scores(y), expected)
