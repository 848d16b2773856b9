"""Every number of a run against dense float64 least squares, on generated cohorts.

The oracle is a textbook: V = Vg G + Ve I is factored whole, variant and covariates are whitened with it, and the
variant is regressed after the covariates. Vg and Ve are those that the run reports, so that this tests the association;
that they are the REML estimates is tested apart. Stored beta and se are float32, 6e-8 relative each.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scipy import linalg, optimize, special, stats

from udipdist.gwas.scan.verb import gwas
from udipdist.sumstats.store import Sumstats

CHI2_RELATIVE = 1e-6
CHI2_ABSOLUTE = 1e-9  # where the effect is zero by chance: an error of 3e-5 standard errors
LOG10P_ABSOLUTE = 1e-3
LOG10P_RELATIVE = 3e-6  # what 1e-6 of chi2 is beyond p = 1e-300
FEW = settings(
    max_examples=25,  # about half a second each
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # no shrinking: it takes minutes, and the failing arguments are printed
    suppress_health_check=[HealthCheck.too_slow],
)


# --------------------------------------------------------------------------------------------------------- oracle


def whitened(matrix_NN, *arrays):
    """L^-1 a for each array, L L' = the matrix."""
    lower_NN = np.linalg.cholesky(matrix_NN)
    return [linalg.solve_triangular(lower_NN, array, lower=True) for array in arrays]


def left_over(array, c_NK):
    """The array without what the columns of C explain, by least squares."""
    q_NK = np.linalg.qr(c_NK)[0]
    once = array - q_NK @ (q_NK.T @ array)
    return once - q_NK @ (q_NK.T @ once)


def dense_gls(x_NM, y_N, c_NK, v_NN):
    """beta, se and the share of each variant's (weighted) variance that covariates leave."""
    xw_NM, yw_N, cw_NK = whitened(v_NN, x_NM, y_N, c_NK)
    rest_NM, rest_N = left_over(xw_NM, cw_NK), left_over(yw_N, cw_NK)
    size_M = (rest_NM**2).sum(axis=0)
    share_M = size_M / np.maximum((left_over(xw_NM, cw_NK[:, :1]) ** 2).sum(axis=0), 1e-300)
    return rest_NM.T @ rest_N / size_M, size_M**-0.5, share_M


def dense_projected(x_NM, y_N, c_NK, v_NN, adjust):
    """The same with covariates taken out of y, and out of x (`project`) or only its mean (`phenotype`), unweighted."""
    z_NM = left_over(x_NM, c_NK if adjust == "project" else c_NK[:, :1])
    zw_NM, yw_N = whitened(v_NN, z_NM, left_over(y_N, c_NK))
    size_M = (zw_NM**2).sum(axis=0)
    centred_NM = left_over(x_NM, c_NK[:, :1])
    share_M = (z_NM**2).sum(axis=0) / np.maximum((centred_NM**2).sum(axis=0), 1e-300)
    return zw_NM.T @ yw_N / size_M, size_M**-0.5, share_M


def dense_linear(x_NM, y_N, c_NK, adjust):
    """Ordinary regression, one variant at a time, by numpy's least squares."""
    if adjust == "phenotype":
        y_N, c_NK = left_over(y_N, c_NK), c_NK[:, :1]
    y_N = left_over(y_N, c_NK)  # changes no beta and no residual, and spares digits
    beta_M, se_M, share_M = np.full((3, x_NM.shape[1]), np.nan)
    for m, x_N in enumerate(x_NM.T):
        rest_N, centred_N = left_over(x_N, c_NK), left_over(x_N, c_NK[:, :1])
        share_M[m] = rest_N @ rest_N / max(centred_N @ centred_N, 1e-300)
        if share_M[m] > 1e-9:
            solution = np.linalg.lstsq(np.column_stack([rest_N, c_NK]), y_N, rcond=None)[0]
            residual_N = y_N - rest_N * solution[0]
            variance = residual_N @ residual_N / (len(y_N) - 1 - c_NK.shape[1])
            beta_M[m], se_M[m] = solution[0], np.sqrt(variance / (rest_N @ rest_N))
    return beta_M, se_M, share_M


