"""The two passes over voxels that cost time: foreground moments, and z-scoring.

Foreground is where the scaled value (stored * slope + inter, in float64) is not 0.
"""

from __future__ import annotations

import math

import numba
import numpy as np

_BLOCK = 4096  # sums are taken by blocks, so that their rounding error does not grow with the volume


def foreground_moments(raw: np.ndarray, slope: float, inter: float, counts: np.ndarray) -> tuple[int, float, float]:
    """Number, mean and standard deviation (over n) of the foreground of a volume; adds 1 to `counts` where it is.

    raw: C-contiguous; counts: integers of the same shape. Two passes in float64. `counts` is left alone where the
    volume cannot be z-scored: no foreground (0, nan, nan), NaN, infinite or huge values (n, nan, nan), or one value
    in all of the foreground (n, value, 0).
    """
    n, total, low, high = _total(raw.reshape(-1), slope, inter)
    if n == 0 or not math.isfinite(total) or not math.isfinite((high - low) * (high - low) * n):
        return n, math.nan, math.nan
    if low == high:
        return n, low, 0.0
    squares = _squares(raw.reshape(-1), slope, inter, total / n, counts.reshape(-1))
    return n, total / n, math.sqrt(squares / n)


@numba.njit(nogil=True, cache=True)
def _total(raw: np.ndarray, slope: float, inter: float) -> tuple[int, float, float, float]:
    """Number, sum, smallest and largest of the foreground."""
    n, total, low, high = 0, 0.0, math.inf, -math.inf
    for start in range(0, raw.size, _BLOCK):
        part = 0.0
        for i in range(start, min(start + _BLOCK, raw.size)):
            value = raw[i] * slope + inter
            if value != 0.0:
                n += 1
                part += value
                low = min(low, value)
                high = max(high, value)
        total += part
    return n, total, low, high


@numba.njit(nogil=True, cache=True)
def _squares(raw: np.ndarray, slope: float, inter: float, mean: float, counts: np.ndarray) -> float:
    """Sum of squared deviations of the foreground; counts it."""
    total = 0.0
    for start in range(0, raw.size, _BLOCK):
        part = 0.0
        for i in range(start, min(start + _BLOCK, raw.size)):
            value = raw[i] * slope + inter
            if value != 0.0:
                part += (value - mean) ** 2
                counts[i] += 1
        total += part
    return total


@numba.njit(nogil=True, cache=True)
def zscore(raw: np.ndarray, slope: float, inter: float, mean: float, std: float, out: np.ndarray) -> None:
    """(scaled - mean) / std in `out` (float32) where there is foreground, exactly 0 elsewhere. Flat arrays."""
    scale = 1.0 / std
    for i in range(raw.size):
        value = raw[i] * slope + inter
        out[i] = (value - mean) * scale if value != 0.0 else 0.0
