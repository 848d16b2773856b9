"""Lambda and QQ curves against direct computation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from udipdist.report import calibration
from udipdist.report.calibration import band, calibrate, exact_curve
from udipdist.sumstats.pvalues import log10p_from_t, log10p_from_z

DF = [30, 40, 500, 60, 70]


def exact(log10p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expected and observed -log10 p of all tests, the slow way."""
    observed = np.sort(log10p[~np.isnan(log10p)])[::-1]
    n = len(observed)
    return -np.log10((np.arange(n) + 0.5) / n), observed


def test_lambda_is_the_median_chi2_over_its_expectation(make_sumstats):
    sumstats, z = make_sumstats()
    direct = np.nanmedian(z**2, axis=0) / stats.chi2.median(1)
    np.testing.assert_allclose(calibrate(sumstats).lambda_P, direct, rtol=1e-6)


@pytest.mark.parametrize("df", [35, DF])
def test_lambda_of_t_statistics_goes_through_p(make_sumstats, df):
    sumstats, t = make_sumstats(df)
    p = 2 * stats.t.sf(np.abs(t), df)
    direct = stats.chi2.isf(np.nanmedian(p, axis=0), 1) / stats.chi2.median(1)
    np.testing.assert_allclose(calibrate(sumstats).lambda_P, direct, rtol=1e-6)


@pytest.mark.parametrize("df", [None, DF])
def test_pooled_curve_is_exact_in_the_tail_and_within_a_thousandth_below(make_sumstats, df):
    sumstats, z = make_sumstats(df)
    expected, observed = exact(log10p_from_z(z) if df is None else log10p_from_t(z, np.array(DF)))
    curve = calibrate(sumstats).pooled
    assert curve.n == len(observed) == 5 * (len(z) - 1)
    tail = int((observed >= 2).sum())
    assert tail > 50
    np.testing.assert_allclose(curve.observed[:tail], observed[:tail], rtol=1e-6)
    np.testing.assert_allclose(curve.expected[:tail], expected[:tail], rtol=1e-12)
    # below, a point of the curve is the lower edge of a bin, at the rank of the smallest test in it
    rank = np.rint(10.0 ** -curve.expected[tail:] * curve.n + 0.5).astype(int) - 1
    assert np.all(np.diff(rank) >= 0) and rank[-1] == curve.n - 1
    width = observed[rank] - curve.observed[tail:]
    assert width.min() > -1e-6 and width.max() < 1.2e-3


def test_null_variants_have_a_curve_and_lambdas_of_their_own(make_sumstats):
    sumstats, z = make_sumstats()
    null_M = np.zeros(len(z), bool)
    null_M[1800:2400] = True
    result = calibrate(sumstats, null_M)
    assert result.null.n == 600 * 5 < result.pooled.n
    direct = np.median(z[null_M] ** 2, axis=0) / stats.chi2.median(1)
    np.testing.assert_allclose(result.null_lambda_P, direct, rtol=1e-6)
    assert calibrate(sumstats).null is None and np.isnan(calibrate(sumstats).null_lambda_P).all()


def test_how_many_traits_are_read_at_once_changes_nothing(make_sumstats, monkeypatch):
    sumstats, _ = make_sumstats()
    whole = calibrate(sumstats)
    monkeypatch.setattr(calibration, "_BYTES_AT_ONCE", 1)
    single = calibrate(sumstats)
    np.testing.assert_array_equal(whole.lambda_P, single.lambda_P)
    np.testing.assert_array_equal(whole.pooled.observed, single.pooled.observed)


def test_exact_curve_leaves_nan_out():
    curve = exact_curve(np.array([1.0, np.nan, 400.0, 0.5]))
    np.testing.assert_array_equal(curve.observed, [400.0, 1.0, 0.5])
    np.testing.assert_allclose(curve.expected, -np.log10((np.arange(3) + 0.5) / 3))
    assert curve.n == 3


def test_band_holds_95_percent_of_uniform_p_values():
    n, rng = 400, np.random.default_rng(0)
    expected, low, high = band(n, points=12)
    rank = np.rint(10.0**-expected * n + 0.5).astype(int) - 1
    draws = -np.log10(np.sort(rng.uniform(size=(4000, n)), axis=1))[:, rank]
    share = ((draws >= low) & (draws <= high)).mean(axis=0)
    assert np.all(np.abs(share - 0.95) < 0.015)
