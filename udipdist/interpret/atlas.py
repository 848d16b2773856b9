"""Which regions of an atlas a map is about: a running sum over its voxels from the highest, and a permutation p-value.

The statistic is the two-sample Kolmogorov-Smirnov one with its sign (UDIP, Xie et al.; Subramanian et al. 2005, weight
0): going down the voxels of the brain by their value, the sum rises by 1/n at each of the n voxels of the region and
falls by 1/(N-n) at each other; the score is its largest excursion from 0.

Neighbouring voxels are alike, so shuffled voxels would make every region of a smooth map significant. Instead the map
is permuted by surrogates: random maps that vary over distance as it does (its variogram, fitted by noise and bells of
several widths; after Burt et al. 2020, "Generative modeling of brain maps with spatial autocorrelation"). A score
is compared with those that the same region has in the surrogates, on a grid thinned to the smoothing's SD, where
observed and surrogate scores are computed alike. The variogram of one map is uncertain: of regions that have nothing to
do with a map, 4 to 6 % had p <= 0.05 for maps smooth over up to 12 mm (SD), and 7 % over 24 mm.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import cKDTree

from hpc.compiled import njit
from hpc.errors import InputError, some
from udipdist import delimited
from udipdist.interpret.surrogates import surrogates

log = logging.getLogger(__name__)
SHIPPED = ("seitzman_2018", "dosenbach_2010")  # that nilearn has among its own files
SURE = 0.05  # a region with a q below this is said to be in a map
REACH_MM = 15.0  # a voxel farther than this from every centre of a shipped atlas is in no region
_IN_BRAIN = 0.5  # of the labelled voxels of an image in the cohort's space, more than this share is brain
_LEAST_VOXELS = 3  # in the brain, or a region is left out


@dataclass(frozen=True)
class Atlas:
    """Regions on a grid: `labels` int32 [x, y, z], 0 for none, i for names[i - 1]."""

    labels: np.ndarray
    names: list[str]


def load(atlas: str, labels: Path | None, shape: tuple[int, int, int], affine: np.ndarray) -> Atlas:
    """An atlas on the grid of `shape` and `affine` (voxel -> mm): one that nilearn ships by name, or a label image.

    `labels`: a table with index and name of the image's regions. Raises InputError where they cannot be used.
    """
    if atlas in SHIPPED:
        return _from_centres(atlas, shape, affine)
    return _from_image(Path(atlas), labels, shape, affine)


def require_brain(atlas: Atlas, mask: np.ndarray, name: str) -> None:
    """Raises InputError where no region of the atlas called `name` is in the brain, `mask` bool [x, y, z]; warns where
    most of a label image is beside it, as that of an image in another space is."""
    _inside(atlas, mask)
    share = float(mask[atlas.labels > 0].mean())
    if name not in SHIPPED and share < _IN_BRAIN:
        log.warning(
            "atlas=%s: only %.0f %% of its labelled voxels are brain in these volumes; is it in the same space?",
            name,
            100 * share,
        )


def enough(atlas: Atlas, mask: np.ndarray) -> int:
    """The fewest permutations with which one region alone can have q < SURE: its q is R / (1 + permutations) at least,
    of R regions in the brain, `mask` bool [x, y, z]."""
    return math.floor(len(_inside(atlas, mask)[1]) / SURE + 1e-9)


def rank(
    maps: Sequence[np.ndarray],
    mask: np.ndarray,
    zooms: Sequence[float],
    atlas: Atlas,
    permutations: int = 1000,
    step: int = 1,
    seed: int = 0,
) -> list[list[dict[str, float | int | str]]]:
    """The regions of an atlas by their score in each of `maps` [x, y, z], highest first; each a row of regions.tsv.

    mask: bool [x, y, z], the brain; zooms: edges of its voxels in mm. step: p is computed on every so manieth voxel
    along each axis. p is one-sided: (1 + surrogates whose score is as high) / (1 + permutations); q is that of
    Benjamini & Hochberg over regions. What comes of a map does not depend on the others.
    """
    labels, names = _inside(atlas, mask)
    thin = (slice(None, None, step),) * 3
    coarse = mask[thin]
    kept = labels[thin][coarse]
    observed = [_scores(values[thin][coarse], kept, len(names))[0] for values in maps]
    draws = [surrogates(values[thin], coarse, [zoom * step for zoom in zooms], seed) for values in maps]
    higher = np.zeros((len(maps), len(names)))
    for _ in range(permutations):  # of all maps in turn: they share the noise, which takes most of the time
        for own, draw, score in zip(higher, draws, observed, strict=True):
            own += _scores(draw(), kept, len(names))[0] >= score
    there = np.bincount(kept, minlength=len(names) + 1)[1:] > 0
    p = np.where(there, (1 + higher) / (1 + permutations), np.nan)
    return [_rows(values[mask], labels[mask], names, own) for values, own in zip(maps, p, strict=True)]


def _rows(
    values_N: np.ndarray, labels_N: np.ndarray, names: Sequence[str], p: np.ndarray
) -> list[dict[str, float | int | str]]:
    """The rows of one map, from the voxels of the brain and the p of each region (NaN: none)."""
    from scipy.stats import false_discovery_control  # scipy.stats takes half a second to import

    scores, sizes = _scores(values_N, labels_N, len(names))
    q = np.full(len(p), np.nan)
    q[np.isfinite(p)] = false_discovery_control(p[np.isfinite(p)])
    return [
        {"region": names[i], "voxels": int(sizes[i]), "score": float(scores[i]), "p": float(p[i]), "q": float(q[i])}
        for i in np.argsort(-scores, kind="stable")
    ]


def _scores(values_N: np.ndarray, labels_N: np.ndarray, regions: int) -> tuple[np.ndarray, np.ndarray]:
    """The running-sum score of each region, and its voxels; 0 for a region without any."""
    order = np.argsort(-values_N, kind="stable")
    sizes = np.bincount(labels_N, minlength=regions + 1)[1:]
    return _running(labels_N[order], sizes), sizes


@njit(cache=True)
def _running(labels_N, sizes_R):
    """All regions in one pass: the sum is highest right after a voxel of the region, and lowest right before one."""
    n = len(labels_N)
    hits = np.zeros(len(sizes_R), np.int64)
    high = np.zeros(len(sizes_R))
    low = np.zeros(len(sizes_R))
    for i in range(n):
        r = labels_N[i] - 1
        if r < 0:
            continue
        rest = max(n - sizes_R[r], 1)
        misses = i - hits[r]
        low[r] = min(low[r], hits[r] / sizes_R[r] - misses / rest)
        hits[r] += 1
        high[r] = max(high[r], hits[r] / sizes_R[r] - misses / rest)
    return np.where(high >= -low, high, low)


def _inside(atlas: Atlas, mask: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Labels of the regions with enough voxels in the brain, numbered anew. Raises InputError where there is none."""
    counts = np.bincount(atlas.labels[mask], minlength=len(atlas.names) + 1)
    kept = [i for i in range(1, len(atlas.names) + 1) if counts[i] >= _LEAST_VOXELS]
    if not kept:
        raise InputError(
            f"no region of the atlas has {_LEAST_VOXELS} voxels in the brain of the cohort; is it in the same space "
            "(MNI mm)? Give another atlas=, or atlas=none"
        )
    table = np.zeros(len(atlas.names) + 1, np.int32)
    table[kept] = np.arange(1, len(kept) + 1)
    return table[atlas.labels], [atlas.names[i - 1] for i in kept]


