"""The picture of an erasure: what latents told of each confounder before, and what they still do."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from udipdist.figures import style

MOST = 40  # confounders in the picture: those told best before
_LOOKS = {
    "linear_before": (style.SKY, "o", "before, linear"),
    "linear_after": (style.BLUE, "o", "after, linear"),
    "boosted_before": (style.ORANGE, "s", "before, boosted trees"),
    "boosted_after": (style.VERMILLION, "s", "after, boosted trees"),
}


@style.styled
def audit_figure(audit: pd.DataFrame, title: str) -> Figure:
    """Held-out R^2 of each confounder, a row each; values below 0 are drawn at 0."""
    rows = audit.sort_values("linear_before", ascending=False).head(MOST).iloc[::-1]
    place = np.arange(len(rows))
    figure = Figure(figsize=(style.WIDTH, 1.6 + 0.27 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.hlines(place, 0, 1, color=style.PALE, linewidth=0.7, zorder=0)
    for column, (colour, marker, label) in _LOOKS.items():
        if column in rows:
            axes.scatter(rows[column].clip(lower=0), place, color=colour, marker=marker, s=26, label=label, zorder=3)
    axes.set_yticks(place, rows["confounder"].astype(str).tolist())
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel("$R^2$ of the confounder from the latents, in people held out")
    axes.set_title(title)
    figure.legend(loc="outside upper right", ncols=4)
    return figure