def expected(case, config, components, impute):
    """beta, se, log10p [M, P] by the oracle, NaN where a variant cannot or must not be tested; and which variants are
    so nearly explained by covariates that either is right."""
    shape = (len(case.counts_MN), len(case.traits))
    border_M = np.zeros(shape[0], bool)
    beta_MP, se_MP, log10p_MP = np.full((3, *shape), np.nan)
    for p, row in enumerate(components.itertuples()):
        seen_N = case.used_N & np.isfinite(case.y_NP[:, p])
        y_N, counts_MN = case.y_NP[seen_N, p], case.counts_MN[:, seen_N]
        c_NK = np.column_stack([np.ones(seen_N.sum()), case.covariates_NK[seen_N]])
        x_NM = impute(counts_MN).T
        tested_M = may_be_tested(counts_MN, config)
        with np.errstate(divide="ignore", invalid="ignore"):
            if config.test == "linear":
                beta_M, se_M, share_M = dense_linear(x_NM, y_N, c_NK, config.adjust)
            else:
                value_N, vector_NN = np.linalg.eigh(case.grm_NN[np.ix_(seen_N, seen_N)])
                clipped_NN = (vector_NN * np.maximum(value_N, 0)) @ vector_NN.T
                v_NN = row.vg * clipped_NN + row.ve * np.eye(len(y_N))
                if config.adjust == "gls":
                    beta_M, se_M, share_M = dense_gls(x_NM, y_N, c_NK, v_NN)
                else:
                    beta_M, se_M, share_M = dense_projected(x_NM, y_N, c_NK, v_NN, config.adjust)
        tested_M &= share_M > 1e-6
        border_M |= tested_M & (share_M < 1e-3)
        beta_MP[tested_M, p], se_MP[tested_M, p] = beta_M[tested_M], se_M[tested_M]
        z_M = beta_MP[:, p] / se_MP[:, p]
        if config.test == "linear" and config.adjust != "phenotype":
            log10p_MP[:, p] = -(np.log(2) + stats.t.logsf(abs(z_M), len(y_N) - c_NK.shape[1] - 1)) / np.log(10)
        else:
            log10p_MP[:, p] = -(np.log(2) + special.log_ndtr(-abs(z_M))) / np.log(10)
    return beta_MP, se_MP, log10p_MP, ~border_M


