"""Genomes: coalescent windows on whole chromosomes, passed down the pedigree and packed as PLINK .bed.

Contiguous chromosomes cost quadratically more than windows of the same total length, and association needs local LD
only; so each chromosome holds a few windows far apart, and meioses run over the whole chromosome.

Shapes: F founders, N observed people, S variants of a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from hpc.compiled import njit
from hpc.files import publish
from udipdist.cohort import seeds
from udipdist.cohort.pedigree import POPULATIONS, GeneDrop, Meioses, Pedigree, chromosome_meioses
from udipdist.config import GenomeConfig

if TYPE_CHECKING:
    import msprime
    import tskit

FIRST_BP = 10_000_000  # start of the first window of a chromosome
MUTATION_RATE = 1.3e-8
CROSSOVER_RATE = 1.1e-8
BLOCK = 512  # variants held as haplotypes at once
COMMON_MAF = 0.05  # of variants that carry polygenic effects or describe ancestry
PLANTED_MAF = 0.08  # of variants that carry a locus, in all people and in the largest population
PC_MAX_R2, PC_CANDIDATES, PC_PER_WINDOW = 0.1, 300, 40


@dataclass(frozen=True)
class Window:
    """A simulated stretch: start <= position < stop, in base pairs."""

    chromosome: int
    start: int
    stop: int


def windows(config: GenomeConfig) -> list[Window]:
    """The windows in genome order."""
    starts = [FIRST_BP + i * config.spacing_bp for i in range(config.windows_per_chromosome)]
    return [
        Window(chromosome, start, start + config.window_bp)
        for chromosome in range(1, config.chromosomes + 1)
        for start in starts
    ]


def demography() -> msprime.Demography:
    """Four populations with Fst of about .004 (EURN-EURS), .06 (with SAS) and .17 (with AFR), recent growth and
    migration; an out-of-Africa history in the manner of Gutenkunst et al. 2009, times in generations."""
    import msprime

    model = msprime.Demography()
    model.add_population(name="AFR", initial_size=15_000)
    for name in ("EURN", "EURS", "SAS"):
        model.add_population(name=name, initial_size=60_000, growth_rate=0.005)
    model.add_population(name="EUR", initial_size=100_000 * np.exp(-0.005 * 220), growth_rate=0.005)
    model.add_population(name="OOA", initial_size=2_500)
    model.add_population(name="ANC", initial_size=12_000)
    for a, b, rate in (("EURN", "EURS", 5e-5), ("EURS", "SAS", 1e-4), ("EURS", "AFR", 2e-5)):
        model.set_symmetric_migration_rate([a, b], rate)
    model.add_population_split(time=220, derived=["EURN", "EURS"], ancestral="EUR")
    for other, rate in (("SAS", 1e-4), ("AFR", 3e-5)):
        model.add_symmetric_migration_rate_change(time=220.01, populations=["EUR", other], rate=rate)
    model.add_population_split(time=700, derived=["EUR", "SAS"], ancestral="OOA")
    model.add_population_split(time=2000, derived=["AFR", "OOA"], ancestral="ANC")
    model.sort_events()
    return model


def recombination_map(length: int, rng: np.random.Generator) -> msprime.RateMap:
    """Hotspots of 2 kb, one in about 45 kb, hold three quarters of the crossovers: that makes LD blocks."""
    width, share = 2_000, 0.75
    count = min(max(1, length // 45_000), max(1, length // width - 1))
    slots = np.sort(rng.choice(max(1, length // width - 1), count, replace=False))
    heat = rng.gamma(1.0, 1.0, count)
    heat *= CROSSOVER_RATE * share * length / (heat.sum() * width)
    background = CROSSOVER_RATE * (1 - share)
    rates = np.full(-(-length // width), background)
    rates[slots] += heat
    edges = np.minimum(np.arange(len(rates) + 1) * width, length)
    import msprime

    return msprime.RateMap(position=edges, rate=rates)


def founder_sites(window: Window, founders: dict[str, int], config: GenomeConfig, seed: int) -> tskit.TreeSequence:
    """The coalescent of the founders of one window; only sites that pass the frequency filter and the thinning."""
    label = ("window", window.chromosome, window.start)
    rng = seeds.stream(seed, *label, "sites")
    length = window.stop - window.start
    import msprime

    tree = msprime.sim_ancestry(
        samples={name: founders[name] for name in POPULATIONS if founders[name]},
        demography=demography(),
        recombination_rate=recombination_map(length, seeds.stream(seed, *label, "map")),
        random_seed=seeds.integer(seed, *label, "ancestry"),
    )
    tree = msprime.sim_mutations(
        tree,
        rate=MUTATION_RATE,
        random_seed=seeds.integer(seed, *label, "mutations"),
        model=msprime.BinaryMutationModel(),
    )
    n = tree.num_samples
    frequency = tree.sample_count_stat(
        [tree.samples()], lambda x: x / n, 1, windows="sites", polarised=True, span_normalise=False, strict=False
    )[:, 0]
    kept = np.flatnonzero(np.minimum(frequency, 1 - frequency) >= 0.8 * config.min_maf)  # the cohort's filter follows
    most = length if config.variants_per_mb is None else max(1, round(config.variants_per_mb * length / 1e6))
    if len(kept) > most:
        kept = rng.choice(kept, most, replace=False)
    return tree.delete_sites(np.setdiff1d(np.arange(tree.num_sites), kept))


@dataclass(frozen=True)
class WindowGenotypes:
    """What the rest of the simulation needs to know about the variants of one window."""

    position: np.ndarray  # int64 [S]
    allele_frequency: np.ndarray  # float64 [S], of A1 among all people, no call missing
    candidate: int  # the variant to plant a locus at, as a row; -1 where none is common enough
    polygenic: np.ndarray  # int64 [G], rows of variants with polygenic effects
    causal_counts: np.ndarray  # int8 [1 + G, N]: complete A1 counts of the candidate (zeros if none), then polygenic
    pc_counts: np.ndarray  # int8 [L, N]: A1 counts of LD-pruned common variants

    def save(self, path: Path) -> None:
        """Publish as .npz."""
        with publish(path) as partial, partial.open("wb") as file:
            np.savez(file, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> WindowGenotypes:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            fields = {name: arrays[name] for name in arrays.files}
        return cls(**fields | {"candidate": int(fields["candidate"])})


@dataclass
class GenomeJob:
    """The windows as parts: each writes its own .bed rows (without magic) and a WindowGenotypes below `place`."""

    place: Path
    config: GenomeConfig
    pedigree: Pedigree
    polygenic_per_window: list[int]
    seed: int
    unit: str = "windows"

    @cached_property
    def windows(self) -> list[Window]:
        """The windows in genome order."""
        return windows(self.config)

    @property
    def n_parts(self) -> int:
        """One part a window."""
        return len(self.windows)

    def size_of_part(self, index: int) -> int:
        """One window."""
        return 1

    def bed_rows(self, index: int) -> Path:
        """The packed genotypes of a window."""
        return self.place / f"window-{index:04d}.rows"

    def summary(self, index: int) -> Path:
        """The WindowGenotypes of a window."""
        return self.place / f"window-{index:04d}.npz"

    def part(self, index: int) -> dict[str, Any]:
        """Simulate window `index`."""
        with threadpool_limits(1):  # products of matrices have the same bits whatever the number of threads
            return self._part(index)

    def _part(self, index: int) -> dict[str, Any]:
        window = self.windows[index]
        rng = seeds.stream(self.seed, "calls", window.chromosome, window.start)
        kept = []
        with publish(self.bed_rows(index)) as partial, partial.open("wb") as file:
            for position, counts in self._blocks(window):
                frequency = counts.mean(1, dtype=np.float64) / 2
                minor = np.minimum(frequency, 1 - frequency)
                seen = minor >= max(self.config.min_maf, 1e-9)
                common = minor >= COMMON_MAF
                kept.append((position[seen], frequency[seen], common[seen], counts[seen & common]))
                counts = counts[seen]
                pack(_with_missing(counts, self.config.missing, rng)).tofile(file)
        position, frequency, common, counts = (np.concatenate(blocks) for blocks in zip(*kept, strict=True))
        genotypes = self._choose(index, position, frequency, np.flatnonzero(common), counts)
        genotypes.save(self.summary(index))
        return {"variants": len(position)}

    def _blocks(self, window: Window) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Positions and complete A1 counts of the observed people, BLOCK variants at a time."""
        drop = GeneDrop(self.pedigree, self._meioses(window))
        tree = founder_sites(window, self.pedigree.founders_by_population, self.config, self.seed)
        position = tree.tables.sites.position.astype(np.int64) + window.start
        haplotypes = np.empty((BLOCK, tree.num_samples), np.int8)
        filled = 0
        for variant in tree.variants(copy=False):
            haplotypes[filled] = variant.genotypes
            filled += 1
            if filled == BLOCK or variant.site.id + 1 == tree.num_sites:
                here = position[variant.site.id + 1 - filled : variant.site.id + 1]
                yield here, drop.counts(haplotypes[:filled], here)
                filled = 0
        if tree.num_sites == 0:
            yield position, np.empty((0, len(self.pedigree.observed)), np.int8)

    def _meioses(self, window: Window) -> Meioses:
        same = [w for w in self.windows if w.chromosome == window.chromosome]
        rng = seeds.stream(self.seed, "meioses", window.chromosome)
        drawn = chromosome_meioses(len(self.pedigree.father), [(w.start, w.stop) for w in same], rng)
        return drawn[same.index(window)]

    def _choose(
        self, index: int, position: np.ndarray, frequency: np.ndarray, common_rows: np.ndarray, counts: np.ndarray
    ) -> WindowGenotypes:
        """Which variants may carry effects or describe ancestry; `counts` are those of `common_rows`."""
        window = self.windows[index]
        rng = seeds.stream(self.seed, "choice", window.chromosome, window.start)
        main = self.pedigree.ancestry[self.pedigree.observed, 0] == 1
        within = counts[:, main].mean(1) / 2 if main.any() else frequency[common_rows]
        margin = 0.15 * (window.stop - window.start)
        at, af = position[common_rows], frequency[common_rows]
        fit = (np.minimum(af, 1 - af) >= PLANTED_MAF) & (np.minimum(within, 1 - within) >= PLANTED_MAF)
        fit = np.flatnonzero(fit & (at >= window.start + margin) & (at < window.stop - margin))
        planted = int(rng.choice(fit)) if len(fit) else -1
        others = np.setdiff1d(np.arange(len(common_rows)), [planted])
        polygenic = np.sort(rng.choice(others, min(self.polygenic_per_window[index], len(others)), replace=False))
        first = counts[[planted]] if len(fit) else np.zeros((1, counts.shape[1]), np.int8)
        return WindowGenotypes(
            position=position,
            allele_frequency=frequency,
            candidate=int(common_rows[planted]) if len(fit) else -1,
            polygenic=common_rows[polygenic],
            causal_counts=np.concatenate([first, counts[polygenic]]),
            pc_counts=counts[ld_prune(counts, self.pedigree.unrelated, rng)],
        )


