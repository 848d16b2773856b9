"""How like the others a scan is, from thumbnails: correlation with their mean, and whether left and right are swapped.

Shapes: N subjects, B of them at once, L of whom the asymmetry is learnt; K blocks of the thumbnail; Q nuisances.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

FEWEST_FOR_FLIP = 20  # scans
FLIP_SEPARATION = 2.5  # robust standard deviations between 0 and the asymmetry of the cohort
FLIP_DEVIATIONS = 3.75  # between the asymmetry of the cohort and the limit
_ROWS = 256  # subjects whose thumbnails are in memory at once
_LEARNT = 2000  # subjects of whom the asymmetry of a cohort is learnt
_MAD = 1.4826  # median absolute deviation -> standard deviation of a normal distribution


def likeness(thumbnails: Any, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each subject the correlation with the mean of the others, and the likeness of its asymmetry; float64 [N].

    thumbnails: [N, tx, ty, tz], an array or anything that is sliced like one; it is read two or three times, _ROWS
    rows at a time. The antisymmetric part is what a thumbnail differs from its mirror image, where x runs from left
    to right. Before it is compared, what a shift, a tilt or a shading from left to right would make of the symmetric
    mean brain is projected out (to first order), so that it is the shape that is compared. The likeness is about 1
    for who is asymmetric as the others are, and -1 for their mirror image (see `_handedness`). NaN where nothing can be
    said.
    """
    total, filled, n = np.zeros(thumbnails.shape[1:]), np.zeros(thumbnails.shape[1:], np.int64), int(valid.sum())
    for rows in _batches(valid):
        values = _rows(thumbnails, rows)
        total += values.sum(0, dtype=np.float64)
        filled += (values != 0).sum(0)
    correlation, asymmetry = np.full(len(valid), np.nan), np.full(len(valid), np.nan)
    if n < 2:
        return correlation, asymmetry
    brain = filled * 20 >= n  # foreground in one subject of 20
    mirror = _Mirror.of(total / n, brain)
    learnt = np.random.default_rng(0).permutation(np.flatnonzero(valid))[:_LEARNT]
    odd_LK = np.empty((len(learnt), mirror.pairs.sum()))
    place = np.full(len(valid), -1)
    place[learnt] = np.arange(len(learnt))
    for rows in _batches(valid):
        values = _rows(thumbnails, rows)
        own_BK = values[:, brain].astype(np.float64)
        correlation[rows] = _correlation(own_BK, (total[brain] - own_BK) / (n - 1))
        here = place[rows] >= 0
        odd_LK[place[rows[here]]] = mirror.odd(values[here])
    asymmetry[learnt], weights_K = _handedness(odd_LK)
    if n > len(learnt):
        for rows in _batches(valid & (place < 0)):
            asymmetry[rows] = _unit(mirror.odd(_rows(thumbnails, rows))) @ weights_K
    return np.round(correlation, 6), np.round(asymmetry, 6)  # beyond that the order of sums is seen


