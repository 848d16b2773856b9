"""Quality of each scan of a store: figures, suspicion of a left-right flip, and outliers by a robust rule.

The figures come from numbers and a thumbnail that ingest takes of each scan in its one pass over the voxels, so a
cohort of 40,000 is judged in bounded memory without reading a volume again. Nobody is dropped: outliers are listed.

Shapes: N subjects.
"""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from hpc import store
from hpc.errors import InputError
from udipdist.volumes.grids import ELSEWHERE, common_affine, elsewhere, moved, near
from udipdist.volumes.likeness import flip_limit, likeness, spread

log = logging.getLogger(__name__)
BLOCK_MM = 8.0  # edge of a block of the thumbnail
FEWEST = 10  # scans of which a median and a spread are taken
DEVIATIONS = 5.0  # robust standard deviations from the median at which a figure is an outlier
_TEMPLATE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
_BRAIN = 0.2  # of the template's brightest voxel: nilearn's threshold for the brain mask
LISTED = 20
_CENTRED = 0.5  # a mean below this times the SD is that of values around 0


# ------------------------------------------------------------------------------------- what ingest takes of each scan


def template_mask(shape: Sequence[int], affine: np.ndarray) -> np.ndarray | None:
    """The brain of MNI152 on the grid of a store, bool [x, y, z]; None where the grid holds less than half of it.

    affine: voxel -> mm, [4, 4]. It is nilearn's brain mask (ICBM 2009a, 1 mm, threshold 0.2), nearest neighbour. What
    is None is said in the log: such volumes are not in MNI space. Raises InputError where nilearn's file is not there.
    """
    brain, place = _template()
    step = np.linalg.inv(place) @ affine
    index = [
        np.floor(
            step[a, 0] * np.arange(shape[0])[:, None, None]
            + step[a, 1] * np.arange(shape[1])[None, :, None]
            + step[a, 2] * np.arange(shape[2])[None, None, :]
            + (step[a, 3] + 0.5)
        ).astype(np.int32)
        for a in range(3)
    ]
    inside = np.logical_and.reduce([(i >= 0) & (i < n) for i, n in zip(index, brain.shape, strict=True)])
    x, y, z = (np.where(inside, i, 0) for i in index)
    mask = brain[x, y, z] & inside
    share = mask.sum() * abs(np.linalg.det(affine[:3, :3])) / brain.sum()  # the template has voxels of 1 mm3
    if share < 0.5:
        log.warning(
            "the grid of the volumes holds %.0f %% of the MNI152 brain, so they are not in MNI space: their overlap "
            "with it is not judged",
            100 * share,
        )
        return None
    return mask


@cache
def _template() -> tuple[np.ndarray, np.ndarray]:
    """The brain mask of nilearn's template and its affine, read from the installed package."""
    spec = importlib.util.find_spec("nilearn")  # found, not imported: that would take two seconds
    path = Path(spec.origin).parent / _TEMPLATE if spec is not None and spec.origin is not None else None
    if path is None or not path.exists():
        raise InputError("nilearn's MNI152 template is not installed; pip install 'nilearn>=0.12'")
    image = nib.load(path)
    values = np.asarray(image.dataobj, np.float32)
    return values > _BRAIN * values.max(), image.affine


def block(zooms: Sequence[float]) -> int:
    """Voxels along the edge of a block of the thumbnail: about 8 mm, 1 for coarse volumes."""
    return max(1, round(BLOCK_MM / float(np.prod(zooms)) ** (1 / 3)))


