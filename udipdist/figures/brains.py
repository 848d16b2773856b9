"""Brains: slices through the middle, left of the brain on the left, laid into mosaics of square pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from udipdist.figures.style import WIDTH, styled

_DIFFERENCE = "PuOr_r"
_PAPER, _MARGIN = "black", 2  # pixels between slices
_NAME = 16  # letters of an id that are shown


def slices(volume: np.ndarray, guide: np.ndarray, zooms: Sequence[float]) -> list[np.ndarray]:
    """Sagittal, coronal and axial slice of `volume` through the middle of the brain of `guide`, NaN in its background.

    Both [x, y, z] in RAS order, background 0. Voxels become square pixels by nearest neighbour; row 0 is the top.
    """
    brain = guide != 0
    x, y, z = (
        int(along.min() + along.max()) // 2 if len(along) else n // 2
        for along, n in zip(np.nonzero(brain), guide.shape, strict=True)
    )
    shown = np.where(brain, volume, np.nan)
    planes = ((shown[x], zooms[1], zooms[2]), (shown[:, y], zooms[0], zooms[2]), (shown[:, :, z], zooms[0], zooms[1]))
    return [_square(plane, wide, high, min(zooms)).T[::-1] for plane, wide, high in planes]


def mosaic(grid: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Slices in rows and columns as one array, NaN between them; each centred in its place."""
    heights = [max(piece.shape[0] for piece in row) for row in grid]
    widths = [max(row[i].shape[1] for row in grid) for i in range(len(grid[0]))]
    result = np.full((sum(heights) + _MARGIN * len(heights), sum(widths) + _MARGIN * len(widths)), np.nan)
    top = 0
    for row, height in zip(grid, heights, strict=True):
        left = 0
        for piece, width in zip(row, widths, strict=True):
            y, x = top + (height - piece.shape[0]) // 2, left + (width - piece.shape[1]) // 2
            result[y : y + piece.shape[0], x : x + piece.shape[1]] = piece
            left += width + _MARGIN
        top += height + _MARGIN
    return result


@styled
def reconstructions(
    original: np.ndarray, reconstruction: np.ndarray, names: Sequence[str], zooms: Sequence[float]
) -> Figure:
    """A row a subject: original, reconstruction and difference, three views each. Arrays [S, x, y, z], background 0."""
    difference = reconstruction - original
    brain, box = original != 0, _box(original)
    reach = float(np.percentile(np.abs(difference[brain]), 99)) if brain.any() else 1.0
    images = [
        mosaic([slices(v[box], guide[box], zooms) for v, guide in zip(group, original, strict=True)])
        for group in (original, reconstruction, difference)
    ]
    widths = _widths(original[0][box], original[0][box], zooms)
    height = WIDTH / 3.06 * images[0].shape[0] / images[0].shape[1]
    figure, panels = _panels([image.shape for image in images], height, above=0.28, below=0.5)
    titles = ("original", "reconstruction", "reconstruction minus original")
    for axes, image, title in zip(panels, images, titles, strict=True):
        if image is images[2]:
            shown = axes.imshow(image, cmap=_DIFFERENCE, interpolation="nearest", vmin=-reach, vmax=reach)
        else:
            axes.imshow(image, cmap="gray", interpolation="nearest", **_window(original))
        axes.set_title(title, color="white", fontsize=9, loc="center")
        _sides(axes, widths)
    row = images[0].shape[0] / len(names)
    for i, name in enumerate(names):
        _write(panels[0], 1, i * row + 1, name, ha="left", va="top")
    _scale(figure, panels[2], shown, "difference, in SD of the subject's brain voxels")
    return figure


@styled
def heat(
    columns: Sequence[np.ndarray],
    titles: Sequence[str],
    names: Sequence[str],
    brain: np.ndarray,
    zooms: Sequence[float],
) -> Figure:
    """Maps that are 0 or more: a row a name, a column a title, three views each; each map on a scale of its own, which
    ends at the 99.5th percentile of its brain. Columns [R, x, y, z]; brain [x, y, z] bool."""
    box = _box(brain[None])
    images = []
    for maps in columns:
        scaled = [volume / (np.percentile(volume[brain], 99.5) or 1.0) for volume in maps]
        images.append(mosaic([slices(volume[box], brain[box], zooms) for volume in scaled]))
    width = WIDTH * len(images) / 2
    height = width / len(images) * images[0].shape[0] / images[0].shape[1]
    figure, panels = _panels([image.shape for image in images], height, above=0.28, below=0.5, width=width)
    for axes, image, title in zip(panels, images, titles, strict=True):
        shown = axes.imshow(image, cmap="inferno", interpolation="nearest", vmin=0, vmax=1)
        axes.set_title(title, color="white", fontsize=9, loc="center")
        _sides(axes, _widths(brain[box], brain[box], zooms))
        _scale(figure, axes, shown, "share of the map's 99.5th percentile")
    for i, name in enumerate(names):
        _write(panels[0], 1, i * images[0].shape[0] / len(names) + 1, name, ha="left", va="top")
    return figure


