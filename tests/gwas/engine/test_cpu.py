"""The exact tests against a dense float64 generalised least squares, one variant and one trait at a time."""

from __future__ import annotations

import tempfile
from pathlib import Path

import mpmath
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.multivariate.manova import MANOVA

from hpc import int8
from udipdist.gwas.engine import cpu, prepared, weights
from udipdist.gwas.scan.verb import gwas
from udipdist.sumstats import pvalues
from udipdist.sumstats.store import Sumstats


def imputed(counts_N: np.ndarray) -> np.ndarray:
    """Copies of A1 with missing calls at the mean."""
    called = counts_N >= 0
    return np.where(called, counts_N, counts_N[called].mean() if called.any() else 0.0)


def dense_mixed(x, y, c, inverse, adjust) -> tuple[float, float]:
    """beta and se by the textbook: V^-1 is known, covariates as `adjust` says."""
    if adjust == "gls":
        whole = np.column_stack([x, c])
        covariance = np.linalg.inv(whole.T @ inverse @ whole)
        return (covariance @ whole.T @ inverse @ y)[0], np.sqrt(covariance[0, 0])
    y = y - c @ np.linalg.lstsq(c, y, rcond=None)[0]
    c = c if adjust == "project" else np.ones((len(x), 1))
    x = x - c @ np.linalg.lstsq(c, x, rcond=None)[0]
    return x @ inverse @ y / (x @ inverse @ x), 1 / np.sqrt(x @ inverse @ x)


def dense_linear(x, y, c, adjust) -> tuple[float, float]:
    """beta and se of ordinary regression on variant and covariates (`phenotype`: on the variant, of the residuals)."""
    if adjust == "phenotype":
        y = y - c @ np.linalg.lstsq(c, y, rcond=None)[0]
        c = np.ones((len(x), 1))
    whole = np.column_stack([x, c])
    covariance = np.linalg.inv(whole.T @ whole)
    beta = covariance @ whole.T @ y
    residual = y - whole @ beta
    return beta[0], np.sqrt(covariance[0, 0] * residual @ residual / (len(x) - whole.shape[1]))


def dense(cohort, config, components) -> tuple[np.ndarray, np.ndarray]:
    """beta and se [M, P] of a whole cohort, each trait in the people who have it."""
    y_NP = cohort.traits.to_numpy()
    c_NK = np.column_stack([np.ones(len(y_NP)), cohort.covariates])
    beta, se = np.full((2, len(cohort.counts_MN), y_NP.shape[1]), np.nan)
    for p in range(y_NP.shape[1]):
        seen = np.isfinite(y_NP[:, p])
        y, c = y_NP[seen, p], c_NK[seen]
        inverse = np.linalg.inv(
            components.vg[p] * cohort.grm_NN[np.ix_(seen, seen)] + components.ve[p] * np.eye(seen.sum())
        )
        for m, counts in enumerate(cohort.counts_MN[:, seen]):
            x = imputed(counts)
            minor = min(x.mean(), 2 - x.mean()) / 2
            if x.std() == 0 or minor < config.min_maf - 1e-12 or (counts < 0).mean() > config.max_missing:
                continue
            if config.test == "linear":
                beta[m, p], se[m, p] = dense_linear(x, y, c, config.adjust)
            else:
                beta[m, p], se[m, p] = dense_mixed(x, y, c, inverse, config.adjust)
    return beta, se


def all_of(found: Sumstats) -> tuple[np.ndarray, np.ndarray]:
    """beta and se as float64 [M, P]."""
    return tuple(found.values(name).astype(np.float64) for name in ("beta", "se"))


