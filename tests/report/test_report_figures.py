"""What the figures are made of: thinning, labels, chromosomes, slices."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from udipdist.figures import brains
from udipdist.figures.style import thin
from udipdist.report.calibration import exact_curve, few_points
from udipdist.report.figures.axis import Genome, declutter
from udipdist.report.figures.heatmap import order
from udipdist.report.figures.manhattan import Scan, manhattan, miami, palette
from udipdist.report.figures.regional import gene_rows

sys.path.insert(0, str(Path(__file__).parent))
import golden_figures as golden


def test_thinning_keeps_every_point_above_and_one_a_pixel_below():
    rng = np.random.default_rng(1)
    x, y = rng.uniform(size=200_000), rng.exponential(size=200_000) / np.log(10)
    y[5], y[6] = np.nan, 441.0
    rows = thin(x, y, exact_above=2.0, pixels=(100, 40))
    kept = np.zeros(len(x), bool)
    kept[rows] = True
    assert kept[y >= 2.0].all() and kept[6] and not kept[5]
    assert len(rows) == len(np.unique(rows)) and np.all(np.diff(rows) > 0)

    def cells(mask: np.ndarray) -> set:
        columns = np.minimum((x[mask] - np.nanmin(x)) / np.ptp(x) * 100, 99).astype(int)
        return set(zip(columns.tolist(), np.minimum(y[mask] / 2 * 40, 39).astype(int).tolist(), strict=True))

    below = y < 2.0
    assert len(cells(below & kept)) == len(cells(below))  # no pixel that had a point is empty
    assert (below & kept).sum() <= 100 * 40


def test_thinning_keeps_the_highest_where_there_are_very_many():
    y = np.random.default_rng(2).uniform(2, 9, size=50_000)
    rows = thin(np.arange(50_000.0), y, exact_above=2.0, most=1000, pixels=(10, 10))
    assert set(np.argsort(y)[-1000:]) <= set(rows) and len(rows) <= 1100


def test_thinning_of_few_equal_or_no_points():
    assert list(thin(np.array([1.0]), np.array([0.0]), 2.0)) == [0]
    assert len(thin(np.array([]), np.array([]), 2.0)) == 0
    assert len(thin(np.array([1.0, 2.0]), np.array([np.nan, np.nan]), 2.0)) == 0
    assert list(thin(np.zeros(3), np.zeros(3), 2.0)) == [2]


def test_of_millions_of_points_those_that_are_seen_are_drawn():
    m = 3_000_000
    rng = np.random.default_rng(0)
    code = np.repeat(np.arange(1, 21), m // 20)
    scan = Scan(code, np.tile(np.arange(m // 20), 20) * 100, rng.exponential(size=m) / np.log(10), 9.4)
    drawn = sum(len(points.get_xdata()) for points in manhattan(scan).axes[0].lines)
    assert 10_000 < drawn < m / 20


@given(st.lists(st.floats(0, 100), max_size=40), st.floats(0.01, 10))
def test_labels_stand_apart_in_order_and_inside(places, apart):
    place = np.sort(np.array(places, float))
    spread = declutter(place, apart, 0.0, 100.0)
    assert len(spread) == len(place)
    if len(place):
        assert spread.min() >= -1e-9 and spread.max() <= 100 + 1e-9
    if len(place) * apart < 100:
        assert np.all(np.diff(spread) >= apart - 1e-9)
    if len(place) > 1 and np.diff(place).min() > apart and apart / 2 < place[0] and place[-1] < 100 - apart / 2:
        np.testing.assert_allclose(spread, place)


def test_chromosomes_stand_in_order_and_unplaced_variants_nowhere():
    code, position = np.array([2, 2, 1, 1, 23, 0]), np.array([100, 900, 50, 400, 10, 77])
    layout = Genome.of((code, position))
    assert list(layout.codes) == [1, 2, 23]
    x = layout.place(code, position)
    assert np.isnan(x[5]) and np.argsort(x[:5]).tolist() == [2, 3, 0, 1, 4]
    assert x[1] - x[0] == 800 and np.isnan(layout.place([7], [5]))[0]
    borders = layout.borders()
    assert x[2] == borders[0] and x[3] < borders[1] < x[0] and x[1] < borders[2] < x[4] == borders[3]


def test_loci_are_drawn_where_they_are_and_styles_do_not_leak():
    before = dict(matplotlib.rcParams)
    loci = pd.DataFrame(
        {"code": [1], "start": [40], "end": [60], "lead_position": [50], "lead_snp": ["$bad$"], "log10p": [12.0]}
    )
    scan = Scan(
        np.array([1, 1, 2]),
        np.array([10, 50, 30]),
        np.array([1.0, 12.0, 2.0]),
        7.3,
        loci.assign(hit=1.0, nearest_panel="rs1", distance=0.0),
    )
    axes = manhattan(scan).axes[0]
    assert [text.get_text() for text in axes.texts] == ["$bad$"]
    leads = [c.get_offsets() for c in axes.collections if len(c.get_offsets()) == 1]
    assert any(np.allclose(points[0], [40, 12.0]) for points in leads)  # x counts from the first variant
    assert dict(matplotlib.rcParams) == before


def test_slices_show_left_on_the_left_and_top_on_top():
    volume = np.zeros((5, 6, 7), np.float32)
    volume[1:4, 1:5, 1:6] = 1.0
    volume[1, 2, 3] = 5.0  # left; in the middle planes of y and z
    sagittal, coronal, axial = brains.slices(volume, volume, (1, 1, 1))
    assert sagittal.shape == (7, 6) and coronal.shape == (7, 5) and axial.shape == (6, 5)
    assert coronal[3, 1] == 5.0 and axial[6 - 1 - 2, 1] == 5.0
    assert np.isnan(coronal[0]).all() and np.nansum(sagittal) == 4 * 5
    volume[2, 2, 5] = 9.0  # the top slice of the brain
    assert brains.slices(volume, volume, (1, 1, 1))[1][1, 2] == 9.0


def test_voxels_become_square_pixels():
    volume = np.ones((4, 4, 4), np.float32)
    sagittal, coronal, axial = brains.slices(volume, volume, (1, 1, 3))
    assert sagittal.shape == coronal.shape == (12, 4) and axial.shape == (4, 4)
    marked = volume.copy()
    marked[:, :, 3] = 7
    assert (brains.slices(marked, volume, (1, 1, 3))[1][:3] == 7).all()


def test_blank_volumes_can_be_drawn():
    blank = np.zeros((2, 4, 5, 6), np.float32)
    assert brains.reconstructions(blank, blank, ["a", "b"], (1, 1, 1)).axes


def test_far_p_values_are_compressed_and_the_others_keep_their_scale():
    near = Scan(np.array([1, 1]), np.array([1, 2]), np.array([3.0, 50.0]), 7.3)
    far = Scan(np.array([1, 1]), np.array([1, 2]), np.array([3.0, 441.0]), 7.3)
    assert manhattan(near).axes[0].get_yscale() == "linear"
    axes = manhattan(far).axes[0]
    shown = axes.transAxes.inverted().transform(axes.transData.transform([(1, 0), (1, 15), (1, 30), (1, 441)]))[:, 1]
    assert np.isclose(shown[2], 2 * shown[1]) and shown[1] > 0.1 and shown[3] < 1
    assert 100 in axes.get_yticks() and 500 not in axes.get_yticks()


def test_two_scans_of_different_variants_stand_on_one_genome():
    layout = Genome.of((np.array([1, 1]), np.array([100, 200])), (np.array([1, 3, 3]), np.array([50, 10, 40])))
    assert list(layout.codes) == [1, 3] and layout.place([1, 1], [50, 200])[1] - layout.place([1], [50])[0] == 150
    above = Scan(np.array([1, 1]), np.array([100, 200]), np.array([1.0, 9.0]), 7.3)
    below = Scan(np.array([1, 3, 3]), np.array([50, 10, 40]), np.array([1.0, 2.0, 3.0]), 7.3)
    upper, lower = miami(above, below, ("one", "other")).axes
    assert upper.get_ylim()[0] == lower.get_ylim()[1] == 0 and upper.get_ylim()[1] == lower.get_ylim()[0] > 9
    assert [label.get_text() for label in upper.get_xticklabels()] == ["1", "3"]


def test_colours_go_to_the_traits_with_most_loci():
    names = ["b", "a", "a", "c", "d", "e", "f", "f"]
    loci = pd.DataFrame({"trait": names})
    several = Scan(np.array([1]), np.array([1]), np.array([1.0]), None, loci, trait_of=lambda rows: [])
    assert list(palette([several])) == ["a", "f"]  # of six traits those of several loci; ties by name
    few = Scan(np.array([1]), np.array([1]), np.array([1.0]), None, loci[:4], trait_of=lambda rows: [])
    assert list(palette([few])) == ["a", "b", "c"]
    assert palette([Scan(np.array([1]), np.array([1]), np.array([1.0]), None, loci)]) == {}


def test_spots_lie_where_the_points_are_drawn():
    figure = golden.FIGURES["manhattan"]()
    picture = golden.drawn(figure)
    high, wide = picture.shape[:2]
    marks = figure.marks()
    assert len(marks) == 4 and all(len(mark.boxes) == 2 for mark in marks)
    orange = np.argwhere(np.abs(picture - [0xE6, 0x9F, 0x00]).sum(axis=2) < 60)
    left, top, width, height = marks[0].boxes[0]
    y, x = (top + height / 2) * high, (left + width / 2) * wide
    assert np.abs(orange - [y, x]).sum(axis=1).min() <= 2
    assert marks[0].lines == (
        "APOE", "rs1, chr1:10,000,000", "p = 1e-14", "trait z001", "panel: hit: rs9", "nearest gene APOE",
    )  # fmt: skip


def test_few_points_of_a_curve_are_points_of_it_with_the_first_and_the_last():
    whole = exact_curve(golden.noise(5000, 4))
    few = few_points(whole)
    assert few.n == 5000 and len(few.expected) <= 250
    assert few.observed[0] == whole.observed[0] and few.expected[-1] == whole.expected[-1]
    rows = np.searchsorted(-whole.expected, -few.expected)
    np.testing.assert_array_equal(whole.observed[rows], few.observed)
    gaps = -np.diff(few.expected[50:])
    assert gaps.max() < 2 * whole.expected[0] / 200


def test_genes_do_not_cover_one_another():
    rng = np.random.default_rng(3)
    start = rng.integers(0, 2_900_000, 60)
    genes = pd.DataFrame({"start": start, "end": start + rng.integers(1000, 300_000, 60)})
    genes["gene"] = [f"GENE{'X' * (i % 9)}{i}" for i in range(60)]
    region = replace(golden.region(), genes=genes)
    rows = gene_rows(region, 7.2)
    drawn = [gene.gene for row in rows for _, _, gene in row]
    inside = genes[(genes["end"] >= region.start) & (genes["start"] <= region.end)]
    assert sorted(drawn) == sorted(inside["gene"]) and len(rows) < len(inside)
    for row in rows:
        assert all(one[1] < other[0] for one, other in itertools.pairwise(row))


def test_traits_that_are_alike_stand_together():
    values = np.array([[9.0, 0.0, 9.0, 0.0], [0.0, 7.0, 0.0, 7.0], [np.nan, 0.0, 0.0, 0.0]])
    rows = order(values, 20.0).tolist()
    assert abs(rows.index(0) - rows.index(2)) == abs(rows.index(1) - rows.index(3)) == 1
    assert order(values[:, :2], 20.0).tolist() == [0, 1]


def test_a_p_of_zero_is_drawn_a_little_above_all_others():
    y = np.array([1.0, np.inf, 20.0, np.nan])
    loci = pd.DataFrame(
        {"locus": [1], "code": [1], "start": [1], "end": [3], "lead_position": [2], "lead_snp": ["rs1"],
         "log10p": [np.inf]}
    )  # fmt: skip
    figure = manhattan(Scan(np.ones(4, int), np.arange(1, 5), y, 7.3, loci))
    assert 21.0 < figure.axes[0].get_ylim()[1] < 25.0
    golden.drawn(figure)
    assert figure.marks()[0].lines[2] == "p = 0" and len(figure.marks()[0].boxes) == 2
