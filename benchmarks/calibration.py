"""Are p-values of null variants uniform? `python -m benchmarks.calibration [--quick] [--demo FOLDER]`.

Six cohorts of simulated families with correlated traits, in which no variant does anything, are tested by `gwas` in the
mixed model: the traits one by one, and jointly. The table has the rate of false positives over the nominal one, at 0.05
and 0.001, and lambda, for each cohort. Then the same for the null chromosomes of a finished demo, where there is one.

The last line is one JSON object: joint_fpr_05 and joint_fpr_001 (rate over nominal, all cohorts together),
joint_fpr_05_range, joint_lambda_demo (null without a demo), uni_lambda.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse, special, stats

from udipdist.cohort.writers import BED_MAGIC
from udipdist.config import GwasConfig
from udipdist.genome import assemblies
from udipdist.gwas.scan.verb import gwas
from udipdist.relatedness import grm
from udipdist.sumstats.store import Sumstats

LEVELS = (0.05, 1e-3)
MEDIAN = special.chdtri(1, 0.5)
BLOCK = 2000  # variants drawn at once


@dataclass(frozen=True)
class Setting:
    """A cohort: people, the share of them in families of 2 to 5, traits, and their heritabilities."""

    people: int
    related: float
    traits: int
    h2: str  # vary, same, zero
    alike: bool = False  # the genetic correlation of the traits is that of the environment

    @property
    def name(self) -> str:
        """In words."""
        alike = ", alike" if self.alike else ""
        return f"{self.people:,} people, {self.related:.0%} in families, {self.traits} traits, h2 {self.h2}{alike}"


SETTINGS = (
    Setting(2000, 0.0, 64, "zero"),
    Setting(2000, 0.3, 64, "vary"),
    Setting(2000, 1.0, 64, "vary"),
    Setting(2000, 1.0, 64, "same", alike=True),
    Setting(600, 1.0, 64, "vary"),
    Setting(1500, 0.5, 128, "vary"),
)


def main() -> None:
    """Measure, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8,000 variants a cohort, not 200,000")
    parser.add_argument("--variants", type=int, help="variants of a cohort")
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="folder that `udipdist demo` wrote")
    options = parser.parse_args()
    logging.getLogger("udipdist").setLevel(logging.ERROR)
    m = options.variants or (8000 if options.quick else 200_000)
    print(f"{m:,} null variants a cohort; rates are over the nominal ones\n")
    print(f"{'':62s}{'one trait':^27s}{'joint test':^27s}")
    print(f"{'':62s}" + 2 * f"{'0.05':>8s}{'0.001':>8s}{'lambda':>8s}   ")
    every: dict[str, list[np.ndarray]] = {"uni": [], "joint": []}
    of_joint = []
    for seed, setting in enumerate(SETTINGS):
        with tempfile.TemporaryDirectory() as place:
            uni, joint = test(Path(place), setting, m, seed)
        tell(setting.name, uni, joint)
        every["uni"].append(uni)
        every["joint"].append(joint)
        of_joint.append(rate(joint, LEVELS[0]))
    demo = null_of_demo(options.demo)
    if demo is None:
        print(f"\nno finished demo in {options.demo}: joint_lambda_demo is null; `make demo` makes one")
    else:
        tell("null chromosomes of the demo", *demo)
    joint = np.concatenate(every["joint"])
    facts = {
        "joint_fpr_05": round(rate(joint, LEVELS[0]), 3),
        "joint_fpr_001": round(rate(joint, LEVELS[1]), 3),
        "joint_fpr_05_range": [round(min(of_joint), 3), round(max(of_joint), 3)],
        "joint_lambda_demo": None if demo is None else round(lambda_of(demo[1]), 3),
        "uni_lambda": round(float(np.mean([lambda_of(uni) for uni in every["uni"]])), 3),
        "variants": m,
    }
    print(json.dumps(facts))


def tell(name: str, uni: np.ndarray, joint: np.ndarray) -> None:
    """A row of the table, from -log10 p."""
    cells = [f"{rate(p, LEVELS[0]):8.3f}{rate(p, LEVELS[1]):8.2f}{lambda_of(p):8.3f}   " for p in (uni, joint)]
    print(f"{name:62s}" + "".join(cells))


def rate(log10p: np.ndarray, level: float) -> float:
    """The share of p-values below `level`, over `level`."""
    return float((log10p > -np.log10(level)).mean() / level)


def lambda_of(log10p: np.ndarray) -> float:
    """Genomic control: the median chi2 over that of chi2_1."""
    return float(stats.chi2.isf(10 ** -np.median(log10p), 1) / MEDIAN)


