"""A locus from near: variants coloured by their LD with the lead SNP, genes below."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

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
    VERMILLION,
    Chart,
    Spot,
    grid,
    new_figure,
    short,
    styled,
)
from udipdist.genome import assemblies
from udipdist.sumstats.pvalues import p_text

STEPS = (0.2, 0.4, 0.6, 0.8)
COLOURS = (BLUE, SKY, GREEN, ORANGE, VERMILLION)  # of r2 below the first step, ..., from the last on
UNKNOWN = "#b9c0c8"
REGION_WIDTH = 7.2
POINTED = 40  # variants that can be pointed at, those with the smallest p
_LETTER = 0.072  # inches of a letter of a gene's name
_ROW = 0.19  # inches of a row of genes


@dataclass(frozen=True)
class Region:
    """What one plot shows: `variants` with position, log10p, snp and r2 (NaN: not known), S rows; the row of the lead;
    `genes` with start, end, gene and, where it is known, strand ('+' or '-'); start and end of the `locus`, if any."""

    code: int
    start: int
    end: int
    variants: pd.DataFrame
    lead: int
    name: str
    threshold: float | None = None
    locus: tuple[int, int] | None = None
    genes: pd.DataFrame | None = None


@styled
def regional(region: Region, width: float = REGION_WIDTH) -> Chart:
    """-log10 p along the region, the lead a diamond, r2 to it in five colours."""
    tracks = [] if region.genes is None else gene_rows(region, width)
    below = _ROW * max(len(tracks), 1) + 0.1 if region.genes is not None else 0.0
    figure = new_figure(3.4 + below, width)
    if region.genes is None:
        axes = last = figure.subplots()
    else:
        axes, last = figure.subplots(2, 1, sharex=True, height_ratios=(2.9, below))
        _genes(figure, last, region, tracks)
        axes.tick_params(axis="x", length=0, labelbottom=False)
    _points(figure, axes, region)
    axes.set_xlim(region.start, region.end)
    last.set_xlabel(f"chromosome {assemblies.label(region.code)}, Mb")
    last.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e6:.6g}"))
    last.xaxis.set_major_locator(MaxNLocator(6))
    return figure


def colours_of(r2: np.ndarray) -> np.ndarray:
    """The colour of each r2, object [S]; NaN has UNKNOWN."""
    colours = np.array(COLOURS, object)[np.digitize(np.nan_to_num(r2), STEPS)]
    colours[np.isnan(r2)] = UNKNOWN
    return colours


def _points(figure: Chart, axes: Axes, region: Region) -> None:
    if region.locus is not None:
        axes.axvspan(*region.locus, color=PALE, alpha=0.5, linewidth=0, zorder=0)
    if region.threshold is not None:
        axes.axhline(region.threshold, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    shown = region.variants[region.variants["log10p"].notna()]
    lead = region.variants.loc[region.lead]
    others = shown[shown.index != region.lead].sort_values("r2", kind="stable", na_position="first")
    axes.scatter(others["position"], others["log10p"], s=11, c=list(colours_of(others["r2"].to_numpy())),
                 edgecolors=INK, linewidths=0.25, zorder=2, rasterized=len(others) > 5000)  # fmt: skip
    axes.scatter([lead["position"]], [lead["log10p"]], s=46, marker="D", c=PURPLE, edgecolors=INK, linewidths=0.7,
                 zorder=4)  # fmt: skip
    axes.annotate(short(str(lead["snp"])), (lead["position"], lead["log10p"]), (0, 7), fontsize=8, ha="center",
                  textcoords="offset points", parse_math=False)  # fmt: skip
    top = max(float(shown["log10p"].max()), region.threshold or 0.0, 1.0)
    axes.set_ylim(0, 1.16 * top)
    axes.set_ylabel(LOG10P)
    axes.set_title(short(region.name, 60), parse_math=False)
    grid(axes)
    for row in shown.nlargest(POINTED, "log10p").itertuples():
        figure.spots.append(Spot(_lines(region, row), (axes, row.position, row.log10p)))
    _key(axes, others["r2"].notna().any(), others["r2"].isna().any())


def _lines(region: Region, row) -> tuple[str, ...]:
    ld = "" if row.r2 != row.r2 else "the lead SNP" if row.Index == region.lead else f"r\u00b2 {row.r2:.2f} to the lead"
    place = f"chr{assemblies.label(region.code)}:{int(row.position):,}"
    return tuple(line for line in (str(row.snp), place, f"p = {p_text([row.log10p])[0]}", ld) if line)


def _key(axes: Axes, known: bool, unknown: bool) -> None:
    dot = {"linestyle": "", "marker": "o", "markersize": 4.5, "markeredgecolor": INK, "markeredgewidth": 0.25}
    handles = [axes.plot([], [], linestyle="", marker="D", markersize=5, markeredgecolor=INK, color=PURPLE,
                         markeredgewidth=0.7, label="lead")[0]]  # fmt: skip
    if known:
        names = [f"{low:.1f}\u2013{high:.1f}" for low, high in zip((0.0, *STEPS), (*STEPS, 1.0), strict=True)]
        handles += [
            axes.plot([], [], color=c, label=n, **dot)[0] for c, n in zip(COLOURS[::-1], names[::-1], strict=True)
        ]
    if unknown:
        handles.append(axes.plot([], [], color=UNKNOWN, label="unknown", **dot)[0])
    axes.legend(handles=handles, title="$r^2$ to lead" if known else None, loc="upper left", bbox_to_anchor=(1.0, 1.0),
                borderaxespad=0.2, fontsize=7.5, title_fontsize=8)  # fmt: skip


def gene_rows(region: Region, width: float) -> list[list[tuple[float, float, object]]]:
    """Genes of the region in rows, so that neither bodies nor names overlap: (left, right, row of the table) each.

    Left and right hold the body and the name, in base pairs.
    """
    per_letter = _LETTER * (region.end - region.start) / (width * 0.78)
    inside = region.genes[(region.genes["end"] >= region.start) & (region.genes["start"] <= region.end)]
    tracks: list[list[tuple[float, float, object]]] = []
    for gene in inside.sort_values(["start", "end"], kind="stable").itertuples():
        low, high = max(gene.start, region.start), min(gene.end, region.end)
        half = per_letter * (len(short(str(gene.gene))) + 2) / 2
        middle = min(max((low + high) / 2, region.start + half), region.end - half)
        left, right = min(low, middle - half), max(high, middle + half)
        row = next((track for track in tracks if track[-1][1] < left), None)
        if row is None:
            tracks.append(row := [])
        row.append((left, right, gene))
    return tracks


def _genes(figure: Chart, axes: Axes, region: Region, tracks: list[list[tuple[float, float, object]]]) -> None:
    """Bodies as bars, names above them with an arrow in the direction of transcription."""
    for number, track in enumerate(tracks):
        for left, right, gene in track:
            low, high = max(gene.start, region.start), min(gene.end, region.end)
            axes.plot([low, high], [number + 0.25] * 2, color=BLUE, linewidth=2.6, solid_capstyle="butt")
            name = short(str(gene.gene))
            name = {"+": f"{name} \u2192", "-": f"\u2190 {name}"}.get(getattr(gene, "strand", ""), name)
            middle = (left + right) / 2
            text = axes.text(middle, number + 0.05, name, fontsize=6.5, ha="center", va="bottom", style="italic",
                             parse_math=False)  # fmt: skip
            place = f"chr{assemblies.label(region.code)}:{gene.start:,}\u2013{gene.end:,}"
            figure.spots.append(Spot((str(gene.gene), place), label=text))
    if not tracks:
        axes.text(0.5, 0.5, "no gene of the table here", transform=axes.transAxes, ha="center", va="center", color=GREY)
    axes.set_ylim(max(len(tracks), 1) - 0.5, -0.9)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
