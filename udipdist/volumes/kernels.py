"""The passes over voxels that cost time: the survey that ingest takes of a volume, and z-scoring.

Foreground is where the scaled value (stored * slope + inter, in float64) is not 0: of integers, which hold a value only
to the nearest step, not within half a step of 0 (`background_limit`). Volumes lie in memory as [z, y, x], x fastest,
which is the order of NIfTI files and of the store.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hpc.compiled import njit
from udipdist.volumes.nifti import AS_IT_IS, turned

_FAR = 4.0  # standard deviations between a guess and the mean at which sums around the guess are taken again


@dataclass(frozen=True)
class Survey:
    """What one pass tells of a volume. `mean` and `std` (over n) are of the scaled foreground; `inside` counts the
    foreground within a mask; `thumbnail` [tx, ty, tz] float32 has the means of the z-scored volume over blocks.

    What cannot be z-scored has no thumbnail: no foreground (0, nan, nan), NaN, infinite or huge values (n, nan, nan),
    or one value in all of the foreground (n, value, 0).
    """

    n: int
    mean: float
    std: float
    inside: int = 0
    thumbnail: np.ndarray | None = None


_NOTHING = Survey(0, math.nan, math.nan)


@dataclass(frozen=True)
class Blocks:
    """How a volume is cut into blocks of edge^3 voxels: voxel i of an axis is in block (i + offset) // edge.

    `offset` and `shape` (number of blocks) are in the order z, y, x. At most 128 voxels an edge.
    """

    edge: int
    offset: tuple[int, int, int]
    shape: tuple[int, int, int]


def background_limit(dtype: np.dtype, slope: float) -> float:
    """The largest size of a scaled value that is background, for stored values of this type.

    Integers are rounded to steps of `slope`, so what was 0 before it was stored comes back as up to half a step: less
    than that is background. Floats hold 0 exactly.
    """
    return float(np.nextafter(abs(slope) / 2, 0)) if dtype.kind in "iu" else 0.0


def survey(
    stored: np.ndarray,
    flips: Sequence[bool],
    slope: float,
    inter: float,
    counts: np.ndarray,
    mask: np.ndarray | None,
    blocks: Blocks,
    limit: float | None = None,
) -> tuple[np.ndarray, Survey]:
    """Turn a volume to RAS and survey it in one pass; adds 1 to `counts` where there is foreground.

    stored: C-contiguous [z, y, x] in native byte order, of which the axes in `flips` are turned round; counts:
    unsigned integers, mask: bool or None, both [z, y, x] in RAS order; limit: the largest size of background, by
    default that of the type. Returns the values in RAS order, [z, y, x]. `counts` is left alone where the volume cannot
    be z-scored. Integers of up to 16 bits are summed exactly; others in float64 around a guess of the mean, and again
    around the mean where the guess was far off: mean and std agree with numpy's two passes in float64 to about 1e-14.
    """
    if counts.shape != stored.shape or (mask is not None and mask.shape != stored.shape):
        raise ValueError(f"a volume of {stored.shape}, counts of {counts.shape}, mask of {np.shape(mask)}")
    limit = background_limit(stored.dtype, slope) if limit is None else limit
    small = stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2
    if not small and stored.dtype.kind != "f":  # rare, so not compiled for
        raw = np.ascontiguousarray(turned(stored, flips))
        return raw, survey(raw.astype(np.float64), AS_IT_IS, slope, inter, counts, mask, blocks, limit)[1]
    turn = any(flips)
    raw = np.empty(stored.shape if turn else (0, 0, 0), stored.dtype)
    source = (raw if turn else stored).view()
    stored = stored.view()
    stored.flags.writeable = source.flags.writeable = False  # of one type for the compiler, wherever they come from
    volume = (stored, *(bool(flip) for flip in flips), raw, source, turn)
    among = np.zeros((0, 0, 0), np.bool_) if mask is None else mask
    found, sums, numbers = (_of_small if small else _of_any)(volume, (slope, inter, limit), counts, among, blocks)
    if found.n == 0:
        return source, found
    if not found.std > 0:
        counts -= foreground(source, slope, inter, limit).astype(counts.dtype)
        return source, found
    thumbnail = (sums - numbers * found.mean) / (found.std * blocks.edge**3)
    return source, replace(found, thumbnail=np.ascontiguousarray(thumbnail.T, dtype=np.float32))


def foreground(stored: np.ndarray, slope: float, inter: float, limit: float) -> np.ndarray:
    """True where there is no background; also where a value is not a number."""
    return ~(np.abs(stored.astype(np.float64) * slope + inter) <= limit)


def _of_small(
    volume: tuple, scale: tuple[float, float, float], counts: np.ndarray, mask: np.ndarray, blocks: Blocks
) -> tuple[Survey, np.ndarray, np.ndarray]:
    """The survey of integers of at most 16 bits; sums of the scaled foreground and its number, by block."""
    sums, numbers = np.zeros(blocks.shape, np.int64), np.zeros(blocks.shape, np.int64)
    zeros, cut = _zeros(volume[0].dtype, *scale), (*blocks.offset, blocks.edge)
    slope, inter, _ = scale
    squares, inside = _survey_small(*volume, zeros, counts, mask, cut, sums, numbers)
    n, total = int(numbers.sum()), int(sums.sum())
    if n == 0:
        return _NOTHING, sums, numbers
    mean = total / n * slope + inter
    std = math.sqrt((n * squares - total * total) / (n * n)) * abs(slope)
    return _checked(n, mean, std, inside), sums * slope + numbers * inter, numbers


def _of_any(
    volume: tuple, scale: tuple[float, float, float], counts: np.ndarray, mask: np.ndarray, blocks: Blocks
) -> tuple[Survey, np.ndarray, np.ndarray]:
    """The same of any type."""
    guess, cut = _guess(volume[0], *scale), (*blocks.offset, blocks.edge)
    for again in (False, True):
        sums, numbers = np.zeros(blocks.shape), np.zeros(blocks.shape, np.int64)
        squares, low, high, inside = _survey_any(
            *volume, (*scale, guess), np.zeros_like(counts) if again else counts, mask, cut, sums, numbers
        )
        n = int(numbers.sum())
        if n == 0:
            return _NOTHING, sums, numbers
        if low == high and math.isfinite(low):
            return Survey(n, low, 0.0), sums, numbers
        shift = float(sums.sum()) / n
        std = math.sqrt(max(squares / n - shift * shift, 0.0)) if math.isfinite(squares) else math.nan
        if again or not abs(shift) > _FAR * std:
            break
        guess += shift
    return _checked(n, guess + shift, std, inside), sums + numbers * guess, numbers


def _checked(n: int, mean: float, std: float, inside: int) -> Survey:
    if not math.isfinite(mean) or not math.isfinite(std * std * n):
        return Survey(n, math.nan, math.nan)
    return Survey(n, mean, std if mean + std != mean else 0.0, inside)


def _zeros(dtype: np.dtype, slope: float, inter: float, limit: float) -> np.ndarray:
    """The first and the last integer that is background (scaling is monotone); high, low where none is."""
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    sign = -1.0 if slope < 0 else 1.0

    def scaled(stored: int) -> float:
        return sign * (stored * slope + inter)

    everything = range(low, high + 1)
    first = bisect.bisect_left(everything, -limit, key=scaled) + low
    last = bisect.bisect_right(everything, limit, key=scaled) + low - 1
    return np.array([first, last] if first <= last else [high, low], dtype)


def _guess(stored: np.ndarray, slope: float, inter: float, limit: float) -> float:
    """About the mean of the foreground, from a row of 32; 0 where they do not say."""
    sample = stored[stored.shape[0] % 8 // 2 :: 8, stored.shape[1] % 4 // 2 :: 4]
    sample = sample[foreground(sample, slope, inter, limit)].astype(np.float64) * slope + inter
    guess = float(sample.mean()) if len(sample) else 0.0
    return guess if math.isfinite(guess) else 0.0


# In the two passes a loop does one thing to one row, which stays in the first cache: each becomes vector instructions.
# `source` is what is surveyed: `raw`, which is filled from `stored` row by row, or `stored` itself.


@njit(nogil=True, cache=True)
def _survey_small(stored, flip_z, flip_y, flip_x, raw, source, turn, zeros, counts, mask, cut, sums, numbers):
    """Sum of squares, and number inside the mask, of integers of at most 16 bits; sums and numbers by block."""
    (nz, ny, nx), (oz, oy, ox, edge), first, last = stored.shape, cut, zeros[0], zeros[1]
    plain = first == 0 and last == 0
    total_lanes, number_lanes = np.zeros((sums.shape[1], nx), np.int32), np.zeros((sums.shape[1], nx), np.uint16)
    found = np.empty(nx, np.uint8)
    squares, inside = 0, 0
    for z in range(nz):
        for y in range(ny):
            if turn:
                in_file, turned = stored[nz - 1 - z if flip_z else z, ny - 1 - y if flip_y else y], raw[z, y]
                if flip_x:
                    for i in range(nx):
                        turned[i] = in_file[np.uintp(nx - 1 - i)]
                else:
                    for i in range(nx):
                        turned[i] = in_file[i]
            row = source[z, y]
            if plain:
                for i in range(nx):
                    found[i] = row[i] != 0
            else:
                for i in range(nx):
                    found[i] = (row[i] < first) | (row[i] > last)
            some = np.uint8(0)
            for i in range(nx):
                some = np.uint8(some | found[i])
            if not some:
                continue
            block = (y + oy) // edge
            count, number, total = counts[z, y], number_lanes[block], total_lanes[block]
            for i in range(nx):
                count[i] += found[i]
            for i in range(nx):
                number[i] += found[i]
            if mask.size:
                among = mask[z, y]
                for i in range(nx):
                    inside += found[i] & among[i]
            if plain:
                for i in range(nx):
                    total[i] += np.int32(row[i])
                for i in range(nx):
                    squares += np.int64(row[i]) * np.int64(row[i])
            else:
                for i in range(nx):
                    total[i] += np.int32(row[i]) if found[i] else np.int32(0)
                for i in range(nx):
                    squares += np.int64(row[i]) * np.int64(row[i]) if found[i] else np.int64(0)
        if z == nz - 1 or (z + 1 + oz) // edge != (z + oz) // edge:
            _fold(total_lanes, sums[(z + oz) // edge], ox, edge)
            _fold(number_lanes, numbers[(z + oz) // edge], ox, edge)
    return squares, inside


@njit(nogil=True, cache=True)
def _survey_any(stored, flip_z, flip_y, flip_x, raw, source, turn, scale, counts, mask, cut, sums, numbers):
    """Sum of squares around the guess, smallest and largest of the scaled foreground, and number inside the mask; sums
    around the guess, and numbers, by block."""
    (nz, ny, nx), (oz, oy, ox, edge), (slope, inter, limit, guess) = stored.shape, cut, scale
    total_lanes, number_lanes = np.zeros((sums.shape[1], nx)), np.zeros((sums.shape[1], nx), np.uint16)
    square_lanes, low, high = np.zeros(nx), np.full(nx, np.inf), np.full(nx, -np.inf)
    found, values = np.empty(nx, np.uint8), np.empty(nx)
    squares, inside = 0.0, 0
    for z in range(nz):
        for y in range(ny):
            if turn:
                in_file, turned = stored[nz - 1 - z if flip_z else z, ny - 1 - y if flip_y else y], raw[z, y]
                if flip_x:
                    for i in range(nx):
                        turned[i] = in_file[np.uintp(nx - 1 - i)]
                else:
                    for i in range(nx):
                        turned[i] = in_file[i]
            row = source[z, y]
            for i in range(nx):
                values[i] = row[i] * slope + inter
            for i in range(nx):
                found[i] = not (abs(values[i]) <= limit)
            some = np.uint8(0)
            for i in range(nx):
                some = np.uint8(some | found[i])
            if not some:
                continue
            block = (y + oy) // edge
            count, number, total = counts[z, y], number_lanes[block], total_lanes[block]
            for i in range(nx):
                count[i] += found[i]
            for i in range(nx):
                number[i] += found[i]
            if mask.size:
                among = mask[z, y]
                for i in range(nx):
                    inside += found[i] & among[i]
            for i in range(nx):
                low[i] = values[i] if found[i] and values[i] < low[i] else low[i]
            for i in range(nx):
                high[i] = values[i] if found[i] and values[i] > high[i] else high[i]
            for i in range(nx):
                values[i] = values[i] - guess if found[i] else 0.0
            for i in range(nx):
                total[i] += values[i]
            for i in range(nx):
                square_lanes[i] += values[i] * values[i]
        if z == nz - 1 or (z + 1 + oz) // edge != (z + oz) // edge:
            _fold(total_lanes, sums[(z + oz) // edge], ox, edge)
            _fold(number_lanes, numbers[(z + oz) // edge], ox, edge)
            squares += square_lanes.sum()
            square_lanes[:] = 0
    return squares, low.min(), high.max(), inside


@njit(nogil=True, cache=True)
def _fold(lanes, blocks, offset, edge):
    """Adds lanes [y blocks, x] to blocks [y blocks, x blocks], and clears them."""
    for y in range(lanes.shape[0]):
        for i in range(lanes.shape[1]):
            blocks[y, (i + offset) // edge] += lanes[y, i]
            lanes[y, i] = 0


@njit(nogil=True, cache=True)
def zscore(raw: np.ndarray, slope: float, inter: float, mean: float, std: float, limit: float, out: np.ndarray) -> None:
    """(scaled - mean) / std in `out` (float32) where there is foreground, exactly 0 elsewhere. Flat arrays."""
    scale = 1.0 / std
    for i in range(raw.size):
        value = raw[i] * slope + inter
        out[i] = 0.0 if abs(value) <= limit else (value - mean) * scale