def test(folder: Path, setting: Setting, m: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """-log10 p of all traits [m P] and of the joint test [m] of null variants in one cohort."""
    rng = np.random.default_rng([seed, 17])
    families = list(draw_families(rng, setting))
    people = pd.DataFrame(
        {"FID": [f"f{i}" for i in range(setting.people)], "IID": [f"i{i}" for i in range(setting.people)]}
    )
    pairs = [(a, b) for start, size in families for a, b in relatives(start, size)]
    low, high = np.array(pairs, np.int64).reshape(-1, 2).T
    matrix = grm.symmetric(low, high, np.full(len(low), 0.5), np.ones(setting.people))
    grm.write(str(folder / "g"), people, matrix)
    values = draw_traits(rng, setting, families, matrix)
    names = [f"z{i:03d}" for i in range(setting.traits)]
    pd.concat([people, pd.DataFrame(values, columns=names)], axis=1).to_parquet(folder / "p.parquet")
    write_genotypes(rng, folder / "g", people, families, m)
    gwas(
        GwasConfig(
            genotypes=folder / "g", phenotypes=(folder / "p.parquet",), sparse_grm=folder / "g", test="mixed",
            out=folder / "out", workers=0, min_maf=0.01,
        )
    )  # fmt: skip
    opened = Sumstats.open(folder / "out")
    uni = np.concatenate([opened.log10p(name) for name in opened.traits])
    return uni, opened.log10p("multivariate")


def draw_families(rng: np.random.Generator, setting: Setting) -> Iterator[tuple[int, int]]:
    """(first person, size) of each family; everybody after the last is unrelated."""
    start, stop = 0, round(setting.related * setting.people)
    while start < stop:
        size = int(rng.integers(2, 6))
        if start + size > setting.people:
            return
        yield start, size
        start += size


def relatives(start: int, size: int) -> Iterator[tuple[int, int]]:
    """Pairs of first degree: two sibs, or two parents and their children."""
    for a in range(start, start + size):
        for b in range(a + 1, start + size):
            if size == 2 or b >= start + 2:  # parents are not related
                yield a, b


def draw_traits(
    rng: np.random.Generator, setting: Setting, families: list[tuple[int, int]], matrix: sparse.csr_array
) -> np.ndarray:
    """Traits [N, P] with a factor model of their genetic correlation and another one of their environment."""
    p = setting.traits
    h2_P = {"vary": rng.uniform(0, 0.9, p), "same": np.full(p, 0.4), "zero": np.zeros(p)}[setting.h2]
    genetic = correlation_root(rng, p)
    environment = genetic if setting.alike else correlation_root(rng, p)
    g_NP, e_NP = (rng.standard_normal((setting.people, p)) @ root.T for root in (genetic, environment))
    for start, size in families:
        own = slice(start, start + size)
        g_NP[own] = np.linalg.cholesky(matrix[own][:, own].toarray() + 1e-10 * np.eye(size)) @ g_NP[own]
    return np.sqrt(h2_P) * g_NP + np.sqrt(1 - h2_P) * e_NP


def correlation_root(rng: np.random.Generator, p: int, factors: int = 20) -> np.ndarray:
    """Cholesky factor of a correlation matrix of p traits with some common factors."""
    loading = rng.standard_normal((p, factors))
    covariance = loading @ loading.T / factors + 0.5 * np.eye(p)
    size = np.sqrt(np.diag(covariance))
    return np.linalg.cholesky(covariance / np.outer(size, size))


def write_genotypes(
    rng: np.random.Generator, prefix: Path, people: pd.DataFrame, families: list[tuple[int, int]], m: int
) -> None:
    """PREFIX.bed, .bim and .fam: alleles dropped through the families."""
    n = len(people)
    people.assign(father=0, mother=0, sex=0, pheno=-9).to_csv(f"{prefix}.fam", sep=" ", header=False, index=False)
    variants = pd.DataFrame({"chrom": 1, "snp": [f"v{i}" for i in range(m)], "cm": 0, "pos": np.arange(1, m + 1) * 100})
    variants.assign(a1="A", a2="C").to_csv(f"{prefix}.bim", sep="\t", header=False, index=False)
    with Path(f"{prefix}.bed").open("wb") as file:
        file.write(BED_MAGIC)
        for low in range(0, m, BLOCK):
            alleles = rng.random((min(BLOCK, m - low), n, 2), np.float32)
            alleles = alleles < rng.uniform(0.05, 0.5, (len(alleles), 1, 1)).astype(np.float32)
            for start, size in families:
                drop(rng, alleles[:, start : start + size])
            file.write(packed(alleles.sum(axis=2, dtype=np.uint8)))


def drop(rng: np.random.Generator, alleles: np.ndarray) -> None:
    """Children [m, size, 2] inherit from the first two of a family; two sibs from parents who are not there."""
    m, size, _ = alleles.shape
    parents, rows = alleles[:, :2].copy(), np.arange(m)  # of two sibs, what was drawn is their parents'
    for child in range(2) if size == 2 else range(2, size):
        for side in range(2):
            alleles[:, child, side] = parents[rows, side, rng.integers(0, 2, m)]


def packed(counts: np.ndarray) -> bytes:
    """Rows of a .bed of copies of A1 [m, N]."""
    code = np.array([3, 2, 0], np.uint8)[counts]
    code = np.pad(code, ((0, 0), (0, -code.shape[1] % 4))).reshape(len(code), -1, 4)
    return (code << np.array([0, 2, 4, 6], np.uint8)).sum(axis=2, dtype=np.uint8).tobytes()


def null_of_demo(folder: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """-log10 p on the null chromosomes of a finished demo; None where there is none."""
    path = folder / "run" / "comparison.json"
    if not path.exists():
        return None
    null = [assemblies.code(name) for name in json.loads(path.read_text(encoding="utf-8"))["null_chromosomes"]]
    opened = Sumstats.open(folder / "run" / "gwas")
    there = np.isin(assemblies.codes(pd.Series(opened.values("chrom"))), null)
    uni = np.concatenate([opened.log10p(name)[there] for name in opened.traits])
    joint = opened.log10p("multivariate")[there]
    return uni[np.isfinite(uni)], joint[np.isfinite(joint)]


if __name__ == "__main__":
    main()