def ld_prune(counts_SN: np.ndarray, unrelated_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows of variants with pairwise r^2 < PC_MAX_R2 among unrelated people, ascending; greedy, in random order."""
    rows = rng.permutation(len(counts_SN))[:PC_CANDIDATES]
    x = counts_SN[rows][:, unrelated_N].astype(np.float32)
    x -= x.mean(1, keepdims=True)
    size = np.sqrt((x * x).sum(1, keepdims=True))
    rows, x = rows[size[:, 0] > 0], (x / np.where(size > 0, size, 1))[size[:, 0] > 0]
    r2 = (x @ x.T) ** 2
    kept: list[int] = []
    for i in range(len(rows)):
        if len(kept) < PC_PER_WINDOW and (not kept or r2[i, kept].max() < PC_MAX_R2):
            kept.append(i)
    return np.sort(rows[kept])


def _with_missing(counts: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A copy of `counts` in which about `share` of the calls are -1 (missing)."""
    counts = counts.copy()
    calls = rng.binomial(counts.size, share) if share and counts.size else 0
    counts.reshape(-1)[rng.integers(0, max(counts.size, 1), calls)] = -1
    return counts


@njit(cache=True)
def pack(counts_SN):
    """A1 counts int8 [S, N] (-1 missing) -> rows of a PLINK 1 .bed, uint8 [S, ceil(N/4)].

    Two bits a call, the first in the lowest bits: 00 two A1, 01 missing, 10 one, 11 none.
    """
    s_count, n = counts_SN.shape
    rows = np.zeros((s_count, (n + 3) // 4), np.uint8)
    for s in range(s_count):
        for i in range(n):
            count = counts_SN[s, i]
            code = 0 if count == 2 else 2 if count == 1 else 3 if count == 0 else 1
            rows[s, i // 4] |= np.uint8(code << (2 * (i % 4)))
    return rows