def _from_centres(atlas: str, shape: tuple[int, int, int], affine: np.ndarray) -> Atlas:
    """Each voxel belongs to the nearest centre within REACH_MM; centres of one name are one region."""
    places, centre_names = _SHIPPED_CENTRES[atlas]()
    names = sorted(set(centre_names))
    numbers = np.array([names.index(name) + 1 for name in centre_names], np.int32)
    voxels = np.indices(shape).reshape(3, -1)
    mm = affine[:3, :3] @ voxels + affine[:3, 3:]
    distance, nearest = cKDTree(places).query(mm.T, distance_upper_bound=REACH_MM)
    labels = np.where(np.isfinite(distance), np.append(numbers, 0)[nearest], 0)
    return Atlas(labels.reshape(shape).astype(np.int32), names)


def _seitzman() -> tuple[np.ndarray, list[str]]:
    """300 centres (Seitzman et al. 2020): cortex by functional network, the rest by structure, each hemisphere."""
    from nilearn.datasets import fetch_coords_seitzman_2018

    bunch = fetch_coords_seitzman_2018()
    places = bunch.rois.to_numpy(np.float64)
    names = []
    for (x, _, _), network, region in zip(places, bunch.networks, bunch.regions, strict=True):
        side = "left" if x < 0 else "right"
        part = f"{network} cortex" if region.startswith("cortex") else region.replace("basalG", "basal g")
        names.append(f"{side} {part}")
    return places, names