def check(cohort, config) -> Sumstats:
    """Run, and hold everything against the dense oracle. Stored values are float32: 6e-8 relative."""
    gwas(config)
    found = Sumstats.open(config.out)
    components = pd.read_csv(config.out / "null.tsv", sep="\t")
    expected_beta, expected_se = dense(cohort, config, components)
    beta, se = all_of(found)
    np.testing.assert_array_equal(np.isnan(beta), np.isnan(expected_beta))
    np.testing.assert_allclose(se, expected_se, rtol=1e-6)
    np.testing.assert_array_less(
        np.nan_to_num(abs(beta - expected_beta)), np.nan_to_num(1e-6 * abs(expected_beta) + 1e-9 * expected_se, nan=1.0)
    )
    return found


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(30, 90),
    h2=st.lists(st.floats(0, 0.95), min_size=1, max_size=6),
    missing_values=st.sampled_from([0.0, 0.0, 0.1]),
    missing_calls=st.sampled_from([0.0, 0.05, 0.3]),
    n_covariates=st.integers(0, 4),
    block=st.integers(1, 40),
    per_part=st.integers(1, 40),
    adjust=st.sampled_from(["gls", "gls", "project", "phenotype"]),
    test=st.sampled_from(["mixed", "mixed", "linear"]),
)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_every_statistic_is_that_of_dense_least_squares(
    make_cohort, seed, n, h2, missing_values, missing_calls, n_covariates, block, per_part, adjust, test
):
    with tempfile.TemporaryDirectory() as folder:
        cohort = make_cohort(Path(folder), seed, n, 12, h2, missing_calls, missing_values, n_covariates)
        keys = {"adjust": adjust, "test": test, "block": block, "variants_per_part": per_part}
        keys |= {"min_maf": 0.04} | ({} if n_covariates else {"covariates": None})
        check(cohort, cohort.config(**keys))


def test_precision_with_many_people_rare_variants_and_correlated_covariates(make_cohort, tmp_path):
    """chi2 within 1e-6 of float64 (of which 3e-7 is the rounding of what is stored)."""
    cohort = make_cohort(tmp_path, 11, n=1200, m=30, h2=(0.0, 0.5, 0.95), missing_calls=0.01)
    rng = np.random.default_rng(12)
    cohort.counts_MN[5:15] = rng.binomial(2, 0.004, (10, 1200))
    explained = np.array([20, 21, 22])
    noise = np.array([0.1, 0.3, 1.0]) * cohort.counts_MN[explained].std(axis=1)
    for i, m in enumerate(explained):
        cohort.covariates[f"like{m}"] = imputed(cohort.counts_MN[m]) + noise[i] * rng.standard_normal(1200)
    cohort.write()
    config = cohort.config(min_maf=0)
    gwas(config)
    beta, se = all_of(Sumstats.open(config.out))
    components = pd.read_csv(config.out / "null.tsv", sep="\t")
    x_NM = np.stack([imputed(counts) for counts in cohort.counts_MN], axis=1)
    c_NK = np.column_stack([np.ones(1200), cohort.covariates])
    for p, y_N in enumerate(cohort.traits.to_numpy().T):
        inverse = np.linalg.inv(components.vg[p] * cohort.grm_NN + components.ve[p] * np.eye(1200))
        projection = inverse - inverse @ c_NK @ np.linalg.solve(c_NK.T @ inverse @ c_NK, c_NK.T @ inverse)
        denominator_M = (x_NM * (projection @ x_NM)).sum(axis=0)
        unexplained_M = denominator_M / (x_NM * (inverse @ (x_NM - x_NM.mean(axis=0)))).sum(axis=0)
        assert 0.005 < unexplained_M.min() < 0.02 and np.isfinite(beta[:, p]).all()
        np.testing.assert_allclose(
            (beta[:, p] / se[:, p]) ** 2, (x_NM.T @ projection @ y_N) ** 2 / denominator_M, rtol=1e-6
        )


