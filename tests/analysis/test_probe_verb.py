"""The verb `probe`: what it reads, what it says of tables that know something and of those that know nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import r2_score, roc_auc_score

from hpc.errors import InputError
from udipdist.analysis import joining
from udipdist.analysis.probes import fitting, judging, targets
from udipdist.analysis.probes.verb import preview, probe
from udipdist.config import ProbeConfig

N = 400


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Latents that hold two factors, a table of noise, targets of each kind, covariates; pairs of relatives."""
    folder, rng = tmp_path_factory.mktemp("study"), np.random.default_rng(0)
    people = pd.DataFrame({"FID": [f"F{i // 2}" for i in range(N)], "IID": [f"I{i}" for i in range(N)]})
    factor = rng.standard_normal((N, 2))
    age = rng.standard_normal(N)
    z = np.c_[factor @ rng.standard_normal((2, 6)) + 0.1 * rng.standard_normal((N, 6)), age + rng.standard_normal(N)]
    pd.concat([people, pd.DataFrame(z).add_prefix("z")], axis=1).to_parquet(folder / "good.parquet")
    noise = pd.DataFrame(rng.standard_normal((N, 5))).add_prefix("z")
    pd.concat([people, noise], axis=1).iloc[::-1].to_parquet(folder / "noise.parquet")
    case = factor[:, 1] + 0.5 * rng.standard_normal(N) > 0.6
    wanted = people.assign(
        first=factor[:, 0], lacking=np.where(rng.random(N) < 0.2, np.nan, factor[:, 0]), nothing=rng.standard_normal(N),
        age=age, ill=case + 1.0, rare=(np.arange(N) < 10) * 1, same=3.0, word="a",
    )  # fmt: skip
    wanted.iloc[5:].to_csv(folder / "targets.tsv", sep="\t", index=False, na_rep="NA")
    people.assign(age=age, site=np.where(np.arange(N) % 3, "A", "B")).to_csv(folder / "cov.tsv", sep="\t", index=False)
    return folder


def config(study: Path, out: Path, **keys) -> ProbeConfig:
    known = {"latents": [study / "good.parquet", study / "noise.parquet"], "targets": study / "targets.tsv"}
    return ProbeConfig.parse(known | {"out": out, "workers": 0, "draws": 200} | keys)


