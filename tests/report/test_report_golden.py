"""Figures look as they did. Edges may be drawn a little differently by another version, so means over blocks of 8 by 8
pixels are compared: no more than 0.5 of 255 apart on average, 20 in any block. What matters moves more than that.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import golden_figures as golden

from udipdist.report.figures.manhattan import manhattan
from udipdist.report.figures.regional import regional

BLOCK, MEAN, MOST = 8, 0.5, 20.0


def apart(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Mean and largest difference of the means over blocks, of 255."""
    high, wide = (min(a, b) // BLOCK * BLOCK for a, b in zip(one.shape[:2], other.shape[:2], strict=True))
    blocks = np.abs(
        (one[:high, :wide] - other[:high, :wide])
        .reshape(high // BLOCK, BLOCK, wide // BLOCK, BLOCK, 3)
        .mean(axis=(1, 3))
    )
    return float(blocks.mean()), float(blocks.max())


def kept(name: str) -> np.ndarray:
    return np.asarray(Image.open(golden.FOLDER / f"{name}.png").convert("RGB"), float)


@pytest.mark.parametrize("name", golden.FIGURES)
def test_a_figure_looks_as_it_did(name, tmp_path):
    image = golden.drawn(golden.FIGURES[name]())
    assert image.shape == kept(name).shape
    mean, most = apart(image, kept(name))
    Image.fromarray(image.astype(np.uint8)).save(tmp_path / f"{name}.png")
    assert mean <= MEAN and most <= MOST, f"{mean:.2f} and {most:.0f} of 255 apart: look at {tmp_path}/{name}.png"


def without_threshold():
    return "manhattan", manhattan(replace(golden.scan(), threshold=None), null=[2], width=7.0)


def without_shading():
    return "manhattan", manhattan(golden.scan(), width=7.0)


def panel_forgotten():
    scan = golden.scan()
    return "manhattan", manhattan(replace(scan, loci=scan.loci.assign(hit=0)), null=[2], width=7.0)


def a_peak_less():
    scan = golden.scan()
    y = np.minimum(scan.log10p_M, 10.0)
    return "manhattan", manhattan(replace(scan, log10p_M=y), null=[2], width=7.0)


def other_linkage():
    region = golden.region()
    return "regional", regional(replace(region, variants=region.variants.assign(r2=1 - region.variants["r2"])))


def genes_forgotten():
    region = golden.region()
    return "regional", regional(replace(region, genes=region.genes.iloc[:0]))


@pytest.mark.parametrize(
    "change", [without_threshold, without_shading, panel_forgotten, a_peak_less, other_linkage, genes_forgotten]
)
def test_the_comparison_sees_what_matters(change):
    name, figure = change()
    image, before = golden.drawn(figure), kept(name)
    mean, most = apart(image, before)
    assert image.shape != before.shape or mean > MEAN or most > MOST, f"{mean:.2f} and {most:.0f}"
