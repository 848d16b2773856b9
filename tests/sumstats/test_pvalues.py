"""-log10 p against mpmath over the whole range that a scan can meet, and through a file and back."""

import mpmath
import numpy as np
import pytest
from scipy import stats

from udipdist.sumstats import digits, pvalues
from udipdist.sumstats.pvalues import log10p_from_t, log10p_from_z

Z = np.concatenate([np.geomspace(1e-6, 0.5, 12), np.arange(0.75, 60.25, 0.75), [36.9, 37.6, 38.4, 59.99, 60.0]])


def normal(z: float) -> mpmath.mpf:
    return -mpmath.log10(mpmath.erfc(mpmath.mpf(z) / mpmath.sqrt(2)))


def beta_tail(a: mpmath.mpf, b: mpmath.mpf, x: mpmath.mpf) -> mpmath.mpf:
    """-log10 I_x(a, b): x^a (1-x)^b / (a B(a, b)) 2F1(1, a+b; a+1; x), whose terms are all positive."""
    term = total = mpmath.mpf(1)
    n = 0
    while term > total * mpmath.mpf(10) ** -18:
        term *= (a + b + n) / (a + 1 + n) * x
        total += term
        n += 1
    return -mpmath.log10(x**a * (1 - x) ** b / (a * mpmath.beta(a, b)) * total)


def relative_error(values: np.ndarray, exact: list[mpmath.mpf]) -> float:
    return max(abs(float((mpmath.mpf(float(v)) - e) / e)) for v, e in zip(values, exact, strict=True))


def test_normal_tail():
    with mpmath.workdps(40):
        exact = [normal(z) for z in Z]
    for sign in (1, -1):
        assert relative_error(log10p_from_z(sign * Z), exact) < 1e-12


@pytest.mark.parametrize("df", [10, 333, 39_960])
def test_student_tail(df):
    z = Z[(Z > 2.5)][:: 1 if df < 1000 else 7]  # nearer the middle the series is slow: test_sumstats has those
    with mpmath.workdps(30):
        exact = [beta_tail(mpmath.mpf(df) / 2, mpmath.mpf(1) / 2, df / (df + mpmath.mpf(v) ** 2)) for v in z]
    assert relative_error(log10p_from_t(z, df), exact) < 1e-10


@pytest.mark.parametrize("df", [1, 16, 128])
def test_chi_squared_tail_of_the_joint_test(df):
    x = df + np.sqrt(2.0 * df) * np.concatenate([np.linspace(0, 40, 9), [60, 100, 200]])
    with mpmath.workdps(30):
        exact = [
            -mpmath.log10(mpmath.gammainc(mpmath.mpf(df) / 2, mpmath.mpf(float(v)) / 2, regularized=True)) for v in x
        ]
    assert relative_error(pvalues.log10p_from_chi2(x, df), exact) < 1e-10


@pytest.mark.parametrize("df", [1, 5, 128, 1024])
def test_chi_squared_of_a_p(df):
    for log10p in (0, 1e-6, 0.3, 7.3, 280, 300, 5000.0):
        x = pvalues.chi2_from_log10p(log10p, df)
        assert pvalues.log10p_from_chi2(np.array([x]), df)[0] == pytest.approx(log10p, rel=1e-7, abs=1e-9)
    assert pvalues.chi2_from_log10p(-np.log10(5e-8), df) == pytest.approx(stats.chi2.isf(5e-8, df), rel=1e-9)
    assert np.isnan(pvalues.chi2_from_log10p(np.nan, df))
    for wrong in (-0.1, np.inf):
        with pytest.raises(ValueError, match="is not -log10 of a p-value"):
            pvalues.chi2_from_log10p(wrong, df)


def test_f_tail_of_the_joint_test():
    df1, df2 = 16, 3_000
    f = np.array([2.0, 5, 30, 60, 100, 400])
    with mpmath.workdps(30):
        a, b = mpmath.mpf(df2) / 2, mpmath.mpf(df1) / 2
        exact = [beta_tail(a, b, df2 / (df2 + df1 * mpmath.mpf(float(v)))) for v in f]
    assert relative_error(pvalues.log10p_from_f(f, df1, df2), exact) < 1e-10


def test_through_single_precision_and_text():
    """beta and se are stored as float32: -log10 p is good to 1e-3 up to p = 1e-300 (z = 37), and beyond."""
    rng = np.random.default_rng(3)
    z = np.repeat(Z, 20)
    se = rng.uniform(1e-3, 10, len(z))
    stored = [values.astype(np.float32).astype(float) for values in (z * se, se)]
    log10p = log10p_from_z(stored[0] / stored[1])
    with mpmath.workdps(40):
        exact = np.repeat([float(normal(v)) for v in Z], 20)
    error = np.abs(log10p - exact)
    assert error[exact <= 300].max() < 1e-4 and error.max() < 3e-4
    text = digits.p_values(log10p).to_pylist()
    read = np.array([float(-mpmath.log10(mpmath.mpf(p))) for p in text])
    assert np.abs(read - log10p).max() < 3e-6
    assert np.abs(np.array(digits.minus_log10(log10p).to_pylist(), float) - log10p).max() < 1e-10


def test_p_as_text_is_what_printf_would_print():
    log10p = np.concatenate([np.random.default_rng(4).exponential(2, 5000), np.arange(301), [3.99999999, 4.0000001]])
    assert digits.p_values(log10p).to_pylist() == [f"{10.0**-x:.6g}" for x in log10p]


def test_numbers_as_text_read_back_equal():
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.standard_normal(2000) * 10.0 ** rng.uniform(-30, 30, 2000), [0, -0.0, 1, 1e-45, 3e38]])
    single = values.astype(np.float32)
    text = digits.shortest(single).to_pylist()
    np.testing.assert_array_equal(np.array([float(t) for t in text]).astype(np.float32), single)
    np.testing.assert_array_equal([float(t) for t in digits.shortest(values).to_pylist()], values)
    assert digits.shortest(np.array([np.nan, np.inf])).to_pylist() == [None, "inf"]
    assert digits.p_values(np.array([np.nan, np.inf, 0.0, 1e-30])).to_pylist() == [None, "0", "1", "1"]