@pytest.fixture(scope="module")
def done(study, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "probe"
    probe(config(study, out, covariates=study / "cov.tsv"))
    return out


def test_what_is_known_is_found_and_what_is_not_is_not(done):
    table = pd.read_csv(done / "probes.tsv", sep="\t").set_index(["target", "latents"])
    assert table.value["first", "good"] > 0.95 and table.value["ill", "good"] > 0.85
    assert table.metric["ill", "good"] == "AUC" and table.cases["ill", "good"] > 50
    for target, nothing in (("first", 0.0), ("nothing", 0.0), ("ill", 0.5)):
        assert table.low[target, "noise"] < nothing < table.high[target, "noise"] + 0.01
    assert table.n["first", "good"] == N - 5 and 0.75 * N < table.n["lacking", "good"] < 0.85 * N
    assert table.covariates_value["age", "good"] > 0.99 and abs(table.added_value["age", "good"]) < 0.01
    assert table.added_value["first", "good"] > 0.9 and table.added_p["first", "good"] < 1e-10


def test_tables_are_compared_target_by_target(done):
    pairs = pd.read_csv(done / "comparisons.tsv", sep="\t").set_index("target")
    assert (pairs.a == "good").all() and (pairs.b == "noise").all()
    assert pairs.difference_low["first"] > 0.9 and pairs.difference_p["ill"] < 1e-6
    assert pairs.difference_low["nothing"] < 0.01 and pairs.difference_p["nothing"] > 0.01


def test_what_is_skipped_is_listed(done, study, tmp_path):
    skipped = pd.read_csv(done / "skipped.tsv", sep="\t").set_index("target").reason
    assert skipped["same"] == "is 3 for everybody" and "holds text" in skipped["word"]
    assert skipped["rare"] == "has 5 cases, fewer than min_cases=50"
    lines = preview(config(study, tmp_path / "x"))
    assert "395 people in all tables" in lines[0] and "4 measurements (R2) and 1 of yes and no" in lines[1]
    assert sum(line.startswith("skipped: ") for line in lines) == 3


def test_the_manifest_and_the_picture(done):
    facts = json.loads((done / "manifest.json").read_text())["facts"]
    assert facts["people"] == N - 5 and facts["skipped"] == 3 and (done / "probes.pdf").stat().st_size > 5000
    good = next(row for row in facts["means"] if (row["latents"], row["metric"]) == ("good", "AUC"))
    assert good["known"] == good["targets"] == 1


def test_a_killed_probe_goes_on_and_gives_the_same(study, done, tmp_path, monkeypatch):
    from udipdist.analysis.probes.job import ProbeJob

    real, calls = ProbeJob.part, []

    def stops(self, index):
        calls.append(index)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, index)

    monkeypatch.setattr(ProbeJob, "part", stops)
    with pytest.raises(KeyboardInterrupt):
        probe(config(study, tmp_path / "p", covariates=study / "cov.tsv"))
    probe(config(study, tmp_path / "p", covariates=study / "cov.tsv"))
    assert calls.count(0) == 1
    assert (tmp_path / "p" / "probes.tsv").read_bytes() == (done / "probes.tsv").read_bytes()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"latents": ["holes.parquet"]}, r"1 of 400 people have latents that are missing \(F1 I2\)"),
        ({"targets": "others.tsv"}, "none of its 2 people is among the 400 .*0 I0, 0 I1 against F0 I0.*match=iid"),
        ({"formula": "age"}, "there are none; give covariates=TABLE"),
        ({"targets": "useless.tsv"}, "no target can be probed: same is 1 for everybody"),
    ],
    ids=["NaN", "nobody", "formula", "constant"],
)
def test_tables_that_do_not_fit_are_refused(study, tmp_path, keys, message):
    holes = pd.read_parquet(study / "good.parquet")
    holes.loc[2, "z3"] = np.nan
    holes.to_parquet(tmp_path / "holes.parquet")
    (tmp_path / "others.tsv").write_text("FID\tIID\tx\n0\tI0\t1\n0\tI1\t2\n")
    pd.read_csv(study / "targets.tsv", sep="\t")[["FID", "IID"]].assign(same=1).to_csv(
        tmp_path / "useless.tsv", sep="\t"
    )
    found = {key: tmp_path / value if key == "targets" else value for key, value in keys.items()}
    if "latents" in keys:
        found["latents"] = [tmp_path / name for name in keys["latents"]]
    with pytest.raises(InputError, match=message):
        probe(config(study, tmp_path / "out", **found))


def test_estimates_are_those_of_scikit_learn():
    rng = np.random.default_rng(3)
    truth, model, family = rng.standard_normal(300), rng.standard_normal(300), np.arange(300)
    value, drawn = judging.r2(truth, model[None], np.full(300, truth.mean()), family, judging.draws(family, 50, 0))
    assert value[0] == pytest.approx(r2_score(truth, model), rel=1e-12) and drawn.shape == (1, 50)
    case = rng.random(300) < 0.3
    margins = np.round(np.stack([model + case, model]), 1)  # with ties
    area, covariance = judging.auc(case, margins, family)
    assert area == pytest.approx([roc_auc_score(case, margin) for margin in margins], rel=1e-12)
    psi = [(m[case][:, None] > m[~case]) + 0.5 * (m[case][:, None] == m[~case]) for m in margins]
    v10, v01 = np.stack([p.mean(1) for p in psi]), np.stack([p.mean(0) for p in psi])
    np.testing.assert_allclose(covariance, np.cov(v10) / case.sum() + np.cov(v01) / (~case).sum(), rtol=1e-10)  # DeLong


