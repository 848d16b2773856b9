"""What moves the brain factors: planted loci, polygenic background, household, covariates, ancestry, noise.

Without covariates and ancestry a factor has a variance of about 1; that is the unit of every share of variance here.

Shapes: N people, K factors, W windows, Q populations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hpc.errors import ConfigError
from udipdist.cohort.factors import NAMES, SHARES
from udipdist.cohort.genomes import Window, WindowGenotypes
from udipdist.cohort.pedigree import POPULATIONS
from udipdist.cohort.people import People
from udipdist.config import SimulateConfig, TraitConfig

MOST_PLANTED = 0.5  # largest share of a factor that planted loci explain together
LEAST_NOISE = 0.2
STRATIFIED = 0.5  # share of factors whose mean differs between populations
STRATIFICATION_BY_POPULATION = np.array([0.0, 0.5, 1.0, 1.0])  # SD of the shifts, relative


@dataclass(frozen=True)
class Truth:
    """How the factors of the tested people came about."""

    loci: pd.DataFrame  # locus chr pos snp factor beta r2 role
    windows: pd.DataFrame  # chr start end planted polygenic_r2 null
    genetic: np.ndarray  # float64 [N, K]: planted and polygenic
    household_and_noise: np.ndarray  # float64 [N, K]
    ancestry_shift: np.ndarray  # float64 [Q, K]


def null_chromosomes(config: SimulateConfig) -> list[int]:
    """The last chromosomes, without any effect."""
    last = config.genomes.chromosomes
    return list(range(last - config.traits.null_chromosomes + 1, last + 1))


def polygenic_per_window(config: SimulateConfig, places: list[Window]) -> list[int]:
    """How many polygenic variants each window carries: evenly spread, none on null chromosomes."""
    null = null_chromosomes(config)
    active = [i for i, window in enumerate(places) if window.chromosome not in null]
    counts = [0] * len(places)
    for i, share in zip(active, np.array_split(np.arange(config.traits.polygenic_variants), len(active)), strict=True):
        counts[i] = len(share)
    return counts


def build(
    config: SimulateConfig,
    places: list[Window],
    genotypes: list[WindowGenotypes],
    people: People,
    rng: np.random.Generator,
) -> Truth:
    """Draw the architecture and the genetic, household and noise parts of the tested people's factors.

    Raises ConfigError where the loci do not fit into the windows or the factors.
    """
    traits, n = config.traits, len(people.table)
    loci, planted = _plant(config, places, genotypes, n, rng)
    polygenic, polygenic_r2 = _polygenic(traits, genotypes, n, rng)
    household = rng.standard_normal((people.family.max() + 1, len(NAMES)))[people.family]
    left = np.clip(1 - planted.var(0) - traits.polygenic_h2 - traits.household, LEAST_NOISE, None)
    noise = np.sqrt(left) * rng.standard_normal((n, len(NAMES)))
    shift = (
        traits.stratification
        * STRATIFICATION_BY_POPULATION[:, None]
        * rng.standard_normal((len(POPULATIONS), len(NAMES)))
    )
    shift *= rng.random(len(NAMES)) < STRATIFIED
    null = null_chromosomes(config)
    where = pd.DataFrame(
        {
            "chr": [w.chromosome for w in places],
            "start": [w.start for w in places],
            "end": [w.stop for w in places],
            "planted": np.isin(np.arange(len(places)), loci["window"].to_numpy()),
            "polygenic_r2": polygenic_r2,
            "null": [w.chromosome in null for w in places],
        }
    )
    return Truth(
        loci.drop(columns="window"), where, planted + polygenic, np.sqrt(traits.household) * household + noise, shift
    )


def tested_factors(truth: Truth, people: People) -> np.ndarray:
    """Factor values of the tested people, float64 [N, K]."""
    return truth.genetic + truth.household_and_noise + people.ancestry @ truth.ancestry_shift + people.covariate_part()


def training_factors(truth: Truth, tested: People, training: People, rng: np.random.Generator) -> np.ndarray:
    """Factor values [N, K] of people without genotypes: the genetic part is drawn with the mean of their ancestry and
    the variance that the tested people have."""
    weights, *_ = np.linalg.lstsq(tested.ancestry, truth.genetic, rcond=None)
    within = (truth.genetic - tested.ancestry @ weights).var(0) + truth.household_and_noise.var(0)
    own = np.sqrt(within) * rng.standard_normal((len(training.table), len(NAMES)))
    return own + training.ancestry @ (weights + truth.ancestry_shift) + training.covariate_part()


def mixed_phenotypes(factors_NK: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """A stand-in for latents, float32 [N, count]: each mixes about three factors (70 % of its variance) and noise."""
    weights = rng.standard_normal((len(NAMES), count)) * (rng.random((len(NAMES), count)) < 3 / len(NAMES))
    weights[rng.integers(0, len(NAMES), count), np.arange(count)] += 1.0
    mixed = (factors_NK - factors_NK.mean(0)) / factors_NK.std(0) @ weights
    mixed /= mixed.std(0)
    noise = rng.standard_normal(mixed.shape)
    return (np.sqrt(0.7) * mixed + np.sqrt(0.3) * noise).astype(np.float32)


def _plant(
    config: SimulateConfig, places: list[Window], genotypes: list[WindowGenotypes], n: int, rng: np.random.Generator
) -> tuple[pd.DataFrame, np.ndarray]:
    """The planted loci and what they add to the factors [N, K]."""
    traits, null = config.traits, null_chromosomes(config)
    usable = [i for i, w in enumerate(places) if w.chromosome not in null and genotypes[i].candidate >= 0]
    if len(usable) < traits.loci:
        raise ConfigError(
            f"traits.loci={traits.loci}: only {len(usable)} windows outside the null chromosomes have a variant common "
            "enough to plant; give fewer loci, or more genomes.variants_per_mb or genomes.windows_per_chromosome"
        )
    chosen = sorted(rng.choice(usable, traits.loci, replace=False).tolist())
    popularity = np.array(list(SHARES.values())) ** 0.25
    used, added, rows = np.zeros(len(NAMES)), np.zeros((n, len(NAMES))), []
    for locus, window in enumerate(chosen, 1):
        r2 = float(np.exp(rng.uniform(np.log(traits.ncp_min), np.log(traits.ncp_max)))) / n
        moved = [(_with_room(used, r2, popularity, rng), r2, "primary")]
        used[moved[0][0]] += r2
        if rng.random() < traits.pleiotropy:
            others = popularity * (np.arange(len(NAMES)) != moved[0][0])
            moved.append((_with_room(used, r2 / 2, others, rng), r2 / 2, "pleiotropic"))
            used[moved[1][0]] += r2 / 2
        counts = genotypes[window].causal_counts[0].astype(np.float64)
        place = places[window].chromosome, int(genotypes[window].position[genotypes[window].candidate])
        for k, share, role in moved:
            beta = float(np.sqrt(share / counts.var()) * rng.choice([-1, 1]))
            added[:, k] += beta * (counts - counts.mean())
            rows.append((f"L{locus:03d}", *place, snp_name(*place), NAMES[k], beta, share, role, window))
    columns = ["locus", "chr", "pos", "snp", "factor", "beta", "r2", "role", "window"]
    return pd.DataFrame(rows, columns=columns), added


def _with_room(used: np.ndarray, r2: float, popularity: np.ndarray, rng: np.random.Generator) -> int:
    """A factor that can take `r2` more, by popularity. Raises ConfigError where none can."""
    weights = popularity * (used + r2 <= MOST_PLANTED)
    if weights.sum() == 0:
        raise ConfigError(
            f"traits.loci, traits.ncp_max: the planted loci explain more than {MOST_PLANTED:.0%} of every factor; "
            "give fewer loci, a smaller ncp_max or more gwas="
        )
    return int(rng.choice(len(NAMES), p=weights / weights.sum()))


def _polygenic(
    traits: TraitConfig, genotypes: list[WindowGenotypes], n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The polygenic part [N, K], and the largest variance over factors that each window gives [W]."""
    total, variance_WK = np.zeros((n, len(NAMES))), np.zeros((len(genotypes), len(NAMES)))
    for w, window in enumerate(genotypes):
        counts = window.causal_counts[1:].astype(np.float32)
        effects = rng.standard_normal((len(counts), len(NAMES))).astype(np.float32)
        scale = counts.std(1, keepdims=True)
        part = ((counts - counts.mean(1, keepdims=True)) / np.where(scale > 0, scale, 1)).T @ effects
        total += part
        variance_WK[w] = part.var(0)
    sd = total.std(0)
    unit = np.sqrt(traits.polygenic_h2) / np.where(sd > 0, sd, 1)
    return (total - total.mean(0)) * unit, (variance_WK * unit**2).max(1)


def snp_name(chromosome: int, position: int) -> str:
    """The simulated id of a variant."""
    return f"sim{chromosome}_{position}"