def test_high_rank_of_weights_is_exact_too(make_cohort, tmp_path):
    """Many heritabilities from 0 to near 1, where the weights need most columns."""
    cohort = make_cohort(tmp_path, 5, n=100, m=8, h2=np.linspace(0, 0.99, 30))
    config = cohort.config(min_maf=0.03)
    found = check(cohort, config)
    assert found.attrs["df"] is None


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9, 1e-10])  # weights up to 10,000: 1e-11 is their rounding
def test_weights_are_factorised_to_the_tolerance(tolerance):
    rng = np.random.default_rng(0)
    d_N, h_D = np.maximum(rng.normal(1, 0.4, 500), 0), np.append(np.linspace(0, 0.95, 100), 0.9999)
    w_ND = 1 / (1 + h_D * (d_N[:, None] - 1))
    basis, mix, error = weights.factorise(w_ND, tolerance)
    measured = np.max(abs(1 + basis @ mix - w_ND) / w_ND)
    rounding = 8 * np.finfo(float).eps * np.max(abs(basis) @ abs(mix) / w_ND)
    assert measured <= error <= min(tolerance, measured + rounding)
    assert basis.shape[1] < 30
    if basis.shape[1] > 1:  # one column less would not do
        left, size, right = np.linalg.svd(w_ND - 1, full_matrices=False)
        rank = basis.shape[1] - 1
        assert np.max(abs(1 + left[:, :rank] * size[:rank] @ right[:rank] - w_ND) / w_ND) + rounding > tolerance


def test_weights_that_are_all_one_need_no_column():
    basis, mix, error = weights.factorise(np.ones((7, 3)), 1e-9)
    assert basis.shape == (7, 0) and mix.shape == (0, 3) and error == 0


def test_weights_of_many_traits_are_spanned_by_some():
    rng = np.random.default_rng(1)
    d_N, h_D = np.maximum(rng.normal(1, 0.4, 300), 0), np.linspace(0, 0.95, 700)
    w_ND = 1 / (1 + h_D * (d_N[:, None] - 1))
    basis, mix, error = weights.factorise(w_ND, 1e-9)
    assert basis.shape[1] < 20 and np.max(abs(1 + basis @ mix - w_ND) / w_ND) == pytest.approx(error, rel=1e-3)


def test_a_tolerance_below_rounding_is_refused():
    with pytest.raises(ArithmeticError, match="weight_tolerance=1.0e-30"):
        weights.factorise(1 / (1 + np.outer(np.linspace(-0.9, 2, 50), np.linspace(0, 0.9, 9))), 1e-30)


@pytest.fixture(scope="module")
def thousands(make_cohort, tmp_path_factory):
    """Enough people for the shorter digits, with variants from a few carriers to many, and a covariate like one."""
    cohort = make_cohort(
        tmp_path_factory.mktemp("thousands"), 21, n=2100, m=24, h2=(0.0, 0.3, 0.95), missing_calls=0.01
    )
    rng = np.random.default_rng(22)
    frequency = np.repeat([0.001, 0.01, 0.05, 0.1, 0.4, 0.97], 4)
    missing = cohort.counts_MN < 0
    cohort.counts_MN = np.where(missing, -1, rng.binomial(2, frequency[:, None], (24, 2100)))
    cohort.covariates["like17"] = imputed(cohort.counts_MN[17]) + 0.1 * rng.standard_normal(2100)
    cohort.write()
    return cohort