@styled
def walks(
    volumes: np.ndarray, steps: Sequence[str], names: Sequence[str], brain: np.ndarray, zooms: Sequence[float]
) -> Figure:
    """Brains along walks [R, S, x, y, z]: a row a name, the axial slice of each step, then three views of the last step
    minus the first. brain [x, y, z] bool."""
    box = _box(brain[None])
    inside, cut = brain[box], volumes[:, :, *box]
    change = cut[:, -1] - cut[:, 0]
    reach = float(np.percentile(np.abs(change[:, inside]), 99.5)) or 1.0
    three = [slices(row, inside, zooms) for row in change]
    tallest = max(piece.shape[0] for piece in three[0])
    spacer = np.full((tallest, 0), np.nan)  # rows of both images as high as the highest slice
    axial = mosaic([[*(slices(step, inside, zooms)[2] for step in row), spacer] for row in cut])[:, :-_MARGIN]
    changes = mosaic(three)
    both = axial.shape[1] + changes.shape[1]
    margin, above, below = 0.55, 0.28, 0.5  # inches: for the names, the steps, the scale
    height = (WIDTH - margin) * axial.shape[0] / both
    total = height + above + below
    figure = Figure(figsize=(WIDTH, total), facecolor=_PAPER)
    start, share = margin / WIDTH, (1 - margin / WIDTH) * axial.shape[1] / both
    left = figure.add_axes((start, below / total, share, height / total))
    right = figure.add_axes((start + share, below / total, 1 - start - share, height / total))
    left.imshow(axial, cmap="gray", interpolation="nearest", aspect="auto", **_window(cut[:, :, inside]))
    shown = right.imshow(changes, cmap=_DIFFERENCE, interpolation="nearest", aspect="auto", vmin=-reach, vmax=reach)
    for axes in (left, right):
        axes.set_axis_off()
    every = axial.shape[1] / len(steps)
    for j, step in enumerate(steps):
        _write(left, (j + 0.5) * every, -2, step)
    _write(right, changes.shape[1] / 2, -2, "last - first")
    _sides(right, [piece.shape[1] for piece in three[0]])
    row = axial.shape[0] / len(names)
    for i, name in enumerate(names):
        _write(left, -3, (i + 0.5) * row, name, ha="right", va="center")
    _scale(figure, right, shown, "last - first, in SD of a brain's voxels")
    return figure


def _widths(volume: np.ndarray, guide: np.ndarray, zooms: Sequence[float]) -> list[int]:
    """Of the three slices, in pixels."""
    return [piece.shape[1] for piece in slices(volume, guide, zooms)]


def _sides(axes: Axes, widths: Sequence[int]) -> None:
    """L and R at the top of the coronal and the axial column of a mosaic of three views."""
    left = widths[0] + _MARGIN
    for width in widths[1:]:
        for x, side, ha in ((left, "L", "left"), (left + width - 1, "R", "right")):
            axes.text(x, 1, side, color="white", fontsize=6.5, ha=ha, va="top")
        left += width + _MARGIN


def _scale(figure: Figure, axes: Axes, shown: AxesImage, label: str) -> None:
    """A colour bar with its unit in the free half inch below a panel."""
    place, tall = axes.get_position(), figure.get_figheight()
    inner = (place.x0 + 0.05 * place.width, 0.38 / tall, 0.9 * place.width, 0.06 / tall)
    bar = figure.colorbar(shown, cax=figure.add_axes(inner), orientation="horizontal")
    bar.ax.tick_params(labelsize=6.5, labelcolor="white", color="white", pad=1.5)
    bar.set_label(label, color="white", fontsize=7, labelpad=1)
    bar.outline.set_visible(False)


def _box(volumes: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds every brain of [S, x, y, z], a voxel wider on each side."""
    filled = (volumes != 0).any(axis=0)
    if not filled.any():
        return (slice(None),) * 3
    spans = [np.flatnonzero(filled.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return tuple(slice(max(0, int(span[0]) - 1), int(span[-1]) + 2) for span in spans)


def _square(plane: np.ndarray, wide: float, high: float, edge: float) -> np.ndarray:
    """`plane` with voxels of wide x high mm, on pixels of `edge` mm by nearest neighbour."""
    rows, columns = (
        np.minimum(((np.arange(max(1, round(n * mm / edge))) + 0.5) * edge / mm).astype(int), n - 1)
        for n, mm in zip(plane.shape, (wide, high), strict=True)
    )
    return plane[np.ix_(rows, columns)]


def _panels(
    shapes: list[tuple[int, int]], height: float, above: float, below: float = 0.0, width: float = WIDTH
) -> tuple[Figure, list[Axes]]:
    """A black figure with images side by side, `above` and `below` inches free."""
    figure = Figure(figsize=(width, height + above + below), facecolor=_PAPER)
    total = height + above + below
    panels = figure.subplots(1, len(shapes), squeeze=False)[0]
    figure.subplots_adjust(0, below / total, 1, 1 - above / total, wspace=0.02, hspace=0)
    for axes in panels:
        axes.set_axis_off()
    return figure, list(panels)


def _window(volumes: np.ndarray) -> dict[str, float]:
    """Darkest and brightest value shown: the 1st and 99.5th percentile of the brain."""
    brain = volumes[volumes != 0]
    low, high = np.percentile(brain, (1, 99.5)) if len(brain) else (0.0, 1.0)
    return {"vmin": float(low - 0.15 * (high - low)), "vmax": float(high)}


def _write(axes: Axes, x: float, y: float, name: str, ha: str = "center", va: str = "bottom") -> None:
    short = name if len(name) <= _NAME else name[: _NAME - 3] + "..."
    axes.text(x, y, short, color="white", fontsize=7, ha=ha, va=va, parse_math=False)