def test_relatives_widen_the_interval_of_the_auc():
    """Everybody twice: the variance is that of half as many people."""
    rng = np.random.default_rng(5)
    case = rng.random(200) < 0.4
    margin = rng.standard_normal(200) + case
    _, once = judging.auc(case, margin[None], np.arange(200))
    _, twice = judging.auc(np.repeat(case, 2), np.repeat(margin, 2)[None], np.repeat(np.arange(200), 2))
    np.testing.assert_allclose(twice, once, rtol=1e-12)


def test_intervals_of_probes_that_know_nothing_cover():
    rng = np.random.default_rng(11)
    n, runs = 400, 200
    fold = np.arange(n) % 5
    x, y = rng.standard_normal((n, 8)), rng.standard_normal((n, runs))
    found = fitting.continuous(x, y, fold)
    draws = judging.draws(np.arange(n), 200, 0)
    covers = []
    for t in range(runs):
        noise = judging.noise(found.halves_NP[0][:, t], found.halves_NP[1][:, t], fold)
        value, drawn = judging.r2(y[:, t], found.whole_NP[:, [t]].T, found.base_NP[:, t], np.arange(n), draws)
        one = judging.by_draws(float(value[0]), drawn[0], noise)
        covers.append(one.low <= 0 <= one.high)
    assert 0.90 <= np.mean(covers) <= 0.99


def test_intervals_of_auc_cover_too():
    rng = np.random.default_rng(12)
    n, covers = 300, []
    for _ in range(100):
        fold, case = rng.permutation(np.arange(n) % 5), rng.random(n) < 0.3
        found = fitting.binary(rng.standard_normal((n, 6)), case, fold, "l2", 0)
        noise = judging.noise(found.halves_NP[0][:, 0], found.halves_NP[1][:, 0], fold)
        area, covariance = judging.auc(case, found.whole_NP.T, np.arange(n))
        one = judging.by_variance(float(area[0]), float(covariance[0, 0]), noise)
        covers.append(one.low <= 0.5 <= one.high)
    assert np.mean(covers) >= 0.88


def test_targets_that_do_not_fill_the_folds_are_skipped():
    fold = np.arange(100) % 5
    value = np.where(fold == 0, np.arange(100.0), np.nan)
    cases = np.where(fold == 1, 1.0, 0.0)
    found = [targets.Target("m", "continuous", value), targets.Target("b", "binary", cases)]
    kept, unfit = targets.in_all_folds([*found, targets.Target("ok", "continuous", np.arange(100.0))], fold, 5)
    assert [one.name for one in kept] == ["ok"]
    assert "is known of 0 people in one of 5 folds" in unfit[0][1] and "in one fold" in unfit[1][1]


def test_folds_keep_families_and_depend_on_nobody_else():
    people = pd.DataFrame({"FID": ["a", "b", "a", "0", "0"] * 20, "IID": [f"{i}" for i in range(100)]})
    fold = joining.folds(people, 5, 0)
    assert len(set(fold[people.FID == "a"])) == 1 and len(set(fold[people.FID == "0"])) == 5
    np.testing.assert_array_equal(joining.folds(people.iloc[::3], 5, 0), fold[::3])
    assert (joining.folds(people, 5, 1) != fold).any()
    halves = [joining.folds(people[people.FID == "0"], 2, seed) for seed in (0, 1, 2)]
    for one in halves[1:]:  # of another seed, another division: neither the same nor its opposite
        assert 0 < (one == halves[0]).sum() < len(one)
    assert joining.families(people).max() + 1 == 2 + 40


def test_measurements_of_the_same_people_are_fitted_together():
    full, part = np.arange(60.0), np.r_[np.nan, np.arange(59.0)]
    found = [targets.Target(name, kind, value) for name, kind, value in (
        ("a", "continuous", full), ("b", "binary", full % 2), ("c", "continuous", full**2), ("d", "continuous", part),
    )]  # fmt: skip
    assert targets.groups(found) == [[0, 2], [3], [1]]