def test_precision_of_the_shorter_digits_of_many_people(thousands, monkeypatch):
    """Their error falls with the square root of people: what is 2e-6 here is below 1e-6 where they are used."""
    monkeypatch.setattr(prepared, "MANY_PEOPLE", 0)
    config = thousands.config(min_maf=0)
    gwas(config)
    found = Sumstats.open(config.out)
    beta, se = all_of(found)
    components = pd.read_csv(config.out / "null.tsv", sep="\t")
    x_NM = np.stack([imputed(counts) for counts in thousands.counts_MN], axis=1)
    c_NK = np.column_stack([np.ones(2100), thousands.covariates])
    for p, y_N in enumerate(thousands.traits.to_numpy().T):
        v_NN = components.vg[p] * thousands.grm_NN + components.ve[p] * np.eye(2100)
        solved = np.linalg.solve(v_NN, np.column_stack([c_NK, x_NM, y_N]))
        vc_NK, vx_NM, vy_N = solved[:, : c_NK.shape[1]], solved[:, c_NK.shape[1] : -1], solved[:, -1]
        left_KX = np.linalg.solve(c_NK.T @ vc_NK, np.column_stack([vc_NK.T @ x_NM, vc_NK.T @ y_N]))
        numerator_M = x_NM.T @ vy_N - (c_NK.T @ vx_NM).T @ left_KX[:, -1]
        denominator_M = (x_NM * vx_NM).sum(axis=0) - ((c_NK.T @ vx_NM) * left_KX[:, :-1]).sum(axis=0)
        np.testing.assert_allclose((beta[:, p] / se[:, p]) ** 2, numerator_M**2 / denominator_M, rtol=2e-6)


def test_lists_of_carriers_and_rows_of_counts_agree(thousands, monkeypatch):
    """Whichever way a variant goes, its statistics are the same to the rounding of what is stored."""
    found = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(cpu, "DENSE_SHARE", share)
        config = thousands.config(f"share{share}", min_maf=0)
        gwas(config)
        found.append(all_of(Sumstats.open(config.out)))
    np.testing.assert_allclose(found[0], found[1], rtol=2e-7)


@pytest.mark.skipif(int8.fastest() != "int8", reason="8-bit products are not exact, or not quick, on this processor")
def test_products_in_float64_give_the_same_bits(thousands, monkeypatch):
    found = []
    for kind in ("int8", "float64"):
        monkeypatch.setattr(int8, "fastest", lambda kind=kind: kind)
        config = thousands.config(kind, min_maf=0)
        gwas(config)
        found.append(all_of(Sumstats.open(config.out)))
    np.testing.assert_array_equal(found[0], found[1])


def test_a_family_rotated_as_a_whole_is_the_same(thousands, monkeypatch):
    found = []
    for size in (2, weights.DENSE_FAMILY):
        monkeypatch.setattr(weights, "DENSE_FAMILY", size)
        config = thousands.config(f"dense{size}", min_maf=0)
        gwas(config)
        found.append(all_of(Sumstats.open(config.out)))
    np.testing.assert_allclose(found[0], found[1], rtol=2e-7)


def test_the_smallest_p_and_its_trait(make_cohort, tmp_path):
    cohort = make_cohort(tmp_path, 6, missing_values=0.05)
    for test in ("mixed", "linear"):
        config = cohort.config(test, test=test, min_maf=0.2)
        gwas(config)
        found = Sumstats.open(config.out)
        log10p = np.stack([found.log10p(trait) for trait in found.traits], axis=1)
        tested = np.isfinite(log10p).any(axis=1)
        assert 0 < tested.sum() < len(tested)
        np.testing.assert_allclose(found.log10p("minp")[tested], log10p[tested].max(axis=1), rtol=2e-6)
        np.testing.assert_array_equal(found.minp_trait()[tested], log10p[tested].argmax(axis=1))
        assert (found.minp_trait()[~tested] == -1).all() and np.isnan(found.log10p("minp")[~tested]).all()
        # the traits differ in who is missing; all must be tested
        np.testing.assert_array_equal(np.isfinite(found.log10p("multivariate")), np.isfinite(log10p).all(axis=1))


