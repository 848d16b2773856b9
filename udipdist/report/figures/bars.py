"""Small comparisons: heritability of each trait, which analysis found which planted locus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from udipdist.figures.style import BLUE, GREY, INK, ORANGE, PALE, SKY, VERMILLION, grid, new_figure, styled


@styled
def heritability(null: pd.DataFrame) -> Figure:
    """h2 of every trait with its standard error, from the largest to the smallest. Columns h2, h2_se."""
    ranked = null.dropna(subset=["h2"]).sort_values("h2", ascending=False, kind="stable")
    x = np.arange(1, len(ranked) + 1)
    figure = new_figure(2.8)
    axes = figure.subplots()
    axes.errorbar(x, ranked["h2"], yerr=ranked["h2_se"].to_numpy(), fmt="none", ecolor=SKY, elinewidth=1.1)
    axes.plot(x, ranked["h2"], linestyle="", marker="o", markersize=3.2, color=BLUE)
    axes.axhline(0, color=GREY, linewidth=0.8)
    grid(axes)
    axes.set_xlim(0, len(x) + 1)
    axes.set_xlabel("traits, by heritability")
    axes.set_ylabel(r"$h^2$ of the null model $\pm$ SE")
    return figure


@styled
def comparison(rows: Sequence[dict]) -> Figure:
    """For each analysis: planted loci found (joint test beside it), and false ones on chromosomes where nothing is."""
    names = [str(row["name"]) for row in rows]
    y = np.arange(len(rows))[::-1]
    figure = new_figure(0.42 * len(rows) + 1.0)
    found, false = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    total = max(row["planted_total"] for row in rows)
    found.barh(y, [total] * len(y), height=0.72, color=PALE)
    joint = all("multivariate_loci" in row for row in rows)
    if joint:
        found.barh(y - 0.18, [row["multivariate_loci"] for row in rows], height=0.3, color=SKY, label="joint test")
    height, offset = (0.3, 0.18) if joint else (0.6, 0)
    found.barh(y + offset, [row["planted_found"] for row in rows], height=height, color=BLUE, label="smallest p")
    for at, row in zip(y, rows, strict=True):
        found.annotate(str(row["planted_found"]), (row["planted_found"], at + offset), (3, 0),
                       textcoords="offset points", va="center", fontsize=7.5)  # fmt: skip
        if joint:
            found.annotate(str(row["multivariate_loci"]), (row["multivariate_loci"], at - offset), (3, 0),
                           textcoords="offset points", va="center", fontsize=7.5)  # fmt: skip
        false.annotate(str(row["strict_false"]), (row["strict_false"], at), (3, 0), textcoords="offset points",
                       va="center", fontsize=7.5)  # fmt: skip
    found.set_yticks(y, names, parse_math=False)
    found.tick_params(axis="y", length=0)
    found.set_title(f"planted loci found, of {total}")
    if joint:
        found.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderpad=0)
    false.barh(y, [row["strict_false"] for row in rows], height=0.5, color=VERMILLION)
    false.set_title("strict false positives")
    false.set_xlim(0, max(3, max(row["strict_false"] for row in rows)) * 1.12)
    false.tick_params(axis="y", length=0)
    for axes in (found, false):
        axes.spines["left"].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


@styled
def recall(planted: pd.DataFrame, names: Sequence[str]) -> Figure:
    """A column a planted locus, the strongest first; a row an analysis; filled where it found the locus.

    `planted` has found_by (list of names) and r2 (variance explained).
    """
    ranked = planted.sort_values("r2", ascending=False, kind="stable")
    figure = new_figure(0.26 * len(names) + 1.75)
    strength, found = figure.subplots(2, 1, sharex=True, height_ratios=(1, 0.26 * len(names) + 0.1))
    x = np.arange(len(ranked))
    strength.bar(x, 100 * ranked["r2"], width=0.8, color=ORANGE)
    strength.set_ylabel("variance of\nits factor, %", fontsize=8)
    grid(strength)
    for row, name in enumerate(names):
        hit = np.array([name in who for who in ranked["found_by"]], bool)
        found.scatter(x[hit], np.full(hit.sum(), row), marker="s", s=26, color=BLUE, linewidths=0)
        found.scatter(x[~hit], np.full((~hit).sum(), row), marker="s", s=26, color=PALE, linewidths=0)
    found.set_yticks(range(len(names)), names, parse_math=False)
    found.set_ylim(len(names) - 0.5, -0.5)
    found.set_xlim(-0.8, len(ranked) - 0.2)
    labels = [str(name) for name in ranked["locus"]]
    found.set_xticks(x, labels, rotation=90, fontsize=6, color=INK, parse_math=False)
    found.tick_params(length=0)
    strength.tick_params(axis="x", length=0)
    for spine in found.spines.values():
        spine.set_visible(False)
    return figure
