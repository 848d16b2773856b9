"""QQ plots of a PheWAS: within each category, with the names of what is significant, and of all codes with a band."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import special

from udipdist.figures import style

MOST_LABELS = 14
_COLOURS = (style.BLUE, style.VERMILLION, style.GREEN, style.PURPLE, style.ORANGE, style.SKY, style.SLATE)
_MARKERS = ("o", "s", "^", "D", "v")
_LENGTH = 34  # letters of a label


@style.styled
def qq_figure(table: pd.DataFrame, name: str, inflation: float, significant: float) -> Figure:
    """`table` has p, phecode, phenotype and category; codes with p below `significant` are labelled."""
    figure = Figure(figsize=(style.WIDTH, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    observed = -np.log10(np.maximum(table["p"].to_numpy(), 1e-300))
    expected = np.empty(len(table))
    categories = sorted(table["category"].unique())
    for number, category in enumerate(categories):
        own = np.flatnonzero(table["category"] == category)
        order = own[np.argsort(-observed[own])]
        expected[order] = -np.log10(special.betaincinv(np.arange(1, len(own) + 1), len(own) - np.arange(len(own)), 0.5))
        left.scatter(
            expected[order], observed[order], s=16, color=_COLOURS[number % len(_COLOURS)],
            marker=_MARKERS[number // len(_COLOURS) % len(_MARKERS)], label=category, linewidths=0, zorder=3,
        )  # fmt: skip
    far = max(float(expected.max()), 1.0) * 1.08
    left.plot([0, far], [0, far], color=style.GREY, linewidth=0.8)
    found = np.flatnonzero(table["p"] < significant)
    left.axhline(-np.log10(significant), color=style.GREY, linewidth=0.7, linestyle="--")
    _label(left, table, expected, observed, found[np.argsort(-observed[found])], far)
    left.set_title(f"{name}: {len(found)} of {len(table)} phecodes after Bonferroni")
    left.set_xlabel(f"expected {style.LOG10P}, within the category")
    left.set_ylabel(f"observed {style.LOG10P}")
    left.legend(loc="upper left", fontsize=7, ncols=1 + len(categories) // 9)
    rank = np.arange(1, len(table) + 1)
    low, middle, high = (special.betaincinv(rank, len(table) + 1 - rank, share) for share in (0.025, 0.5, 0.975))
    right.fill_between(-np.log10(middle), -np.log10(low), -np.log10(high), color=style.PALE, label="95 % of nulls")
    right.plot([0, -np.log10(middle[0])], [0, -np.log10(middle[0])], color=style.GREY, linewidth=0.8)
    right.scatter(-np.log10(middle), np.sort(observed)[::-1], s=12, color=style.BLUE, linewidths=0, zorder=3)
    right.set_title(rf"all phecodes, $\lambda$ = {inflation:.3f}")
    right.set_xlabel(f"expected {style.LOG10P}")
    right.legend(loc="upper left")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
    return figure


def _label(axes, table: pd.DataFrame, expected: np.ndarray, observed: np.ndarray, rows: np.ndarray, far: float) -> None:
    """Names of the strongest, in a column at the right, with lines to their points."""
    rows = rows[:MOST_LABELS]
    if not len(rows):
        axes.set_xlim(0, far)
        return
    axes.set_xlim(0, far * 2.1)
    top = float(observed.max()) * 1.06
    axes.set_ylim(0, top)
    gap = top / 21
    heights = observed[rows].astype(float)
    lowest = gap * (np.arange(len(rows))[::-1] + 0.7)  # room for those below
    last = np.inf
    for row, wanted, least in zip(rows, heights, lowest, strict=True):
        height = last = max(min(float(wanted), last - gap), float(least))
        text = f"{table['phecode'].iloc[row]} {table['phenotype'].iloc[row]}".strip()
        text = text if len(text) <= _LENGTH else text[: _LENGTH - 3] + "..."
        axes.annotate(
            text, (expected[row], observed[row]), (far * 1.12, height), fontsize=7, va="center",
            arrowprops={"arrowstyle": "-", "relpos": (0, 0.5), "color": style.GREY, "linewidth": 0.4},
        )  # fmt: skip
