"""The look of every figure: colours that colour-blind readers tell apart (Okabe & Ito 2008), thin lines, no frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

INK, GREY, PALE = "#22262b", "#8a929b", "#e3e6ea"
BLUE, SKY, ORANGE, VERMILLION, GREEN, PURPLE = "#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#009E73", "#CC79A7"
SLATE = "#4a5568"
WIDTH = 10.0  # inches; 2000 pixels on the page
_BLOCK = 1 << 17
LOG10P = r"$-\log_{10}\,p$"

STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "figure.facecolor": "white",
    "pdf.fonttype": 42,
    "svg.hashsalt": "udipdist",  # the same figure is the same file
    "mathtext.fontset": "dejavusans",
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw with STYLE, and leave the settings of the process as they were."""

    @wraps(draw)
    def inside(*args, **kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return inside


@dataclass(frozen=True)
class Spot:
    """A place of a figure that says more when it is pointed at: its lines, a point (axes, x, y in data) and a label.

    `link` is the name of another figure of the page that shows more of it.
    """

    lines: tuple[str, ...]
    point: tuple[Axes, float, float] | None = None
    label: Text | None = None
    link: str = ""


@dataclass(frozen=True)
class Mark:
    """A spot as it lies on the picture: boxes (left, top, width, height) in shares of its width and height."""

    lines: tuple[str, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    link: str = ""


class Chart(Figure):
    """A figure with spots."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.spots: list[Spot] = []

    def marks(self, reach: float = 0.07) -> list[Mark]:
        """The spots where they were last drawn; those outside are left out. `reach`: half the side of a point, inches.

        Call it after `savefig`, which lays the figure out.
        """
        size = np.array(self.get_size_inches()) * self.dpi
        half = reach * self.dpi
        marks = []
        for spot in self.spots:
            boxes = []
            if spot.point is not None:
                axes, *place = spot.point
                x, y = axes.transData.transform(place)
                boxes.append((x - half, y - half, x + half, y + half))
            if spot.label is not None:
                boxes.append(spot.label.get_window_extent().extents)
            shares = [np.clip(np.array(box).reshape(2, 2) / size, 0, 1) for box in boxes if np.isfinite(box).all()]
            kept = [(low[0], 1 - high[1], *(high - low)) for low, high in shares if (high > low).all()]
            if kept:
                marks.append(Mark(spot.lines, tuple(tuple(map(float, box)) for box in kept), spot.link))
        return marks


def new_figure(height: float, width: float = WIDTH) -> Chart:
    """An empty figure of the page's width, in inches."""
    return Chart(figsize=(width, height), layout="constrained")


def short(name: str, longest: int = 18) -> str:
    """A name that fits on a figure: so many letters at most."""
    return name if len(name) <= longest else name[: longest - 3] + "..."


def grid(axes: Axes, axis: str = "y") -> None:
    """Faint lines behind the data."""
    axes.grid(axis=axis, color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)


def thin(
    x: np.ndarray, y: np.ndarray, exact_above: float, most: int = 100_000, pixels=(1000, 400), top: float | None = None
) -> np.ndarray:
    """Rows to draw, ascending: every point with y >= `exact_above` (at most about the `most` highest ones), and of the
    others one a pixel. Pixels cut the range of x, and 0..`top` (without: 0..`exact_above`), into as many parts.

    Time and memory are linear in the number of points; NaN are left out.
    """
    kept = np.flatnonzero(y >= exact_above)
    if len(kept) > most:
        high = y[kept]
        exact_above = float(np.partition(high, len(high) - most)[len(high) - most])
        kept = kept[high >= exact_above]
    columns, rows = pixels[0], pixels[1]
    if top is not None:
        rows = max(1, round(rows * min(exact_above / top, 1.0)))
    chosen = np.full(columns * rows, -1)
    ends = (np.fmin.reduce(x, initial=np.inf), np.fmax.reduce(x, initial=-np.inf))
    for start in range(0, len(y), _BLOCK):  # so that what lies between stays in the processor's cache
        here = slice(start, start + _BLOCK)
        below = np.flatnonzero(y[here] < exact_above)  # which NaN are not
        cell = _pixel(x[here][below], columns, *ends) * rows
        cell += _pixel(y[here][below], rows, 0.0, float(exact_above))
        chosen[cell] = start + below
    return np.sort(np.concatenate([kept, chosen[chosen >= 0]]))


def _pixel(values: np.ndarray, count: int, low: float, high: float) -> np.ndarray:
    cell = (values - low) * (count / (high - low) if high > low else 0.0)
    return np.clip(cell, 0, count - 1, out=cell).astype(np.int64)


def save(figure: Figure, path: Path, dpi: int = 300, form: str = ".pdf") -> None:
    """Write a .pdf, .svg or .png, without the time: the same figure is the same file. Points become pixels."""
    absent = {
        ".pdf": ("CreationDate", "Creator", "Producer"), ".svg": ("Date", "Creator"), ".png": ("Software",),
    }[form]  # fmt: skip
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, format=form[1:], dpi=dpi, metadata=dict.fromkeys(absent))
