"""Are the p-values what they claim to be: QQ curves and the lambdas of the traits."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection

from udipdist.figures.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LOG10P,
    PALE,
    SKY,
    VERMILLION,
    WIDTH,
    Chart,
    Spot,
    grid,
    new_figure,
    short,
    styled,
    thin,
)
from udipdist.report.calibration import Calibration, Curve, band

EXACT_ABOVE = 2.0
_COLOURS = (BLUE, GREEN)
MOST_TRAITS = 128  # in one figure of small curves
FOOT = 6.0  # observed -log10 p where a small curve ends


@styled
def qq(curves: dict[str, Curve], calibration: Calibration) -> Chart:
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


@styled
def qq_one(name: str, curve: Curve, lambda_gc: float, width: float = 3.5) -> Chart:
    """One curve with its lambda and the pointwise 95 % band of as many independent null tests."""
    figure = new_figure(width, width)
    axes = figure.subplots()
    limit = float(curve.expected.max(initial=1.0))
    if curve.n:
        expected, low, high = band(curve.n)
        axes.fill_between(expected, low, high, color=PALE, linewidth=0)
    axes.plot([0, limit], [0, limit], color=GREY, linewidth=0.8)
    rows = thin(curve.expected, curve.observed, EXACT_ABOVE, top=float(curve.observed.max(initial=1.0)))
    axes.scatter(curve.expected[rows], curve.observed[rows], s=5, c=BLUE, linewidths=0, rasterized=True)
    grid(axes, "both")
    axes.set_xlim(0, limit * 1.03)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"expected {LOG10P}")
    axes.set_ylabel(f"observed {LOG10P}")
    axes.set_title(short(name, 40), parse_math=False)
    axes.text(
        0.05, 0.95, rf"$\lambda$ = {lambda_gc:.3f}" + f"\n{curve.n:,} variants", transform=axes.transAxes, va="top"
    )
    return figure


@styled
def qq_traits(names: list[str], curves: tuple[Curve, ...], lambda_P: np.ndarray, width: float = WIDTH) -> Chart:
    """A small curve a trait with its lambda and 95 % band, in the order given; those above 1.1 or below 0.9 in orange.

    Traits without a test are left out; of very many the MOST_TRAITS whose lambda is farthest from 1 are shown.
    """
    tested = np.flatnonzero(~np.isnan(lambda_P))
    if len(tested) > MOST_TRAITS:
        tested = np.sort(tested[np.argsort(-np.abs(np.log(lambda_P[tested])), kind="stable")[:MOST_TRAITS]])
    columns = max(min(len(tested), round(width * 1.2)), 1)
    rows = max(-(-len(tested) // columns), 1)
    reach = max((float(curves[i].expected.max()) for i in tested), default=1.0)
    high = max(FOOT, reach)
    wide, tall = 1.22 * reach, 1.45 * high
    figure = new_figure(rows * (width / columns) * 1.05, width)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    bands, diagonals, lines, colours = [], [], [], []
    for number, i in enumerate(tested.tolist()):
        x, y = (number % columns) * wide, -(number // columns + 1) * tall
        shown = np.minimum(curves[i].observed, high)
        odd = not 0.9 <= lambda_P[i] <= 1.1
        expected, low, top = band(curves[i].n, 60)
        edge = np.concatenate([np.c_[expected, low], np.c_[expected, top][::-1]])
        bands.append(np.minimum(edge, [reach, high]) + [x, y])
        diagonals.append(np.array([[0, 0], [expected.max(), expected.max()]]) + [x, y])
        lines.append(np.c_[curves[i].expected + x, shown + y])
        colours.append(VERMILLION if odd else BLUE)
        text = axes.text(x, y + 1.03 * high, f"{short(names[i], 12)}  {lambda_P[i]:.3f}", fontsize=6.5,
                         parse_math=False, va="bottom", color=VERMILLION if odd else INK)  # fmt: skip
        words = f"{curves[i].n:,} variants, smallest p 10^-{float(curves[i].observed.max()):.1f}"
        figure.spots.append(Spot((names[i], f"\u03bb = {lambda_P[i]:.3f}", words), label=text))
    axes.add_collection(PolyCollection(bands, facecolors=PALE, linewidths=0))
    axes.add_collection(LineCollection(diagonals, colors=GREY, linewidths=0.6))
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=1.3))
    axes.set_xlim(-0.06 * wide, columns * wide - 0.08 * wide)
    axes.set_ylim(-rows * tall - 0.06 * tall, 0)
    axes.set_axis_off()
    return figure
