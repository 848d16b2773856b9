"""Random maps that vary over distance as a given map does: what a smooth map that means nothing looks like.

The variogram of the map is fitted by noise and Gaussian bells of several widths, and maps with that covariance are
drawn on its grid (after Burt et al. 2020, "Generative modeling of brain maps with spatial autocorrelation").
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np
from scipy import fft, optimize, special

_BELLS = 12  # widths of the covariance that are fitted
_OVERLAP = 0.05  # lags at which fewer pairs of places exist (as a share of all) say nothing


def surrogates(values: np.ndarray, mask: np.ndarray, zooms: Sequence[float], seed: int) -> Callable[[], np.ndarray]:
    """Draws of Gaussian maps [voxels of mask] that vary over distance as `values` [x, y, z] do in `mask`; voxels are of
    `zooms` mm. Values count by their ranks (normal scores), as they do in the statistic.
    """
    box = tuple(slice(int(a.min()), int(a.max()) + 1) for a in np.nonzero(mask))
    inside = mask[box]
    score = np.zeros(inside.shape)
    from scipy.stats import rankdata

    score[inside] = special.ndtri((rankdata(values[box][inside]) - 0.5) / inside.sum())
    shape = [fft.next_fast_len(2 * n - 1) for n in inside.shape]  # no lag wraps round
    lag = _lags(shape, zooms)
    widths, shares = _fitted(*_variogram(score, inside, shape, lag))
    # lags at which the periodic covariance is not positive definite to the last digit have no power to speak of
    covariance = sum(share * _bell(lag, width) for width, share in zip(widths, shares, strict=True))
    amplitude = np.sqrt(np.maximum(fft.fftn(covariance).real, 0.0)).astype(np.float32)
    numbers, waiting = itertools.count(), []

    def draw() -> np.ndarray:
        if not waiting:  # of a complex map, both parts are draws, and independent ones
            both = _noise(tuple(shape), seed, next(numbers)) * amplitude
            both = fft.ifftn(both, overwrite_x=True)[tuple(slice(0, n) for n in inside.shape)][inside]
            waiting.extend((both.real, both.imag))
        return waiting.pop()

    return draw


@functools.lru_cache(maxsize=1)
def _noise(shape: tuple[int, ...], seed: int, number: int) -> np.ndarray:
    """White noise, complex64; kept for the next map."""
    rng = np.random.default_rng([seed, number])
    return rng.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0]


def _lags(shape: Sequence[int], zooms: Sequence[float]) -> np.ndarray:
    """Distance in mm of each place of a periodic grid from its first."""
    axes = [np.minimum(np.arange(n), n - np.arange(n)) * zoom for n, zoom in zip(shape, zooms, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    return np.sqrt(x**2 + y**2 + z**2)


def _bell(lag: np.ndarray, width: float) -> np.ndarray:
    """Covariance at a distance; of width 0: noise."""
    return np.exp(-0.5 * (lag / width) ** 2) if width else (lag == 0).astype(np.float64)


def _variogram(score: np.ndarray, inside: np.ndarray, shape: Sequence[int], lag: np.ndarray) -> tuple[np.ndarray, ...]:
    """Half the mean squared difference of two voxels by their distance: distances [mm], values, pairs of each bin.

    Unlike a covariance it does not depend on the mean, which a smooth map gives away badly.
    """
    ones, squares, plain = (fft.rfftn(a, shape) for a in (inside.astype(np.float64), score**2, score))
    pairs = fft.irfftn(np.abs(ones) ** 2, shape)
    total = fft.irfftn((squares * ones.conj()).real - np.abs(plain) ** 2, shape)
    known = (pairs > _OVERLAP * inside.sum()) & (lag > 0)
    width = np.min(lag[lag > 0])
    number = np.round(lag[known] / width).astype(int)
    count = np.bincount(number, pairs[known])
    used = count > 0
    distance = np.bincount(number, lag[known] * pairs[known])[used] / count[used]
    return distance, np.bincount(number, total[known])[used] / count[used], count[used]


def _fitted(distance: np.ndarray, gamma: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Widths [mm] and shares >= 0 of noise and bells whose sum has this variogram, by least squares."""
    widths = np.append(0.0, np.geomspace(distance[0] / 2, distance[-1], _BELLS))
    columns = np.stack([1 - _bell(distance, width) for width in widths], axis=1)
    weight = np.sqrt(pairs)
    shares, _ = optimize.nnls(columns * weight[:, None], gamma * weight)
    return widths, shares
