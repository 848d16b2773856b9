"""The exact Hardy-Weinberg test against integer arithmetic, mpmath and PLINK."""

from __future__ import annotations

import math
import shutil
import subprocess
import time
from pathlib import Path

import mpmath
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from udipdist.genotypes import hardy
from udipdist.genotypes.source import open_genotypes

REAL = Path(__file__).parents[2] / "../shared/data/genotypes"
counts = st.integers(0, 60)


def exact(hom1: int, het: int, hom2: int) -> float:
    """-log10 p from the definition, with 50 digits: P(h) is proportional to N! 2^h / (hom1! h! hom2!)."""
    n, rare = hom1 + het + hom2, 2 * min(hom1, hom2) + het
    if n == 0:
        return math.nan
    with mpmath.workdps(50):
        weights = [mpmath.mpf(1)]
        for h in range(rare % 2, rare - 1, 2):
            weights.append(weights[-1] * ((rare - h) * (2 * n - rare - h)) / ((h + 2) * (h + 1)))
        seen = weights[het // 2] * (1 + mpmath.mpf(10) ** -40)
        tail = mpmath.fsum(weight for weight in weights if weight <= seen)
        return float(-mpmath.log10(tail / mpmath.fsum(weights)))


def ours(*genotypes: int) -> float:
    return float(hardy.log10p(*(np.array([number], np.int32) for number in genotypes))[0])


@settings(max_examples=400, deadline=None)
@given(counts, counts, counts)
@example(0, 0, 0)
@example(57, 0, 0)
@example(0, 57, 0)
@example(30, 0, 30)
@example(20, 1, 0)
@example(1, 0, 59)
@example(3, 2, 0)
def test_any_small_table(hom1, het, hom2):
    np.testing.assert_allclose(ours(hom1, het, hom2), exact(hom1, het, hom2), rtol=1e-12, atol=1e-12)


def test_every_table_of_few_people():
    tables = [(a, h, n - a - h) for n in range(1, 25) for a in range(n + 1) for h in range(n + 1 - a)]
    expected = [exact(*table) for table in tables]
    np.testing.assert_allclose(hardy.log10p(*np.array(tables).T), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [1_500, 6_000])
def test_from_one_to_far_below_the_smallest_float(n):
    rng = np.random.default_rng(n)
    tables = [(n - n // 2, 0, n // 2), (0, n, 0), (n - 3, 0, 3), (n - 1000, 1000, 0)]
    for q in (0.5, 0.4, 0.1, 0.01, 0.001):
        mode = round(2 * n * q * (1 - q))
        for distance in (0, 1, 2, 5, 40, 0.5 * mode, mode, -1, -2, -7, 0.2 * mode - n * q):
            rare = round(2 * n * q)
            het = int(np.clip(mode - distance, 0, rare))
            het -= (rare - het) % 2
            if het >= 0:
                tables.append((n - (rare - het) // 2 - het, het, (rare - het) // 2))
    tables = [tables[i] for i in rng.permutation(len(tables))[:25]] + tables[:4]
    expected = np.array([exact(*table) for table in tables])
    assert expected.max() > 400 and (expected < 0.1).any()
    np.testing.assert_allclose(hardy.log10p(*np.array(tables).T), expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("genotypes", [(470_000, 0, 30_000), (499_000, 500, 500), (430_000, 65_500, 4_500)])
def test_half_a_million_people(genotypes):
    np.testing.assert_allclose(ours(*genotypes), exact(*genotypes), rtol=1e-12, atol=1e-11)


def test_types_and_nobody_called():
    few = np.array([0, 3, 0], np.uint16), np.array([0, 0, 4], np.uint16), np.array([0, 0, 0], np.uint16)
    np.testing.assert_allclose(hardy.log10p(*few), [np.nan, 0.0, exact(0, 4, 0)], rtol=1e-12)
    assert len(hardy.log10p(*np.empty((3, 0), np.int64))) == 0


def test_microseconds_a_variant():
    """40,000 people; frequencies from rare to common, in equilibrium and (the costly ones) a little out of it."""
    rng = np.random.default_rng(0)
    q = np.exp(rng.uniform(np.log(1e-4), np.log(0.5), 20_000))
    f = rng.normal(0, 0.02, len(q)).clip(-q / (1 - q), 1)
    both = (q * q + q * (1 - q) * f).clip(0)
    tables = rng.multinomial(40_000, np.stack([1 - both - 2 * (q - both), 2 * (q - both), both], axis=1))
    hardy.log10p(*tables[:2].T)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        hardy.log10p(*tables.T)
        seconds.append(time.process_time() - start)
    assert min(seconds) / len(q) < 5e-6  # about 0.4e-6 on an idle core


def genotype_counts(counts_MN: np.ndarray) -> list[np.ndarray]:
    return [(counts_MN == copies).sum(axis=1) for copies in (2, 1, 0)]


@pytest.mark.parametrize("name", ["human", "hapmap"])
@pytest.mark.parametrize(
    ("program", "suffix"), [("plink1.9", "hwe"), ("plink2", "hardy")], ids=["plink 1.9", "plink 2"]
)
def test_plink_says_the_same(tmp_path, program, suffix, name):
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed (apt-get install {program})")
    if not (REAL / f"{name}.bed").exists():
        pytest.skip(f"{REAL / name}.bed is not on this machine")
    command = [program, "--bfile", REAL / name, "--hardy", "--nonfounders", "--out", "h"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    theirs = pd.read_csv(tmp_path / f"h.{suffix}", sep=r"\s+")
    bed = open_genotypes(REAL / name)
    assert list(theirs["SNP" if program == "plink1.9" else "ID"]) == list(bed.variants.snp)
    mine = hardy.log10p(*genotype_counts(bed.counts(0, bed.n_variants)))
    np.testing.assert_allclose(10**-mine, theirs["P"], rtol=6e-4 if program == "plink1.9" else 6e-6)
