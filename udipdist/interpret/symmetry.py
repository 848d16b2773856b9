"""The two hemispheres of a token map: mirrored pairs, and how alike their values are, with permutation p-values.

ViT-UDIP, section 3.3, sees "some spotlight patches in corresponding regions across hemispheres"; here that is tested.
Shapes: T tokens, P mirrored pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from udipdist.models.layers.tokens import Patcher

_LEAST = 4  # pairs without which nothing is said
_OVERLAP = 0.5  # more than this share of the pairs must still have a partner after a shift


@dataclass(frozen=True, eq=False)
class Pairs:
    """Tokens left [P] and right [P] of the midline that mirror each other, and where the left ones are on the grid.

    offset_mm: the distance between a token's mirror image and the token that it is paired with, the same for all.
    """

    left: np.ndarray
    right: np.ndarray
    places_P3: np.ndarray
    offset_mm: float

    def __len__(self) -> int:
        return len(self.left)


def centres(patcher: Patcher, affine: np.ndarray) -> np.ndarray:
    """The middle of each token [T, 3] in the mm of `affine`, voxel -> mm."""
    patch, before = np.array(patcher.patch), np.array(patcher.before)
    voxels_T3 = patcher.coordinates.cpu().numpy() * patch - before + (patch - 1) / 2
    return voxels_T3 @ affine[:3, :3].T + affine[:3, 3]


def mirrored(patcher: Patcher, affine: np.ndarray, present_T: np.ndarray) -> Pairs:
    """The mirrored pairs about the plane x = 0 mm, both tokens `present_T`. None where the plane does not cut the grid.

    Volumes are in RAS order with axes along those of the template, as MNI space has them.
    """
    coordinates_T3 = patcher.coordinates.cpu().numpy()
    patch, edge = patcher.patch[0], float(affine[0, 0])
    # The plane, twice, in grid coordinates whose whole numbers are the middles of patches; rounded, so that to mirror
    # twice leads back.
    twice = 2 * (-affine[0, 3] / edge + patcher.before[0] - (patch - 1) / 2) / patch
    there = {tuple(place): token for token, place in enumerate(coordinates_T3) if present_T[token]}
    left, right = [], []
    for (x, y, z), token in there.items():
        image = there.get((round(twice) - x, y, z))
        if image is not None and 2 * x < round(twice):
            left.append(token)
            right.append(image)
    offset = abs(round(twice) - twice) * patch * edge
    return Pairs(np.array(left, int), np.array(right, int), coordinates_T3[left], offset)


def partners(pairs: Pairs, tokens: int, permutations: int, rng: np.random.Generator) -> np.ndarray:
    """[T, 1 + permutations]: the mirror image of each paired token, then tokens of the other hemisphere, the pairing
    drawn anew for each column; -1 for tokens without a mirror image."""
    table = np.full((tokens, 1 + permutations), -1)
    for column in range(1 + permutations):
        order = rng.permutation(len(pairs)) if column else np.arange(len(pairs))
        table[pairs.left, column] = pairs.right[order]
        table[pairs.right[order], column] = pairs.left
    return table


def at_least(observed: float, null: np.ndarray) -> float:
    """The permutation p-value: the share of random values as high as the observed one, which itself counts."""
    return (1 + int((null >= observed - 1e-12).sum())) / (1 + len(null))


@dataclass(frozen=True)
class Symmetry:
    """How alike left and right are: r, and p against random pairings of left with right tokens.

    p_shift holds the mirrored right map against itself shifted over the grid, so it counts how smooth maps are, which p
    does not: neighbouring tokens are alike, and p is optimistic for smooth maps. `shifts`: how many there were. NaN
    where a side is constant or there are fewer than four pairs.
    """

    r: float
    p: float
    p_shift: float
    shifts: int


def symmetry(value_T: np.ndarray, pairs: Pairs, permutations: int, rng: np.random.Generator) -> Symmetry:
    """Spearman correlation of the values of mirrored tokens (for sets the phi coefficient), and its p-values."""
    nan = float("nan")
    if len(pairs) < _LEAST:
        return Symmetry(nan, nan, nan, 0)
    from scipy.stats import rankdata  # scipy.stats takes half a second to import

    left, right = (rankdata(value_T[side]) for side in (pairs.left, pairs.right))
    observed = _correlation(left, right)
    if np.isnan(observed):
        return Symmetry(nan, nan, nan, 0)
    orders = rng.permuted(np.tile(np.arange(len(pairs)), (permutations, 1)), axis=1)
    spread = left.std() * right.std() * len(pairs)
    null = (right[orders] @ (left - left.mean())) / spread
    shifted = _shifted(left, right, pairs.places_P3)
    p_shift = at_least(observed, shifted) if len(shifted) else nan
    return Symmetry(observed, at_least(observed, null), p_shift, len(shifted))


def _shifted(left: np.ndarray, right: np.ndarray, places_P3: np.ndarray) -> np.ndarray:
    """The correlations with the right side shifted by whole tokens, where more than half the pairs still overlap."""
    places = places_P3 - places_P3.min(axis=0)
    size = places.max(axis=0) + 1
    reach = (size - 1) // 2  # by more than half the extent, sources and targets are apart: at most half overlap
    grid = np.full(size + 2 * reach, np.nan)
    grid[tuple((places + reach).T)] = right
    found = []
    for shift in np.ndindex(*(2 * reach + 1)):
        if (shift == reach).all():
            continue
        other = grid[tuple((places + shift).T)]
        both = ~np.isnan(other)
        if both.sum() > max(_LEAST - 1, _OVERLAP * len(places)):
            r = _correlation(left[both], other[both])
            if not np.isnan(r):
                found.append(r)
    return np.array(found)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.mean((a - a.mean()) * (b - b.mean())) / (a.std() * b.std()))
