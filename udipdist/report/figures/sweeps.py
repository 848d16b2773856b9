"""Sweeps: loci of each configuration, by epoch, and how far replicates and configurations agree."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from udipdist.figures.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
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

COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)  # of the best configurations; the others are grey
MOST = 24  # configurations that have room
_LOCI = {"loci": "loci of the smallest p", "multivariate_loci": "loci of the joint test"}
_HEAT = LinearSegmentedColormap.from_list("share", ["#ffffff", "#cfe3f2", SKY, BLUE, "#00253d"])


@styled
def reached(table: pd.DataFrame, curves: pd.DataFrame, floor: dict[str, float]) -> Figure:
    """The best number of loci of each configuration, a dot for each replicate's own best; dashed: untrained.

    `table`: rows of table 1, the best first, with name, loci, multivariate_loci, panel_hits; `curves`: a row a look.
    """
    names = [short(str(name), 40) for name in table["configuration"]]
    y = np.arange(len(table))[::-1]
    figure = new_figure(0.36 * len(table) + 1.3)
    axes_of = dict(zip(_LOCI, figure.subplots(1, 2, sharey=True), strict=True))
    best = curves[curves["epoch"] > 0].groupby(["configuration", "trial"])[list(_LOCI)].max()
    for score, axes in axes_of.items():
        axes.barh(y, table[score], height=0.64, color=SKY, label="best look")
        if score == "loci" and table["panel_hits"].notna().any():
            axes.barh(y, table["panel_hits"], height=0.64, color=BLUE, label="of these in the panel")
        for at, name in zip(y, table["configuration"], strict=True):
            values = best.loc[name][score].dropna() if name in best.index else []
            axes.plot(values, np.full(len(values), at), linestyle="", marker="o", markersize=3, color=INK,
                      label="best of each replicate" if at == y[0] else None)  # fmt: skip
        if floor.get(score) is not None and np.isfinite(floor[score]):
            axes.axvline(floor[score], color=VERMILLION, linestyle="--", linewidth=1.1, label="untrained")
        axes.set_title(_LOCI[score])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlim(left=0)
        axes.tick_params(axis="y", length=0)
        grid(axes, "x")
    axes_of["loci"].set_yticks(y, names, parse_math=False)
    figure.legend(*axes_of["loci"].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


@styled
def by_epoch(curves: pd.DataFrame, order: list[str]) -> Chart:
    """Loci of both tests and validation loss by epoch: a thin line a trial, a thick one the mean of a configuration
    at the epochs that all its trials have.

    `order`: the configurations, the best first.
    """
    figure = new_figure(3.3)
    for axes, (score, title) in zip(
        figure.subplots(1, 3), (_LOCI | {"val_loss": "validation loss"}).items(), strict=True
    ):
        for rank, name in reversed(list(enumerate(order))):
            colour = COLOURS[rank] if rank < len(COLOURS) else GREY
            looks = curves[curves["configuration"] == name].dropna(subset=[score])
            _lines(figure, axes, looks, score, colour, told=rank < len(COLOURS))
        axes.set_title(title)
        axes.set_xlabel("epoch (0: untrained)")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if score in _LOCI:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        grid(axes)
    named = list(zip(COLOURS, order, strict=False))
    handles = [Line2D([], [], color=colour) for colour, _ in named]
    legend = figure.legend(handles, ["-"] * len(named), loc="outside lower center", ncols=3)
    for text, (_, name) in zip(legend.get_texts(), named, strict=True):
        text.set_parse_math(False)
        text.set_text(short(name, 34))
    return figure


def _lines(figure: Chart, axes: Axes, looks: pd.DataFrame, score: str, colour: str, told: bool) -> None:
    """The lines of one configuration; `told`: its points tell what they are."""
    for trial, own in looks.groupby("trial"):
        own = own.sort_values("epoch")
        axes.plot(own["epoch"], own[score], color=colour, linewidth=0.6, alpha=0.6, marker="o", markersize=2)
        for row in own.itertuples() if told else ():
            value = getattr(row, score)
            lines = (str(trial), f"epoch {row.epoch}", f"{score} {value:g}")
            figure.spots.append(Spot(lines, (axes, row.epoch, value)))
    epochs = looks.groupby("epoch")[score].agg(["mean", "size"])
    mean = epochs.loc[epochs["size"] == looks["trial"].nunique(), "mean"]  # trials that a search stopped leave a bias
    axes.plot(mean.index, mean.to_numpy(), color=colour, linewidth=1.8)


@styled
def agreement(measures: dict[str, pd.DataFrame]) -> Figure:
    """A square for each measure: a title, and its matrix, configurations by configurations, 0 to 1, NaN: not known.

    On the diagonal stand the replicates of one configuration.
    """
    first = next(iter(measures.values()))
    names = [short(str(name), 24) for name in first.index]
    figure = new_figure(max(2.6, 0.3 * len(first) + 1.9))
    for axes, (title, matrix) in zip(
        figure.subplots(1, len(measures), squeeze=False)[0], measures.items(), strict=True
    ):
        axes.set_facecolor(PALE)
        values = matrix.to_numpy(np.float64)
        axes.imshow(np.ma.masked_invalid(values), cmap=_HEAT, vmin=0, vmax=1, interpolation="nearest")
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value) and len(names) <= 12:
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7,
                          color="white" if value > 0.55 else INK)  # fmt: skip
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7, parse_math=False)
        axes.set_yticks(range(len(names)), names if axes is figure.axes[0] else [], fontsize=7, parse_math=False)
        axes.tick_params(length=0)
        axes.set_title(title)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure
