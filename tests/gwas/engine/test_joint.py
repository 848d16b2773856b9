"""The joint test of all traits: Pillai's trace in linear mode, and referred to its F in mixed mode."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.multivariate.manova import MANOVA

from udipdist.gwas.scan.verb import gwas
from udipdist.sumstats.store import Sumstats


def joint(config) -> np.ndarray:
    """-log10 p of the joint test, by a run."""
    gwas(config)
    return Sumstats.open(config.out).log10p("multivariate")


def imputed(counts: np.ndarray) -> np.ndarray:
    return np.where(counts < 0, counts[counts >= 0].mean(), counts)


@pytest.mark.parametrize(("seed", "n", "p", "k"), [(1, 40, 2, 0), (2, 61, 2, 3), (3, 150, 12, 5), (4, 60, 30, 10)])
def test_linear_regression_gives_pillais_trace(make_cohort, tmp_path, seed, n, p, k):
    cohort = make_cohort(tmp_path, seed, n=n, m=10, h2=np.full(p, 0.3), missing_calls=0.03, n_covariates=k)
    config = cohort.config(test="linear", min_maf=0, max_missing=0.3, **({} if k else {"covariates": None}))
    found = joint(config)
    for m, counts in enumerate(cohort.counts_MN):
        exog = np.column_stack([imputed(counts), np.ones(n), cohort.covariates])
        table = MANOVA(cohort.traits.to_numpy(), exog).mv_test([("x", np.eye(1, exog.shape[1]))])
        row = table.results["x"]["stat"].loc["Pillai's trace"]
        assert (row["Num DF"], row["Den DF"]) == (p, n - k - 2 + 1 - p)
        expected = -stats.f.logsf(float(row["F Value"]), p, n - k - 1 - p) / np.log(10)
        assert found[m] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert len(found) == 10


def test_one_trait_jointly_is_the_trait(make_cohort, tmp_path):
    cohort = make_cohort(tmp_path, 5, h2=(0.4,))
    for test in ("linear", "mixed"):
        config = cohort.config(test, test=test, min_maf=0.01)
        found = joint(config)
        np.testing.assert_allclose(found, Sumstats.open(config.out).log10p("y0"), rtol=3e-6, atol=1e-7)


def test_more_traits_than_people_leave_no_joint_test_of_linear_regression(make_cohort, tmp_path):
    cohort = make_cohort(tmp_path, 6, n=30, m=4, h2=np.full(28, 0.0), missing_calls=0)
    config = cohort.config(test="linear", min_maf=0.01)
    found = joint(config)
    assert np.isnan(found).all() and np.isfinite(Sumstats.open(config.out).log10p("y0")).any()


def dense_joint(cohort, null: pd.DataFrame) -> np.ndarray:
    """-log10 p by dense matrices: z'R^-1z of GLS, R the correlation of T'GT with T = P y (0 for people without the
    trait), over n_e = tr(A)^2 / tr(A^2) - K with A = W G, W the mean of V^-1 (total variance 1) over the traits."""
    n, p = len(cohort.grm_NN), len(null)
    z_MP, t_NP = np.empty((len(cohort.counts_MN), p)), np.zeros((n, p))
    mean_NN = np.zeros((n, n))
    for trait, row in enumerate(null.itertuples()):
        y = cohort.traits.iloc[:, trait].to_numpy()
        has = np.isfinite(y)
        g, c = cohort.grm_NN[np.ix_(has, has)], np.column_stack([np.ones(has.sum()), cohort.covariates[has]])
        inverse = np.linalg.inv(row.vg * g + row.ve * np.eye(len(g)))
        projected = inverse - inverse @ c @ np.linalg.solve(c.T @ inverse @ c, c.T @ inverse)
        t_NP[has, trait] = projected @ y[has]
        x_NM = np.stack([imputed(counts[has]) for counts in cohort.counts_MN], axis=1)
        z_MP[:, trait] = x_NM.T @ t_NP[has, trait] / np.sqrt(np.einsum("nm,nk,km->m", x_NM, projected, x_NM))
        mean_NN[np.ix_(has, has)] += inverse * (row.vg + row.ve) / p
    product = t_NP.T @ cohort.grm_NN @ t_NP
    size = np.sqrt(np.diag(product))
    a = mean_NN @ cohort.grm_NN
    people = np.trace(a) ** 2 / np.trace(a @ a) - 1 - cohort.covariates.shape[1]
    share = (z_MP * np.linalg.solve(product / np.outer(size, size), z_MP.T).T).sum(axis=1) / people
    return -stats.f.logsf(share / p / ((1 - share) / (people - p)), p, people - p) / np.log(10)


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_the_mixed_model_gives_the_dense_value(make_cohort, tmp_path, missing):
    """Also where the traits differ in who is missing."""
    cohort = make_cohort(tmp_path, 7, n=160, m=30, h2=(0.1, 0.4, 0.4, 0.8), missing_calls=0.02, missing_values=missing)
    cohort.traits["y1"] = cohort.traits.y1 / cohort.traits.y1.std() + 2 * cohort.traits.y0 / cohort.traits.y0.std()
    cohort.write()
    config = cohort.config(min_maf=0, max_missing=0.5)
    found = joint(config)
    null = pd.read_csv(config.out / "null.tsv", sep="\t")
    np.testing.assert_allclose(found, dense_joint(cohort, null), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("adjust", ["gls", "project", "phenotype"])
@pytest.mark.parametrize("test", ["mixed", "linear"])
def test_stored_scores_are_those_of_dense_matrices(make_cohort, tmp_path, test, adjust):
    """The covariance S'GS and tr(P G), on the scale of beta and se; at an inner maximum they agree on the diagonal."""
    cohort = make_cohort(tmp_path, 12, n=140, m=4, h2=(0.5, 0.4), missing_calls=0)
    config = cohort.config(test=test, adjust=adjust, min_maf=0)
    gwas(config)
    scores = Sumstats.open(config.out).null_scores()
    null = pd.read_csv(config.out / "null.tsv", sep="\t")
    n = len(cohort.grm_NN)
    c = np.column_stack([np.ones(n), cohort.covariates])
    rest = np.eye(n) - c @ np.linalg.pinv(c)
    own = rest if adjust != "phenotype" else np.eye(n) - 1 / n  # what is taken out of the genotypes
    g = cohort.grm_NN if test == "mixed" else np.eye(n)
    t_NP, trace = np.empty((n, 2)), np.empty(2)
    for trait, row in enumerate(null.itertuples()):
        y = cohort.traits.iloc[:, trait].to_numpy()
        vg, ve = (row.vg, row.ve) if test == "mixed" else (0, (rest @ y).var(ddof=1))
        inverse = np.linalg.inv(vg * g + ve * np.eye(n))
        if adjust == "gls" and test == "mixed":
            projected = inverse - inverse @ c @ np.linalg.solve(c.T @ inverse @ c, c.T @ inverse)
        else:
            projected = own @ inverse @ own
        t_NP[:, trait] = projected @ (y if adjust == "gls" and test == "mixed" else rest @ y)
        trace[trait] = np.trace(projected @ g)
    np.testing.assert_allclose(scores.covariance_PP, t_NP.T @ g @ t_NP, rtol=1e-8)
    np.testing.assert_allclose(scores.trace_P, trace, rtol=1e-8)
    if test == "mixed" and adjust == "gls":
        np.testing.assert_allclose(np.diag(scores.covariance_PP), trace, rtol=1e-4)


