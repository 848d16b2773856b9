"""Families: kinship of known relations, and gene dropping that agrees with it."""

from __future__ import annotations

import numpy as np
import pytest

from udipdist.cohort import pedigree as module
from udipdist.cohort.pedigree import FAMILY_KINDS, GeneDrop, Meioses, Pedigree, chromosome_meioses, make_pedigree


def of_kind(kind: str, families: int = 1) -> Pedigree:
    builder = module._Builder()
    for _ in range(families):
        builder.add_family(kind, 0, 0, second_child=False)
    arrays = (builder.father, builder.mother, builder.population, builder.family, builder.seen)
    return Pedigree(*(np.array(a, np.int32) for a in arrays))


@pytest.mark.parametrize(
    ("kind", "kinships"),
    [
        ("sibs2", [1 / 4]),
        ("sibs4", [1 / 4] * 6),
        ("trio", [1 / 4, 1 / 4]),
        ("parent", [1 / 4]),
        ("half", [1 / 8]),
        ("avuncular", [1 / 8]),
        ("cousins", [1 / 16]),
    ],
)
def test_kinship_of_known_relations(kind, kinships):
    rows, columns, values = of_kind(kind).relatives
    assert values.tolist() == kinships
    assert (rows > columns).all()


def test_kinship_of_inbred_child():
    # 0, 1 founders; 2, 3 their children; 4 child of the two sibs: 1/2 (1 + kinship of sibs) with itself
    father, mother = np.array([-1, -1, 0, 0, 2]), np.array([-1, -1, 1, 1, 3])
    kinship = module.family_kinship(father, mother)
    assert kinship[4, 4] == (1 + 0.25) / 2
    assert kinship[4, 2] == (0.5 + 0.25) / 2


@pytest.mark.parametrize("kind", FAMILY_KINDS)
def test_dropped_genes_show_the_kinship_of_the_pedigree(kind):
    """The covariance of relatives over many unlinked sites of frequency 1/2 against the coefficient."""
    families, sites = 12, 400
    pedigree = of_kind(kind, families)
    rows, columns, values = pedigree.relatives
    founders = int((pedigree.father < 0).sum())
    rng = np.random.default_rng(1)
    shared = np.zeros(len(rows))
    n = len(pedigree.father)
    for _ in range(sites):
        marks = rng.integers(0, 2, (1, 2 * founders)).astype(np.int8)
        phase = rng.integers(0, 2, (n, 2), dtype=np.uint8)
        drop = GeneDrop(pedigree, Meioses(phase, np.empty(0), np.empty(0, np.int64)))
        counts = drop.counts(marks, np.array([5.0]))[0].astype(float) - 1  # mean 0, variance 1/2
        shared += counts[rows] * counts[columns] / 0.5
    # correlation of counts is twice the kinship
    assert abs((shared / sites / 2).mean() - values.mean()) < 4 * 0.5 / np.sqrt(sites * len(rows))


def test_blocks_of_variants_do_not_change_the_result():
    rng = np.random.default_rng(3)
    pedigree = make_pedigree(60, 0.8, rng)
    founders = int((pedigree.father < 0).sum())
    haplotypes = rng.integers(0, 2, (90, 2 * founders)).astype(np.int8)
    position = np.sort(rng.choice(5_000_000, 90, replace=False))
    meioses = chromosome_meioses(len(pedigree.father), [(0, 5_000_000)], np.random.default_rng(4))[0]
    assert len(meioses.position) > 5
    whole = GeneDrop(pedigree, meioses).counts(haplotypes, position)
    drop = GeneDrop(pedigree, meioses)
    pieces = [drop.counts(haplotypes[a : a + 7], position[a : a + 7]) for a in range(0, 90, 7)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_a_crossover_switches_the_grandparent():
    pedigree = of_kind("parent")  # 0 observed father, 1 mother, 2 child
    haplotypes = np.tile(np.array([[1, 0, 0, 0]], np.int8), (4, 1))  # only the father's first haplotype carries A1
    crossing = Meioses(np.zeros((3, 2), np.uint8), np.array([25.0]), np.array([2 * 2]))
    counts = GeneDrop(pedigree, crossing).counts(haplotypes, np.array([10, 20, 30, 40]))
    assert counts[:, 0].tolist() == [1, 1, 1, 1]
    assert counts[:, 1].tolist() == [1, 1, 0, 0]


def test_windows_far_apart_segregate_independently_and_near_ones_together():
    spans = [(0, 1_000), (2_000, 3_000), (300_000_000, 300_001_000)]
    first, near, far = (m.phase for m in chromosome_meioses(4_000, spans, np.random.default_rng(5)))
    assert (first == near).mean() > 0.999
    assert abs((first == far).mean() - 0.5) < 0.02


@pytest.mark.parametrize("share", [0.0, 0.35, 1.0])
def test_size_and_share_of_relatives(share):
    pedigree = make_pedigree(400, share, np.random.default_rng(6))
    assert len(pedigree.observed) == len(set(pedigree.observed.tolist())) == 400
    rows, columns, _ = pedigree.relatives
    assert abs(len({*rows.tolist(), *columns.tolist()}) / 400 - share) < 0.06
    chosen = pedigree.unrelated
    assert not (chosen[rows] & chosen[columns]).any()
    lonely = np.setdiff1d(np.arange(400), np.r_[rows, columns])
    assert chosen[lonely].all()


def test_ancestry_of_a_child_is_the_mean_of_its_parents():
    pedigree = make_pedigree(300, 0.5, np.random.default_rng(7))
    child = np.flatnonzero(pedigree.father >= 0)
    a = pedigree.ancestry
    np.testing.assert_array_equal(a[child], (a[pedigree.father[child]] + a[pedigree.mother[child]]) / 2)
    np.testing.assert_allclose(a.sum(1), 1)
