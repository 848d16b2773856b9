"""Relatedness of all pairs of people from genotypes, out of core: tiles of people x people.

A product of two tiles of genotypes bounds the relatedness of each of its pairs from above. The few pairs whose bound
reaches the cutoff are counted exactly. For method=king the genotypes are -1, 0, 1 and the product is one of 8-bit
integers, exact; for method=gcta they are standardised, and the rounding of a float32 product is part of the bound. So
no pair is lost, and every number written comes from exact counts or a sum in float64.

Shapes: N people, m variants, W words of 32 variants, I and J people of two tiles, L pairs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.special import ndtri

from hpc import int8
from hpc.errors import InputError
from hpc.files import publish, publish_json, require_space, reserve
from hpc.int8 import fastest
from udipdist.genotypes import codes
from udipdist.genotypes.source import GenotypeSource
from udipdist.relatedness import kernels, markers

log = logging.getLogger(__name__)

Method = Literal["king", "gcta"]
MOST_RELATIVES = 200  # of a person, on average: more are no relatives
_CANDIDATES = 65_536
_VARIANTS_AT_ONCE = 1024  # a multiple of codes.PER_WORD
_SIGNS = codes.byte_table(np.array([1, 0, 0, -1], np.int8))
PAIR = np.dtype([("i", "i4"), ("j", "i4"), ("value", "f8"), ("both", "i4"), ("het_het", "i4"), ("ibs0", "i4")])


@dataclass(frozen=True)
class People:
    """Genotypes of N people at m variants, a row of words a person, and what the bounds need of each person."""

    words_NW: np.ndarray
    m: int
    z_V4: np.ndarray  # standardised genotype of each code, 0 where missing
    hom_N: np.ndarray
    het_N: np.ndarray
    missing_N: np.ndarray

    @property
    def diagonal_N(self) -> np.ndarray:
        """GCTA's relatedness of each person with itself (1 for a person without a call)."""
        person = np.arange(len(self.words_NW))
        total_N, both_N = np.empty(len(person)), np.empty(len(person), np.int64)
        kernels.multiply_pairs(self.words_NW, self.words_NW, person, person, self.z_V4, total_N, both_N)
        return np.divide(total_N, both_N, out=np.ones(len(person)), where=both_N > 0)