def may_be_tested(counts_MN, config):
    """Variants that vary, and pass the filters, among these people."""
    called_M = (counts_MN >= 0).sum(axis=1)
    copies_M = np.where(counts_MN >= 0, counts_MN, 0).sum(axis=1)
    varies_M = np.array([len(np.unique(row[row >= 0])) > 1 for row in counts_MN])
    minor_M = np.minimum(copies_M, 2 * called_M - copies_M)
    missing_M = counts_MN.shape[1] - called_M
    return (
        varies_M & (minor_M >= config.min_maf * 2 * called_M - 1e-9)
        & (missing_M <= config.max_missing * counts_MN.shape[1])
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- checks


def check(case, config, impute) -> None:
    """Run, and hold everything that is stored against the oracle."""
    gwas(config)
    found = Sumstats.open(config.out)
    components = pd.read_csv(config.out / "null.tsv", sep="\t")
    assert found.traits == case.traits == components.trait.tolist()
    beta_MP, se_MP, log10p_MP, clear_M = expected(case, config, components, impute)
    assert clear_M.mean() > 0.8
    beta_MP, se_MP, log10p_MP = beta_MP[clear_M], se_MP[clear_M], log10p_MP[clear_M]
    beta, se = (found.values(name).astype(np.float64)[clear_M] for name in ("beta", "se"))
    np.testing.assert_array_equal(np.isnan(beta), np.isnan(beta_MP), err_msg="what is tested")
    np.testing.assert_array_equal(np.isnan(se), np.isnan(se_MP), err_msg="what is tested")
    np.testing.assert_allclose(se, se_MP, rtol=5e-7, err_msg="se")
    np.testing.assert_allclose((beta / se) ** 2, (beta_MP / se_MP) ** 2, CHI2_RELATIVE, CHI2_ABSOLUTE, err_msg="chi2")
    sign = np.abs(np.nan_to_num(beta_MP / se_MP)) > 1e-3
    np.testing.assert_array_equal(np.sign(beta[sign]), np.sign(beta_MP[sign]), err_msg="direction")
    check_p(found, log10p_MP, clear_M)
    seen_N = case.used_N & np.isfinite(case.y_NP).any(axis=1)
    called_MN = case.counts_MN[:, seen_N] >= 0
    np.testing.assert_array_equal(found.variants.n, called_MN.sum(axis=1))
    with np.errstate(invalid="ignore"):
        af1_M = np.where(called_MN, case.counts_MN[:, seen_N], 0).sum(axis=1) / (2 * called_MN.sum(axis=1))
    np.testing.assert_allclose(found.variants.af1, af1_M, rtol=1e-6)


def check_p(found: Sumstats, log10p_MP: np.ndarray, clear_M: np.ndarray) -> None:
    """-log10 p of every trait, the smallest over traits, and whose it is."""
    log10p = np.stack([found.log10p(trait)[clear_M] for trait in found.traits], axis=1)
    np.testing.assert_allclose(log10p, log10p_MP, LOG10P_RELATIVE, LOG10P_ABSOLUTE, err_msg="log10p")
    minp_M, trait_M = found.log10p("minp")[clear_M], found.minp_trait()[clear_M]
    tested_M = np.isfinite(log10p_MP).any(axis=1)
    best_M = np.nanmax(log10p_MP[tested_M], axis=1)
    np.testing.assert_allclose(minp_M[tested_M], best_M, LOG10P_RELATIVE, LOG10P_ABSOLUTE)
    of_best_M = log10p_MP[np.flatnonzero(tested_M), trait_M[tested_M]]
    np.testing.assert_allclose(of_best_M, best_M, LOG10P_RELATIVE, LOG10P_ABSOLUTE, err_msg="minp_trait")
    assert np.isnan(minp_M[~tested_M]).all() and (trait_M[~tested_M] == -1).all()


SHAPES = {
    "seed": st.integers(0, 2**20),
    "n": st.integers(30, 130) | st.integers(131, 400),
    "families": st.sampled_from(["none", "one", "large", "pairs", "mixed", "mixed"]),
    "h2": st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]) | st.floats(0, 1), min_size=1, max_size=8),
    "many": st.sampled_from([False, False, False, True]),
    "k": st.sampled_from([0, 1, 2, 5, 20]),
    "missing_calls": st.sampled_from([0.0, 0.02, 0.1]),
    "patterns": st.sampled_from([1, 1, 2, 4]),
    "share_used": st.sampled_from([1.0, 0.7, 0.35]),
    "singular": st.booleans(),
    "outliers": st.sampled_from([False, False, True]),
}
HOW = {
    "block": st.sampled_from([1, 3, 16, 1024]),
    "per_part": st.sampled_from([5, 28, 8192]),
    "min_maf": st.sampled_from([0.0, 0.0, 0.02]),
    "max_missing": st.sampled_from([0.1, 0.5]),
}