def _dosenbach() -> tuple[np.ndarray, list[str]]:
    """160 centres (Dosenbach et al. 2010) by their anatomical names, each hemisphere."""
    from nilearn.datasets import fetch_coords_dosenbach_2010

    bunch = fetch_coords_dosenbach_2010()
    places = bunch.rois.to_numpy(np.float64)
    names = [str(label).rstrip("0123456789 ") for label in bunch.labels]
    return places, [f"{'left' if x < 0 else 'right'} {name}" for x, name in zip(places[:, 0], names, strict=True)]


_SHIPPED_CENTRES: dict[str, Callable[[], tuple[np.ndarray, list[str]]]] = {
    "seitzman_2018": _seitzman,
    "dosenbach_2010": _dosenbach,
}


def _from_image(path: Path, labels: Path | None, shape: tuple[int, int, int], affine: np.ndarray) -> Atlas:
    """A label image brought to the grid by nearest neighbour."""
    if not path.exists():
        raise InputError(f"{path}: does not exist; give atlas= a NIfTI image of labels, none, or {some(SHIPPED)}")
    try:
        image = nib.load(path)
        values = np.asarray(image.dataobj)
    except (nib.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as an image ({error}); give another atlas=") from None
    values = values[..., 0] if values.ndim == 4 and values.shape[3] == 1 else values
    if values.ndim != 3 or not np.array_equal(values, np.round(values)):
        raise InputError(f"{path}: is not a label image (3-D, whole numbers); give another atlas=")
    to_image = np.linalg.inv(image.affine) @ affine
    found = ndimage.affine_transform(
        values.astype(np.int64), to_image[:3, :3], to_image[:3, 3], output_shape=shape, order=0, cval=0
    )
    present = sorted(int(value) for value in np.unique(found) if value > 0)
    names = _label_names(labels) if labels is not None else {value: f"region {value}" for value in present}
    unnamed = [value for value in present if value not in names]
    if unnamed and labels is not None:
        raise InputError(f"{labels}: has no name for the labels {some(unnamed)} of {path}; add rows for them")
    numbers = np.searchsorted(present, found) + 1 if present else np.zeros(shape)
    return Atlas(np.where(found > 0, numbers, 0).astype(np.int32), [names[value] for value in present])


def _label_names(path: Path) -> dict[int, str]:
    """Names of labels by number, of a table with the columns index and name."""
    if not path.exists():
        raise InputError(f"{path}: does not exist; give atlas_labels= a table with the columns index and name")
    table = delimited.read(path).frame()
    if not {"index", "name"} <= set(table.columns):
        raise InputError(f"{path}: has the columns {some(table.columns)}; atlas_labels= needs index and name")
    numbers = pd.to_numeric(table["index"], errors="coerce")
    if numbers.isna().any():
        raise InputError(f"{path}: index {table['index'][numbers.isna()].iloc[0]!r} is not a number; correct it")
    twice = table["index"][numbers.duplicated()]
    if len(twice):
        raise InputError(f"{path}: index {twice.iloc[0]} comes twice; a label has one name")
    if (table["name"] == "").any():
        raise InputError(f"{path}: index {table['index'][table['name'] == ''].iloc[0]} has no name; give it one")
    return dict(zip(numbers.astype(int), table["name"], strict=True))
