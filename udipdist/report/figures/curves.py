"""Training curves."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from udipdist.figures.style import BLUE, GREEN, INK, VERMILLION, grid, new_figure, styled


@styled
def curves(metrics: pd.DataFrame) -> Figure:
    """Loss, similarity and learning rate over optimiser steps, from the rows of metrics.jsonl."""
    train, held_out = (_rows(metrics, split) for split in ("train", "validation"))
    figure = new_figure(2.9)
    loss, similarity, rate = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    _line(loss, train, "loss", BLUE, "training")
    _line(loss, held_out, "loss", VERMILLION, "validation", marker="o")
    _finish(loss, "Loss (mean squared error)")
    loss.set_ylim(bottom=0)
    loss.legend()
    _line(similarity, held_out, "ssim", GREEN, "", marker="o")
    _finish(similarity, "SSIM, validation")
    _line(rate, train, "lr", INK, "")
    _finish(rate, "Learning rate")
    rate.ticklabel_format(axis="y", style="plain")
    rate.set_ylim(bottom=0)
    return figure


def _rows(metrics: pd.DataFrame, split: str) -> pd.DataFrame:
    return metrics[metrics["split"] == split].sort_values("step", kind="stable")


def _line(axes: Axes, rows: pd.DataFrame, key: str, colour: str, name: str, marker: str = "") -> None:
    rows = rows.dropna(subset=[key]) if key in rows else rows.iloc[:0]
    if len(rows):
        axes.plot(rows["step"], rows[key], color=colour, marker=marker, markersize=3, label=name)
    elif not axes.lines:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center")


def _finish(axes: Axes, title: str) -> None:
    grid(axes)
    axes.set_title(title)
    axes.set_xlabel("optimiser step")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