def test_too_few_people_for_so_many_traits_are_said(make_cohort, tmp_path, caplog):
    cohort = make_cohort(tmp_path, 6, n=60, m=4, h2=np.full(58, 0.3), missing_calls=0)
    config = cohort.config(min_maf=0.01)
    found = joint(config)
    assert np.isnan(found).all() and np.isfinite(Sumstats.open(config.out).log10p("y0")).any()
    assert "no joint test, as 58 traits are too many for its people" in caplog.text


def test_the_mixed_joint_test_is_calibrated_where_families_and_environment_disagree(make_cohort, tmp_path):
    """Traits that are alike in families and unlike otherwise: R is one matrix for both, an approximation. p stays
    uniform to within the error of 1,500 variants (Kolmogorov-Smirnov)."""
    n, m = 600, 1500
    cohort = make_cohort(tmp_path, 8, n=n, m=2, h2=(0.5,) * 4, missing_calls=0)
    rng = np.random.default_rng(9)
    root = np.linalg.cholesky(cohort.grm_NN)
    alike, unlike = np.linalg.cholesky(0.4 * np.eye(4) + 0.6), np.diag([1.0, -1, 1, -1])
    genetic = root @ rng.standard_normal((n, 4)) @ alike.T
    environment = rng.standard_normal((n, 4)) @ (unlike @ alike).T
    cohort.traits.iloc[:] = np.sqrt([0.3, 0.5, 0.7, 0.5]) * genetic + np.sqrt([0.7, 0.5, 0.3, 0.5]) * environment
    family = np.unique(np.argmax(cohort.grm_NN != 0, axis=1), return_inverse=True)[1]
    cohort.counts_MN = related_counts(rng, family, m)
    cohort.write()
    p = 10 ** -joint(cohort.config(min_maf=0))
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    assert np.quantile(p, 0.5) == pytest.approx(0.5, abs=0.05)


def related_counts(rng: np.random.Generator, family: np.ndarray, m: int) -> np.ndarray:
    """Sibs of a family share parents: each inherits one of two haplotypes of each."""
    frequency = rng.uniform(0.2, 0.8, (m, 1, 1))
    parents = rng.random((m, family.max() + 1, 4)) < frequency
    rows = np.arange(m)[:, None]
    mother = parents[rows, family, rng.integers(0, 2, (m, len(family)))]
    father = parents[rows, family, rng.integers(2, 4, (m, len(family)))]
    return mother.astype(int) + father