def drawn(make_case, folder, seed, n, families, h2, many, k, missing_calls, patterns, share_used, singular, outliers):
    """The case, with no more covariates than its people bear; `many`: up to 40 traits."""
    h2_P = np.resize(h2, 40) if many else h2
    n = int(max(n, 45 / share_used if patterns > 1 or share_used < 1 else 30))
    k = min(k, int(n * share_used) // 5)
    return make_case(
        folder, seed, n, families, h2_P, k, missing_calls, patterns, share_used, singular, outliers=outliers
    )


@given(adjust=st.sampled_from(["gls", "gls", "project", "phenotype"]), given_variance=st.booleans(), **SHAPES, **HOW)
@FEW
def test_mixed(make_case, impute, adjust, given_variance, block, per_part, min_maf, max_missing, **shape):
    with tempfile.TemporaryDirectory() as folder:
        case = drawn(make_case, Path(folder), **shape)
        if given_variance:  # any components, also where Ve is 0 and where the effects are huge
            rng = np.random.default_rng(shape["seed"])
            p = len(case.traits)
            h2_P = np.resize(shape["h2"], p) * (0.95 if shape["singular"] else 1.0)
            total_P = np.nanvar(case.y_NP[case.used_N], axis=0) * 10 ** rng.uniform(-2, 1, p)
            case.give_variance(h2_P * total_P, (1 - h2_P) * total_P)
        keys = {"block": block, "variants_per_part": per_part, "min_maf": min_maf, "max_missing": max_missing}
        check(case, case.config(adjust=adjust, **keys), impute)


@given(adjust=st.sampled_from(["gls", "project", "phenotype"]), **SHAPES, **HOW)
@settings(FEW, max_examples=15)
def test_linear(make_case, impute, adjust, block, per_part, min_maf, max_missing, **shape):
    with tempfile.TemporaryDirectory() as folder:
        case = drawn(make_case, Path(folder), **shape)
        keys = {"block": block, "variants_per_part": per_part, "min_maf": min_maf, "max_missing": max_missing}
        check(case, case.config(test="linear", adjust=adjust, **keys), impute)


# ------------------------------------------------------------------------------------------------------ variances


def reml(h, y_N, c_NK, g_NN):
    """Restricted log-likelihood of V = s2 (h G + (1 - h) I) at the best s2, and that s2; dense."""
    v_NN = h * g_NN + (1 - h) * np.eye(len(y_N))
    yw_N, cw_NK = whitened(v_NN, y_N, c_NK)
    df = len(y_N) - c_NK.shape[1]
    rest = np.sum(left_over(yw_N, cw_NK) ** 2)
    determinants = np.linalg.slogdet(v_NN)[1] + 2 * np.log(abs(np.diag(np.linalg.qr(cw_NK)[1]))).sum()
    return -0.5 * (df * np.log(rest) + determinants), rest / df


@given(
    **{name: SHAPES[name] for name in ("seed", "n", "h2", "k", "patterns")}, families=st.sampled_from(["one", "mixed"])
)
@settings(FEW, max_examples=10)
def test_variance_components_are_the_maximum_of_the_dense_likelihood(make_case, seed, n, h2, k, patterns, families):
    with tempfile.TemporaryDirectory() as folder:
        k = min(k, n // 5)
        case = make_case(Path(folder), seed, n, families, h2[:3], k, patterns=patterns, share_used=1.0)
        config = case.config()
        gwas(config)
        components = pd.read_csv(config.out / "null.tsv", sep="\t")
        for p, row in enumerate(components.itertuples()):
            seen_N = np.isfinite(case.y_NP[:, p])
            c_NK = np.column_stack([np.ones(seen_N.sum()), case.covariates_NK[seen_N]])
            y_N = left_over(case.y_NP[seen_N, p], c_NK)
            g_NN = case.grm_NN[np.ix_(seen_N, seen_N)]
            grid = np.linspace(0, 0.9999, 21)
            best = grid[np.argmax([reml(h, y_N, c_NK, g_NN)[0] for h in grid])]
            found = optimize.minimize_scalar(
                lambda h, y_N=y_N, c_NK=c_NK, g_NN=g_NN: -reml(h, y_N, c_NK, g_NN)[0],
                bounds=(max(best - 0.05, 0), min(best + 0.05, 0.9999)), method="bounded", options={"xatol": 1e-9},
            )  # fmt: skip
            likelihood, s2 = reml(row.vg / (row.vg + row.ve), y_N, c_NK, g_NN)
            assert likelihood >= -found.fun - 1e-7
            assert row.vg + row.ve == pytest.approx(s2, rel=1e-6)
            assert row.h2 == pytest.approx(row.vg / (row.vg + row.ve), abs=1e-9) and row.n == len(y_N)


# -------------------------------------------------------------------------------------------------- special cases


@pytest.mark.parametrize(("adjust", "families"), [("gls", "mixed"), ("gls", "large"), ("project", "mixed")])
def test_hundreds_of_heritabilities(make_case, impute, tmp_path, adjust, families):
    """More traits than are done at once, each with a heritability of its own, up to V = G."""
    h2_P = np.append(np.linspace(0, 0.999, 299), 1.0)
    case = make_case(tmp_path, 21, 230, families, h2_P, 6, missing_calls=0.02)
    total_P = np.var(case.y_NP, axis=0)
    case.give_variance(h2_P * total_P, (1 - h2_P) * total_P)
    check(case, case.config(adjust=adjust), impute)


def test_one_variant_that_covariates_explain_to_a_thousandth(make_case, impute, tmp_path):
    """What covariates leave is a difference of large numbers: 0.2 %, the least that the border of 1e-4 lets pass with
    room to spare."""
    case = make_case(tmp_path, 22, 400, "mixed", (0.0, 0.3, 0.6, 0.9), 3, missing_calls=0.02)
    x_MN = impute(case.counts_MN)
    rng = np.random.default_rng(23)
    common = np.flatnonzero(x_MN.std(axis=1) > 0.3)[:3]
    for k, m in enumerate(common):
        case.covariates_NK[:, k] = x_MN[m] + 0.05 * x_MN[m].std() * rng.standard_normal(400)
    check(case.write(), case.config(), impute)


@pytest.mark.parametrize("adjust", ["gls", "project"])
def test_identical_twins(make_case, impute, tmp_path, adjust):
    """G of monozygotic twins is singular: where h2 is near 1 their difference weighs ten thousand times as much as
    other people, and a trait of small h2 beside it must not feel that."""
    case = make_case(tmp_path, 24, 150, "pairs", (0.05, 0.2, 0.5, 0.9, 0.9999), 2)
    case.grm_NN = np.where(case.grm_NN != 0, 1.0, 0.0)
    case.write()
    total_P, h2_P = np.var(case.y_NP, axis=0), np.array([0.05, 0.2, 0.5, 0.9, 0.9999])
    case.give_variance(h2_P * total_P, (1 - h2_P) * total_P)
    check(case, case.config(adjust=adjust), impute)


@pytest.mark.parametrize("h2", [1e-300, 1e-15, 1e-9, 1e-6])
def test_heritabilities_of_almost_nothing(make_case, impute, tmp_path, h2):
    """The weights differ from 1 by less than the tolerance, or hardly more."""
    case = make_case(tmp_path, 25, 60, "mixed", (0.1, 0.2), 1)
    total_P = np.var(case.y_NP, axis=0)
    case.give_variance(np.array([h2, 0]) * total_P, total_P)
    check(case, case.config(), impute)


@pytest.mark.parametrize("n", [30, 101, 150, 203])
def test_everybody_is_heterozygous(make_case, impute, tmp_path, n):
    """The allele is common, and yet nothing varies: among all, among those who are called, or but for one."""
    case = make_case(tmp_path, 26, n, "mixed", np.linspace(0, 0.95, 40), 4, missing_calls=0.0)
    case.counts_MN = np.ones((4, n), np.int64)
    case.counts_MN[1, 5:7] = -1
    case.counts_MN[2, 7] = 0
    case.counts_MN[3, [7, 20]] = 2, -1
    check(case.write(), case.config(), impute)
    found = Sumstats.open(tmp_path / "out")
    assert np.isfinite(found.beta("y0")).tolist() == [False, False, True, True]


@pytest.mark.parametrize(("test", "n", "largest"), [("mixed", 300, 4.5), ("linear", 300, 9.0), ("linear", 120, 400.0)])
def test_tiny_p_values(make_case, impute, tmp_path, test, n, largest):
    """Effects planted so that p goes down to 1e-300 and beyond; of 120 people, where a variant leaves a hundred
    thousandth of a trait's variance unexplained, the residual must be exact too."""
    case = make_case(tmp_path, 3, n, h2_P=np.full(12, 0.3), k=1, missing_calls=0.02)
    rng = np.random.default_rng(4)
    x_MN = impute(case.counts_MN)
    m = int(np.argmax(x_MN.std(axis=1)))
    size = np.geomspace(0.5, largest, 12)
    case.y_NP = x_MN[m][:, None] * size + rng.standard_normal((n, 12))
    case.write()
    if test == "mixed":
        case.give_variance(np.full(12, 0.3), np.full(12, 0.7))
    config = case.config(test=test)
    check(case, config, impute)
    log10p = np.array([Sumstats.open(config.out).log10p(trait)[m] for trait in case.traits])
    assert ((log10p > 200) & (log10p < 320)).any() and (np.diff(log10p) > 0).all() and log10p.min() < 30


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-6])
def test_a_trait_that_is_a_variant(make_case, impute, tmp_path, noise):
    """A residual below rounding is not known, but the strongest hit of all is not lost: -log10 p stays a number."""
    case = make_case(tmp_path, 27, 100, "none", (0.0, 0.0), 1, missing_calls=0.0)
    m = int(np.argmax(impute(case.counts_MN).std(axis=1) * (case.counts_MN.min(axis=1) >= 0)))
    case.y_NP[:, 0] = 3 + 2 * case.counts_MN[m] + noise * np.random.default_rng(0).standard_normal(100)
    config = case.write().config(test="linear")
    gwas(config)
    found = Sumstats.open(config.out)
    assert found.beta("y0")[m] == pytest.approx(2, rel=1e-5)
    assert 400 < found.log10p("y0")[m] < 1e4 and 400 < found.log10p("multivariate")[m] < 1e4
    assert found.log10p("minp")[m] == pytest.approx(found.log10p("y0")[m], rel=1e-5) and found.minp_trait()[m] == 0
