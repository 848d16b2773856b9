"""NAME.qc.png: three slices of each scan that looks unusual, marked, then of a random sample of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure

from hpc import files, store

MOST = 40  # subjects on a sheet
UNUSUAL = 28  # of them at most, so that there is something to compare with
SEED = 20252  # of the sample
DPI = 100
_EDGE, _GAP, _TITLE = 108, 4, 16  # pixels: the longest side of a slice, between tiles, above a tile
_COLUMNS = 4  # subjects side by side
_MARKED, _PLAIN = "#FF8A3D", "#C8CDD3"
_NAME = 30  # letters of a line that are shown


def chosen(outlier: np.ndarray, valid: np.ndarray) -> list[int]:
    """Rows to show: the first UNUSUAL outliers in order of the store, then others at random (seeded), MOST in all."""
    marked = np.flatnonzero(outlier & valid)[:UNUSUAL]
    others = np.flatnonzero(valid & ~outlier)
    picked = np.random.default_rng(SEED).permutation(others)[: MOST - len(marked)]
    return [*(int(i) for i in marked), *(int(i) for i in np.sort(picked))]


def write(path: Path, groups: Mapping[str, Path]) -> None:
    """Draw the scans of every modality of a store, also before it is sealed. `groups`: see `quality.publish`."""
    tiles: list[np.ndarray] = []
    titles: list[tuple[str, bool]] = []
    for modality, place in groups.items():
        subjects, outlier = store.get(place, "subject"), store.get(place, "qc_outlier").astype(bool)
        valid, reasons = store.get(place, "valid").astype(bool), store.get(place, "qc_reasons")
        reader = store.RowReader(place / "image")
        columns = {name: store.get(place, name) for name in ("scl_slope", "scl_inter", "mean", "std", "affine")}
        for i in chosen(outlier, valid):
            slope, inter, mean, std, affine = (column[i] for column in columns.values())
            raw = reader.row(i)
            planes = [(plane * slope + inter, wide, high) for plane, wide, high in _middle(raw, affine)]
            tiles.append(_tile([_shade(values, mean, std, wide, high) for values, wide, high in planes]))
            short = str(reasons[i]).split(" is ")[0].split(":")[0]
            titles.append((f"{subjects[i]} {modality} {short}", bool(outlier[i])))
    with files.publish(path) as partial:
        _page(tiles, titles).savefig(partial, format="png", dpi=DPI, metadata={"Software": None})


def _middle(raw: np.ndarray, affine: np.ndarray) -> list[tuple[np.ndarray, float, float]]:
    """Sagittal, coronal and axial slice through the middle of the grid, with the mm of a pixel along and across.

    The grid's middle, not the brain's: a scan that stands elsewhere should look so.
    """
    x, y, z = (n // 2 for n in raw.shape)
    dx, dy, dz = nib.affines.voxel_sizes(affine)
    return [(raw[x], dy, dz), (raw[:, y], dx, dz), (raw[:, :, z], dx, dy)]


def _shade(scaled: np.ndarray, mean: float, std: float, wide: float, high: float) -> np.ndarray:
    """A slice as grey 0..1, -2.5 to 3.5 SD of the scan's foreground, square pixels, row 0 at the top; background 0."""
    grey = np.where(scaled != 0, np.clip((scaled - mean) / std * (0.92 / 6) + 0.08 + 2.5 * 0.92 / 6, 0.08, 1), 0)
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
    high, wide = _EDGE + _TITLE + _GAP, 3 * _EDGE + 2 + 2 * _GAP
    columns = min(_COLUMNS, max(len(tiles), 1))
    page = np.zeros((max(1, -(-len(tiles) // columns)) * high + _GAP, columns * wide, 3), np.float32)
    orange = np.array([0xFF, 0x8A, 0x3D], np.float32) / 255
    figure = Figure(figsize=(page.shape[1] / DPI, page.shape[0] / DPI), dpi=DPI, facecolor="black")
    for k, (tile, (title, marked)) in enumerate(zip(tiles, titles, strict=True)):
        top, left = k // columns * high + _TITLE, k % columns * wide + _GAP
        if marked:
            page[top - 2 : top + _EDGE + 2, left - 2 : left + tile.shape[1] + 2] = orange
        page[top : top + _EDGE, left : left + tile.shape[1]] = tile[:, :, None]
        figure.text(
            left / page.shape[1], 1 - (top - 4) / page.shape[0], _short(title), fontsize=8.5,
            color=_MARKED if marked else _PLAIN, ha="left", va="bottom", parse_math=False,
        )  # fmt: skip
    figure.figimage(page, 0, 0, zorder=-1)
    return figure


def _short(title: str) -> str:
    return title if len(title) <= _NAME + 14 else title[: _NAME + 11] + "..."
