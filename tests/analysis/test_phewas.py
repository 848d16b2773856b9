"""The tests of a PheWAS against statsmodels, plain formulas, and what chance gives."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from udipdist.analysis.phewas import crossfit, logistic, multiple, study

RNG = np.random.default_rng(4)
N, K, L = 1200, 4, 6


def basis(columns: np.ndarray) -> np.ndarray:
    return np.linalg.qr(np.column_stack([np.ones(len(columns)), columns]))[0]


Q = basis(RNG.normal(size=(N, K - 1)))


def statuses(share: float, codes: int, rng=RNG, people=N, unknown=0.1) -> np.ndarray:
    status = (rng.random((codes, people)) < share).astype(np.int8)
    status[rng.random((codes, people)) < unknown] = -1
    return status


def test_null_models_and_the_score_test_are_statsmodels():
    status, c = statuses(0.1, 5), RNG.normal(size=(5, N))
    models = logistic.null_models(Q, status)
    u, v = models.score(c)
    assert models.settled_B.all()
    for b in range(5):
        known = status[b] >= 0
        fitted = sm.Logit(status[b, known], Q[known]).fit(disp=0, tol=1e-12)
        mu = fitted.predict()
        assert np.allclose(models.residual_Bn[b, known], status[b, known] - mu, atol=1e-9)
        x, w = np.column_stack([Q, c[b]])[known], mu * (1 - mu)
        gradient = x.T @ (status[b, known] - mu)
        expected = gradient @ np.linalg.solve((x.T * w) @ x, gradient)
        assert u[b] ** 2 / v[b] == pytest.approx(expected, rel=1e-7)


def test_the_likelihood_ratio_is_statsmodels():
    c = RNG.normal(size=N)
    case = RNG.random(N) < 1 / (1 + np.exp(2 - 0.5 * c))
    effect = logistic.likelihood_ratio(Q, case, c)
    full = sm.Logit(case, np.column_stack([Q, c])).fit(disp=0, tol=1e-12)
    null = sm.Logit(case, Q).fit(disp=0, tol=1e-12)
    assert effect.settled and effect.beta == pytest.approx(full.params[-1], rel=1e-7)
    assert effect.z**2 == pytest.approx(2 * (full.llf - null.llf), rel=1e-7)
    assert effect.se == pytest.approx(full.bse[-1], abs=2e-3)  # of the component without the covariates


def test_separation_is_seen_and_firth_is_finite():
    c = np.sort(RNG.normal(size=N))
    case = np.arange(N) >= N - 12
    assert not logistic.likelihood_ratio(Q, case, c).settled
    effect = logistic.firth(Q, case, c)
    assert np.isfinite(effect.beta) and effect.z > 4 and effect.settled


def test_firth_of_the_mean_alone_is_the_known_correction():
    case = np.arange(40) < 3
    one = np.full((40, 1), 40**-0.5)
    c = np.where(np.arange(40) % 2, 1.0, -1.0)
    c[:3] = [1, 1, -1]
    effect = logistic.firth(one, case, c)
    up, down = c > 0, c < 0  # a saturated two by two table: Firth adds a half to each cell (Haldane and Anscombe)
    odds = [(np.sum(case & side) + 0.5) / (np.sum(~case & side) + 0.5) for side in (up, down)]
    assert effect.beta == pytest.approx(np.log(odds[0] / odds[1]) / 2, abs=1e-3)


@pytest.mark.parametrize("latents", [1, 3, 64], ids=lambda n: f"{n} latents")
def test_the_correlation_of_the_halves_is_what_nulls_show(latents):
    g, h = RNG.normal(size=(2, 20000, latents))
    s = (g * h).sum(axis=1)
    a, b = s / np.linalg.norm(g, axis=1), s / np.linalg.norm(h, axis=1)
    assert crossfit.null_correlation(np.ones(latents)) == pytest.approx(np.corrcoef(a, b)[0, 1], abs=0.02)
    assert np.std(crossfit.stouffer(np.array([a, b]), crossfit.null_correlation(np.ones(latents)))) == pytest.approx(
        1, abs=0.02
    )


def prepared(rule="lda", people=1500, rng=RNG, latents=L):
    x = rng.normal(size=(people, latents)) * np.geomspace(1, 0.1, latents)
    q = basis(rng.normal(size=(people, 2)))
    half = np.arange(people) % 2
    return crossfit.prepare(x + q[:, 1:2] * 30, q, half, rule), q


@pytest.mark.parametrize("rule", ["lda", "centroid"])
def test_nulls_are_calibrated(rule):
    rng = np.random.default_rng(11)
    latents, q = prepared(rule, 1500, rng, 20)
    found = study.associate(latents, q, statuses(0.15, 2000, rng, 1500), study.Plan(True, 0, 0), "x")
    assert found.table["z"].std() == pytest.approx(1, abs=0.05)
    assert found.inflation == pytest.approx(1, abs=0.15)  # its standard error is 0.05 for independent codes
    assert (found.table["p"] < 0.05).mean() == pytest.approx(0.05, abs=0.015)


def test_a_planted_effect_is_found_with_its_size():
    rng = np.random.default_rng(2)
    latents, q = prepared(people=4000, rng=rng)
    unit = latents.x_NL[:, 1] / latents.x_NL[:, 1].std()
    status = (rng.random(4000) < 1 / (1 + np.exp(2 - 0.8 * unit))).astype(np.int8)[None]
    row = study.associate(latents, q, status, study.Plan(True, 19, 0), "x").table.iloc[0]
    assert row["p"] < 1e-20 and row["test"] == "logistic" and row["p_permutation"] == 0.05
    assert row["lower"] < np.exp(0.8) < row["upper"]
    alone = study.associate(latents, q, status, study.Plan(False, 0, 0), "x").table.iloc[0]
    assert alone["p"] > row["p"]


def test_lda_is_the_discriminant_and_centroid_the_difference():
    latents, _ = prepared("lda")
    status = statuses(0.3, 1, people=1500)
    derived = latents.half_N == 1
    x = latents.x_NL[derived]
    case, control = (x[status[0, derived] == value] for value in (1, 0))
    difference = case.mean(0) - control.mean(0)
    from sklearn.covariance import ledoit_wolf

    expected = latents.x_NL[~derived] @ np.linalg.solve(ledoit_wolf(x)[0], difference)
    found = crossfit.components(latents, status, 0)[0]
    assert np.corrcoef(found, expected)[0, 1] == pytest.approx(1)
    assert found.std() == pytest.approx(1) and found.mean() == pytest.approx(0, abs=1e-12)


def test_directions_do_not_see_the_half_that_is_tested():
    latents, _ = prepared()
    status = statuses(0.3, 2, people=1500)
    other = status.copy()
    other[:, latents.half_N == 0] = RNG.permutation(other[:, latents.half_N == 0].T).T
    assert np.array_equal(crossfit.components(latents, status, 0), crossfit.components(latents, other, 0))


def test_few_cases_are_decided_by_firth_and_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(3)
    latents, q = prepared(rng=rng)
    status = statuses(0.03, 150, rng, 1500)
    plan = study.Plan(True, 19, 0)
    whole = study.associate(latents, q, status, plan, "x").table
    assert set(whole["test"]) == {"score", "firth"} and whole.loc[whole["test"] == "firth", "p_firth"].notna().all()
    monkeypatch.setattr(study, "BLOCK", 7)
    parts = study.associate(latents, q, status, plan, "x").table
    assert np.allclose(whole.drop(columns="test"), parts.drop(columns="test"), equal_nan=True, rtol=1e-6)


def test_codes_of_one_sex_have_no_column_of_sex():
    rng = np.random.default_rng(5)
    sex = np.arange(1500) % 4 < 2
    latents, _ = prepared(rng=rng)
    q = basis(np.column_stack([sex, rng.normal(size=1500)]))
    status = np.where(sex, rng.random(1500) < 0.2, -1).astype(np.int8)[None]
    unit = latents.x_NL[:, 0] / latents.x_NL[:, 0].std()
    status[0, sex & (unit > 1.2)] = 1
    row = study.associate(latents, q, status, study.Plan(True, 0, 0), "x").table.iloc[0]
    assert row["p"] < 1e-8 and np.isfinite(row["se"])


def test_q_is_benjamini_and_hochbergs():
    p = RNG.random(50) ** 2
    assert np.allclose(multiple.benjamini_hochberg(p), stats.false_discovery_control(p))


def test_inflation_of_uniform_p_is_one():
    assert multiple.inflation((np.arange(999) + 0.5) / 999) == pytest.approx(1, abs=1e-9)
