"""The simulated diseases: prevalences and effects as said, records that give the phecode table, targets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from udipdist.cohort import diseases
from udipdist.cohort.factors import NAMES
from udipdist.cohort.people import training_people


@pytest.fixture(scope="module")
def people():
    return training_people(6000, np.random.default_rng(1))


@pytest.fixture(scope="module")
def factors(people):
    return np.random.default_rng(2).standard_normal((6000, len(NAMES))) * 2 + 1


@pytest.fixture(scope="module")
def drawn(people, factors):
    return diseases.draw(people, factors, np.random.default_rng(3))


def test_sixty_diseases_half_of_them_without_effects(drawn):
    truth = drawn.truth
    assert len(truth) == 60 and truth.category.value_counts().eq(10).all()
    assert (truth.b == 0).sum() == 30 and (truth.factor[truth.b == 0] == "").all()
    assert truth.prevalence.min() == pytest.approx(0.002) and truth.prevalence.max() == pytest.approx(0.15)
    people_of = np.where(truth.sex == "Both", 6000, 3000)
    np.testing.assert_allclose(truth.cases, truth.prevalence * people_of, rtol=0.08, atol=1.5)
    assert list(drawn.phecodes.columns[2:]) == truth.phecode.tolist() and "008.1" in drawn.phecodes


def test_effects_are_those_of_the_truth(drawn, people, factors):
    """Under a normal liability the difference of means of cases and controls, in SDs, follows from b and prevalence."""
    for row in drawn.truth[drawn.truth.cases > 200].itertuples():
        status = drawn.phecodes[row.phecode]
        age = people.standardised()["age"]
        spread = np.sqrt(1 + row.b**2 + (diseases.AGE_EFFECT * age.std()) ** 2 + (diseases.SEX_EFFECT / 2) ** 2)
        for value, slope in (
            (factors[:, NAMES.index(row.factor)] if row.factor else None, row.b),
            (age, 0.3 * age.std()),
        ):
            if value is None:
                continue
            z = stats.zscore(value)
            height = stats.norm.pdf(stats.norm.isf(row.prevalence))
            expected = slope / spread * (height / row.prevalence + height / (1 - row.prevalence))
            found = z[(status == 1).fillna(False)].mean() - z[(status == 0).fillna(False)].mean()
            assert found == pytest.approx(expected, abs=4 / np.sqrt(row.cases))


def test_records_give_the_phecode_table_by_the_rule_of_two_dates(drawn, people):
    code = drawn.events.code.str.upper().str.replace(".", "")
    assert code.ne(drawn.events.code).any() and drawn.events.code.str.contains(".", regex=False).any()
    known = {c.replace(".", ""): phecode for c, phecode in zip(drawn.map.code, drawn.map.phecode, strict=True)}
    phecode = [next(known[c[:n]] for n in (5, 4, 3) if c[:n] in known) for c in code]
    dates = drawn.events.assign(phecode=phecode).groupby(["phecode", "IID"]).date.nunique()
    for row in drawn.truth.itertuples():
        number = dates[row.phecode].reindex(people.table.IID).fillna(0).to_numpy()
        expected = pd.Series(np.select([number >= 2, number == 1], [1.0, np.nan], 0.0)).astype("Int8")
        if row.sex != "Both":
            expected[people.table.sex.to_numpy() != int(row.sex == "Male")] = pd.NA
        pd.testing.assert_series_equal(drawn.phecodes[row.phecode], expected, check_names=False)


def test_definitions_know_every_code_and_its_parent(drawn):
    assert set(drawn.map.phecode) == set(drawn.truth.phecode)
    parents = set(drawn.truth.phecode.str[:3])
    assert set(drawn.definitions.phecode) == set(drawn.truth.phecode) | parents and len(parents) == 30
    assert (drawn.definitions.phecode_exclude_range.str.split("-").str[0] == drawn.definitions.phecode.str[:3]).all()


def test_targets(people, factors):
    table = diseases.targets(people, factors, np.random.default_rng(0))
    np.testing.assert_array_equal(table[f"factor_{NAMES[3]}"], factors[:, 3])
    assert set(table.sex.dropna()) == {0.0, 1.0} and 0.03 < table.age.isna().mean() < 0.07
    ok = table.site_reading.notna()
    assert np.corrcoef(table.site_reading[ok], people.table.site[ok])[0, 1] > 0.7
    assert table.null_tenth.mean() == pytest.approx(0.1, abs=0.02)
