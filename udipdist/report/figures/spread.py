"""Distributions of the figures of quality, with outliers marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from udipdist.figures.style import GREY, INK, SKY, VERMILLION, new_figure, styled
from udipdist.volumes.quality import FIGURES

_WORDS = {
    "foreground": "foreground, share",
    "mean": "mean intensity",
    "std": "SD of intensity",
    "overlap": "overlap, template",
    "correlation": "correlation, cohort",
    "asymmetry": "likeness of asymmetry",
}


@styled
def spreads(groups: Sequence[tuple[str, pd.DataFrame, dict[str, Any]]]) -> Figure:
    """A row of histograms for each group of scans: (title, table with FIGURES and `outlier`, limits)."""
    figure = new_figure(1.5 * len(groups) + 0.3)
    rows = figure.subplots(len(groups), len(FIGURES), squeeze=False)
    for last, row, (title, table, limits) in zip(range(1 - len(groups), 1), rows, groups, strict=True):
        marked = (table["outlier"] == "yes").to_numpy()
        for axes, name in zip(row, FIGURES, strict=True):
            lines = dict(limits["limits"].get(name) or {})
            if name == "asymmetry":
                lines = {"low": limits["flip_limit"]}
            _draw(axes, table[name].to_numpy(float), marked, lines)
            if last == 0:
                axes.set_xlabel(_WORDS[name], fontsize=8)
        row[0].set_ylabel(f"{title} scans", fontsize=8, parse_math=False)
    return figure


def _draw(axes: Axes, values: np.ndarray, marked: np.ndarray, lines: dict[str, float | None]) -> None:
    finite = np.isfinite(values)
    values, marked = values[finite], marked[finite]
    axes.tick_params(labelsize=7)
    axes.set_yticks([])  # how many is not the point
    axes.spines["left"].set_visible(False)
    if not len(values):
        axes.set_xticks([])
        axes.text(0.5, 0.5, "not known", ha="center", va="center", color=GREY, fontsize=8, transform=axes.transAxes)
        return
    bulk = values[~marked] if (~marked).any() else values
    edges = [value for key, value in lines.items() if key != "median" and value is not None]
    low, high = min(bulk.min(), *edges, bulk.max()), max(bulk.max(), *edges, bulk.min())
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    low, high = low - margin, high + margin
    counts, *_ = axes.hist(bulk, bins=36, range=(low, high), color=SKY)
    for key, value in lines.items():
        if value is not None:
            axes.axvline(value, color=GREY if key == "median" else INK, linewidth=0.9,
                         linestyle="-" if key == "median" else (0, (3, 2)))  # fmt: skip
    base = -0.09 * max(counts.max(), 1)
    unusual = values[marked]
    for chosen, marker in (
        (unusual[unusual < low], "<"), (unusual[unusual > high], ">"),
        (unusual[(unusual >= low) & (unusual <= high)], "|"),
    ):  # fmt: skip
        if len(chosen):
            axes.plot(np.clip(chosen, low, high), np.full(len(chosen), base), linestyle="", marker=marker, markersize=5,
                      color=VERMILLION, clip_on=False)  # fmt: skip
    axes.set_xlim(low, high)
    axes.set_ylim(2.2 * base, None)
    axes.locator_params(axis="x", nbins=4)
