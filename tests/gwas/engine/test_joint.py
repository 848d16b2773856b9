"""The joint test of all traits: Pillai's trace F in linear mode, z' R^-1 z in mixed mode."""

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
    """-log10 p of z'R^-1z, chi2 with P degrees of freedom: z by dense GLS, R the correlation of the residuals of the
    null models, whitened in the eigenvectors of G."""
    n = len(cohort.grm_NN)
    c_NK = np.column_stack([np.ones(n), cohort.covariates])
    d_N, u_NN = np.linalg.eigh(cohort.grm_NN)
    z_MP, white_NP = np.empty((len(cohort.counts_MN), len(null))), np.empty((n, len(null)))
    x_NM = np.stack([imputed(counts) for counts in cohort.counts_MN], axis=1)
    for p, row in enumerate(null.itertuples()):
        root_NN = (u_NN / np.sqrt(row.vg * d_N + row.ve)).T  # root'root = V^-1
        x, c, y = root_NN @ x_NM, root_NN @ c_NK, root_NN @ cohort.traits.iloc[:, p].to_numpy()
        q = np.linalg.qr(c)[0]
        x, white_NP[:, p] = x - q @ (q.T @ x), y - q @ (q.T @ y)
        z_MP[:, p] = x.T @ white_NP[:, p] / np.linalg.norm(x, axis=0)
    product = white_NP.T @ white_NP
    size = np.sqrt(np.diag(product))
    r_PP = product / np.outer(size, size)
    return -stats.chi2.logsf((z_MP * np.linalg.solve(r_PP, z_MP.T).T).sum(axis=1), len(null)) / np.log(10)


def test_the_mixed_model_gives_z_rinv_z(make_cohort, tmp_path):
    cohort = make_cohort(tmp_path, 7, n=160, m=30, h2=(0.1, 0.4, 0.4, 0.8), missing_calls=0.02)
    cohort.traits["y1"] = cohort.traits.y1 / cohort.traits.y1.std() + 2 * cohort.traits.y0 / cohort.traits.y0.std()
    cohort.write()
    config = cohort.config(min_maf=0, max_missing=0.5)
    found = joint(config)
    null = pd.read_csv(config.out / "null.tsv", sep="\t")
    np.testing.assert_allclose(found, dense_joint(cohort, null), rtol=1e-5, atol=1e-6)


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
