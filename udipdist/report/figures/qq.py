"""Are the p-values what they claim to be: QQ curves and the lambdas of the traits."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from udipdist.figures.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LOG10P,
    PALE,
    SKY,
    VERMILLION,
    grid,
    new_figure,
    styled,
    thin,
)
from udipdist.report.calibration import Calibration, Curve, band

EXACT_ABOVE = 2.0
_COLOURS = (BLUE, GREEN)


@styled
def qq(curves: dict[str, Curve], calibration: Calibration) -> Figure:
    """The curves, each under its name: whole, and their foot enlarged; beside them the lambdas of the traits.

    The null variants of `calibration`, where known, are a curve of their own; the band is for as many tests as they.
    """
    named = [(name, curve, colour) for (name, curve), colour in zip(curves.items(), _COLOURS, strict=True) if curve.n]
    reference = next(iter(curves.values()))
    if calibration.null is not None and calibration.null.n:
        reference = calibration.null
        named.append(("null chromosomes", calibration.null, VERMILLION))
    figure = new_figure(3.8)
    whole, foot, lambdas = figure.subplots(1, 3)
    limit = max((float(curve.expected.max()) for _, curve, _ in named), default=1.0)
    for axes in (whole, foot):
        if reference.n:
            expected, low, high = band(reference.n)
            axes.fill_between(expected, low, high, color=PALE, linewidth=0)
        axes.plot([0, limit], [0, limit], color=GREY, linewidth=0.8)
        for name, curve, colour in named:
            rows = thin(curve.expected, curve.observed, EXACT_ABOVE)
            axes.scatter(curve.expected[rows], curve.observed[rows], s=5, c=colour, linewidths=0, rasterized=True,
                         label=f"{name} ({curve.n:,})")  # fmt: skip
        grid(axes, "both")
        axes.set_xlim(0, limit * 1.03)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"expected {LOG10P}")
    whole.set_ylabel(f"observed {LOG10P}")
    whole.set_title("QQ of all tests")
    handles, names = whole.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower left", ncols=len(named), markerscale=2, fontsize=8)
    foot.set_ylim(0, limit * 1.4)
    foot.set_title("its foot, with a 95 % band")
    _lambdas(lambdas, calibration)
    figure.legend(*lambdas.get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=8)
    return figure


def _lambdas(axes: Axes, calibration: Calibration) -> None:
    groups = [("all variants", calibration.lambda_P, SKY), ("null chromosomes", calibration.null_lambda_P, VERMILLION)]
    shown = [(name, values[~np.isnan(values)], colour) for name, values, colour in groups]
    shown = [entry for entry in shown if len(entry[1])]
    everything = np.concatenate([values for _, values, _ in shown] or [np.ones(1)])
    low, high = min(float(everything.min()), 1.0), max(float(everything.max()), 1.0)
    pad = max(0.08 * (high - low), 0.02)
    edges = np.linspace(low - pad, high + pad, 40)
    for name, values, colour in shown:
        label = f"{name}, median {np.median(values):.3f}"
        axes.hist(values, bins=edges, color=colour, alpha=0.75, edgecolor="white", linewidth=0.5, label=label)
    axes.axvline(1, color=INK, linewidth=0.9)
    axes.set_xlim(edges[0], edges[-1])
    axes.yaxis.get_major_locator().set_params(integer=True)
    grid(axes)
    axes.set_xlabel(r"genomic-control $\lambda$ of a trait")
    axes.set_ylabel("traits")
    axes.set_title(r"$\lambda$ trait by trait")
