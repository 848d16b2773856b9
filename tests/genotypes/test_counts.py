"""Numbers of a block among several sets of people, on X and elsewhere, against the definition."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from udipdist.genotypes import hardy
from udipdist.genotypes.counts import Quality
from udipdist.genotypes.sex import FEMALE, MALE, UNKNOWN
from udipdist.genotypes.source import GenotypeSource, decode, open_genotypes

N, M = 45, 30
X_RUNS = [[8, 15], [20, 21]]


@pytest.fixture(scope="module")
def bed(tmp_path_factory, plink_writer) -> GenotypeSource:
    prefix = tmp_path_factory.mktemp("quality") / "c"
    rng = np.random.default_rng(0)
    counts = rng.binomial(2, rng.uniform(0, 1, (M, 1)), (M, N))
    counts[rng.random(counts.shape) < 0.05] = -1
    counts[3], counts[9], counts[10], counts[11] = -1, -1, 0, 1
    plink_writer(prefix, counts, pd.DataFrame({"FID": range(N), "IID": range(N)}))
    return open_genotypes(prefix)


def by_definition(counts_MN: np.ndarray, on_x: bool, code_N: np.ndarray, person_n: np.ndarray):
    counts_MN, code_N = counts_MN[:, person_n].astype(float), code_N[person_n]
    counts_MN[counts_MN < 0] = np.nan
    ploidy_N = np.full(len(code_N), 2)
    women = np.full(len(code_N), True)
    if on_x:
        counts_MN[(counts_MN == 1) & (code_N == MALE)] = np.nan
        ploidy_N[code_N == MALE] = 1
        women = code_N == FEMALE
    alleles = (np.isfinite(counts_MN) * ploidy_N).sum(axis=1)
    with np.errstate(invalid="ignore"):
        af1 = np.nansum(counts_MN * ploidy_N / 2, axis=1) / alleles
    number = [(counts_MN == copies).sum(axis=1) for copies in (2, 1, 0)]
    hwe = hardy.log10p(*[(counts_MN[:, women] == copies).sum(axis=1) for copies in (2, 1, 0)])
    return np.stack([number[0], np.isnan(counts_MN).sum(axis=1), number[1], number[2]], axis=1), af1, hwe


@pytest.mark.parametrize("seed", range(4))
def test_numbers_by_definition_in_blocks_of_any_size(bed, seed):
    rng = np.random.default_rng(seed)
    code = rng.choice([MALE, FEMALE, UNKNOWN], N, p=[0.5, 0.4, 0.1])
    people = [np.arange(N), rng.permutation(N)[:20], np.flatnonzero(code == MALE), np.array([N - 1])]
    quality = Quality(people, code.tolist(), X_RUNS)
    raw = bed.counts(0, M)
    on_x = np.zeros(M, bool)
    on_x[8:15] = on_x[20] = True
    masked_in_all = 0
    start = 0
    while start < M:
        stop = min(M, start + int(rng.integers(1, 12)))
        packed = bed.packed(start, stop)
        before = packed.copy()
        rows, masked = quality.mask(packed, start)
        masked_in_all += masked
        np.testing.assert_array_equal(packed, before)
        hets = (raw[start:stop] == 1) & (code == MALE) & on_x[start:stop, None]
        np.testing.assert_array_equal(decode(rows, np.arange(N)), np.where(hets, -1, raw[start:stop]))
        for i, person in enumerate(people):
            found = quality.numbers(rows, start, i)
            assert found.n == len(person)
            for x in (False, True):
                here = on_x[start:stop] == x
                count, af1, hwe = by_definition(raw[start:stop][here], x, code, person)
                np.testing.assert_array_equal(found.count_B4[here], count)
                np.testing.assert_array_equal(found.called_B[here], len(person) - count[:, 1])
                np.testing.assert_allclose(found.af1_B[here], af1, rtol=1e-15)
                np.testing.assert_array_equal(found.hwe_log10p_B[here], hwe)
        start = stop
    assert masked_in_all == ((raw == 1) & (code == MALE) & on_x[:, None]).sum()
    assert np.isnan(Quality(people, code, X_RUNS).numbers(bed.packed(8, 15), 8, 2).hwe_log10p_B).all()  # no woman


def test_without_x_rows_are_not_copied(bed):
    packed = bed.packed(0, 5)
    rows, masked = Quality([np.arange(N)], [], []).mask(packed, 0)
    assert rows is packed and masked == 0


def test_counting_many_people():
    """500 variants of 40,000 people on X (the most work): masked, counted three times and tested."""
    packed = np.random.default_rng(0).integers(0, 256, (500, 10_000), np.uint8)
    code = np.where(np.arange(40_000) % 2, MALE, FEMALE)
    quality = Quality([np.arange(40_000)], code, [[0, 500]])
    rows, masked = quality.mask(packed, 0)
    assert masked > 0 and quality.numbers(rows, 0, 0).n == 40_000
