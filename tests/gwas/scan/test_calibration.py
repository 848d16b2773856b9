"""Null traits of relatives in a structured population: the mixed test is calibrated, linear regression is not.

The cohort is made by gene dropping: three populations with their own allele frequencies (Balding & Nichols 1995), half
of the people in families of two parents and their children. Traits are polygenic (h2 = 0.6, from variants that are not
tested) and differ between the populations; covariates are two principal components of the causal variants. lambda_GC is
the median of chi2 over all variants and traits, divided by that of chi2_1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from udipdist.config import GwasConfig
from udipdist.gwas.scan.verb import gwas
from udipdist.sumstats.store import Sumstats

POPULATIONS, FST = 3, 0.02
TRAITS, TESTED, CAUSAL = 200, 4096, 1500
H2 = 0.6
MEDIAN = 0.454936423119573  # of chi2_1


@dataclass(frozen=True)
class People:
    """Parents come before their children; `parent_N2` holds rows, -1 for founders."""

    population_N: np.ndarray
    parent_N2: np.ndarray

    @property
    def n(self) -> int:
        return len(self.population_N)


def pedigree(rng: np.random.Generator, families: int, single: int) -> People:
    """Families of two parents and one to five children, and people without relatives."""
    founder_population = rng.integers(0, POPULATIONS, families)
    population, parents = list(np.repeat(founder_population, 2)), [(-1, -1)] * (2 * families)
    for f in range(families):
        children = rng.integers(1, 6)
        population += [founder_population[f]] * children
        parents += [(2 * f, 2 * f + 1)] * children
    population += list(rng.integers(0, POPULATIONS, single))
    return People(np.array(population), np.array(parents + [(-1, -1)] * single))


def drop_genes(rng: np.random.Generator, people: People, m: int) -> np.ndarray:
    """Copies of A1 [m, N], unlinked variants: founders by the frequency of their population, children by Mendel."""
    ancestral_M = rng.uniform(0.05, 0.95, (m, 1))
    drift = (1 - FST) / FST
    frequency = rng.beta(ancestral_M * drift, (1 - ancestral_M) * drift, (m, POPULATIONS))
    haplotypes = rng.random((2, m, people.n)) < frequency[:, people.population_N]
    child_C = np.flatnonzero(people.parent_N2[:, 0] >= 0)
    for side in (0, 1):
        mother_C = people.parent_N2[child_C, side]
        first = rng.random((m, len(child_C))) < 0.5
        haplotypes[side][:, child_C] = np.where(first, haplotypes[0][:, mother_C], haplotypes[1][:, mother_C])
    return haplotypes.sum(axis=0, dtype=np.int8)


def kinship(people: People) -> pd.DataFrame:
    """Twice the kinship of the pedigree, as GCTA writes it: row, column, value of the lower triangle."""
    rows = [(i, i, 1.0) for i in range(people.n)]
    of_parents: dict[tuple[int, int], list[int]] = {}
    for child in np.flatnonzero(people.parent_N2[:, 0] >= 0):
        parents = tuple(people.parent_N2[child].tolist())
        rows += [(int(child), relative, 0.5) for relative in (*parents, *of_parents.get(parents, []))]
        of_parents.setdefault(parents, []).append(int(child))
    return pd.DataFrame(rows)


def standardised(x_MN: np.ndarray) -> np.ndarray:
    x_MN = x_MN - x_MN.mean(axis=1, keepdims=True)
    return x_MN / np.maximum(x_MN.std(axis=1, keepdims=True), 1e-9)


def components(rng: np.random.Generator, z_MN: np.ndarray, k: int) -> np.ndarray:
    """The first k principal components of people, by subspace iteration."""
    q_NK = rng.standard_normal((z_MN.shape[1], k + 6))
    for _ in range(8):
        q_NK = np.linalg.qr(z_MN.T @ (z_MN @ q_NK))[0]
    return q_NK[:, :k] @ np.linalg.svd(z_MN @ q_NK, full_matrices=False)[2][:k, :k].T


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> dict[str, object]:
    """Files of about 2,000 people with 200 null traits: keys of the run."""
    rng = np.random.default_rng(2024)
    people = pedigree(rng, families=200, single=1000)
    folder = tmp_path_factory.mktemp("calibration")
    ids = pd.DataFrame({"FID": "0", "IID": [f"i{i}" for i in range(people.n)]})
    fast_plink(folder / "c", drop_genes(rng, people, TESTED), ids)
    kinship(people).to_csv(folder / "c.grm.sp", sep="\t", header=False, index=False)
    ids.to_csv(folder / "c.grm.id", sep="\t", header=False, index=False)
    causal_MN = standardised(drop_genes(rng, people, CAUSAL).astype(np.float64))
    genetic_NP = causal_MN.T @ rng.standard_normal((CAUSAL, TRAITS)) * np.sqrt(H2 / CAUSAL)
    y_NP = genetic_NP + np.sqrt(1 - H2) * rng.standard_normal((people.n, TRAITS))
    y_NP += rng.normal(0, 0.5, (POPULATIONS, TRAITS))[people.population_N]
    traits = ids.join(pd.DataFrame(y_NP).add_prefix("y"))
    traits.to_parquet(folder / "c.parquet")
    ids.join(pd.DataFrame(components(rng, causal_MN, 2)).add_prefix("PC")).to_csv(folder / "pc", sep="\t", index=False)
    return {
        "genotypes": folder / "c",
        "phenotypes": folder / "c.parquet",
        "covariates": folder / "pc",
        "sparse_grm": folder / "c",
        "out": folder,
    }


def fast_plink(prefix, counts_MN: np.ndarray, ids: pd.DataFrame) -> None:
    """.bed/.bim/.fam without missing calls."""
    m, n = counts_MN.shape
    code_MN = np.zeros((m, -(-n // 4) * 4), np.uint8)
    code_MN[:, :n] = np.array([3, 2, 0], np.uint8)[counts_MN]
    quads = code_MN.reshape(m, -1, 4)
    packed = quads[..., 0] | quads[..., 1] << 2 | quads[..., 2] << 4 | quads[..., 3] << 6
    prefix.with_suffix(".bed").write_bytes(b"\x6c\x1b\x01" + packed.tobytes())
    prefix.with_suffix(".bim").write_text("".join(f"1\tv{i}\t0\t{i + 1}\tA\tC\n" for i in range(m)))
    prefix.with_suffix(".fam").write_text("".join(f"{fid} {iid} 0 0 0 -9\n" for fid, iid in ids.to_numpy()))


def chi2_of(keys: dict[str, object], name: str, **more) -> tuple[np.ndarray, pd.DataFrame]:
    """chi2 [M, P] of a run, and its null models."""
    config = GwasConfig.parse(keys | {"out": keys["out"] / name} | more)
    gwas(config)
    found = Sumstats.open(config.out)
    beta, se = (found.values(part).astype(np.float64) for part in ("beta", "se"))
    return (beta / se) ** 2, pd.read_csv(config.out / "null.tsv", sep="\t")


def lambda_gc(chi2_MP: np.ndarray) -> tuple[float, float]:
    """Median of chi2 over that of chi2_1, and its standard error from the spread over the traits."""
    by_trait = np.median(chi2_MP, axis=0) / MEDIAN
    return float(np.median(chi2_MP) / MEDIAN), float(by_trait.std(ddof=1) / np.sqrt(len(by_trait)))


def test_the_mixed_test_of_null_traits_is_calibrated_and_the_linear_test_is_not(cohort):
    mixed_MP, null = chi2_of(cohort, "mixed")
    linear_MP, _ = chi2_of(cohort, "linear", test="linear")
    assert np.isfinite(mixed_MP).all() and mixed_MP.shape == (TESTED, TRAITS)
    mixed, error = lambda_gc(mixed_MP)
    linear, linear_error = lambda_gc(linear_MP)
    print(f"lambda_GC: mixed {mixed:.4f} (se {error:.4f}), linear {linear:.4f} (se {linear_error:.4f})")
    assert error < 0.004
    assert 0.98 <= mixed <= 1.02
    assert linear > 1.03 and linear > mixed + 10 * linear_error
    assert null.h2.mean() == pytest.approx(H2, abs=0.05)
    assert null.h2.std() == pytest.approx(np.sqrt((null.h2_se**2).mean()), rel=0.2)


def test_the_populations_matter(cohort):
    """Without principal components even the mixed test is inflated: families are not all that the cohort has."""
    chi2_MP, _ = chi2_of(cohort, "unadjusted", covariates=None)
    assert lambda_gc(chi2_MP)[0] > 1.05
