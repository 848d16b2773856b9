"""The two hemispheres of a token map: mirrored pairs, and how alike their values are, with p-values.

ViT-UDIP, section 3.3, sees "some spotlight patches in corresponding regions across hemispheres"; here that is tested.
Shapes: T tokens, P mirrored pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from udipdist.interpret.surrogates import surrogates
from udipdist.models.layers.tokens import Patcher

_LEAST = 4  # pairs without which nothing is said


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
    """How alike left and right are: r, and its p. NaN where a side is constant or there are fewer than four pairs.

    Neighbouring tokens are alike, so random pairings of left with right tokens would call many unrelated smooth maps
    symmetric. p compares one side with surrogates of the other: its values, placed by random maps that vary over the
    grid as it does (interpret.surrogates); it is the larger of left with right's and right with left's. Of unrelated
    maps 3 to 7 % have p <= 0.05, and 10 % where they are as smooth as a grid of six tokens is wide.
    """

    r: float
    p: float


def symmetry(value_T: np.ndarray, pairs: Pairs, permutations: int, rng: np.random.Generator) -> Symmetry:
    """Spearman correlation of the values of mirrored tokens (for sets the phi coefficient), and its p-value."""
    nan = float("nan")
    if len(pairs) < _LEAST:
        return Symmetry(nan, nan)
    from scipy.stats import rankdata  # scipy.stats takes half a second to import

    places = pairs.places_P3 - pairs.places_P3.min(axis=0)
    order = np.lexsort(places.T[::-1])  # that in which a mask of the grid has them
    left, right = (rankdata(value_T[side])[order] for side in (pairs.left, pairs.right))
    observed = _correlation(left, right)
    if np.isnan(observed):
        return Symmetry(nan, nan)
    p = [_p(*sides, places[order], permutations, rng) for sides in ((left, right), (right, left))]
    return Symmetry(observed, max(p))


def _p(
    kept: np.ndarray, placed: np.ndarray, places_P3: np.ndarray, permutations: int, rng: np.random.Generator
) -> float:
    """Of one side against surrogates of the other, whose places on the grid are in the order of its mask."""
    grid = np.zeros(places_P3.max(axis=0) + 1)
    mask = np.zeros(grid.shape, bool)
    grid[tuple(places_P3.T)], mask[tuple(places_P3.T)] = placed, True
    draw = surrogates(grid, mask, (1.0, 1.0, 1.0), int(rng.integers(2**31)))
    drawn = np.stack([np.argsort(np.argsort(draw(), kind="stable"), kind="stable") for _ in range(permutations)])
    centred = kept - kept.mean()
    return at_least(float(placed @ centred), np.sort(placed)[drawn] @ centred)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.mean((a - a.mean()) * (b - b.mean())) / (a.std() * b.std()))