def test_joint_test_of_linear_regression_is_manova(make_cohort, tmp_path):
    cohort = make_cohort(tmp_path, 7, m=6, missing_calls=0)
    y0, y1 = cohort.traits.y0, cohort.traits.y1
    cohort.traits["y1"] = y0 + 0.01 * y0.std() / y1.std() * y1  # nearly the same trait, and yet another one
    cohort.traits["copy"] = cohort.traits.y0 * 2 - cohort.traits.y2  # a linear combination adds nothing
    cohort.write()
    config = cohort.config(test="linear")
    gwas(config)
    found = Sumstats.open(config.out).log10p("multivariate")
    for m, counts in enumerate(cohort.counts_MN):
        exog = np.column_stack([counts, np.ones(len(counts)), cohort.covariates])
        table = MANOVA(cohort.traits[["y0", "y1", "y2"]].to_numpy(), exog).mv_test([("x", np.eye(1, exog.shape[1]))])
        p = table.results["x"]["stat"].loc["Pillai's trace", "Pr > F"]
        np.testing.assert_allclose(found[m], -np.log10(float(p)), rtol=1e-5)


def test_joint_test_of_the_mixed_model_is_calibrated(make_cohort, tmp_path):
    """No variant has an effect on traits that share a family part: p is uniform (Kolmogorov-Smirnov)."""
    cohort = make_cohort(tmp_path, 8, n=400, m=600, h2=(0.5, 0.6, 0.4, 0.5), missing_calls=0)
    rng = np.random.default_rng(9)
    shared = np.linalg.cholesky(cohort.grm_NN) @ rng.standard_normal((400, 4))
    mix = np.array([[1, 0.8, 0, 0.3], [0, 0.6, 0.5, 0], [0, 0, 0.8, 0], [0, 0, 0, 0.9]])
    cohort.traits.iloc[:] = shared @ mix + rng.standard_normal((400, 4)) @ mix
    frequency = rng.uniform(0.2, 0.8, (600, 1))
    mother, father = rng.random((2, 600, 400)) < frequency
    cohort.counts_MN = mother.astype(int) + father
    cohort.write()
    config = cohort.config(min_maf=0.05)
    gwas(config)
    p = 10 ** -Sumstats.open(config.out).log10p("multivariate")
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_variants_that_covariates_explain_are_not_tested(make_cohort, tmp_path):
    cohort = make_cohort(tmp_path, 10, missing_calls=0)
    cohort.covariates["copy"] = cohort.counts_MN[3] * 2.0 + 1
    cohort.write()
    for adjust in ("gls", "project"):
        for test in ("mixed", "linear"):
            config = cohort.config(adjust + test, adjust=adjust, test=test)
            gwas(config)
            beta = all_of(Sumstats.open(config.out))[0]
            assert np.isnan(beta[3]).all() and np.isfinite(beta[4]).all()


@pytest.mark.parametrize(("x", "df"), [(0.1, 10), (5, 3), (150, 128), (2000, 3), (5000, 128), (90_000, 40)])
def test_tail_of_chi_squared(x, df):
    with mpmath.workdps(60):
        exact = -mpmath.log10(mpmath.gammainc(mpmath.mpf(df) / 2, mpmath.mpf(x) / 2, regularized=True))
    np.testing.assert_allclose(pvalues.log10p_from_chi2(np.array([x]), df), float(exact), rtol=1e-10)


@pytest.mark.parametrize(
    ("f", "df1", "df2"), [(0.5, 4, 9), (2, 5, 100), (80, 128, 4000), (400, 128, 22_000), (5000, 1, 3000)]
)
def test_tail_of_f(f, df1, df2):
    with mpmath.workdps(60):
        x = mpmath.mpf(df2) / (df2 + mpmath.mpf(df1) * f)
        exact = -mpmath.log10(mpmath.betainc(mpmath.mpf(df2) / 2, mpmath.mpf(df1) / 2, 0, x, regularized=True))
    np.testing.assert_allclose(pvalues.log10p_from_f(np.array([f]), df1, df2), float(exact), rtol=1e-10)


def test_tails_keep_missing_values():
    assert np.isnan(pvalues.log10p_from_chi2(np.array([np.nan, 4.0]), 2)).tolist() == [True, False]
    assert np.isnan(pvalues.log10p_from_f(np.array([np.nan, 4.0]), 2, 9)).tolist() == [True, False]
