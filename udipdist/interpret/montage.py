"""A page of maps: each direction a row, its change of the image and its smoothed |t| over the mean brain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from udipdist.figures.style import WIDTH, short, styled
from udipdist.interpret import atlas

ROWS = 12  # directions on a page
_HIGH, _TEXT, _TITLE, _FOOT = 1.15, 2.7, 0.3, 0.5  # inches: a row, words at its left, the line above all, colour bars
_CHANGE, _SIZE = "PuOr_r", "inferno"
_NAME, _LETTERS = 34, 42  # that fit at the left


@dataclass(frozen=True)
class Panel:
    """A direction: its name, what it is in a line or two, the regions that it is about, two maps [x, y, z], 0 outside
    the brain, and the voxel that the slices go through, and where that is in mm. `regions` is None where nobody asked
    for regions."""

    name: str
    what: Sequence[str]
    regions: Sequence[str] | None
    mean: np.ndarray
    smooth: np.ndarray
    through: Sequence[int]
    place: Sequence[float]


def fullest(size: np.ndarray, mask: np.ndarray) -> list[int]:
    """The number of the slice across each axis of [x, y, z] with the largest sum of squares, of those that cut through
    half as much of the brain, `mask`, as the largest or more: a slice along its surface shows little of where it is."""
    chosen = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        area, total = mask.sum(axis=others), (size.astype(np.float64) ** 2).sum(axis=others)
        chosen.append(int(np.where(area >= 0.5 * area.max(), total, -1.0).argmax()))
    return chosen


@styled
def montage(panels: Sequence[Panel], brain: np.ndarray, mask: np.ndarray, zooms: Sequence[float]) -> Figure:
    """The page. brain: the mean image [x, y, z]; mask: bool [x, y, z]."""
    tall = _TITLE + _HIGH * len(panels) + _FOOT
    figure = Figure(figsize=(WIDTH, tall), facecolor="black")
    wide = (WIDTH - _TEXT) / 6
    window = np.percentile(brain[mask], (1, 99.5))
    columns = (
        ("change of the image", _CHANGE, ("\N{MINUS SIGN}end", "0", "+end"), "SD of a brain's voxels"),
        ("smoothed |t|", _SIZE, ("0", "end"), "|t|"),
    )
    for j, (title, colours, ticks, unit) in enumerate(columns):
        middle = (_TEXT + (3 * j + 1.5) * wide) / WIDTH
        figure.text(middle, 1 - 0.55 * _TITLE / tall, title, color="white", fontsize=9, ha="center", va="center")
        _bar(figure, middle, 2.4 * wide / WIDTH, colours, ticks, unit)
    for i, panel in enumerate(panels):
        bottom = 1 - (_TITLE + (i + 1) * _HIGH) / tall
        _write(figure, panel, bottom + 0.5 * _HIGH / tall)
        for j, (values, colours) in enumerate(((panel.mean, _CHANGE), (panel.smooth, _SIZE))):
            reach = float(np.percentile(np.abs(values[mask]), 99.5)) or 1.0
            for axis in range(3):
                left = (_TEXT + (3 * j + axis) * wide) / WIDTH
                axes = figure.add_axes((left, bottom, wide / WIDTH, _HIGH / tall))
                _slice(axes, axis, panel.through, (values, brain, mask), zooms, (colours, reach, window))
                if j == 0:
                    where = f"{'xyz'[axis]} {panel.place[axis]:.0f}"
                    axes.text(0.03, 0.02, where, color="#c8ccd2", fontsize=6, transform=axes.transAxes)
                if i == 0 and axis:  # the sagittal slice has no left and right
                    for x, side in ((0.06, "L"), (0.94, "R")):
                        axes.text(x, 0.98, side, color="white", fontsize=6.5, ha="center", va="top",
                                  transform=axes.transAxes)  # fmt: skip
            label = f"\N{PLUS-MINUS SIGN}{reach:.2g}" if j == 0 else f"{reach:.3g}"
            figure.text(
                (_TEXT + (3 * j + 2.98) * wide) / WIDTH,
                bottom,
                label,
                color="white",
                fontsize=6.5,
                ha="right",
                va="bottom",
            )
    return figure


def _write(figure: Figure, panel: Panel, y: float) -> None:
    name = short(panel.name, _NAME)
    lines = [short(line, _LETTERS) for line in panel.what]
    lines += [f"\N{BULLET} {short(region, _LETTERS)}" for region in panel.regions or ()]
    if panel.regions is not None and not panel.regions:
        lines.append(f"no region with q < {atlas.SURE:g}")
    figure.text(
        0.01, y, f"{name}\n", color="white", fontsize=8.5, weight="bold", va="center", parse_math=False
    ).set_linespacing(1.2 * (len(lines) + 1))
    figure.text(0.01, y, "\n" + "\n".join(lines), color="#c8ccd2", fontsize=7, va="center", parse_math=False)


def _bar(figure: Figure, middle: float, wide: float, colours: str, ends: Sequence[str], unit: str) -> None:
    """The colours below a column. Each row has a scale of its own, whose end stands at its right."""
    tall = figure.get_figheight()
    axes = figure.add_axes((middle - wide / 2, 0.36 / tall, wide, 0.07 / tall))
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), colours), cax=axes, orientation="horizontal")
    bar.set_ticks(list(np.linspace(0, 1, len(ends))), labels=list(ends))
    bar.ax.tick_params(labelsize=6.5, labelcolor="white", color="white", pad=1.5)
    bar.set_label(f"{unit}; end: the number at the right of the row", color="white", fontsize=7, labelpad=1)
    bar.outline.set_visible(False)


def _slice(
    axes: Axes,
    axis: int,
    at: Sequence[int],
    volumes: tuple[np.ndarray, np.ndarray, np.ndarray],
    zooms: Sequence[float],
    look: tuple[str, float, np.ndarray],
) -> None:
    """The plane across one axis: the brain in grey, the map over it, opaque where it is large."""
    values, brain, mask = (np.take(volume, at[axis], axis=axis).T[::-1] for volume in volumes)
    colours, reach, (low, high) = look
    along = [zooms[a] for a in range(3) if a != axis]
    extent = (0, values.shape[1] * along[0], 0, values.shape[0] * along[1])
    shown = {"interpolation": "nearest", "extent": extent}
    axes.imshow(np.where(mask, brain, np.nan), cmap="gray", vmin=low - 0.15 * (high - low), vmax=high, **shown)
    opaque = np.clip(1.5 * np.abs(values) / reach, 0, 1) * mask
    bottom = -reach if colours == _CHANGE else 0.0
    axes.imshow(values, cmap=colours, vmin=bottom, vmax=reach, alpha=opaque, **shown)
    axes.set_axis_off()
