"""A cohort for benchmarks, made in seconds: packed genotypes, families, covariates, heritable traits.

`udipdist simulate preset=bench` has real linkage and takes minutes. Here variants are independent, but what costs a
scan time is the same: allele frequencies with the density of 1 / (f (1 - f)), as in imputed data, families whose
members share what their parents gave them, populations with components that follow them, missing calls.

Shapes: N people, M variants, P traits, K covariates, H founder haplotypes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import pandas as pd

from udipdist.config import GwasConfig

MAGIC = b"\x6c\x1b\x01"  # PLINK 1 .bed, variant-major
BLOCK = 1024
COVARIATES = 30  # of them COMPONENTS follow ancestry
COMPONENTS = 10
SHARES = np.array([0.62, 0.25, 0.08, 0.05])  # of people in each population
DRIFT = np.array([0.05, 0.1, 0.4, 0.7])  # SD of the log odds of an allele frequency in each population
RAREST = 0.001
HIGHEST_H2 = 0.95


@dataclass(frozen=True)
class People:
    """Who is there. `slot_N2`: for people alone their two founder haplotypes; for sibs the first haplotype of either
    parent, whose second is the next. `person_H`: whom a haplotype belongs to, as the first of a run of `sibs_H`."""

    population_N: np.ndarray
    family_N: np.ndarray
    person_H: np.ndarray
    sibs_H: np.ndarray  # 0: of somebody alone, who has it for certain
    side_H: np.ndarray  # which parent (0, 1) and which of the parent's haplotypes, as 2 * parent + haplotype
    bounds_Q: np.ndarray  # haplotypes of population q are bounds[q] .. bounds[q + 1]
    place_N: np.ndarray  # row of the .fam

    @classmethod
    def draw(cls, n: int, families: int, rng: np.random.Generator) -> People:
        """N people, `families` of them 2-5 sibs, the others alone, in random order in the .fam."""
        size_F = rng.integers(2, 6, families)
        size_F = np.concatenate([size_F, np.ones(max(0, n - size_F.sum()), int)])
        size_F = size_F[: np.searchsorted(np.cumsum(size_F), n) + 1]
        size_F[-1] -= size_F.sum() - n
        population_F = np.sort(rng.choice(len(SHARES), len(size_F), p=SHARES))
        size_F = rng.permutation(size_F)
        first_F = np.cumsum(size_F) - size_F
        founders_F = np.where(size_F == 1, 2, 4)
        within_H = np.arange(founders_F.sum()) - np.repeat(np.cumsum(founders_F) - founders_F, founders_F)
        return cls(
            population_N=np.repeat(population_F, size_F),
            family_N=np.repeat(np.arange(len(size_F)), size_F),
            person_H=np.repeat(first_F, founders_F),
            sibs_H=np.repeat(np.where(size_F == 1, 0, size_F), founders_F),
            side_H=within_H,
            bounds_Q=np.searchsorted(np.repeat(population_F, founders_F), np.arange(len(SHARES) + 1)),
            place_N=rng.permutation(n),
        )


def write(
    folder: Path, n: int, m: int, p: int, families: int, seed: int = 1, frequency_M: np.ndarray | None = None
) -> GwasConfig:
    """Write genotypes, sparse GRM, covariates and traits of h2 = 0 .. 0.95; the configuration of their scan.

    `frequency_M`: minor allele frequencies, default drawn with the density 1 / (f (1 - f)) from 0.1 % to 99.9 %.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    people = People.draw(n, families, rng)
    if frequency_M is None:  # of derived alleles, density 1 / f: rare ones are most, and some have become the rule
        frequency_M = RAREST * ((1 - RAREST) / RAREST) ** rng.random(m)
    write_bed(folder / "c.bed", people, frequency_M, rng)
    write_bim(folder / "c.bim", m)
    ids = pd.DataFrame({"FID": np.empty(n, object), "IID": np.empty(n, object)})
    ids.loc[people.place_N, "FID"] = [f"F{i:06d}" for i in people.family_N]
    ids["IID"] = [f"G{i:06d}" for i in range(n)]
    ids.assign(father=0, mother=0, sex=rng.integers(1, 3, n), y=-9).to_csv(
        folder / "c.fam", sep=" ", index=False, header=False
    )
    ids.to_csv(folder / "c.grm.id", sep="\t", index=False, header=False)
    write_sparse_grm(folder / "c.grm.sp", people)
    c_NK, y_NP = _covariates(people, rng), np.empty((n, p), np.float32)
    y_NP[people.place_N] = _traits(people, c_NK, p, rng)
    design_NK = np.empty_like(c_NK)
    design_NK[people.place_N] = c_NK
    ids.join(pd.DataFrame(design_NK).add_prefix("c")).to_parquet(folder / "covar.parquet", index=False)
    ids.join(pd.DataFrame(y_NP).add_prefix("y")).to_parquet(folder / "pheno.parquet", index=False)
    return config(folder, folder / "out")


