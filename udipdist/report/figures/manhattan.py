"""Manhattan plots: every variant along the genome, loci named, planted and known loci marked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from udipdist.figures.style import (
    BLUE,
    GREY,
    INK,
    LOG10P,
    ORANGE,
    PALE,
    VERMILLION,
    WIDTH,
    new_figure,
    styled,
    thin,
)
from udipdist.loci import genome

EXACT_ABOVE = 2.0  # -log10 p above which every point is drawn
DARK, LIGHT = "#6f7b88", "#aab3bd"
LABELS = 70
BREAK = 30.0  # where the y axis turns from linear to logarithmic, if it must go beyond twice this
_FAR_TICKS = (30, 50, 100, 200, 500, 1000, 2000, 5000)
_LONGEST = 18


@dataclass(frozen=True)
class Genome:
    """Chromosomes end to end on the x axis, in base pairs: what is added to positions, and the first and last x."""

    codes: np.ndarray
    shift: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, code_M: np.ndarray, position_M: np.ndarray) -> Self:
        """The chromosomes that have variants; code 0 (unplaced) has no place."""
        codes = np.unique(code_M[code_M > 0])
        last = np.array([position_M[code_M == code].max() for code in codes], dtype=np.int64)
        first = np.array([position_M[code_M == code].min() for code in codes], dtype=np.int64)
        gap = max(1, int((last - first + 1).sum() * 0.006))
        start = np.cumsum(last - first + 1 + gap) - (last - first + 1 + gap)
        return cls(codes, start - first, start, start + last - first)

    def place(self, code: np.ndarray, position: np.ndarray) -> np.ndarray:
        """x of positions; NaN on chromosomes without variants."""
        code, position = np.asarray(code), np.asarray(position, np.float64)
        index = np.minimum(np.searchsorted(self.codes, code), max(len(self.codes) - 1, 0))
        if not len(self.codes):
            return np.full(len(code), np.nan)
        return np.where(self.codes[index] == code, self.shift[index] + position, np.nan)

    @property
    def width(self) -> float:
        """x of the last variant."""
        return float(self.last[-1]) if len(self.last) else 1.0

    def borders(self) -> np.ndarray:
        """x between neighbouring chromosomes, with the outer ends: one more than there are chromosomes."""
        between = (self.last[:-1] + self.first[1:]) / 2
        return np.concatenate([self.first[:1], between, self.last[-1:]])


@dataclass(frozen=True)
class Scan:
    """What one Manhattan plot shows. `loci`: code start end lead_position lead_snp log10p, and `hit` (1: in the panel)
    where that is known; `planted`: code pos."""

    code_M: np.ndarray
    position_M: np.ndarray
    log10p_M: np.ndarray
    threshold: float | None
    loci: pd.DataFrame | None = None
    planted: pd.DataFrame | None = None


@styled
def manhattan(scan: Scan, null: Iterable[int] = ()) -> Figure:
    """One scan. Chromosomes in `null` (codes), where nothing was planted, are shaded."""
    layout = Genome.of(scan.code_M, scan.position_M)
    labelled = scan.loci is not None and len(scan.loci) > 0
    figure = new_figure(4.7 if labelled else 3.6)
    axes = figure.subplots()
    top = _draw(axes, scan, layout)
    _scale(axes, 0, top)
    _chromosomes(axes, layout, null)
    axes.set_ylabel(LOG10P)
    axes.set_xlabel("chromosome")
    if labelled:
        _label(axes, scan.loci, layout, top)
    _legend(figure, axes, scan, bool(list(null)))
    return figure


@styled
def miami(above: Scan, below: Scan, names: tuple[str, str], null: Iterable[int] = ()) -> Figure:
    """Two scans of the same variants, one upwards and one downwards, on one scale."""
    layout = Genome.of(above.code_M, above.position_M)
    figure = new_figure(5.2)
    upper, lower = figure.subplots(2, 1, sharex=True)
    top = max(_draw(upper, above, layout), _draw(lower, below, layout))
    _scale(upper, 0, top)
    _scale(lower, top, 0)
    for axes, name in ((upper, names[0]), (lower, names[1])):
        axes.set_ylabel(LOG10P)
        place = 0.97 if axes is upper else 0.03
        axes.text(0.005, place, name, transform=axes.transAxes, weight="bold", va="top" if place > 0.5 else "bottom",
                  parse_math=False)  # fmt: skip
        _chromosomes(axes, layout, null, names=axes is upper)
    lower.spines["bottom"].set_visible(False)
    lower.spines["top"].set_visible(True)
    lower.tick_params(bottom=False)
    _legend(figure, upper, above, bool(list(null)))
    return figure


def _draw(axes: Axes, scan: Scan, layout: Genome) -> float:
    """Points, threshold, loci and planted variants; returns the upper limit of the y axis."""
    x_M = layout.place(scan.code_M, scan.position_M)
    y_M = np.where(np.isnan(x_M), np.nan, scan.log10p_M)
    rows = thin(x_M, y_M, EXACT_ABOVE)
    x, y, code = x_M[rows], y_M[rows], scan.code_M[rows]
    shade = np.where(np.searchsorted(layout.codes, code) % 2 == 0, DARK, LIGHT)
    axes.scatter(x, y, s=2.2, c=shade, linewidths=0, rasterized=True)
    top = float(y.max(initial=1.0))
    if scan.threshold is not None:
        axes.axhline(scan.threshold, color=VERMILLION, linewidth=0.8, linestyle=(0, (4, 3)))
        top = max(top, scan.threshold)
    if scan.loci is not None and len(scan.loci):
        top = max(top, float(scan.loci["log10p"].max()))
        _colour_loci(axes, scan, layout, x, y, code, scan.position_M[rows])
    if scan.planted is not None and len(scan.planted):
        place = layout.place(scan.planted["code"], scan.planted["pos"])
        axes.plot(place, np.zeros(len(place)), marker=6, linestyle="", color=INK, markersize=4.5, clip_on=False,
                  zorder=5)  # fmt: skip
    axes.set_xlim(-0.008 * layout.width, 1.008 * layout.width)
    return 1.06 * top


def _scale(axes: Axes, bottom: float, top: float) -> None:
    """Limits of the y axis; logarithmic above BREAK where p-values go so far that the others would be flat."""
    if max(bottom, top) > 2 * BREAK:
        axes.set_yscale("function", functions=(_compress, _expand))
        axes.set_yticks([tick for tick in (0, 10, 20, *_FAR_TICKS) if tick <= max(bottom, top)])
    axes.set_ylim(bottom, top)


def _compress(y: np.ndarray) -> np.ndarray:
    return np.where(y <= BREAK, y, BREAK * (1 + np.log(np.maximum(y, BREAK) / BREAK)))


def _expand(y: np.ndarray) -> np.ndarray:
    return np.where(y <= BREAK, y, BREAK * np.exp(np.maximum(y, BREAK) / BREAK - 1))


def _colour_loci(axes: Axes, scan: Scan, layout: Genome, x, y, code, position) -> None:
    """Variants inside a locus in blue; the lead filled where the panel knows the locus, else open."""
    loci = scan.loci
    inside = np.zeros(len(x), bool)
    for row in loci.itertuples():
        inside |= (code == row.code) & (position >= row.start) & (position <= row.end)
    inside &= y > (scan.threshold if scan.threshold is not None else EXACT_ABOVE) / 2
    axes.scatter(x[inside], y[inside], s=3.5, c=BLUE, linewidths=0, rasterized=True, zorder=3)
    place = layout.place(loci["code"], loci["lead_position"])
    known = loci["hit"].to_numpy() > 0 if "hit" in loci else np.zeros(len(loci), bool)
    for mask, face in ((known, ORANGE), (~known, "white")):
        axes.scatter(place[mask], loci["log10p"][mask], s=20, marker="D", facecolor=face, edgecolor=INK,
                     linewidths=0.7, zorder=4)  # fmt: skip


def _label(axes: Axes, loci: pd.DataFrame, layout: Genome, top: float) -> None:
    """Lead SNPs by name above the plot, spread so that no two overlap, each with a line to its locus."""
    chosen = loci.nlargest(LABELS, "log10p")
    place = layout.place(chosen["code"], chosen["lead_position"])
    chosen, place = chosen[~np.isnan(place)], place[~np.isnan(place)]
    order = np.argsort(place)
    chosen, place = chosen.iloc[order], place[order]
    low, high = axes.get_xlim()
    spread = declutter(place, (high - low) * 0.125 / (WIDTH * 0.92), low, high)
    above = axes.get_xaxis_transform()  # x in data, y in shares of the axes' height
    axes.vlines(place, chosen["log10p"], top, color=PALE, linewidth=0.7, zorder=1)
    for x, at, row in zip(place, spread, chosen.itertuples(), strict=True):
        axes.plot([x, at], [1, 1.06], color=PALE, linewidth=0.7, clip_on=False, transform=above)
        name = str(row.lead_snp)
        name = name if len(name) <= _LONGEST else name[: _LONGEST - 3] + "..."
        axes.text(at, 1.07, name, rotation=90, ha="center", va="bottom", fontsize=6.3, transform=above,
                  parse_math=False)  # fmt: skip


def declutter(place: np.ndarray, apart: float, low: float, high: float) -> np.ndarray:
    """Ascending positions moved as little as needed so that neighbours are `apart` and all lie in low..high.

    Overlapping neighbours are pooled into blocks around their mean (as in isotonic regression). Where they cannot
    all fit, they are spread evenly.
    """
    n = len(place)
    if n * apart >= high - low:
        return np.linspace(low, high, n) if n > 1 else np.array(place, float)
    blocks: list[list[float]] = []  # [sum of (position - rank * apart), count]
    for rank, x in enumerate(np.clip(place, low + apart / 2, high - apart / 2)):
        blocks.append([x - rank * apart, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, number = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += number
    level = np.concatenate([np.full(int(number), total / number) for total, number in blocks] or [np.empty(0)])
    return np.clip(level, low, high - (n - 1) * apart) + np.arange(n) * apart


def _chromosomes(axes: Axes, layout: Genome, null: Iterable[int], names: bool = True) -> None:
    """Ticks in the middle of each chromosome; the null ones shaded."""
    null = set(null)
    borders = layout.borders()
    middles = (borders[:-1] + borders[1:]) / 2
    for code, low, high in zip(layout.codes, borders[:-1], borders[1:], strict=True):
        if code in null:
            axes.axvspan(low, high, color=PALE, alpha=0.55, linewidth=0, zorder=0)
    axes.set_xticks(middles, [genome.label(code) for code in layout.codes] if names else [])
    axes.tick_params(axis="x", length=0, pad=7 if names else 2, labelsize=7.5, labelbottom=names)


def _legend(figure: Figure, axes: Axes, scan: Scan, shaded: bool) -> None:
    """Only what is there to be told apart."""
    entries = []
    if scan.threshold is not None:
        entries.append(axes.plot([], [], color=VERMILLION, linewidth=0.8, linestyle=(0, (4, 3)), label="threshold")[0])
    if scan.loci is not None and len(scan.loci):
        both = "hit" in scan.loci
        style = {"linestyle": "", "marker": "D", "markersize": 4.5, "markeredgecolor": INK, "markeredgewidth": 0.7}
        if both:
            entries.append(axes.plot([], [], markerfacecolor=ORANGE, label="lead, in the panel", **style)[0])
        name = "lead, not in the panel" if both else "lead SNP of a locus"
        entries.append(axes.plot([], [], markerfacecolor="white", label=name, **style)[0])
    if scan.planted is not None and len(scan.planted):
        entries.append(axes.plot([], [], linestyle="", marker=6, color=INK, markersize=4.5, label="planted variant")[0])
    if shaded:
        entries.append(axes.fill_between([], [], color=PALE, label="null chromosome: nothing was planted"))
    if entries:
        figure.legend(handles=entries, loc="outside lower center", ncols=len(entries), labelcolor=INK, edgecolor=GREY)
