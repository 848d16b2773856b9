"""The x axis of genome-wide plots: chromosomes end to end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from matplotlib.axes import Axes

from udipdist.figures.style import PALE
from udipdist.genome import assemblies

_NAME = 0.16  # inches that the name of a chromosome takes


@dataclass(frozen=True)
class Genome:
    """Chromosomes end to end on the x axis, in base pairs: what is added to positions, and the first and last x."""

    codes: np.ndarray
    shift: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, *scans: tuple[np.ndarray, np.ndarray]) -> Self:
        """The chromosomes on which one of the (code_M, position_M) has variants; code 0 (unplaced) has no place."""
        ends: dict[int, tuple[int, int]] = {}
        for code_M, position_M in scans:
            for code, low, high in zip(*_runs(code_M, position_M), strict=True):
                before = ends.get(code, (low, high))
                ends[code] = (min(before[0], low), max(before[1], high))
        codes = np.array(sorted(code for code in ends if code > 0), np.int64)
        first, last = (np.array([ends[code][i] for code in codes.tolist()], np.int64) for i in (0, 1))
        gap = max(1, int((last - first + 1).sum() * 0.006))
        start = np.cumsum(last - first + 1 + gap) - (last - first + 1 + gap)
        return cls(codes, start - first, start, start + last - first)

    def place(self, code: np.ndarray, position: np.ndarray) -> np.ndarray:
        """x of positions; NaN on chromosomes without variants."""
        code, position = np.asarray(code), np.asarray(position)
        shift = np.full(256, np.nan)  # codes are below 27
        shift[self.codes] = self.shift
        return shift[code] + position

    @property
    def width(self) -> float:
        """x of the last variant."""
        return float(self.last[-1]) if len(self.last) else 1.0

    def borders(self) -> np.ndarray:
        """x between neighbouring chromosomes, with the outer ends: one more than there are chromosomes."""
        between = (self.last[:-1] + self.first[1:]) / 2
        return np.concatenate([self.first[:1], between, self.last[-1:]])


def _runs(code_M: np.ndarray, position_M: np.ndarray) -> tuple[list[int], list[int], list[int]]:
    """Code, smallest and largest position of each stretch of variants on one chromosome."""
    if not len(code_M):
        return [], [], []
    starts = np.r_[0, np.flatnonzero(code_M[1:] != code_M[:-1]) + 1]
    low, high = np.minimum.reduceat(position_M, starts), np.maximum.reduceat(position_M, starts)
    return code_M[starts].tolist(), low.tolist(), high.tolist()


def draw_chromosomes(axes: Axes, layout: Genome, null: Iterable[int]) -> None:
    """Ticks in the middle of each chromosome; the null ones shaded."""
    null = set(null)
    borders = layout.borders()
    middles = (borders[:-1] + borders[1:]) / 2
    for code, low, high in zip(layout.codes, borders[:-1], borders[1:], strict=True):
        if code in null:
            axes.axvspan(low, high, color=PALE, alpha=0.55, linewidth=0, zorder=0)
    labels = [assemblies.label(code) for code in layout.codes]
    narrow = layout.width * _NAME / axes.figure.get_figwidth()
    for i in range(1, len(labels)):  # neighbours without room for both names
        if labels[i - 1] and middles[i] - middles[i - 1] < narrow:
            labels[i] = ""
    axes.set_xticks(middles, labels)
    axes.tick_params(axis="x", length=0, pad=7, labelsize=7.5, labelbottom=True)
    axes.set_xlim(-0.008 * layout.width, 1.008 * layout.width)


def declutter(place: np.ndarray, apart: float, low: float, high: float) -> np.ndarray:
    """Ascending positions moved as little as needed so that neighbours are `apart` and all lie in low..high.

    Overlapping neighbours are pooled into blocks around their mean (as in isotonic regression). Where they cannot
    all fit, they are spread evenly.
    """
    n = len(place)
    if n * apart >= high - low:
        return np.linspace(low, high, n) if n > 1 else np.array(place, float)
    blocks: list[list[float]] = []  # [sum of (position - rank * apart), count]
    for rank, x in enumerate(np.clip(place, low + apart / 2, high - apart / 2)):
        blocks.append([x - rank * apart, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, number = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += number
    level = np.concatenate([np.full(int(number), total / number) for total, number in blocks] or [np.empty(0)])
    return np.clip(level, low, high - (n - 1) * apart) + np.arange(n) * apart
