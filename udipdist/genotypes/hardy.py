"""The exact test of Hardy-Weinberg equilibrium (Wigginton, Cutler & Abecasis 2005, AJHG 76:887), to any depth.

Given the number of alleles, the number of heterozygotes h has probability P(h), and p is the sum of P over all h that
are no more likely than the one seen (no mid-p). Here P(h) itself comes from Loader's saddle-point form (2000, "Fast
and accurate computation of binomial probabilities"), whose relative error does not grow with the number of people;
other terms come from it by the ratio of neighbours. Where h lies near the mode, p is 1 minus the terms between; else
it is two tails, which fall fast. So the time goes with the standard deviation of h, sqrt(people), at worst.
"""

from __future__ import annotations

import math

import numpy as np

from hpc.compiled import njit

LN10 = math.log(10.0)
_TIE = 1e-10  # relative difference of two probabilities that are the same but for rounding
_STOP = 1e-17  # a tail ends where its terms are below this share of it
_WALK = 256  # steps towards the other side of the mode before it is searched for by halving
_FAR = 1e200  # het is so unlikely that the walk could overflow
_ENOUGH = 0.05  # p above this may be 1 minus a sum without losing digits

# log n! - log(sqrt(2 pi n) (n / e)^n) for n = 0..15; above by Stirling's series
_STIRLING = np.array(
    [0.0] + [math.lgamma(n + 1.0) - (n + 0.5) * math.log(n) + n - 0.5 * math.log(2 * math.pi) for n in range(1, 16)]
)
_TWO_PI = 2 * math.pi


@njit(nogil=True, cache=True)
def log10p(hom1_M, het_M, hom2_M):
    """-log10 of the exact p of each variant from its numbers of genotypes, float64 [M]; NaN where nobody is called.

    `hom1_M`, `het_M`, `hom2_M`: integers [M], which homozygote is which does not matter. 0 (p = 1) where only one
    allele is seen. The error is below 1e-9 wherever p underflows too. On chromosome X give the females' numbers.
    """
    out_M = np.empty(len(het_M), np.float64)
    for i in range(len(het_M)):
        out_M[i] = _one(np.int64(hom1_M[i]), np.int64(het_M[i]), np.int64(hom2_M[i]))
    return out_M


@njit(nogil=True, cache=True)
def _one(hom1, het, hom2):
    n = hom1 + het + hom2
    if n == 0:
        return np.nan
    rare = 2 * min(hom1, hom2) + het  # copies of the allele that is seen less often
    if rare < 2:
        return 0.0
    step = np.int64(2) if _up(het, rare, n) > 1.0 + _TIE else np.int64(-2)
    if step < 0 and _down(het, rare, n) <= 1.0 + _TIE:
        return 0.0  # no other number is more likely
    log_seen = _log_probability(het, rare, n)

    # Towards the mode and beyond it, in units of P(het): terms above 1 until the first that is not.
    between, term, h = 0.0, 1.0, het
    found = False
    for _ in range(_WALK):
        h, term = h + step, term * (_up(h, rare, n) if step > 0 else _down(h, rare, n))
        if h < 0 or h > rare or term <= 1.0 + _TIE:
            found = True
            break
        if term > _FAR:
            break
        between += term
    if found:
        p = 1.0 - math.exp(log_seen) * between
        if p > _ENOUGH:
            return max(0.0, -math.log(p) / LN10)
    else:
        h = _other_side(het, step, rare, n, log_seen)
        if 0 <= h <= rare:
            term = math.exp(_log_probability(h, rare, n) - log_seen)
    total = _tail(het, -step, 1.0, rare, n)
    if 0 <= h <= rare:
        total += _tail(h, step, term, rare, n)
    return max(0.0, -(log_seen + math.log(total)) / LN10)


@njit(nogil=True, cache=True, inline="always")
def _up(h, rare, n):
    """P(h + 2) / P(h)."""
    return np.float64(rare - h) * np.float64(2 * n - rare - h) / (np.float64(h + 2) * np.float64(h + 1))


@njit(nogil=True, cache=True, inline="always")
def _down(h, rare, n):
    """P(h - 2) / P(h)."""
    return np.float64(h) * np.float64(h - 1) / (np.float64(rare - h + 2) * np.float64(2 * n - rare - h + 2))


@njit(nogil=True, cache=True)
def _tail(h, step, term, rare, n):
    """The sum of P from h on in steps of `step`, away from the mode, in the unit in which P(h) is `term`."""
    total = term
    while term > _STOP * total:
        term *= _up(h, rare, n) if step > 0 else _down(h, rare, n)
        h += step
        total += term  # 0 at the end of the range
    return total


@njit(nogil=True, cache=True)
def _other_side(het, step, rare, n, log_seen):
    """The first number of heterozygotes beyond the mode that is no more likely than `het`; outside 0..rare if none."""
    low, high = np.int64(0), (rare - het) // 2 if step > 0 else het // 2  # in steps from het; P rises at low
    last = high
    while high - low > 1:  # the mode: the first where P no longer rises
        middle = (low + high) // 2
        h = het + step * middle
        if (_up(h, rare, n) if step > 0 else _down(h, rare, n)) > 1.0:
            low = middle
        else:
            high = middle
    low, high = low, last + 1  # P is above P(het) at low, and high is outside
    while high - low > 1:
        middle = (low + high) // 2
        if _log_probability(het + step * middle, rare, n) - log_seen > _TIE:
            low = middle
        else:
            high = middle
    return het + step * high


@njit(nogil=True, cache=True)
def _log_probability(h, rare, n):
    """log P(h): a trinomial with the frequencies of the alleles over a binomial at its mean, by Loader's parts."""
    q = rare / (2.0 * n)
    rare_hom = (rare - h) // 2
    common_hom = n - h - rare_hom
    value = _scale(n) - _scale(2 * n) + _scale(rare) + _scale(2 * n - rare)
    value -= _scale(rare_hom) + _scale(h) + _scale(common_hom)
    value -= _deviance(rare_hom, n * q * q) + _deviance(h, 2.0 * n * q * (1.0 - q))
    return value - _deviance(common_hom, n * (1.0 - q) * (1.0 - q))


@njit(nogil=True, cache=True)
def _scale(n):
    """log n! - (n log n - n)."""
    if n == 0:
        return 0.0
    if n < 16:
        error = _STIRLING[n]
    else:
        r = 1.0 / n
        s = r * r
        error = r * (1.0 / 12 - s * (1.0 / 360 - s * (1.0 / 1260 - s * (1.0 / 1680 - s / 1188))))
    return 0.5 * math.log(_TWO_PI * n) + error


@njit(nogil=True, cache=True)
def _deviance(x, mean):
    """x log(x / mean) + mean - x, without cancellation near x = mean (Loader's bd0)."""
    if x == 0:
        return mean
    difference = x - mean
    if abs(difference) < 0.1 * (x + mean):
        v = difference / (x + mean)
        total = difference * v
        power = 2.0 * x * v
        for j in range(1, 1000):
            power *= v * v
            longer = total + power / (2 * j + 1)
            if longer == total:
                break
            total = longer
        return total
    return x * math.log(x / mean) + mean - x