def thumbnail_shape(shape: Sequence[int], edge: int) -> tuple[int, int, int]:
    """Blocks along x, y, z that cover a volume."""
    x, y, z = (-(-n // edge) for n in shape)
    return x, y, z


def thumbnail_offset(shape: Sequence[int], edge: int) -> tuple[int, int, int]:
    """Voxel i along an axis lies in block (i + offset) // edge: the padding is shared by both ends."""
    x, y, z = ((t * edge - n) // 2 for t, n in zip(thumbnail_shape(shape, edge), shape, strict=True))
    return x, y, z


def thumbnail(normalised: np.ndarray, edge: int) -> np.ndarray:
    """Means over blocks of edge^3 voxels of a z-scored volume (background and padding 0), float32 [tx, ty, tz]."""
    blocks, offset = thumbnail_shape(normalised.shape, edge), thumbnail_offset(normalised.shape, edge)
    padding = [(o, t * edge - n - o) for n, t, o in zip(normalised.shape, blocks, offset, strict=True)]
    cut = np.pad(normalised, padding).reshape(blocks[0], edge, blocks[1], edge, blocks[2], edge)
    return cut.mean(axis=(1, 3, 5), dtype=np.float64).astype(np.float32)


# ----------------------------------------------------------------------------------------------- figures of a cohort


@dataclass(frozen=True)
class Rule:
    """When a figure makes an outlier: DEVIATIONS robust SD from the median, and `floor` away from it at least.

    `gain`: the figure is scaled by the scanner's gain or the head's size, so that the SD is taken of its logarithm and
    the floor is a share of the median; else both are in units of the figure. `low_only`: high values are good.
    """

    name: str
    words: str
    floor: float
    gain: bool = False
    low_only: bool = False


RULES = (
    Rule("foreground", "share of the grid that is foreground", 0.10, gain=True),
    Rule("mean", "mean intensity", 0.25, gain=True),
    Rule("std", "SD of intensity", 0.25, gain=True),
    Rule("overlap", "overlap with the template (Dice)", 0.05, low_only=True),
    Rule("correlation", "correlation with the cohort", 0.05, low_only=True),
)
FLIPPED = "left and right may be exchanged"
NOT_A_BRAIN = "not skull-stripped, or not registered?"
CORNERS, _CORNERS = "corners of the grid are foreground", 8
_BRIEF = {NOT_A_BRAIN: "no brain?", ELSEWHERE: "elsewhere", CORNERS: "corners"}
_FULL, _UNLIKE = 0.8, 0.5  # share of the grid that no brain fills; Dice with the template that every brain has
_LARGE = 1.5  # times the template's brain (1.9 l) no brain is; a whole head is twice that and more
FIGURES = (*(rule.name for rule in RULES), "asymmetry")


@dataclass(frozen=True)
class Limits:
    """Median of a figure over the valid subjects, and where an outlier begins (nan: no limit on that side)."""

    median: float
    low: float
    high: float


def assess(place: Path, failures: Mapping[int, str], template_voxels: int | None) -> dict[str, Any]:
    """Judge the scans of one group of a store, before it is sealed; writes the arrays `qc_*` [N] into it.

    Reads the arrays [N] `valid`, `mean`, `std`, `foreground` (voxels), `corners` (of the grid that are foreground, 0 to
    8), `foreground_in_template` (voxels; only where there is a template), `affine` [N, 4, 4], `thumbnail`
    [N, tx, ty, tz] in rows (see `thumbnail`), and the shape of `image`. `failures`: reason by row of the subjects that
    are not valid. `template_voxels`: of `template_mask`, None where there is none. Returns facts for the manifest.
    """
    subjects, valid = store.get(place, "subject"), store.get(place, "valid").astype(bool)
    voxels = math.prod(store.Layout(place / "image").row_shape)
    n = np.where(valid, store.get(place, "foreground"), np.nan).astype(np.float64)
    figures = {"foreground": n / voxels, "mean": store.get(place, "mean"), "std": store.get(place, "std")}
    figures["overlap"] = np.full(len(valid), np.nan)
    if template_voxels is not None:
        figures["overlap"] = 2 * store.get(place, "foreground_in_template") / (n + template_voxels)
    figures["correlation"], figures["asymmetry"] = likeness(_Thumbnails(place / "thumbnail"), valid)
    size = math.nan if template_voxels is None else template_voxels / voxels
    limits = _limits(figures, valid)
    flip = flip_limit(figures["asymmetry"][valid])
    corners, away = store.get(place, "corners"), _away(place, valid)
    reasons: list[list[str]] = [[] for _ in valid]
    no_brain = []
    for i in np.flatnonzero(valid):
        found = _not_a_brain(figures, int(corners[i]), size, i)
        reasons[i] = _reasons(figures, limits, flip, i) + _absolute(found, int(corners[i]), float(away[i]))
        no_brain += [f"{subjects[i]}: {', '.join(found)}"] if found else []
    for name in ("foreground", "overlap", "correlation", "asymmetry"):  # mean and std are there already
        store.put(place, f"qc_{name}", figures[name], ("subject",))
    shown = {
        name: {key: None if math.isnan(v) else v for key, v in vars(limit).items()}
        for name, limit in limits.items()
        if limit is not None
    }
    outlier = np.array([bool(r) for r in reasons])
    store.put(place, "qc_outlier", outlier, ("subject",), limits=shown, flip_limit=flip)
    text = [failures.get(i, "is not valid") if not valid[i] else "; ".join(r) for i, r in enumerate(reasons)]
    store.put(place, "qc_reasons", np.array(text, dtype=object), ("subject",))
    return {
        "outliers": int(outlier.sum()),
        "outlier_subjects": [f"{subjects[i]}: {text[i]}" for i in np.flatnonzero(outlier)[:LISTED]],
        "not_brains": len(no_brain),
        "not_brain_subjects": no_brain[:LISTED],
        "flips_suspected": sum(FLIPPED in listed for listed in text),
        "flip_limit": flip,  # None: the cohort is too small or too symmetric to tell
        "limits": shown,
    }


class _Thumbnails:
    """Slices of the array `thumbnail`, row by row: zarr-python takes a millisecond for each of 40,000 rows."""

    def __init__(self, path: Path):
        self.reader = store.RowReader(path)
        self.shape = self.reader.layout.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        return np.stack([self.reader.row(i) for i in range(*rows.indices(len(self.reader)))])


# ---------------------------------------------------------------------------------------------------------- the rules


def limits_of(rule: Rule, values: np.ndarray, sd: float = 0.0) -> Limits | None:
    """Where a figure becomes an outlier, from its median and median absolute deviation (x 1.4826) over a cohort.

    None for fewer than FEWEST finite values. sd: of the intensities of a scan, where the figure is their mean. Gains
    around a median that is small beside it, or 0 or less, are judged without logarithms, and the floor is a share of
    the SD: such scans were z-scored before, and their mean is 0 but for rounding.
    """
    values = values[np.isfinite(values)]
    if len(values) < FEWEST:
        return None
    median = float(np.median(values))
    if rule.gain and median > _CENTRED * sd:
        logs = np.log(np.maximum(values, 1e-300))
        reach = max(DEVIATIONS * spread(logs), math.log1p(rule.floor))
        low, high = median * math.exp(-reach), median * math.exp(reach)
    else:
        reach = max(DEVIATIONS * spread(values), rule.floor * (max(abs(median), sd) if rule.gain else 1))
        low, high = median - reach, median + reach
    return Limits(median, low, math.nan if rule.low_only else high)


def _limits(figures: Mapping[str, np.ndarray], valid: np.ndarray) -> dict[str, Limits | None]:
    """The limits of each rule over the valid subjects."""
    sd = float(np.median(figures["std"][valid])) if valid.any() else 0.0
    return {rule.name: limits_of(rule, figures[rule.name][valid], sd if rule.name == "mean" else 0.0) for rule in RULES}


def _away(place: Path, valid: np.ndarray) -> np.ndarray:
    """How far [mm] each affine puts a volume from where most lie, [N]; 0 where that is the same place for us."""
    away, affines = np.zeros(len(valid)), store.get(place, "affine")[valid]
    if len(affines):
        shape, common = store.Layout(place / "image").row_shape, common_affine(list(affines))
        distances = np.array([moved(shape, own, common) for own in affines])
        away[valid] = np.where(distances > near(common), distances, 0)
    return away


def _not_a_brain(figures: Mapping[str, np.ndarray], corners: int, size: float, i: int) -> list[str]:
    """Why the foreground of subject i cannot be that of a brain, whatever the others look like; empty where it can.

    size: share of the grid that is the template's brain; NaN where there is none.
    """
    share, overlap = float(figures["foreground"][i]), float(figures["overlap"][i])
    found = []
    if share > _FULL:
        found.append(f"foreground fills {100 * share:.0f} % of the grid (limit {100 * _FULL:.0f} %)")
    if share > _LARGE * size:
        found.append(f"foreground is {share / size:.1f} times the brain of the template (limit {_LARGE:g})")
    if corners == _CORNERS:
        found.append("all corners of the grid are foreground")
    if overlap < _UNLIKE:
        found.append(f"overlap with the template (Dice) is {overlap:.2f} (limit {_UNLIKE:g})")
    return found


def _absolute(not_a_brain: list[str], corners: int, away: float) -> list[str]:
    """Reasons that do not depend on the rest of the cohort, so that it may be of any size."""
    reasons = [f"{NOT_A_BRAIN} {', '.join(not_a_brain)}"] if not_a_brain else []
    if 0 < corners < _CORNERS:
        reasons.append(f"{CORNERS}: {corners} of {_CORNERS}")
    return [*reasons, elsewhere(away)] if away else reasons


def _reasons(
    figures: Mapping[str, np.ndarray], limits: Mapping[str, Limits | None], flip: float | None, i: int
) -> list[str]:
    """Why subject i is an outlier; empty where it is none."""
    reasons = []
    for rule in RULES:
        limit, value = limits[rule.name], float(figures[rule.name][i])
        if limit is None:
            continue
        if value < limit.low:
            reasons.append(f"{rule.words} {value:.4g} is low (median {limit.median:.4g}, limit {limit.low:.4g})")
        elif value > limit.high:
            reasons.append(f"{rule.words} {value:.4g} is high (median {limit.median:.4g}, limit {limit.high:.4g})")
    asymmetry = float(figures["asymmetry"][i])
    if flip is not None and asymmetry < flip:
        reasons.append(
            f"{FLIPPED}: likeness of its asymmetry {asymmetry:.3f}, limit {flip:.3f} (1 is as the cohort, -1 its "
            "mirror image)"
        )
    return reasons


def brief(reasons: str) -> str:
    """The text of `qc_reasons` of an outlier in a few words, such as 'overlap low, flipped?'."""
    words = []
    for reason in reasons.split("; "):
        rule = next((rule for rule in RULES if reason.startswith(rule.words)), None)
        if rule is not None:
            words.append(f"{rule.name} {'low' if ' is low ' in reason else 'high'}")
        else:
            words.append(next((brief for text, brief in _BRIEF.items() if reason.startswith(text)), "flipped?"))
    return ", ".join(words)
