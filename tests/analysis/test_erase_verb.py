"""udipdist erase: what it writes, and what it refuses."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

from hpc.errors import ConfigError, InputError
from hpc.stage import read_manifest
from udipdist.analysis.erasure.verb import erase, preview
from udipdist.config import EraseConfig
from udipdist.inspection.verb import look

N, L = 400, 20


@pytest.fixture
def study(tmp_path):
    rng = np.random.default_rng(0)
    people = pd.DataFrame({"FID": [f"F{i // 2}" for i in range(N)], "IID": [f"I{i}" for i in range(N)]})
    age, site = rng.normal(60, 8, N), rng.choice(["A", "B", "C"], N)
    x = rng.normal(size=(N, L)) + ((age - 60) / 8)[:, None] * rng.normal(size=L) + (site == "B")[:, None]
    latents = pd.concat([people, pd.DataFrame(x.astype(np.float32), columns=[f"z{i:03d}" for i in range(L)])], axis=1)
    latents.to_parquet(tmp_path / "latents.parquet", index=False)
    covariates = people.assign(age=age, site=site).sample(frac=1, random_state=1).iloc[10:]
    covariates.to_csv(tmp_path / "covariates.tsv", sep="\t", index=False)
    return tmp_path


def configured(study, **keys) -> EraseConfig:
    places = {
        "latents": study / "latents.parquet", "confounders": study / "covariates.tsv", "out": study / "out.parquet",
        "trees": False,
    }  # fmt: skip
    return EraseConfig.parse(places | keys)


@pytest.mark.parametrize("method", ["residual", "leace", "inlp"])
def test_a_table_without_the_confounders_is_written(study, method):
    config = configured(study, method=method, trees=method == "leace")
    erase(config)
    table = pd.read_parquet(config.out)
    assert list(table) == ["FID", "IID", *(f"z{i:03d}" for i in range(L))] and len(table) == N - 10
    assert (table.dtypes.iloc[2:] == np.float32).all()
    audit = pd.read_csv(study / "out.audit.tsv", sep="\t")
    assert audit["linear_before"].max() > 0.3 and (audit["linear_after"] < 0.1).all()
    assert ("boosted_after" in audit) == (method == "leace")
    covariates = pd.read_csv(study / "covariates.tsv", sep="\t").set_index("IID").loc[table.IID]
    if method != "inlp":
        r = np.corrcoef(table.iloc[:, 2:].T, covariates.age)[-1, :-1]
        assert np.abs(r).max() < 1e-5
    facts = read_manifest(config.out)["facts"]
    assert facts["dimensions"] == {"residual": L, "leace": L - 3}.get(method, facts["dimensions"])
    assert 0 < facts["variance_kept"] < 1 and facts["lost"][str(config.latents)] == 10
    assert look(config.out, True).state == "complete" and (study / "out.audit.png").stat().st_size > 1000


def test_float64_and_text_stay_float64(study):
    table = pd.read_parquet(study / "latents.parquet")
    table.to_csv(study / "latents.tsv", sep="\t", index=False)
    erase(configured(study, latents=study / "latents.tsv"))
    assert (pd.read_parquet(study / "out.parquet").dtypes.iloc[2:] == np.float64).all()


def test_expansion_is_erased_too(study):
    erase(configured(study, expand="square"))
    facts = read_manifest(study / "out.parquet")["facts"]
    assert (facts["confounders"], facts["erased_columns"]) == (3, 4)


def test_the_dry_run_says_what_would_be_done(study):
    lines = "\n".join(preview(configured(study)))
    assert "390 people with 20 latents and 3 confounders" in lines and "out.audit.tsv" in lines
    assert not (study / "out.parquet").exists()


def test_heritable_confounders_are_warned_of(study, caplog):
    (study / "h2.tsv").write_text("trait\th2\th2_se\nage\t0.4\t0.1\nheight\t0.8\t0.1\n")
    with caplog.at_level(logging.INFO):
        erase(configured(study, h2=study / "h2.tsv"))
    assert "age is heritable (h2 0.40)" in caplog.text and "height" not in caplog.text
    assert "covariates= of gwas" in caplog.text


def test_nonlinear_rests_are_warned_of(study, caplog):
    table = pd.read_parquet(study / "latents.parquet").astype({"z000": float, "z001": float})
    age = pd.read_csv(study / "covariates.tsv", sep="\t").set_index("IID").age.reindex(table.IID).fillna(60).to_numpy()
    table["z000"], table["z001"] = (age - 60) ** 2, (age - 60) ** 3
    table.to_parquet(study / "latents.parquet", index=False)
    erase(configured(study, formula="age", trees=True))
    assert "boosted trees still tell a confounder" in caplog.text


def test_confounders_that_explain_everything_are_refused(study):
    table = pd.read_parquet(study / "latents.parquet")
    table.to_csv(study / "same.tsv", sep="\t", index=False)
    for method in ("residual", "leace"):
        with pytest.raises(InputError, match="explain everything: .* leaves none of the 20 latents"):
            erase(configured(study, confounders=study / "same.tsv", method=method))


def test_other_people_are_refused_with_ids(study):
    table = pd.read_csv(study / "covariates.tsv", sep="\t")
    table.assign(IID="X" + table.IID).to_csv(study / "other.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match="none of its 390 people is among the 400"):
        erase(configured(study, confounders=study / "other.tsv"))


def test_missing_latents_are_refused(study):
    table = pd.read_parquet(study / "latents.parquet")
    table.loc[3, "z001"] = np.nan
    table.to_parquet(study / "latents.parquet", index=False)
    with pytest.raises(InputError, match=r"1 of 400 people have latents that are missing \(F1 I3\)"):
        erase(configured(study))


def test_a_constant_confounder_is_refused(study):
    table = pd.read_csv(study / "covariates.tsv", sep="\t").assign(one=1)
    table.to_csv(study / "covariates.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match="there is nothing to erase"):
        erase(configured(study, formula="one"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [({"out": "out.tsv"}, "NAME.parquet"), ({"rounds": 3}, "method=inlp")],
    ids=["name", "rounds"],
)
def test_keys_that_do_not_fit_are_refused(study, keys, message):
    with pytest.raises(ConfigError, match=message):
        configured(study, **keys)


@pytest.mark.parametrize(
    ("text", "message"), [("name\th2\nage\t1\n", "no column trait"), ("trait\th2\nbmi\t1\n", "none of its traits")],
    ids=["column", "names"],
)  # fmt: skip
def test_a_table_of_h2_that_does_not_fit_is_refused(study, text, message):
    (study / "h2.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        erase(configured(study, h2=study / "h2.tsv"))
