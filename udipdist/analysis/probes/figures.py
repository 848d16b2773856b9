"""A forest plot of probes: each target's R2 or AUC with its interval, a colour a table, and the covariates alone."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from udipdist.analysis.probes.job import AUC, NOTHING, R2
from udipdist.figures.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    grid,
    new_figure,
    short,
    styled,
)

MOST = 60  # targets of each kind that are drawn
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY)
_TITLES = {R2: "Measurements: share of variance predicted ($R^2$)", AUC: "Yes or no: area under the ROC curve"}


@styled
def _drawn(parts: dict[str, pd.DataFrame]) -> Figure:
    rows = max(part["target"].nunique() for part in parts.values())
    figure = new_figure(1.4 + 0.17 * rows)
    axes = figure.subplots(1, len(parts), squeeze=False)[0]
    for one, (metric, part) in zip(axes, parts.items(), strict=True):
        _panel(one, metric, part, rows)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def forest(probes: pd.DataFrame) -> tuple[Figure, str]:
    """The picture of probes.tsv and its caption; of more than MOST targets of a kind those that are known best."""
    parts, left = {}, 0
    for metric in (R2, AUC):
        part = probes[probes["metric"] == metric]
        if len(part):
            best = part.groupby("target")["value"].max().sort_values(ascending=False)
            left += max(0, len(best) - MOST)
            parts[metric] = part[part["target"].isin(best.index[:MOST])]
    caption = (
        "Probes of latents: what a linear model reads from them, of people that it has not seen, with 95 % intervals. "
        "The line is a probe that knows nothing."
    )
    if "covariates_value" in probes:
        caption += " Diamonds: covariates alone."
    if left:
        caption += f" The {left} targets that are known least are not drawn."
    return _drawn(parts), caption


def _panel(axes: Axes, metric: str, part: pd.DataFrame, rows: int) -> None:
    order = part.groupby("target")["value"].max().sort_values().index
    place = {target: i for i, target in enumerate(order)}
    tables = list(dict.fromkeys(part["latents"]))
    axes.axvline(NOTHING[metric], color=INK, linewidth=0.8)
    for t, table in enumerate(tables):
        own = part[part["latents"] == table]
        at = own["target"].map(place) + 0.28 * ((len(tables) - 1) / 2 - t) * min(1, 2 / max(1, len(tables) - 1))
        away = [own["value"] - own["low"], own["high"] - own["value"]]
        axes.errorbar(
            own["value"], at, xerr=away, fmt="o", markersize=3.2, linewidth=1.1, color=_COLOURS[t % len(_COLOURS)],
            label=short(table, 28),
        )  # fmt: skip
    if "covariates_value" in part:
        first = part.drop_duplicates("target")
        axes.plot(
            first["covariates_value"], first["target"].map(place), "D", markersize=4, markerfacecolor="none",
            markeredgecolor=GREY, label="covariates alone",
        )  # fmt: skip
    axes.set_yticks(range(len(order)), [short(name, 24) for name in order], fontsize=7, parse_math=False)
    axes.set_ylim(len(order) - rows - 0.7, len(order) - 0.3)  # rows are as high in both panels
    axes.set_title(_TITLES[metric])
    grid(axes, "x")