def prepare(place: Path, source: GenotypeSource, most: int, min_maf: float, max_missing: float) -> dict[str, Any]:
    """Choose variants and write their genotypes person by person to PLACE/words.npy. Returns facts for people."""
    row_m, frequency_m = markers.choose(source, most, min_maf, max_missing)
    n_words = -(-len(row_m) // codes.PER_WORD)
    require_space(place, source.n_people * n_words * 8)
    with publish(place / "words.npy") as partial:
        shape = (source.n_people, n_words)
        words_NW = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint64, shape=shape)
        reserve(partial)
        for start in range(0, len(row_m), _VARIANTS_AT_ONCE):
            packed_BQ = np.concatenate([source.packed(r, r + 1) for r in row_m[start : start + _VARIANTS_AT_ONCE]])
            first = start // codes.PER_WORD
            some_Nw = np.empty((source.n_people, -(-len(packed_BQ) // codes.PER_WORD)), np.uint64)
            codes.transpose(packed_BQ, source.n_people, some_Nw)
            words_NW[:, first : first + some_Nw.shape[1]] = some_Nw
        words_NW.flush()
    calls_N2 = np.empty((source.n_people, 2), np.int64)
    kernels.count_people(words_NW, calls_N2)
    missing_N = len(row_m) - calls_N2.sum(axis=1)
    with publish(place / "people.npz") as partial, partial.open("wb") as file:
        np.savez(file, row=row_m, frequency=frequency_m, hom=calls_N2[:, 0], het=calls_N2[:, 1], missing=missing_N)
    facts = {
        "n_people": source.n_people,
        "n_variants": len(row_m),
        "n_without_heterozygotes": int((calls_N2[:, 1] == 0).sum()),
        "n_badly_called": int((missing_N > 0.1 * len(row_m)).sum()),
    }
    publish_json(place / "planned.json", facts)
    return facts


@lru_cache(maxsize=1)
def load(place: Path, stamp: str) -> People:
    """What `prepare` wrote, as of the plan with this stamp; the words are mapped, not read."""
    with np.load(place / "people.npz") as held:
        frequency_m, hom_N, het_N, missing_N = (held[key] for key in ("frequency", "hom", "het", "missing"))
    words_NW = np.load(place / "words.npy", mmap_mode="r")
    z_V4 = np.zeros((words_NW.shape[1] * codes.PER_WORD, 4))
    spread_m = np.sqrt(2 * frequency_m * (1 - frequency_m))
    for code, copies in ((0, 2), (2, 1), (3, 0)):
        z_V4[: len(frequency_m), code] = (copies - 2 * frequency_m) / spread_m
    return People(words_NW, len(frequency_m), z_V4, hom_N, het_N, missing_N)


@dataclass(frozen=True)
class Pairs:
    """The job of `hpc.parts`: part I holds the pairs of tile I with the tiles up to itself."""

    place: Path
    stamp: str
    n_people: int
    method: Method
    cutoff: float
    tile: int
    unit: str = "pairs"

    @property
    def n_parts(self) -> int:
        """Tiles of people."""
        return -(-self.n_people // self.tile)

    def size_of_part(self, index: int) -> int:
        """Pairs of part `index`."""
        start, stop = self._span(index)
        return (stop - start) * start + (stop - start) * (stop - start - 1) // 2

    def part(self, index: int) -> dict[str, Any]:
        """Find the pairs of part `index` at or above the cutoff and write them, ordered, to PLACE/pairs."""
        people = load(self.place, self.stamp)
        left = Tile(people, *self._span(index), self.method)
        found: list[np.ndarray] = []
        screened = n_found = 0
        for other in range(index + 1):
            right = left if other == index else Tile(people, *self._span(other), self.method)
            for i_L, j_L in candidates(people, left, right, self.method, self.cutoff):
                screened += len(i_L)
                pairs = relatedness(people, left.words, right.words, i_L, j_L, self.method)
                pairs["i"] += left.start
                pairs["j"] += right.start
                found.append(pairs[pairs["value"] >= self.cutoff])
                n_found += len(found[-1])
                self._refuse_crowd(n_found, left.stop - left.start)
        pairs = np.concatenate(found) if found else np.empty(0, PAIR)
        with publish(pairs_path(self.place, index)) as partial, partial.open("wb") as file:
            np.save(file, pairs[np.lexsort((pairs["j"], pairs["i"]))])
        return {"screened": screened, "found": len(pairs)}

    def _span(self, index: int) -> tuple[int, int]:
        return index * self.tile, min((index + 1) * self.tile, self.n_people)

    def _refuse_crowd(self, n_found: int, n_people: int) -> None:
        if n_found <= MOST_RELATIVES * n_people:
            return
        remedy = (
            "give a larger cutoff= or, where the people are of several ancestries, method=king"
            if self.method == "gcta"
            else "give a larger cutoff=, or genotypes that cover more of the genome"
        )
        raise InputError(
            f"cutoff={self.cutoff:g}: {n_found:,} pairs or more reach it among {n_people:,} people and those before, "
            f"over {MOST_RELATIVES} a person, so this is ancestry or noise, not family; {remedy}"
        )


def pairs_path(place: Path, index: int) -> Path:
    """Where part `index` puts its pairs."""
    return place / "pairs" / f"{index:06d}.npy"


class Tile:
    """People start..stop-1 with their genotypes as a matrix [I, V] for the product."""

    def __init__(self, people: People, start: int, stop: int, method: Method):
        self.start, self.stop = start, stop
        self.words = np.ascontiguousarray(people.words_NW[start:stop])
        self.hom, self.het, self.missing = (a[start:stop] for a in (people.hom_N, people.het_N, people.missing_N))
        if method == "king":
            signs = _SIGNS[self.words.view(np.uint8)].view(np.int8)
            self.matrix = signs if fastest() == "int8" else signs.astype(np.float32)
            self.norm = np.empty(0)
            return
        z = np.empty((stop - start, len(people.z_V4)), np.float32)
        kernels.standardise(self.words, people.z_V4.astype(np.float32), z)
        self.matrix = z
        self.norm = np.sqrt(np.einsum("iv,iv->i", z, z, dtype=np.float64))

    def product(self, other: Tile) -> np.ndarray:
        """Genotypes of these people times those of others, [I, J]: int32, or float32 (whole numbers with king)."""
        if self.matrix.dtype == np.int8:
            return int8.product(self.matrix, other.matrix.T)
        import torch  # takes seconds, which only those pay whose genotypes are multiplied

        return (torch.from_numpy(self.matrix) @ torch.from_numpy(other.matrix).T).numpy()


def candidates(
    people: People, left: Tile, right: Tile, method: Method, cutoff: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (rows in the tiles) that may reach the cutoff, some 65,000 at a time; each pair once where the tiles are
    the same."""
    product = left.product(right)
    same = left.start == right.start
    i_L = np.empty(_CANDIDATES + product.shape[1], np.int64)
    j_L = np.empty_like(i_L)
    row = 0
    # A product of V terms in float32, in any order, is off by at most V u of the product of the norms; entries are
    # rounded too (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.5).
    error = (len(people.z_V4) + 4) * 2.0**-24 * 1.01
    while row < product.shape[0]:
        if method == "king":
            found, row = kernels.screen_king(
                product, left.hom, left.het, left.missing, right.hom, right.het, right.missing,
                2 - 2 * cutoff + 1e-9, same, row, i_L, j_L,
            )  # fmt: skip
        else:
            found, row = kernels.screen_gcta(
                product, left.norm, left.missing, right.norm, right.missing,
                people.m, error, cutoff, same, row, i_L, j_L,
            )  # fmt: skip
        if found:
            yield i_L[:found], j_L[:found]


def relatedness(
    people: People, words_IW: np.ndarray, words_JW: np.ndarray, i_L: np.ndarray, j_L: np.ndarray, method: Method
) -> np.ndarray:
    """Relatedness of pairs of rows of two sets of people from exact counts: `PAIR` [L], NaN where it is not defined.

    king: twice the kinship of KING-robust (Manichaikul et al. 2010, Bioinformatics 26:2867, eq. 11), over the variants
    at which both are called, with the smaller of the two numbers of heterozygotes there, as KING and plink2 have it.
    gcta: the off-diagonal of Yang et al. 2011 (Am J Hum Genet 88:76, eq. 3), over the same variants.
    """
    pairs = np.zeros(len(i_L), PAIR)
    pairs["i"], pairs["j"] = i_L, j_L
    if method == "gcta":
        total_L, both_L = np.empty(len(i_L)), np.empty(len(i_L), np.int64)
        kernels.multiply_pairs(words_IW, words_JW, i_L, j_L, people.z_V4, total_L, both_L)
        pairs["both"] = both_L
        pairs["value"] = np.divide(total_L, both_L, out=np.full(len(i_L), np.nan), where=both_L > 0)
        return pairs
    count_L5 = np.empty((len(i_L), 5), np.int64)
    kernels.count_pairs(words_IW, words_JW, i_L, j_L, count_L5)
    both_L, ibs0_L, het_het_L, het_i_L, het_j_L = count_L5.T
    fewer_L = het_het_L + np.minimum(het_i_L, het_j_L)
    distance_L = 4 * ibs0_L + het_i_L + het_j_L
    off_L = np.divide(distance_L, 2.0 * fewer_L, out=np.full(len(i_L), np.nan), where=fewer_L > 0)
    pairs["both"], pairs["het_het"], pairs["ibs0"], pairs["value"] = both_L, het_het_L, ibs0_L, 1 - off_L
    return pairs


def scatter(people: People, method: Method, n_pairs: int = 20_000) -> float:
    """Standard deviation of the relatedness of unrelated people, from pairs drawn at random.

    From the positive half alone: among people of several ancestries KING-robust is far below 0, and that is no noise.
    """
    n = len(people.words_NW)
    rng = np.random.default_rng(0)
    i_L = rng.integers(0, n, n_pairs)
    j_L = (i_L + rng.integers(1, max(n, 2), n_pairs)) % n
    value_L = relatedness(people, people.words_NW, people.words_NW, i_L, j_L, method)["value"]
    positive = value_L[value_L > 0]
    return float(np.median(positive) / ndtri(0.75)) if len(positive) else 0.0


def planned(place: Path) -> dict[str, Any] | None:
    """The facts that `prepare` left, or None where it has not ended."""
    path = place / "planned.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def stamp_of(place: Path) -> str:
    """Changes when the plan is made anew, so that no process keeps the genotypes of an older one."""
    return str((place / "planned.json").stat().st_mtime_ns)
