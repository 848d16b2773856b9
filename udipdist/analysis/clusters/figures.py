"""The tree of directions as pictures: a heat map under its dendrogram, and two trees face to face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from scipy.cluster import hierarchy

from udipdist.analysis.clusters.tree import ALONE
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
    grid,
    new_figure,
    short,
    styled,
)

NAMED = 200  # leads that can have their names
_INCH, _LEAST, _MOST = 0.125, 5.2, 16.0  # of a lead; of the heat map
_LETTER = 0.62 / (72 * 4.7)  # the width of a letter a point of its size, of that between two trees
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY)
_ALIKE = LinearSegmentedColormap.from_list("alike", ["#ffffff", "#cfe3f1", SKY, BLUE, "#062c49"])
_SIGNED = LinearSegmentedColormap.from_list("signed", ["#6b2500", VERMILLION, "#ffffff", BLUE, "#062c49"])


@dataclass(frozen=True)
class Drawn:
    """A tree with what is drawn at it: names of the leaves, their clusters, support of each join."""

    tree: np.ndarray
    names: Sequence[str]
    cluster_L: np.ndarray
    support_C: np.ndarray
    supported: float  # share of the trees from which a clade counts as supported
    distance: str = "1 - |cos|"

    @property
    def order(self) -> np.ndarray:
        """The leaves as the tree stands."""
        return hierarchy.leaves_list(self.tree)


@styled
def heat_map(
    drawn: Drawn, similarity_LL: np.ndarray, corrected_LL: np.ndarray | None, titles: dict[int, str]
) -> Figure:
    """The similarity of all pairs in the order of the tree, above the diagonal as it is, below it free of noise where
    that is given; the tree on top, a dot at each supported join; clusters framed, with their names from `titles`."""
    n = len(drawn.names)
    side = float(np.clip(_INCH * n, _LEAST, _MOST))
    named = n <= NAMED
    figure = new_figure(side * 1.3 + 1.0, side + 2.6)
    spaces = figure.subplots(2, 2, width_ratios=[side, 0.9], height_ratios=[0.28 * side, side])
    (top, corner), (axes, right) = spaces
    corner.set_axis_off()
    _dendrogram(top, drawn)
    top.set_ylabel(drawn.distance)
    order = drawn.order
    shown = similarity_LL[np.ix_(order, order)].copy()
    if corrected_LL is not None:
        below = np.tril_indices(n, -1)
        shown[below] = corrected_LL[np.ix_(order, order)][below]
    signed = bool(similarity_LL.min() < 0)
    axes.set_facecolor(PALE)
    image = axes.imshow(
        np.ma.masked_invalid(shown), cmap=_SIGNED if signed else _ALIKE, vmin=-1 if signed else 0, vmax=1,
        interpolation="nearest", aspect="auto", rasterized=True,
    )  # fmt: skip
    axes.set_xlim(-0.5, n - 0.5)
    _name(axes, [drawn.names[i] for i in order] if named else None, side / n)
    axes.set_xlabel("above the diagonal as measured, below it free of noise" if corrected_LL is not None else "")
    _clusters(axes, right, drawn.cluster_L[order], titles)
    place = corner.inset_axes((0.0, 0.25, 0.9, min(0.5, 0.1 / (0.28 * side))))
    bar = figure.colorbar(image, cax=place, orientation="horizontal")
    bar.set_label("cos" if signed else "|cos|")
    bar.outline.set_visible(False)
    return figure


@styled
def tanglegram(one: Drawn, other: Drawn, partitions: pd.DataFrame, titles: tuple[str, str], facts: str) -> Figure:
    """Two trees of the same leaves face to face, each leaf joined with itself, in the colour of its cluster in the
    first; below, the agreement of their partitions into k clusters, with what shuffled leaves give."""
    n = len(one.names)
    height = float(np.clip(0.16 * n, 3.0, 18.0))
    figure = new_figure(height + 3.2, 10.5)
    rows = figure.add_gridspec(2, 1, height_ratios=[height, 2.0])
    left, middle, right = (figure.add_subplot(place) for place in rows[0].subgridspec(1, 3, width_ratios=[3, 5.2, 3]))
    places = [np.argsort(hierarchy.leaves_list(drawn.tree)) for drawn in (one, other)]
    _dendrogram(left, one, "left")
    _dendrogram(right, other, "right")
    left.set_title(titles[0], parse_math=False)
    right.set_title(titles[1], parse_math=False)
    middle.set_axis_off()
    middle.set(xlim=(0, 1), ylim=(n - 0.5, -0.5))
    size = float(np.clip(72 * height / n * 0.8, 3.5, 8))
    names = [[short(name) for name in drawn.names] for drawn in (one, other)]
    room = 0.03 + max(len(name) for side in names for name in side) * size * _LETTER
    for leaf in range(n):
        a, b = places[0][leaf], places[1][leaf]
        across = [room, room + 0.04, 0.96 - room, 1 - room]
        middle.plot(across, [a, a, b, b], color=_colour(one.cluster_L[leaf]), linewidth=1.1, solid_joinstyle="round")
        for x, y, side, to in ((0.01, a, names[0], "left"), (0.99, b, names[1], "right")):
            middle.text(x, y, side[leaf], ha=to, va="center", fontsize=size, parse_math=False)
    axes = figure.add_subplot(rows[1])
    grid(axes)
    k = partitions["clusters"]
    axes.fill_between(k, partitions["shuffled_mean"], partitions["shuffled_95"], color=PALE, linewidth=0)
    axes.plot(k, partitions["shuffled_mean"], color=GREY, linewidth=1, label="shuffled leaves: mean to 95th percentile")
    axes.plot(k, partitions["fowlkes_mallows"], color=BLUE, marker="o", markersize=2.5, label="the two trees")
    axes.set(xlabel="clusters that both trees are cut into", ylabel="Fowlkes-Mallows", ylim=(0, 1.02))
    axes.set_title(facts)
    axes.legend(loc="upper right")
    return figure


def untangled(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same two trees, with branches turned so that fewer lines cross: in turn each takes the order of the other,
    every join with the side whose leaves stand higher there first."""
    for _ in range(3):
        other = _turned(other, np.argsort(hierarchy.leaves_list(one)))
        one = _turned(one, np.argsort(hierarchy.leaves_list(other)))
    return one, other


