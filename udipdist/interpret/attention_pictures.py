"""Pictures of attention: maps, sparsity, correlations, singular values; and token maps over the MNI152 template."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from udipdist.figures.style import BLUE, GREY, WIDTH, grid, new_figure, styled
from udipdist.interpret.spotlight import Clustering

_BLUR = 2.0 / 957  # SD of the blur of maps, as a share of the tokens; that of ViT-UDIP, figure 3a
_CUTS = 5  # slices of each plane
_OPACITY = 0.75
_SEQUENTIAL, _DIVERGING = "magma", "RdBu_r"


@styled
def maps(maps_HTT: np.ndarray, layer: int, heads: Sequence[int]) -> Figure:
    """The mean softmax maps of heads, query x key, blurred; the colour scale ends at the 99.9th percentile of each."""
    across = min(4, len(heads))
    down = -(-len(heads) // across)
    figure = new_figure(0.4 + down * (WIDTH / across + 0.5))
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for axes in panels:
        axes.set_axis_off()
    for axes, head, map_TT in zip(panels, heads, maps_HTT, strict=False):
        blurred = gaussian_filter(np.nan_to_num(map_TT), _BLUR * len(map_TT))
        axes.set_axis_on()
        high = float(np.percentile(blurred, 99.9))
        shown = axes.imshow(blurred, cmap=_SEQUENTIAL, vmin=0, vmax=high, rasterized=True)
        figure.colorbar(shown, ax=axes, location="bottom", shrink=0.9, pad=0.02, label="share of a query's attention")
        axes.set(title=f"layer {layer}, head {head}", xlabel="key token", ylabel="query token")
    return figure


@styled
def correlation(correlation_CC: np.ndarray, clustering: Clustering, spotlight_C: np.ndarray) -> Figure:
    """Correlations of tokens in the order of average linkage, and a line that marks the spotlights among them."""
    figure = new_figure(7.2, 7.4)
    axes, line = figure.subplots(2, 1, height_ratios=[30, 1], sharex=True)
    order = clustering.order
    shown = axes.imshow(
        correlation_CC[np.ix_(order, order)], cmap=_DIVERGING, vmin=-1, vmax=1, aspect="auto", rasterized=True
    )
    axes.set(title="correlation of token embeddings, average linkage", ylabel="token")
    figure.colorbar(shown, ax=axes, label="r")
    line.imshow(spotlight_C[order][None], cmap="binary", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    line.set(yticks=[], xlabel="token (black below: spotlight)")
    return figure


@styled
def sparsity(heads: pd.DataFrame) -> Figure:
    """Layers x heads: effective number of tokens, mass of the top tenth, tokens that get 90 % of it, spotlights."""
    columns = {
        "effective_tokens": "effective tokens of a query",
        "top_tenth": "mass on a query's top tenth",
        "tokens_for_90": "share of tokens that get 90 %",
        "spotlight_share": "share of spotlights",
    }
    layers = heads["layer"].nunique()
    figure = new_figure(1.3 + 0.28 * layers)
    for axes, (column, title) in zip(figure.subplots(1, 4), columns.items(), strict=True):
        table = heads.pivot(index="layer", columns="head", values=column)
        shown = axes.imshow(table, cmap="viridis", vmin=0, aspect="auto")
        axes.set(title=title, xlabel="head", ylabel="layer")
        axes.set_xticks(range(len(table.columns)), table.columns)
        axes.set_yticks(range(layers), table.index)
        figure.colorbar(shown, ax=axes)
    return figure


@styled
def singular(values: pd.DataFrame, layer: int) -> Figure:
    """The singular values of W_K' W_Q: the heads of one layer, and those of the others in grey."""
    figure = new_figure(3.2, 6.0)
    axes = figure.subplots()
    for (of, _), head in values.sort_values("rank").groupby(["layer", "head"]):
        own = of == layer
        axes.plot(head["rank"], head["value"], color=BLUE if own else GREY, lw=1.2 if own else 0.5, zorder=2 + own)
    axes.set(title=f"singular values of W_K' W_Q (layer {layer}; grey: others)", xlabel="rank", ylabel="value")
    axes.set_ylim(bottom=0)
    grid(axes)
    return figure


@styled
def over_template(volume_xyz: np.ndarray, affine: np.ndarray, title: str, least: float) -> Figure:
    """A map in MNI space over nilearn's MNI152 template, five slices of each of three planes; below `least` clear."""
    from nilearn import datasets, plotting

    figure = Figure(figsize=(WIDTH, 8.0))
    shown = np.where(volume_xyz >= least, volume_xyz, 0).astype(np.float32)
    high = max(float(shown.max()), 2 * least)
    display = plotting.plot_img(  # so slices are placed by the template, the same for every map
        datasets.load_mni152_template(resolution=2),
        figure=figure,
        axes=(0, 0, 1, 0.94),
        display_mode="mosaic",
        cut_coords=_CUTS,
        cmap="gray",
        threshold=0.01,
        vmin=0,
        vmax=1.2,
        black_bg=False,
        colorbar=False,
    )
    if shown.any():
        image = nib.Nifti1Image(shown, affine)
        display.add_overlay(
            image, threshold=least / 2, vmin=0, vmax=high, cmap=_SEQUENTIAL, transparency=_OPACITY, colorbar=False
        )
    figure.text(0.01, 0.985, title, va="top", fontsize=11, fontweight="bold")
    scale = figure.add_axes((0.68, 0.97, 0.29, 0.016))  # nilearn's mosaic leaves room at the top only
    figure.colorbar(ScalarMappable(Normalize(0, high), _SEQUENTIAL), cax=scale, orientation="horizontal")
    return figure
