"""udipdist phewas: what it writes from a simulated cohort's diseases, and what it refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hpc.errors import ConfigError, InputError
from hpc.stage import read_manifest
from udipdist.analysis.phewas.verb import phewas, preview, read
from udipdist.config import PhewasConfig

N, L = 1200, 8


@pytest.fixture
def study(tmp_path):
    rng = np.random.default_rng(0)
    people = pd.DataFrame({"FID": [f"F{i // 2}" for i in range(N)], "IID": [f"I{i}" for i in range(N)]})
    x = rng.normal(size=(N, L))
    latents = pd.concat([people, pd.DataFrame(x, columns=[f"z{i:03d}" for i in range(L)])], axis=1)
    latents.to_parquet(tmp_path / "mine.parquet", index=False)
    shuffled = latents.copy()
    shuffled.iloc[:, 2:] = rng.permutation(x)
    shuffled.to_parquet(tmp_path / "other.parquet", index=False)
    sex = rng.integers(0, 2, N)
    people.assign(age=rng.normal(60, 8, N), sex=sex).to_csv(tmp_path / "covariates.tsv", sep="\t", index=False)
    has = {
        "008": x[:, 0] * 1.2 + rng.normal(size=N) > 2,
        "250.2": rng.random(N) < 0.2,
        "401": rng.random(N) < 0.15,
        "580.1": (x[:, 1] + rng.normal(size=N) > 1.2) & (sex == 1),
        "999": np.arange(N) < 4,
    }
    table = people.assign(**{code: value.astype(int) for code, value in has.items()})
    table.to_csv(tmp_path / "phecodes.tsv", sep="\t", index=False)
    icd = dict(zip(has, ("A01", "E11", "I10", "N40", "Z99"), strict=True))
    rows = [
        (people.IID[i], icd[code], "ICD10", f"20{year}-03-01") for code in has for i in np.flatnonzero(has[code])
        for year in (10, 11)
    ]  # fmt: skip
    pd.DataFrame(rows, columns=["IID", "code", "vocabulary", "date"]).to_csv(
        tmp_path / "events.tsv", sep="\t", index=False
    )
    icds = pd.DataFrame({"code": icd.values(), "vocabulary": "ICD10", "phecode": icd.keys()})
    icds.to_csv(tmp_path / "map.tsv", sep="\t", index=False)
    pd.DataFrame(
        {
            "phecode": list(has), "phenotype": ["gut", "sugar", "pressure", "gland", "rare"],
            "sex": ["Both", "Both", "Both", "Male", "Both"], "category": ["a", "a", "b", "b", "b"],
        }
    ).to_csv(tmp_path / "definitions.tsv", sep="\t", index=False)  # fmt: skip
    return tmp_path


def configured(study, **keys) -> PhewasConfig:
    places = {name: study / f"{name}.tsv" for name in ("phecodes", "covariates", "definitions")}
    return PhewasConfig.parse({"latents": study / "mine.parquet", "out": study / "out"} | places | keys)


def table_of(path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", dtype={"phecode": str})


def test_planted_diseases_are_found_in_the_table_that_has_them(study):
    config = configured(study, latents=[study / "mine.parquet", study / "other.parquet"], permutations=19)
    phewas(config)
    table = table_of(config.out / "phewas.tsv")
    own = table[table.latents == "mine"].set_index("phecode")
    assert set(own.index[own.bonferroni < 0.05]) == {"008", "580.1"} and own.loc["008", "category"] == "a"
    assert (own.loc["580.1", ["cases", "controls"]].sum()) < 0.6 * N  # of one sex
    assert own.loc["008", "lower"] > 1 and own.loc["008", "phenotype"] == "gut"
    summary = table_of(config.out / "summary.tsv").set_index("latents")
    assert summary["bonferroni"].to_dict() == {"mine": 2, "other": 0}
    skipped = table_of(config.out / "skipped.tsv")
    assert skipped.phecode.tolist() == ["999"] and skipped.reason[0] == "fewer than 50 cases or controls"
    facts = read_manifest(config.out)["facts"]
    assert (facts["people"], facts["phecodes"], facts["skipped"]) == (N, 4, 1)
    assert set(facts["captions"]) == {"qq_mine.png", "qq_other.png"}
    assert (config.out / "qq_mine.pdf").stat().st_size > 1000


def test_events_say_the_same_as_the_table(study):
    one = read(configured(study))
    events = {"phecodes": None, "events": study / "events.tsv", "map": study / "map.tsv", "exclusions": False}
    other = read(configured(study, **events))
    own = pd.DataFrame(one.status_PN, index=one.codes.phecode)
    theirs = pd.DataFrame(other.status_PN, index=other.codes.phecode)
    assert set(theirs.index) == {"008", "250", "250.2", "401", "580", "580.1"}
    assert (own == theirs.loc[own.index]).all(axis=None)


def test_the_published_rule_tests_one_half(study):
    config = configured(study, direction="centroid", crossfit=False)
    phewas(config)
    assert table_of(config.out / "phewas.tsv").set_index("phecode").loc["008", "p"] < 1e-6


def test_the_dry_run_says_what_would_be_done(study):
    lines = "\n".join(preview(configured(study)))
    assert "1,200 people in all tables" in lines and "4 phecodes, 1 skipped" in lines
    assert not (study / "out").exists()


def test_families_are_not_split(study):
    prepared = read(configured(study))
    assert prepared.people.assign(half=prepared.half_N).groupby("FID")["half"].nunique().max() == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"min_cases": 600}, "none of its 5 phecodes has 600 cases"),
        ({"male": 7}, "nobody's sex is male=7"),
        ({"covariates": None, "formula": "age"}, "there are none"),
    ],
    ids=["cases", "sex", "formula"],
)
def test_studies_that_cannot_be_are_refused(study, keys, message):
    with pytest.raises(InputError, match=message):
        read(configured(study, **keys))


def test_latents_that_are_missing_or_of_others_are_refused(study):
    table = pd.read_parquet(study / "mine.parquet")
    table.assign(IID="X" + table.IID).to_parquet(study / "x.parquet")
    with pytest.raises(
        InputError, match=r"none of its 1,200 people is among the 1,200 .* \(F0 I0, F0 I1 .* against F0 XI0"
    ):
        read(configured(study, latents=study / "x.parquet"))
    table.loc[2, "z003"] = np.nan
    table.to_parquet(study / "nan.parquet")
    with pytest.raises(InputError, match=r"1 of 1,200 people have latents that are missing \(F1 I2\)"):
        read(configured(study, latents=study / "nan.parquet"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"phecodes": None}, "give either phecodes=TABLE"),
        ({"phecodes": None, "events": "e.tsv"}, "needed to read events"),
        ({"latents": ["a.parquet", "a.parquet"]}, "names a table twice"),
    ],
    ids=["nothing", "no map", "twice"],
)
def test_keys_that_do_not_fit_are_refused(study, keys, message):
    with pytest.raises(ConfigError, match=message):
        configured(study, **keys)
