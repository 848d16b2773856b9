"""Genotypes of a window: frequencies, LD that decays, packing, pruning; components that show ancestry."""

from __future__ import annotations

import numpy as np
import pytest
from bed_reader import open_bed

from hpc.errors import InputError
from udipdist.cohort import genomes, seeds
from udipdist.cohort.components import principal_components
from udipdist.cohort.genomes import GenomeJob, WindowGenotypes, ld_prune, pack, recombination_map, windows
from udipdist.cohort.pedigree import make_pedigree
from udipdist.config import GenomeConfig


def job(place, people: int, **keys) -> GenomeJob:
    config = GenomeConfig(**keys)
    pedigree = make_pedigree(people, config.related_share, seeds.stream(1, "pedigree"))
    return GenomeJob(place, config, pedigree, [20] * len(windows(config)), seed=1)


def unpack(rows: np.ndarray, people: int, tmp_path) -> np.ndarray:
    """int8 [S, N] by bed-reader, -127 missing."""
    path = tmp_path / "x.bed"
    path.write_bytes(bytes([0x6C, 0x1B, 1]) + rows.tobytes())
    with open_bed(path, iid_count=people, sid_count=len(rows), properties={}) as bed:
        return bed.read(dtype="int8", num_threads=1).T


@pytest.mark.parametrize("people", [1, 4, 7, 33])
def test_bed_reader_reads_back_what_was_packed(people, tmp_path):
    counts = np.random.default_rng(people).integers(-1, 3, (50, people)).astype(np.int8)
    np.testing.assert_array_equal(unpack(pack(counts), people, tmp_path), np.where(counts < 0, -127, counts))


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    """One full window of 500 people: the job, its rows as counts, its WindowGenotypes."""
    place = tmp_path_factory.mktemp("genomes")
    one = job(place, 500, chromosomes=2, windows_per_chromosome=1, missing=0.01)
    facts = one.part(0)
    rows = np.fromfile(one.bed_rows(0), np.uint8).reshape(facts["variants"], -1)
    return one, unpack(rows, 500, place), WindowGenotypes.load(one.summary(0))


def test_variants_pass_the_filters(window):
    one, counts, genotypes = window
    stretch = one.windows[0]
    assert 200 < len(genotypes.position) <= 300
    assert (np.diff(genotypes.position) > 0).all()
    assert stretch.start <= genotypes.position[0] and genotypes.position[-1] < stretch.stop
    assert np.minimum(genotypes.allele_frequency, 1 - genotypes.allele_frequency).min() >= one.config.min_maf
    seen = np.ma.masked_less(counts, 0)
    np.testing.assert_allclose(seen.mean(1) / 2, genotypes.allele_frequency, atol=0.02)
    assert abs((counts < 0).mean() - 0.01) < 0.001


def test_causal_variants_are_those_of_the_bed(window):
    _, counts, genotypes = window
    rows = np.r_[genotypes.candidate, genotypes.polygenic]
    assert len(rows) == 21 == len(set(rows.tolist()))
    known = counts[rows] >= 0
    np.testing.assert_array_equal(counts[rows][known], genotypes.causal_counts[known])
    frequency = genotypes.causal_counts[0].mean() / 2
    assert min(frequency, 1 - frequency) >= genomes.PLANTED_MAF


def test_ld_decays_with_distance(window):
    _, counts, genotypes = window
    maf = np.minimum(genotypes.allele_frequency, 1 - genotypes.allele_frequency)
    common = np.flatnonzero(maf > 0.05)
    r2 = np.corrcoef(np.where(counts < 0, 0, counts)[common]) ** 2
    at = genotypes.position[common]
    distance = np.abs(at[:, None] - at)
    near, middle, far = (
        r2[(distance > low) & (distance <= high)].mean()
        for low, high in ((0, 10_000), (50_000, 150_000), (500_000, 1_000_000))
    )
    assert near > 0.2 > middle > 2 * far
    assert far < 0.05


def test_pruned_variants_are_independent():
    rng = np.random.default_rng(2)
    blocks = [np.repeat(rng.integers(0, 3, (1, 200)), 5, 0) for _ in range(6)]
    counts = np.concatenate([*blocks, np.ones((1, 200))]).astype(np.int8)
    kept = ld_prune(counts, np.arange(200) < 150, rng)
    assert sorted({int(i) // 5 for i in kept}) == [0, 1, 2, 3, 4, 5]
    assert len(kept) == 6  # one a block, and not the constant one
    r2 = np.corrcoef(counts[kept][:, :150]) ** 2 - np.eye(6)
    assert r2.max() < genomes.PC_MAX_R2


@pytest.mark.parametrize("length", [1_000, 30_000, 1_000_000])
def test_recombination_map_keeps_the_mean_rate(length):
    rates = recombination_map(length, np.random.default_rng(1))
    assert rates.sequence_length == length
    if length >= 30_000:
        np.testing.assert_allclose(rates.mean_rate, genomes.CROSSOVER_RATE, rtol=0.02)


def test_components_separate_ancestries(tmp_path):
    many = job(tmp_path, 400, chromosomes=6, windows_per_chromosome=2, window_bp=500_000, variants_per_mb=200)
    for i in range(many.n_parts):
        many.part(i)
    counts = np.concatenate([WindowGenotypes.load(many.summary(i)).pc_counts for i in range(many.n_parts)])
    pedigree = many.pedigree
    scores = principal_components(counts, pedigree.unrelated, 10)
    assert scores.shape == (400, 10)
    np.testing.assert_allclose(scores[pedigree.unrelated].std(0), 1)
    ancestry = pedigree.ancestry[pedigree.observed]
    for population, least in ((3, 0.75), (2, 0.5)):  # AFR, SAS; a whole cohort has ten times the variants
        fit = np.linalg.lstsq(np.c_[np.ones(400), scores], ancestry[:, population], rcond=None)[0]
        r = np.corrcoef(np.c_[np.ones(400), scores] @ fit, ancestry[:, population])[0, 1]
        assert r**2 > least
    related = ~pedigree.unrelated
    assert related.any() and np.abs(scores[related].mean(0)).max() < 0.6


def test_too_few_variants_for_components_are_refused():
    with pytest.raises(InputError, match="10 principal components need more than 10 .*there are 8 and 50"):
        principal_components(np.ones((8, 60), np.int8), np.arange(60) < 50, 10)
