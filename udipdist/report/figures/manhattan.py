"""Manhattan and Miami plots: every variant along the genome, loci named, planted and known loci marked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from udipdist.figures.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LOG10P,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    SLATE,
    VERMILLION,
    WIDTH,
    Chart,
    Spot,
    new_figure,
    short,
    styled,
    thin,
)
from udipdist.report import naming
from udipdist.report.figures.axis import Genome, declutter, draw_chromosomes

EXACT_ABOVE = 2.0  # -log10 p above which every point is drawn
DARK, LIGHT = "#6f7b88", "#aab3bd"
LABELS = 70
BREAK = 30.0  # where the y axis turns from linear to logarithmic, if it must go beyond twice this
COLOURS = (BLUE, GREEN, PURPLE, VERMILLION, SKY)  # of the traits with the most loci
_FAR_TICKS = (30, 50, 100, 200, 500, 1000, 2000, 5000)
_ENDLESS = {"linestyle": "", "marker": "^", "color": VERMILLION, "markersize": 5, "markeredgewidth": 0}
_DASHED = {"color": INK, "linewidth": 0.8, "linestyle": (0, (4, 3))}


@dataclass(frozen=True)
class Scan:
    """What one Manhattan plot shows. `loci`: code start end lead_position lead_snp log10p, and what `naming` knows;
    `planted`: code pos. `trait_of` names, where the scan is of several traits, that which the p of each of some
    variants (ascending) is of; `links` the figure that shows the region of a locus."""

    code_M: np.ndarray
    position_M: np.ndarray
    log10p_M: np.ndarray
    threshold: float | None
    loci: pd.DataFrame | None = None
    planted: pd.DataFrame | None = None
    trait_of: Callable[[np.ndarray], Sequence[str]] | None = None
    links: dict[int, str] = field(default_factory=dict)

    def heights(self, log10p: np.ndarray) -> np.ndarray:
        """Where -log10 p values are drawn: a p of 0, which some tables hold, a little above all others."""
        if not np.isposinf(log10p).any():
            return log10p
        known = [values[np.isfinite(values)] for values in (self.log10p_M, log10p)]
        return np.minimum(log10p, 1.05 * max(values.max(initial=self.threshold or 1.0) for values in known))

    @property
    def has_loci(self) -> bool:
        """True where there are loci to mark."""
        return self.loci is not None and len(self.loci) > 0


def palette(scans: Sequence[Scan]) -> dict[str, str]:
    """Colours of the traits with the most loci, over the scans that are of several traits; empty without such."""
    traits = [scan.loci["trait"] for scan in scans if scan.trait_of is not None and scan.has_loci]
    if not traits:
        return {}
    counts = pd.concat(traits).value_counts().sort_index().sort_values(ascending=False, kind="stable")
    if len(counts) > len(COLOURS):
        counts = counts[counts > 1]
    return dict(zip(counts.index, COLOURS, strict=False))


@styled
def manhattan(scan: Scan, null: Iterable[int] = (), width: float = WIDTH) -> Chart:
    """One scan, `width` inches wide. Chromosomes in `null` (codes), where nothing was planted, are shaded."""
    layout = Genome.of((scan.code_M, scan.position_M))
    figure = new_figure(4.7 if scan.has_loci else 3.6, width)
    axes = figure.subplots()
    top = _draw(axes, scan, layout, palette([scan]))
    _scale(axes, 0, top)
    draw_chromosomes(axes, layout, null)
    axes.set_ylabel(LOG10P)
    axes.set_xlabel("chromosome")
    if scan.has_loci:
        _label(figure, axes, scan, layout, top)
    _legend(figure, axes, [scan], bool(list(null)))
    return figure


@styled
def miami(above: Scan, below: Scan, names: tuple[str, str], null: Iterable[int] = (), width: float = WIDTH) -> Chart:
    """Two scans, one upwards and one downwards, on one scale. They need not be of the same variants."""
    layout = Genome.of(*((scan.code_M, scan.position_M) for scan in (above, below)))
    figure = new_figure(5.2 + 0.9 * (above.has_loci + below.has_loci), width)
    upper, lower = figure.subplots(2, 1, sharex=True)
    colours = palette([above, below])
    top = max(_draw(upper, above, layout, colours), _draw(lower, below, layout, colours))
    _scale(upper, 0, top)
    _scale(lower, top, 0)
    for axes, name, scan in ((upper, names[0], above), (lower, names[1], below)):
        axes.set_ylabel(LOG10P)
        place = 0.97 if axes is upper else 0.03
        axes.text(0.995, place, name, transform=axes.transAxes, weight="bold", ha="right", parse_math=False,
                  va="top" if place > 0.5 else "bottom")  # fmt: skip
        draw_chromosomes(axes, layout, null)
        if scan.has_loci:
            _label(figure, axes, scan, layout, top, down=axes is lower)
    lower.tick_params(labelbottom=False)
    lower.spines["bottom"].set_visible(False)
    lower.spines["top"].set_visible(True)
    lower.tick_params(bottom=False)
    _legend(figure, upper, [above, below], bool(list(null)))
    return figure


def _draw(axes: Axes, scan: Scan, layout: Genome, colours: dict[str, str]) -> float:
    """Points, threshold, loci and planted variants; returns the upper limit of the y axis."""
    x_M = layout.place(scan.code_M, scan.position_M)
    y_M = scan.heights(scan.log10p_M)
    y_M = y_M if np.isfinite(x_M).all() else np.where(np.isnan(x_M), np.nan, y_M)
    top = float(np.fmax.reduce(y_M, initial=1.0))
    rows = thin(x_M, y_M, EXACT_ABOVE, top=top)
    x, y, code = x_M[rows], y_M[rows], scan.code_M[rows]
    dark = np.searchsorted(layout.codes, code) % 2 == 0
    for mask, colour in ((dark, DARK), (~dark, LIGHT)):
        axes.plot(x[mask], y[mask], linestyle="", marker="o", markersize=1.5, color=colour, markeredgewidth=0,
                  rasterized=True, zorder=1.5)  # fmt: skip
    endless = np.isposinf(scan.log10p_M[rows])
    axes.plot(x[endless], y[endless], zorder=3.5, **_ENDLESS)
    if scan.threshold is not None:
        axes.axhline(scan.threshold, **_DASHED)
        top = max(top, scan.threshold)
    if scan.has_loci:
        top = max(top, float(scan.heights(scan.loci["log10p"].to_numpy()).max()))
        _colour_loci(axes, scan, rows, x, y, colours)
        _mark_leads(axes, scan, layout)
    if scan.planted is not None and len(scan.planted):
        place = layout.place(scan.planted["code"], scan.planted["pos"])
        axes.plot(place, np.zeros(len(place)), marker=6, linestyle="", color=INK, markersize=4.5, clip_on=False,
                  zorder=5)  # fmt: skip
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


def _colour_loci(
    axes: Axes, scan: Scan, rows: np.ndarray, x: np.ndarray, y: np.ndarray, colours: dict[str, str]
) -> None:
    """Variants inside a locus in colour, that of their trait of origin where the scan is of several traits."""
    high = np.flatnonzero(y > (scan.threshold if scan.threshold is not None else EXACT_ABOVE) / 2)
    code, position = scan.code_M[rows[high]], scan.position_M[rows[high]]
    inside = np.zeros(len(high), bool)
    for row in scan.loci.itertuples():
        inside |= (code == row.code) & (position >= row.start) & (position <= row.end)
    shown = high[inside]
    painted = np.full(len(shown), BLUE, object)
    if scan.trait_of is not None:
        painted[:] = [colours.get(name, SLATE) for name in scan.trait_of(rows[shown])]
    axes.scatter(x[shown], y[shown], s=3.5, c=list(painted), linewidths=0, rasterized=True, zorder=3)


def _mark_leads(axes: Axes, scan: Scan, layout: Genome) -> None:
    """A diamond a locus at its lead SNP, filled where the panel knows the locus, else open."""
    loci = scan.loci
    place, height = _lead_places(scan, layout), scan.heights(loci["log10p"].to_numpy())
    known = loci["hit"].to_numpy() > 0 if "hit" in loci else np.zeros(len(loci), bool)
    for mask, face in ((known, ORANGE), (~known, "white")):
        axes.scatter(place[mask], height[mask], s=20, marker="D", facecolor=face, edgecolor=INK,
                     linewidths=0.7, zorder=4)  # fmt: skip


def _lead_places(scan: Scan, layout: Genome) -> np.ndarray:
    return layout.place(scan.loci["code"].to_numpy(), scan.loci["lead_position"].to_numpy())


def _link(scan: Scan, row) -> str:
    return scan.links.get(int(row.locus), "") if hasattr(row, "locus") else ""


def _label(figure: Chart, axes: Axes, scan: Scan, layout: Genome, top: float, down: bool = False) -> None:
    """Loci by name above (or below) the plot, spread so that no two overlap, each with a line to its lead; all can be
    pointed at.

    The name is that of the nearest gene where it is known, and of the trait where the scan is of several.
    """
    place = _lead_places(scan, layout)
    known = ~np.isnan(place)
    height = scan.heights(scan.loci["log10p"].to_numpy())
    loci, place = scan.loci.assign(height=height)[known], place[known]
    named = np.zeros(len(loci), bool)
    named[np.argsort(-loci["log10p"].to_numpy(), kind="stable")[:LABELS]] = True
    for row, x in zip(loci[~named].itertuples(), place[~named], strict=True):
        figure.spots.append(Spot(naming.lines(row), (axes, x, row.height), link=_link(scan, row)))
    loci, place = loci[named], place[named]
    order = np.argsort(place, kind="stable")
    loci, place = loci.iloc[order], place[order]
    low, high = axes.get_xlim()
    spread = declutter(place, (high - low) * 0.125 / (figure.get_figwidth() * 0.92), low, high)
    above = axes.get_xaxis_transform()  # x in data, y in shares of the axes' height
    axes.vlines(place, loci["height"], top, color=PALE, linewidth=0.7, zorder=1)
    for x, at, row in zip(place, spread, loci.itertuples(), strict=True):
        edge, turn, text_at = (0, -0.06, -0.07) if down else (1, 1.06, 1.07)
        axes.plot([x, at], [edge, turn], color=PALE, linewidth=0.7, clip_on=False, transform=above)
        name = short(naming.title(row))
        if scan.trait_of is not None:
            name = f"{name} \u00b7 {short(str(row.trait), 12)}"
        text = axes.text(at, text_at, name, rotation=90, ha="center", va="top" if down else "bottom", fontsize=6.3,
                         transform=above, parse_math=False)  # fmt: skip
        figure.spots.append(Spot(naming.lines(row), (axes, x, row.height), text, _link(scan, row)))


def _legend(figure: Figure, axes: Axes, scans: Sequence[Scan], shaded: bool) -> None:
    """Only what is there to be told apart."""
    entries = []
    if any(scan.threshold is not None for scan in scans):
        entries.append(axes.plot([], [], label="threshold", **_DASHED)[0])
    if any(np.isposinf(scan.log10p_M).any() for scan in scans):
        entries.append(axes.plot([], [], label="p = 0: higher than can be drawn", **_ENDLESS)[0])
    marked = [scan for scan in scans if scan.has_loci]
    if marked:
        hit = [scan.loci["hit"].to_numpy() > 0 for scan in marked if "hit" in scan.loci]
        both = any(known.any() for known in hit)
        only = both and len(hit) == len(marked) and all(known.all() for known in hit)
        style = {"linestyle": "", "marker": "D", "markersize": 4.5, "markeredgecolor": INK, "markeredgewidth": 0.7}
        if both:
            entries.append(axes.plot([], [], markerfacecolor=ORANGE, label="lead, in the panel", **style)[0])
        name = "lead, not in the panel" if hit else "lead SNP of a locus"
        if not only:
            entries.append(axes.plot([], [], markerfacecolor="white", label=name, **style)[0])
    if any(scan.planted is not None and len(scan.planted) for scan in scans):
        entries.append(axes.plot([], [], linestyle="", marker=6, color=INK, markersize=4.5, label="planted variant")[0])
    if shaded:
        entries.append(axes.fill_between([], [], color=PALE, label="null chromosome: nothing was planted"))
    colours = palette(scans)
    entries += [_dot(axes, colour, short(str(name))) for name, colour in colours.items()]
    if any(scan.trait_of is not None and not scan.loci["trait"].isin(colours).all() for scan in marked):
        entries.append(_dot(axes, SLATE, "other traits"))
    if entries:
        columns = _columns([entry.get_label() for entry in entries], figure.get_figwidth())
        legend = figure.legend(handles=entries, loc="outside lower center", labelcolor=INK, edgecolor=GREY,
                               ncols=columns)  # fmt: skip
        for text in legend.get_texts():
            text.set_parse_math(False)


def _columns(labels: Sequence[str], width: float) -> int:
    """The most columns of a legend that fit in a figure `width` inches wide; a legend fills column after column."""
    for number in range(len(labels), 1, -1):
        rows = -(-len(labels) // number)
        widest = [max(map(len, labels[i : i + rows])) for i in range(0, len(labels), rows)]
        if sum(0.075 * letters + 0.55 for letters in widest) < width:
            return number
    return 1


def _dot(axes: Axes, colour: str, label: str):
    label = f" {label}" if label.startswith("_") else label  # which a legend would leave out
    return axes.plot([], [], linestyle="", marker="o", markersize=4, color=colour, label=label)[0]
