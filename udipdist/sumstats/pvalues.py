"""-log10 p, finite however far out: upper tails of chi-squared and F, in float64.

Where the tail probability underflows, its logarithm comes from the continued fractions of the incomplete gamma and
beta functions (Abramowitz & Stegun 6.5.31 and 26.5.8), by Lentz's method; they converge fast so far out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special

from udipdist.sumstats import digits

LN10 = np.log(10.0)
_TINY = 1e-290
_STEPS = 10_000


def log10p_from_chi2(x: np.ndarray, df: float) -> np.ndarray:
    """-log10 P(chi2_df > x); NaN stays NaN."""
    a, half = df / 2, np.asarray(x, np.float64) / 2
    return _combine(special.gammaincc(a, half), special.gammainc(a, half), lambda far: _log_gammaincc(a, half[far]))


def chi2_from_log10p(log10p: float, df: float) -> float:
    """The x with -log10 P(chi2_df > x) = log10p, to a relative 1e-9, also where p underflows; NaN stays NaN.

    Raises ValueError for an infinite or negative `log10p`.
    """
    from scipy import optimize  # a quarter of a second, for those alone who ask for a quantile

    if np.isnan(log10p):
        return float("nan")
    if not 0 <= log10p < np.inf:
        raise ValueError(f"{log10p} is not -log10 of a p-value")
    if log10p == 0:
        return 0.0
    high = df + 10 * log10p + 10
    while log10p_from_chi2(np.array([high]), df)[0] < log10p:
        high *= 2
    return float(optimize.brentq(lambda x: log10p_from_chi2(np.array([x]), df)[0] - log10p, 0.0, high, rtol=1e-10))


def log10p_from_f(f: np.ndarray, df1: float, df2: float | np.ndarray) -> np.ndarray:
    """-log10 P(F_df1,df2 > f), `df2` one number or one for each f; NaN stays NaN."""
    f, df2 = np.broadcast_arrays(np.asarray(f, np.float64), np.asarray(df2, np.float64))
    x, y = df2 / (df2 + df1 * f), df1 * f / (df2 + df1 * f)
    return _combine(
        special.betainc(df2 / 2, df1 / 2, x),
        special.betainc(df1 / 2, df2 / 2, y),
        lambda far: _log_betainc(df2[far] / 2, df1 / 2, x[far], y[far]),
    )


def _combine(tail: np.ndarray, body: np.ndarray, log_tail: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """-log10 of the tail: from itself, from 1 - body where that is near 1, from `log_tail` where it underflows."""
    far = tail < _TINY
    with np.errstate(invalid="ignore"):
        result = np.where(tail < 0.5, -np.log(np.where(far, 1.0, tail)), -np.log1p(-np.minimum(body, 0.5)))
    if far.any():
        result[far] = -log_tail(far)
    return np.where(np.isnan(tail), np.nan, result / LN10)[()]


def _log_gammaincc(a: float, x: np.ndarray) -> np.ndarray:
    """log Q(a, x) for x well above a: x^a e^-x / Gamma(a) times the continued fraction."""
    b = x + 1 - a
    c = np.full_like(x, 1e300)
    d = 1 / b
    fraction = d.copy()
    for i in range(1, _STEPS):
        coefficient = -i * (i - a)
        b = b + 2
        d = 1 / (coefficient * d + b)
        c = b + coefficient / c
        step = c * d
        fraction *= step
        if np.all(np.abs(step - 1) < 1e-15):
            return a * np.log(x) - x - special.gammaln(a) + np.log(fraction)
    raise AssertionError("the continued fraction of the chi-squared tail did not converge")


def _log_betainc(a: np.ndarray, b: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """log I_x(a, b) far in the tail, y = 1 - x: x^a y^b / (a B(a, b)) times the continued fraction."""
    c = np.ones_like(x)
    d = 1 / (1 - (a + b) * x / (a + 1))
    fraction = d.copy()
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for coefficient in (even, odd):
            d = 1 / (1 + coefficient * d)
            c = 1 + coefficient / c
            step = c * d
            fraction *= step
        if np.all(np.abs(step - 1) < 1e-15):
            return a * np.log(x) + b * np.log(y) - np.log(a) - special.betaln(a, b) + np.log(fraction)
    raise AssertionError("the continued fraction of the F tail did not converge")


def log10p_from_z(z: np.ndarray) -> np.ndarray:
    """-log10 of the two-sided normal p of `z`, float64; relative error below 1e-10 for any z, also where p underflows.

    Above |z| = 1 by the logarithm of the normal tail; below by log1p, because p is near 1 there.
    """
    z = np.abs(np.asarray(z, np.float64))
    far = -(special.log_ndtr(-z) + np.log(2.0))
    near = -np.log1p(-special.erf(np.minimum(z, 1.0) / np.sqrt(2.0)))
    return np.where(z < 1.0, near, far) / LN10


def log10p_from_t(t: np.ndarray, df: float | np.ndarray) -> np.ndarray:
    """-log10 of the two-sided p of Student's `t` with `df` degrees of freedom, float64; relative error below 1e-10.

    t^2 is F with 1 and `df` degrees of freedom.
    """
    return log10p_from_f(np.square(np.asarray(t, np.float64)), 1, df)


def p_text(log10p: np.ndarray) -> list[str]:
    """p-values as text, from -log10 p: '3.2e-420' stays what it is, below the smallest float64 too; 'NA' for NaN."""
    return digits.p_values(log10p).fill_null("NA").to_pylist()