def config(folder: Path, out: Path, **keys: object) -> GwasConfig:
    """The scan of what `write` wrote."""
    tree = {
        "genotypes": folder / "c", "phenotypes": folder / "pheno.parquet", "covariates": folder / "covar.parquet",
        "sparse_grm": folder / "c", "out": out,
    }  # fmt: skip
    return GwasConfig.parse(tree | keys)


def write_bed(path: Path, people: People, frequency_M: np.ndarray, rng: np.random.Generator) -> None:
    """Packed genotypes, a block of variants at a time; parents' gifts to their children change from block to block."""
    n, m = len(people.place_N), len(frequency_M)
    missing_M = np.where(rng.random(m) < 0.5, 0.0, rng.uniform(0.002, 0.01, m))
    place_N = np.ascontiguousarray(people.place_N)
    with path.open("wb") as file:
        file.write(MAGIC)
        for start in range(0, m, BLOCK):
            f_B = frequency_M[start : start + BLOCK]
            f_BQ = _in_populations(f_B, rng)
            gift_N = rng.integers(0, 4, n).astype(np.uint8)  # bit 0: of the first parent the second haplotype; bit 1
            rows_BQ = np.zeros((len(f_B), -(-n // 4)), np.uint8)
            _fill(
                f_BQ, missing_M[start : start + BLOCK], people.person_H, people.sibs_H, people.side_H, people.bounds_Q,
                gift_N, place_N, int(rng.integers(2**31)), rows_BQ,
            )  # fmt: skip
            rows_BQ.tofile(file)


def write_bim(path: Path, m: int, chromosome: int = 1) -> None:
    """M variants of one chromosome, 100 base pairs apart."""
    text = "".join(f"{chromosome}\trs{chromosome}_{i}\t0\t{100 * i + 100}\tA\tC\n" for i in range(m))
    path.write_text(text, encoding="ascii")


def write_sparse_grm(path: Path, people: People) -> None:
    """1 on the diagonal, 0.5 for sibs; 0-based rows, lower triangle, sorted, as GCTA writes it."""
    n = len(people.place_N)
    order = np.arange(n)
    rows, columns = [order], [order]
    for apart in range(1, 5):
        pair = np.flatnonzero(people.family_N[apart:] == people.family_N[:-apart])
        rows.append(pair + apart), columns.append(pair)
    row, column = people.place_N[np.concatenate(rows)], people.place_N[np.concatenate(columns)]
    row, column = np.maximum(row, column), np.minimum(row, column)
    table = pd.DataFrame({"row": row, "column": column, "value": np.where(row == column, 1, 0.5)})
    table.sort_values(["row", "column"]).to_csv(path, sep="\t", header=False, index=False)


def _in_populations(f_B: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frequencies in each population, float64 [B, Q]."""
    odds_BQ = np.log(f_B / (1 - f_B))[:, None] + DRIFT * rng.standard_normal((len(f_B), len(DRIFT)))
    return 1 / (1 + np.exp(-odds_BQ))


def _covariates(people: People, rng: np.random.Generator) -> np.ndarray:
    """float64 [N, K]: components are ancestry and noise, the others are noise."""
    n = len(people.place_N)
    c_NK = rng.standard_normal((n, COVARIATES))
    centre_QK = 3 * rng.standard_normal((len(SHARES), COMPONENTS))
    c_NK[:, :COMPONENTS] += centre_QK[people.population_N]
    return c_NK


def _traits(people: People, c_NK: np.ndarray, p: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [N, P] with h2 from 0 to 0.95: sibs share half of their genetic values; covariates act on all."""
    n, alone = len(people.place_N), people.sibs_H == 0
    sib_N = np.ones(n, bool)
    sib_N[people.person_H[alone]] = False
    h2_P = np.linspace(0, HIGHEST_H2, p, dtype=np.float32)
    y_NP = rng.standard_normal((n, p), np.float32)
    family_FP = rng.standard_normal((people.family_N[-1] + 1, p), np.float32)
    shared_NP = np.sqrt(h2_P / 2) * family_FP[people.family_N]
    y_NP *= np.sqrt(1 - np.where(sib_N[:, None], h2_P / 2, 0))
    y_NP += np.where(sib_N[:, None], shared_NP, 0)
    return y_NP + 0.1 * (c_NK @ rng.standard_normal((COVARIATES, p))).astype(np.float32)


@numba.njit(nogil=True, cache=True)
def _fill(f_BQ, missing_B, person_H, sibs_H, side_H, bounds_Q, gift_N, place_N, seed, rows_BQ):
    """Set the genotypes of a block: carriers of the minor allele are visited, the others cost nothing.

    Codes are 3 (no A1), 2 (one), 0 (two), 1 (missing); where A1 is the major allele the walk is over A2.
    """
    np.random.seed(seed)
    n = place_N.shape[0]
    for b in range(f_BQ.shape[0]):
        row = rows_BQ[b]
        flipped = f_BQ[b].mean() > 0.5
        none, both = (0, 3) if flipped else (3, 0)
        row[:] = 0 if flipped else 255
        for q in range(f_BQ.shape[1]):
            f = 1 - f_BQ[b, q] if flipped else f_BQ[b, q]
            step = 1 / math.log1p(-f)
            h = bounds_Q[q] + int(math.log(1 - np.random.random()) * step)
            while h < bounds_Q[q + 1]:
                person = person_H[h]
                if sibs_H[h] == 0:
                    _add(row, place_N[person], none, both)
                else:
                    for sib in range(person, person + sibs_H[h]):
                        if (gift_N[sib] >> (side_H[h] >> 1)) & 1 == side_H[h] & 1:
                            _add(row, place_N[sib], none, both)
                h += 1 + int(math.log(1 - np.random.random()) * step)
        if missing_B[b] > 0:
            step = 1 / math.log1p(-missing_B[b])
            i = int(math.log(1 - np.random.random()) * step)
            while i < n:
                row[i >> 2] = (row[i >> 2] & ~(3 << (2 * (i & 3)))) | (1 << (2 * (i & 3)))
                i += 1 + int(math.log(1 - np.random.random()) * step)
        for i in range(n, 4 * row.shape[0]):  # PLINK wants zeros after the last person
            row[i >> 2] &= ~(3 << (2 * (i & 3)))


@numba.njit(nogil=True, cache=True)
def _add(row, i, none, both):
    """One more copy of the allele that is walked over, for person i."""
    shift = 2 * (i & 3)
    code = (row[i >> 2] >> shift) & 3
    new = 2 if code == none else both
    row[i >> 2] = (row[i >> 2] & ~(3 << shift)) | (new << shift)
