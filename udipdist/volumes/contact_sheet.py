"""NAME.qc.png: three slices of each scan that looks unusual, marked, then of a random sample of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure

from hpc import files, store
from udipdist.volumes import quality

MOST = 40  # subjects on a sheet
UNUSUAL = 28  # of them at most, so that there is something to compare with
SEED = 20252  # of the sample
DPI = 100
_EDGE, _GAP, _TITLE, _HEAD = 126, 6, 18, 26  # pixels: longest side of a slice; between tiles; above a tile, the page
_COLUMNS = 4  # subjects side by side
_MARKED, _PLAIN = (1.0, 0.54, 0.24), (0.78, 0.8, 0.83)
_LETTERS = 54  # of a line that are shown
_LEGEND = "sagittal, coronal and axial through the middle of the grid; the left of the brain is on the left"


def chosen(outlier: np.ndarray, valid: np.ndarray) -> list[int]:
    """Rows to show: the first UNUSUAL outliers in order of the store, then others at random (seeded), MOST in all."""
    marked = np.flatnonzero(outlier & valid)[:UNUSUAL]
    others = np.flatnonzero(valid & ~outlier)
    picked = np.random.default_rng(SEED).permutation(others)[: MOST - len(marked)]
    return [*(int(i) for i in marked), *(int(i) for i in np.sort(picked))]


def write(path: Path, groups: Mapping[str, Path]) -> None:
    """Draw the scans of every modality of a store, also before it is sealed. `groups`: see `quality_files.publish`."""
    tiles: list[np.ndarray] = []
    titles: list[tuple[str, bool]] = []
    for modality, place in groups.items():
        subjects, outlier = store.get(place, "subject"), store.get(place, "qc_outlier").astype(bool)
        valid, reasons = store.get(place, "valid").astype(bool), store.get(place, "qc_reasons")
        reader = store.RowReader(place / "image")
        names = ("scl_slope", "scl_inter", "background", "mean", "std", "affine")
        columns = {name: store.get(place, name) for name in names}
        for i in chosen(outlier, valid):
            slope, inter, limit, mean, std, affine = (column[i] for column in columns.values())
            raw = reader.row(i)
            planes = [(plane * slope + inter, wide, high) for plane, wide, high in _middle(raw, affine)]
            tiles.append(_tile([_shade(values, (mean, std, limit), wide, high) for values, wide, high in planes]))
            words = [subjects[i], modality, quality.brief(str(reasons[i])) if outlier[i] else ""]
            titles.append(("  ".join(word for word in words if word), bool(outlier[i])))
    with files.publish(path) as partial:
        _page(tiles, titles).savefig(partial, format="png", dpi=DPI, metadata={"Software": None})


def _middle(raw: np.ndarray, affine: np.ndarray) -> list[tuple[np.ndarray, float, float]]:
    """Sagittal, coronal and axial slice through the middle of the grid, with the mm of a pixel along and across.

    The grid's middle, not the brain's: a scan that stands elsewhere should look so.
    """
    x, y, z = (n // 2 for n in raw.shape)
    dx, dy, dz = nib.affines.voxel_sizes(affine)
    return [(raw[x], dy, dz), (raw[:, y], dx, dz), (raw[:, :, z], dx, dy)]


def _shade(scaled: np.ndarray, scale: tuple[float, float, float], wide: float, high: float) -> np.ndarray:
    """A slice as grey 0..1, -2.5 to 3.5 SD of the scan's foreground, square pixels, row 0 at the top; background 0."""
    mean, std, limit = scale
    grey = np.clip((scaled - mean) / std * (0.92 / 6) + 0.08 + 2.5 * 0.92 / 6, 0.08, 1) * (np.abs(scaled) > limit)
    pixels = _EDGE / max(scaled.shape[0] * wide, scaled.shape[1] * high)
    rows, columns = (
        np.minimum(((np.arange(max(1, round(n * mm * pixels))) + 0.5) / (mm * pixels)).astype(int), n - 1)
        for n, mm in zip(scaled.shape, (wide, high), strict=True)
    )
    return grey[np.ix_(rows, columns)].T[::-1]


def _tile(slices: Sequence[np.ndarray]) -> np.ndarray:
    """Three slices side by side, each in the middle of a square."""
    tile = np.zeros((_EDGE, 3 * _EDGE + 2))
    for k, piece in enumerate(slices):
        top, left = (_EDGE - piece.shape[0]) // 2, k * (_EDGE + 1) + (_EDGE - piece.shape[1]) // 2
        tile[top : top + piece.shape[0], left : left + piece.shape[1]] = piece
    return tile


def _page(tiles: Sequence[np.ndarray], titles: Sequence[tuple[str, bool]]) -> Figure:
    """Tiles in rows of _COLUMNS with a line above each; outliers are orange and framed."""
    tall, wide = _EDGE + _TITLE + _GAP, 3 * _EDGE + 2 + 2 * _GAP
    height = _HEAD + max(1, -(-len(tiles) // _COLUMNS)) * tall
    page = np.zeros((height, _COLUMNS * wide, 3), np.float32)
    figure = Figure(figsize=(page.shape[1] / DPI, height / DPI), dpi=DPI, facecolor="black")

    def write(x: int, y: int, text: str, colour: tuple[float, float, float]) -> None:
        short = text if len(text) <= _LETTERS else text[: _LETTERS - 3] + "..."
        figure.text(
            x / page.shape[1], 1 - y / height, short, fontsize=8.5, color=colour, va="baseline", parse_math=False
        )

    n = sum(marked for _, marked in titles)
    figure.text(
        _GAP / page.shape[1], 1 - 16 / height, color=_PLAIN, va="baseline", fontsize=9,
        s=f"{n} scans that look unusual (orange) and {len(tiles) - n} others at random: {_LEGEND}",
    )  # fmt: skip
    for k, (tile, (title, marked)) in enumerate(zip(tiles, titles, strict=True)):
        top, left = _HEAD + k // _COLUMNS * tall + _TITLE, k % _COLUMNS * wide + _GAP
        if marked:
            page[top - 2 : top + _EDGE + 2, left - 2 : left + tile.shape[1] + 2] = _MARKED
        page[top : top + _EDGE, left : left + tile.shape[1]] = tile[:, :, None]
        write(left, top - 5, title, _MARKED if marked else _PLAIN)
    figure.figimage(page, 0, 0, zorder=-1)
    return figure
