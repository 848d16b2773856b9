"""Families: who descends from whom, their ancestry and kinship, and how chromosomes pass down (gene dropping).

Shapes: n individuals of the pedigree (founders and unobserved parents among them), N observed people, Q populations,
F founders, S variants.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hpc.compiled import njit

# Populations of the founders and their shares, in the order of the founders' haplotypes.
POPULATIONS = ("EURN", "EURS", "SAS", "AFR")
SHARES = (0.62, 0.25, 0.08, 0.05)
MIXED_COUPLES = 0.05  # couples whose two populations are drawn independently
ADMIXED_SINGLES = 0.04  # people without relatives whose parents are drawn so
RATE = 1.2e-8  # crossovers per bp and meiosis (Kong et al. 2010)

# Kinds of family and their shares: sibs, a child with both or one parent, cousins, half sibs, uncle/aunt.
FAMILY_KINDS = {
    "sibs2": 0.37, "sibs3": 0.13, "sibs4": 0.06, "trio": 0.10, "parent": 0.10, "cousins": 0.12, "half": 0.06,
    "avuncular": 0.06,
}  # fmt: skip


@dataclass(frozen=True)
class Pedigree:
    """Individuals in an order where parents come first. `observed` lists the cohort's people in the order of .fam."""

    father: np.ndarray  # int32 [n], -1 for founders
    mother: np.ndarray  # int32 [n]
    population: np.ndarray  # int8 [n], index into POPULATIONS; -1 for descendants
    family: np.ndarray  # int32 [n]
    observed: np.ndarray  # int32 [N]

    @cached_property
    def ancestry(self) -> np.ndarray:
        """Expected share of each population in each individual's genome, float64 [n, Q]."""
        shares = np.zeros((len(self.father), len(POPULATIONS)))
        for i, (father, mother) in enumerate(zip(self.father, self.mother, strict=True)):
            if father < 0:
                shares[i, self.population[i]] = 1.0
            else:
                shares[i] = (shares[father] + shares[mother]) / 2
        return shares

    @cached_property
    def founder_slot(self) -> np.ndarray:
        """Place of each founder among the F founders sorted by population, int32 [n]; -1 for descendants."""
        slot = np.full(len(self.father), -1, np.int32)
        founders = np.flatnonzero(self.father < 0)
        slot[founders[np.argsort(self.population[founders], kind="stable")]] = np.arange(len(founders))
        return slot

    @cached_property
    def founders_by_population(self) -> dict[str, int]:
        """How many founders each population gives."""
        counts = np.bincount(self.population[self.father < 0], minlength=len(POPULATIONS))
        return dict(zip(POPULATIONS, counts.tolist(), strict=True))

    @cached_property
    def relatives(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs of observed people with kinship > 0 and their coefficient: row > column (places in `observed`)."""
        place = np.full(len(self.father), -1)
        place[self.observed] = np.arange(len(self.observed))
        starts = np.flatnonzero(np.r_[True, np.diff(self.family) != 0])
        rows, columns, values = [], [], []
        for start, stop in zip(starts, np.r_[starts[1:], len(self.family)], strict=True):
            if stop - start == 1:
                continue
            seen = np.flatnonzero(place[start:stop] >= 0)
            kinship = family_kinship(self.father[start:stop] - start, self.mother[start:stop] - start)
            for a, i in enumerate(seen):
                for j in seen[:a]:
                    if kinship[i, j] > 0:
                        pair = sorted((place[start + i], place[start + j]))
                        rows.append(pair[1]), columns.append(pair[0]), values.append(kinship[i, j])
        order = np.lexsort((columns, rows))
        return np.array(rows, int)[order], np.array(columns, int)[order], np.array(values, float)[order]

    @cached_property
    def unrelated(self) -> np.ndarray:
        """A largest-first choice of people without any relative among the chosen: bool [N]."""
        rows, columns, _ = self.relatives
        n = len(self.observed)
        neighbours: dict[int, list[int]] = {}
        for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
            neighbours.setdefault(i, []).append(j)
            neighbours.setdefault(j, []).append(i)
        chosen = np.ones(n, bool)
        chosen[list(neighbours)] = False
        for i in sorted(neighbours, key=lambda i: (len(neighbours[i]), i)):
            chosen[i] = not any(chosen[j] for j in neighbours[i])
        return chosen


def family_kinship(father: np.ndarray, mother: np.ndarray) -> np.ndarray:
    """Kinship coefficients of one family by the recursion over generations (Thompson 1986); negative: a founder."""
    n = len(father)
    kinship = np.zeros((n, n))
    for i in range(n):
        f, m = father[i], mother[i]
        if f < 0:
            kinship[i, i] = 0.5
            continue
        kinship[i, :i] = kinship[:i, i] = (kinship[f, :i] + kinship[m, :i]) / 2
        kinship[i, i] = (1 + kinship[f, m]) / 2
    return kinship


class _Builder:
    """Grows the lists of a pedigree."""

    def __init__(self) -> None:
        self.father: list[int] = []
        self.mother: list[int] = []
        self.population: list[int] = []
        self.family: list[int] = []
        self.seen: list[int] = []
        self.families = 0

    def founder(self, population: int, observed: bool = False) -> int:
        return self._add(-1, -1, population, observed)

    def child(self, father: int, mother: int, observed: bool = True) -> int:
        return self._add(father, mother, -1, observed)

    def _add(self, father: int, mother: int, population: int, observed: bool) -> int:
        index = len(self.father)
        self.father.append(father)
        self.mother.append(mother)
        self.population.append(population)
        self.family.append(self.families)
        if observed:
            self.seen.append(index)
        return index

    def add_family(self, kind: str, p: int, q: int, second_child: bool) -> None:
        """One family of a kind; p and q are the populations of the couple's sides."""
        if kind.startswith("sibs"):
            a, b = self.founder(p), self.founder(q)
            for _ in range(int(kind[-1])):
                self.child(a, b)
        elif kind in ("trio", "parent"):
            self.child(self.founder(p, observed=True), self.founder(q, observed=kind == "trio"))
        elif kind == "half":
            a = self.founder(p)
            for _ in range(2):
                self.child(a, self.founder(q))
        else:
            a, b = self.founder(p), self.founder(p)
            first = self.child(a, b, observed=kind == "avuncular")
            second = self.child(a, b, observed=False)
            for parent in (first, second) if kind == "cousins" else (second,):
                spouse = self.founder(q)
                for _ in range(1 + second_child):
                    self.child(parent, spouse)
        self.families += 1

    def add_single(self, p: int, q: int | None) -> None:
        """Someone without relatives here; with `q` a child of two populations."""
        if q is None:
            self.founder(p, observed=True)
        else:
            self.child(self.founder(p), self.founder(q))
        self.families += 1


def make_pedigree(people: int, related_share: float, rng: np.random.Generator) -> Pedigree:
    """Families until `related_share` of the `people` are in one, then people alone, in random order."""
    builder = _Builder()
    kinds, shares = list(FAMILY_KINDS), np.array(list(FAMILY_KINDS.values()))
    most = 4  # no family is larger
    while len(builder.seen) < round(people * related_share) and len(builder.seen) + most <= people:
        p, q = _couple(rng, MIXED_COUPLES)
        builder.add_family(str(rng.choice(kinds, p=shares)), p, q, bool(rng.random() < 0.4))
    while len(builder.seen) < people:
        p, q = _couple(rng, ADMIXED_SINGLES)
        builder.add_single(p, None if p == q else q)
    return Pedigree(
        np.array(builder.father, np.int32),
        np.array(builder.mother, np.int32),
        np.array(builder.population, np.int8),
        np.array(builder.family, np.int32),
        rng.permutation(np.array(builder.seen, np.int32)),
    )


def singles_ancestry(people: int, rng: np.random.Generator) -> np.ndarray:
    """Ancestry shares [people, Q] of people without relatives, as `make_pedigree` draws them."""
    couples = np.array([_couple(rng, ADMIXED_SINGLES) for _ in range(people)]).reshape(people, 2)
    return np.eye(len(POPULATIONS))[couples].mean(1)


def _couple(rng: np.random.Generator, mixed: float) -> tuple[int, int]:
    p = int(rng.choice(len(SHARES), p=SHARES))
    return p, int(rng.choice(len(SHARES), p=SHARES)) if rng.random() < mixed else p


@dataclass(frozen=True)
class Meioses:
    """How the gametes that made each individual cross one window (founders' entries are unused)."""

    phase: (
        np.ndarray
    )  # uint8 [n, 2]: grandparental haplotype at the window's start (0: of the father, 1: of the mother)
    position: np.ndarray  # float64 [X]: crossovers in the window, ascending
    gamete: np.ndarray  # int64 [X]: 2 * individual + side


def chromosome_meioses(n: int, spans: list[tuple[int, int]], rng: np.random.Generator) -> list[Meioses]:
    """Meioses of n individuals in the windows (start, stop) of one chromosome, in order, without interference:
    Poisson crossovers within a window, Haldane's odd-number probability between windows."""
    phase = rng.integers(0, 2, (n, 2), dtype=np.uint8)
    result, last = [], None
    for start, stop in spans:
        if last is not None:
            odd = (1 - np.exp(-2 * RATE * (start - last))) / 2
            phase = phase ^ (rng.random((n, 2)) < odd).astype(np.uint8)
        count = rng.poisson(RATE * (stop - start) * 2 * n)
        position = np.sort(rng.uniform(start, stop, count))
        gamete = rng.integers(0, 2 * n, count)
        result.append(Meioses(phase, position, gamete))
        flips = np.bincount(gamete, minlength=2 * n).reshape(n, 2) % 2
        phase, last = phase ^ flips.astype(np.uint8), stop
    return result


class GeneDrop:
    """Passes founder haplotypes of one window down the pedigree, block of variants after block."""

    def __init__(self, pedigree: Pedigree, meioses: Meioses):
        self.pedigree, self.meioses = pedigree, meioses
        self._phase = meioses.phase.copy()
        self._next = 0

    def counts(self, founders_SF: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Allele counts int8 [S, N] of the observed people, from 0/1 founder haplotypes [S, 2F] at ascending positions.

        Blocks must come in the order of position.
        """
        ped, out = self.pedigree, np.empty((len(position), len(self.pedigree.observed)), np.int8)
        self._next = _drop(
            founders_SF, position.astype(np.float64), ped.father, ped.mother, ped.founder_slot, ped.observed,
            self._phase, self.meioses.position, self.meioses.gamete, self._next, out,
        )  # fmt: skip
        return out


@njit(cache=True)
def _drop(haplotypes, position, father, mother, slot, observed, phase, crossover, gamete, following, out):
    """Fill `out` and return the index of the first crossover after the block; `phase` is updated in place."""
    n = father.shape[0]
    carried = np.empty((n, 2), np.int32)  # founder haplotype that each individual carries here
    stale = True
    for s in range(position.shape[0]):
        while following < crossover.shape[0] and crossover[following] <= position[s]:
            phase[gamete[following] // 2, gamete[following] % 2] ^= 1
            following += 1
            stale = True
        if stale:
            for i in range(n):
                if father[i] < 0:
                    carried[i, 0] = 2 * slot[i]
                    carried[i, 1] = 2 * slot[i] + 1
                else:
                    carried[i, 0] = carried[father[i], phase[i, 0]]
                    carried[i, 1] = carried[mother[i], phase[i, 1]]
            stale = False
        for j in range(observed.shape[0]):
            i = observed[j]
            out[s, j] = haplotypes[s, carried[i, 0]] + haplotypes[s, carried[i, 1]]
    return following