def _handedness(odd_LK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression of the number 1 on antisymmetric parts: left-one-out predictions [L], and weights [K].

    A scan with left and right exchanged has minus its antisymmetric part, so minus its prediction. Parts are scaled to
    length 1, so that a bad scan weighs no more than another; the penalty is that of the smallest left-one-out error.
    The left-one-out prediction is (fit - h) / (1 - h) with h the leverage (Golub, Heath & Wahba 1979, Technometrics
    21:215). NaN for parts that are 0.
    """
    unit = _unit(odd_LK)
    there = np.isfinite(unit).all(axis=1)
    predictions, weights = np.full(len(unit), np.nan), np.full(unit.shape[1], np.nan)
    if there.sum() < FEWEST_FOR_FLIP or not unit.size:
        return predictions, weights
    unit = unit[there]
    size, basis = np.linalg.eigh(unit @ unit.T)
    size = np.maximum(size, 0)
    ones = basis.sum(axis=0)
    best = math.inf
    for penalty in size[-1] * 10.0 ** np.arange(-4, 2.1, 0.5):
        kept = size / (size + penalty)
        leverage = (basis**2) @ kept
        predicted = (basis @ (kept * ones) - leverage) / (1 - leverage)
        error = float(np.mean((1 - predicted) ** 2))
        if error < best:
            best, predictions[there] = error, predicted
            weights = unit.T @ (basis @ (ones / (size + penalty)))
    return predictions, weights


def flip_limit(asymmetry: np.ndarray) -> float | None:
    """Below which likeness of asymmetry a scan is suspected to be flipped; None where that cannot be told.

    Brains are not symmetric (the right frontal and the left occipital lobe reach further: LeMay 1976, Ann N Y Acad
    Sci 280:349), so the likeness (see `likeness`) is positive, and negative where left and right are exchanged. With
    m the median of its size and s the robust SD of its size, the limit is m - 3.75 s (one scan in 10,000 if it were
    normal), and 0 at most. It is told only where m >= 2.5 s, so that a flipped scan, at -m, is beyond the limit nine
    times in ten, and where most scans agree with each other; a cohort without a common asymmetry has m < 1.5 s.
    """
    values = asymmetry[np.isfinite(asymmetry)]
    if len(values) < FEWEST_FOR_FLIP:
        return None
    size, sd = float(np.median(np.abs(values))), spread(np.abs(values))
    told = size >= FLIP_SEPARATION * sd and np.median(values) > 0
    return min(size - FLIP_DEVIATIONS * sd, 0.0) if told else None


def spread(values: np.ndarray) -> float:
    """Robust standard deviation."""
    return _MAD * float(np.median(np.abs(values - np.median(values))))


@dataclass(frozen=True)
class _Mirror:
    """Takes antisymmetric parts: `plane` is the sum of the indices x of two blocks that are mirror images."""

    plane: int
    pairs: np.ndarray  # bool [tx, ty, tz]: blocks left of the plane with brain on both sides
    nuisance_QK: np.ndarray  # orthonormal

    @classmethod
    def of(cls, mean: np.ndarray, brain: np.ndarray) -> _Mirror:
        """The plane through the middle of the mean brain, and what pose and shading make of that brain."""
        x, y, z = (
            np.arange(n, dtype=np.float64).reshape([-1 if a == b else 1 for b in range(3)])
            for a, n in enumerate(mean.shape)
        )
        plane = round(2 * float((x * brain).sum() / max(brain.sum(), 1)))
        pairs = brain & _reflected(brain, plane) & (2 * x < plane)
        even = (mean + _reflected(mean, plane)) / 2
        slope_x, slope_y, slope_z = (np.gradient(even, axis=a) if even.shape[a] > 1 else 0 * even for a in range(3))
        from_middle = x - plane / 2
        patterns = [
            slope_x,  # a shift to the side
            (y - y.mean()) * slope_x - from_middle * slope_y,  # turned about z
            (z - z.mean()) * slope_x - from_middle * slope_z,  # tilted about y
            from_middle * even,  # a gradient of contrast
            from_middle * np.ones_like(even),  # a gradient of brightness
        ]
        flat = np.stack([np.broadcast_to(p, mean.shape)[pairs] for p in patterns])
        _, size, basis = np.linalg.svd(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-300), False)
        return cls(plane, pairs, basis[size > 1e-6])

    def odd(self, values: np.ndarray) -> np.ndarray:
        """Antisymmetric parts without the nuisance, [B, tx, ty, tz] -> float64 [B, K]."""
        odd = (values.astype(np.float64) - _reflected(values, self.plane, 1))[:, self.pairs] / 2
        return odd - (odd @ self.nuisance_QK.T) @ self.nuisance_QK


def _reflected(values: np.ndarray, plane: int, axis: int = 0) -> np.ndarray:
    """What stands at plane - x along the axis x; 0 or False outside."""
    source = plane - np.arange(values.shape[axis])
    outside = (source < 0) | (source >= values.shape[axis])
    result = np.take(values, np.where(outside, 0, source), axis)
    np.moveaxis(result, axis, 0)[outside] = 0
    return result


def _batches(valid: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of valid subjects, at most _ROWS at a time, of the same stretch of the array."""
    for start in range(0, len(valid), _ROWS):
        rows = start + np.flatnonzero(valid[start : start + _ROWS])
        if len(rows):
            yield rows


def _rows(thumbnails: Any, rows: np.ndarray) -> np.ndarray:
    first = int(rows[0])
    return np.asarray(thumbnails[first : int(rows[-1]) + 1])[rows - first]


def _correlation(a_BK: np.ndarray, b_BK: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the rows, [B]; NaN where one of them is constant, or nothing."""
    if not a_BK.shape[1]:
        return np.full(len(a_BK), np.nan)
    units = [_unit(values - values.mean(axis=1, keepdims=True)) for values in (a_BK, b_BK)]
    return np.einsum("bk,bk->b", *units)


def _unit(values_BK: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; NaN where they are 0 but for rounding."""
    length = np.linalg.norm(values_BK, axis=1, keepdims=True)
    return np.divide(values_BK, length, out=np.full_like(values_BK, np.nan), where=length > 1e-9)
