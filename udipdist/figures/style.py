"""The look of every figure: colours that colour-blind readers tell apart (Okabe & Ito 2008), thin lines, no frame."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, GREY, PALE = "#22262b", "#8a929b", "#e3e6ea"
BLUE, SKY, ORANGE, VERMILLION, GREEN, PURPLE = "#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#009E73", "#CC79A7"
WIDTH = 10.0  # inches; 2000 pixels on the page
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
    "mathtext.fontset": "dejavusans",
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw with STYLE, and leave the settings of the process as they were."""

    @wraps(draw)
    def inside(*args, **kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return inside


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure of the page's width, in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def grid(axes: Axes, axis: str = "y") -> None:
    """Faint lines behind the data."""
    axes.grid(axis=axis, color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)


def thin(x: np.ndarray, y: np.ndarray, exact_above: float, most: int = 100_000, pixels=(2000, 800)) -> np.ndarray:
    """Rows to draw, ascending: every point with y >= `exact_above` (at most about the `most` highest ones), and of the
    others one a pixel. Time and memory are linear in the number of points; NaN are left out."""
    rows = np.flatnonzero(~np.isnan(y))
    if not len(rows):
        return rows
    exact = y[rows] >= exact_above
    if exact.sum() > most:
        exact_above = np.partition(y[rows], len(rows) - most)[len(rows) - most]
        exact = y[rows] >= exact_above
    kept, others = rows[exact], rows[~exact]
    if not len(others):
        return kept
    cell = _pixel(x[others], pixels[0]) * pixels[1] + _pixel(y[others], pixels[1], low=0.0, high=float(exact_above))
    chosen = np.full(pixels[0] * pixels[1], -1)
    chosen[cell] = others
    return np.sort(np.concatenate([kept, chosen[chosen >= 0]]))


def _pixel(values: np.ndarray, count: int, low: float | None = None, high: float | None = None) -> np.ndarray:
    low = values.min() if low is None else low
    span = (values.max() if high is None else high) - low
    return np.clip((values - low) * (count / span if span > 0 else 0.0), 0, count - 1).astype(np.int64)
