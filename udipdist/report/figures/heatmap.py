"""Which traits a locus moves: loci by traits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.text import Text
from scipy.cluster import hierarchy

from udipdist.figures.style import (
    GREY,
    INK,
    LOG10P,
    ORANGE,
    PALE,
    VERMILLION,
    WIDTH,
    Chart,
    Spot,
    new_figure,
    short,
    styled,
)
from udipdist.genome import assemblies
from udipdist.report import naming

CAP = 20.0  # -log10 p that has the darkest colour
TOLD = 5  # traits of a locus that are named where it is pointed at
NAMES = 60  # rows or columns that can have their names
_COLOURS = LinearSegmentedColormap.from_list("p", ["#ffffff", "#fbe3b4", ORANGE, VERMILLION, "#5b1f00"])


@dataclass(frozen=True)
class Strengths:
    """The largest -log10 p of P traits in L loci, [L, P], NaN where not tested; `loci` as `naming` knows them."""

    log10p_LP: np.ndarray
    loci: pd.DataFrame
    traits: list[str]
    threshold: float | None = None


def order(log10p_LP: np.ndarray, cap: float) -> np.ndarray:
    """Traits so that those with like patterns stand together: leaves of a tree by average linkage of the capped
    values (Bar-Joseph et al. 2001, optimal leaf ordering)."""
    values_PL = np.nan_to_num(np.minimum(log10p_LP, cap)).T
    if len(values_PL) < 3:
        return np.arange(len(values_PL))
    return hierarchy.leaves_list(hierarchy.linkage(values_PL, "average", optimal_ordering=True))


@styled
def heatmap(strengths: Strengths, cap: float = CAP, width: float = WIDTH) -> Chart:
    """A column a locus, along the genome; a row a trait. Dots: beyond the threshold."""
    rows = order(strengths.log10p_LP, cap)
    shown_PL = strengths.log10p_LP[:, rows].T
    p, n = shown_PL.shape
    figure = new_figure((0.11 * p + 0.4 if p <= NAMES else min(0.055 * p, 9.0)) + 1.2, width)
    axes = figure.subplots()
    axes.set_facecolor(PALE)
    image = axes.imshow(np.ma.masked_invalid(np.minimum(shown_PL, cap)), cmap=_COLOURS, vmin=0, vmax=cap, aspect="auto",
                        interpolation="nearest")  # fmt: skip
    if strengths.threshold is not None:
        y, x = np.nonzero(np.nan_to_num(shown_PL) > strengths.threshold)
        axes.scatter(x, y, s=np.clip(900 / max(n, p), 2, 14), c=INK, linewidths=0, label="beyond the threshold")
    names = _name(axes, strengths, rows)
    bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.03, aspect=30, extend="max")
    bar.set_label(f"{LOG10P}, capped at {cap:g}")
    bar.outline.set_visible(False)
    for x, row in enumerate(strengths.loci.itertuples()):
        best = int(np.argmax(np.nan_to_num(shown_PL[:, x])))
        figure.spots.append(Spot(_lines(strengths, x, row), (axes, x, best), names[x] if names else None))
    return figure


def _lines(strengths: Strengths, x: int, row) -> tuple[str, ...]:
    values = np.nan_to_num(strengths.log10p_LP[x], posinf=np.inf)
    best = np.argsort(-values, kind="stable")[:TOLD]
    place = f"{row.lead_snp}, chr{assemblies.label(row.code)}:{int(row.lead_position):,}"
    beyond = []
    if strengths.threshold is not None:
        beyond = [f"{int((values > strengths.threshold).sum())} of {len(values)} traits beyond the threshold"]
    top = [f"{short(strengths.traits[i])}: -log10 p {values[i]:.1f}" for i in best]
    return (naming.title(row), place, *beyond, *top)


def _name(axes: Axes, strengths: Strengths, rows: np.ndarray) -> list[Text]:
    """Names of loci and traits where there is room, otherwise chromosomes; lines between chromosomes. Returns the names
    of the loci as they are drawn."""
    codes = strengths.loci["code"].to_numpy()
    n = len(codes)
    borders = np.flatnonzero(np.diff(codes)) + 0.5
    axes.vlines(borders, -0.5, len(rows) - 0.5, color=GREY, linewidth=0.4)
    if n <= NAMES:
        names = [short(naming.title(row)) for row in strengths.loci.itertuples()]
        axes.set_xticks(range(n), names, rotation=90, fontsize=6.3, parse_math=False)
    else:
        edges = np.concatenate([[-0.5], borders, [n - 0.5]])
        labels = [assemblies.label(codes[int(left + 0.5)]) for left in edges[:-1]]
        axes.set_xticks((edges[:-1] + edges[1:]) / 2, labels, fontsize=7)
        axes.set_xlabel(f"{n} loci, by chromosome")
    if len(rows) <= NAMES:
        axes.set_yticks(range(len(rows)), [short(strengths.traits[i]) for i in rows], fontsize=6.3,
                        parse_math=False)  # fmt: skip
    else:
        axes.set_yticks([])
        axes.set_ylabel(f"{len(rows)} traits, like ones together")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.xaxis.label.set_color(INK)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    return axes.get_xticklabels() if n <= NAMES else []