def _turned(tree: np.ndarray, place_L: np.ndarray) -> np.ndarray:
    turned, leaves = tree.copy(), len(tree) + 1
    mean, size = place_L.astype(float).tolist(), [1] * leaves
    for row, (left, right) in enumerate(tree[:, :2].astype(int).tolist()):
        if mean[left] > mean[right]:
            turned[row, :2] = right, left
        size.append(size[left] + size[right])
        mean.append((mean[left] * size[left] + mean[right] * size[right]) / size[-1])
    return turned


def _dendrogram(axes: Axes, drawn: Drawn, side: str = "top") -> None:
    """The tree with its root at `side`; leaves at 0, 1, 2 ...; dots at supported joins, the root's left out."""
    n = len(drawn.names)
    at = np.zeros(2 * n - 1)
    at[drawn.order] = np.arange(n)
    height = np.concatenate([np.zeros(n), drawn.tree[:, 2]])
    inside = [int(cluster) for cluster in drawn.cluster_L] + [ALONE] * (n - 1)
    dots = []
    for row, (left, right) in enumerate(drawn.tree[:, :2].astype(int).tolist()):
        node = n + row
        at[node] = (at[left] + at[right]) / 2
        inside[node] = inside[left] if inside[left] == inside[right] else ALONE
        along = [at[left], at[left], at[right], at[right]]
        up = [height[left], height[node], height[node], height[right]]
        xy = (along, up) if side == "top" else (up, along)
        axes.plot(*xy, color=_colour(inside[node]), linewidth=1.0, solid_capstyle="butt")
        if drawn.support_C[row] >= drawn.supported and node < 2 * n - 2:
            dots.append((at[node], height[node]))
    if dots:
        x, y = np.array(dots).T if side == "top" else np.array(dots).T[::-1]
        axes.scatter(x, y, s=11, color=INK, zorder=3, linewidths=0)
    axes.spines[:].set_visible(False)
    top = max(1.0, float(height.max())) * 1.02
    if side == "top":
        axes.set(xlim=(-0.5, n - 0.5), ylim=(0, top), xticks=[])
    else:
        axes.set(ylim=(n - 0.5, -0.5), xlim=(top, 0) if side == "left" else (0, top), yticks=[], xlabel=drawn.distance)


def _name(axes: Axes, names: list[str] | None, inches: float) -> None:
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if names is None:
        axes.set(xticks=[], yticks=[], ylabel="lead SNPs, in the order of the tree")
        return
    size = float(np.clip(72 * inches * 0.85, 3.5, 8))
    shown = [short(name) for name in names]
    axes.set_yticks(range(len(shown)), shown, fontsize=size, parse_math=False)
    axes.set_xticks(range(len(shown)), shown, fontsize=size, rotation=90, parse_math=False)


def _clusters(axes: Axes, right: Axes, cluster_L: np.ndarray, titles: dict[int, str]) -> None:
    """Frames on the diagonal, and beside it a stripe of the cluster's colour with its name."""
    n = len(cluster_L)
    right.set_axis_off()
    right.set(xlim=(0, 1), ylim=(n - 0.5, -0.5))
    axes.set_ylim(n - 0.5, -0.5)
    for number in sorted(set(cluster_L.tolist()) - {ALONE}):
        inside = np.flatnonzero(cluster_L == number)
        first, last, colour = inside[0] - 0.5, inside[-1] + 0.5, _colour(number)
        axes.plot([first, last, last, first, first], [first, first, last, last, first], color=colour, linewidth=1.4)
        right.fill_between([0, 0.12], first + 0.1, last - 0.1, color=colour, linewidth=0)
        right.text(0.2, (first + last) / 2, titles[number], va="center", fontsize=7, parse_math=False)


def _colour(cluster: int) -> str:
    return GREY if cluster == ALONE else _COLOURS[(int(cluster) - 1) % len(_COLOURS)]
