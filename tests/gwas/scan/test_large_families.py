"""G with families too large to decompose, and G that is no covariance matrix: said, never guessed."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from hpc.errors import InputError
from hpc.stage import read_manifest
from udipdist.config import GwasConfig
from udipdist.gwas.scan.verb import gwas
from udipdist.relatedness import grm
from udipdist.sumstats.store import Sumstats

MESSAGE = r"largest group of relatives has (\d+) people, more than max_family=(\d+); keep only pairs above ([\d.]+)"


def refused(call) -> tuple[int, int, float]:
    """Size, limit and cutoff that the refusal names."""
    with pytest.raises(InputError, match=MESSAGE) as caught:
        call()
    size, limit, cutoff = re.search(MESSAGE, str(caught.value)).groups()
    assert f"--make-bK-sparse {cutoff}" in str(caught.value)
    return int(size), int(limit), float(cutoff)


def above(matrix: np.ndarray, cutoff: float) -> np.ndarray:
    """What gcta --make-bK-sparse keeps: the diagonal, and pairs above the cutoff."""
    return np.where(np.eye(len(matrix), dtype=bool) | (matrix > cutoff), matrix, 0.0)


def largest(matrix: np.ndarray) -> int:
    """Size of the largest group of relatives."""
    _, label = sparse.csgraph.connected_components(sparse.csr_array(matrix), directed=False)
    return np.bincount(label).max()


def from_few_variants(n: int, m: int, seed: int = 0) -> np.ndarray:
    """GCTA's GRM of unrelated people: entries off the diagonal have a standard deviation of m^-1/2."""
    rng = np.random.default_rng(seed)
    frequency = rng.uniform(0.1, 0.9, (m, 1))
    counts = rng.binomial(2, frequency, (m, n))
    z_MN = (counts - 2 * frequency) / np.sqrt(2 * frequency * (1 - frequency))
    return z_MN.T @ z_MN / m


@pytest.mark.parametrize("max_family", [3, 20, 299])
def test_nearly_everybody_is_related(max_family):
    """GCTA's sparse GRM of 300 people from 200 variants, cut at 0.05: one group of relatives."""
    matrix = above(from_few_variants(300, 200), 0.05)
    size, limit, cutoff = refused(lambda: grm.decompose(sparse.csr_array(matrix), max_family))
    assert size == largest(matrix) == 300 and limit == max_family
    assert largest(above(matrix, cutoff)) <= max_family  # it splits
    assert largest(above(matrix, cutoff - 2e-4)) > max_family  # and a smaller one would not
    assert grm.decompose(sparse.csr_array(above(matrix, cutoff)), max_family).size_F.max(initial=1) <= max_family
    assert grm.decompose(sparse.csr_array(matrix), 300).size_F.tolist() == [300]


def test_a_dense_grm_of_thousands_is_refused_at_once():
    """1,500 people, 0.7 million pairs of either sign."""
    matrix = from_few_variants(1500, 400)
    size, _, cutoff = refused(lambda: grm.decompose(sparse.csr_array(matrix), 500))
    assert size == 1500 and largest(above(matrix, cutoff)) <= 500


def test_a_chain_of_more_than_eight_thousand_is_too_large_by_default():
    default = GwasConfig.model_fields["max_family"].default
    assert default == 8000
    value = np.full(8000, 0.25)
    value[3000] = 0.125
    chain = sparse.diags_array([value, np.ones(8001), value], offsets=[-1, 0, 1], format="csr")
    size, limit, cutoff = refused(lambda: grm.decompose(chain, default))
    assert (size, limit, cutoff) == (8001, 8000, 0.125)


def test_the_run_says_it_and_the_cutoff_mends_it(make_cohort, tmp_path):
    cohort = make_cohort(tmp_path, 3, n=150, m=10)
    cohort.grm_NN = above(from_few_variants(150, 300, seed=5), 0.05)
    cohort.write()
    size, _, cutoff = refused(lambda: gwas(cohort.config(max_family=40)))
    assert size == largest(cohort.grm_NN) and not (tmp_path / "out" / "manifest.json").exists()
    entries = pd.read_csv(tmp_path / "c.grm.sp", sep="\t", header=None)
    kept = entries[(entries[0] == entries[1]) | (entries[2] > cutoff)]
    kept.to_csv(tmp_path / "c.grm.sp", sep="\t", header=False, index=False)
    config = cohort.config(max_family=40, overwrite=True)
    gwas(config)
    facts = read_manifest(config.out)["facts"]
    assert 1 < facts["largest_family"] <= 40 and facts["n_tested"] > 0


def test_a_family_of_just_the_size_is_allowed(make_cohort, tmp_path):
    cohort = make_cohort(tmp_path, 4, n=60, m=5)
    config = cohort.config(max_family=largest(cohort.grm_NN))
    gwas(config)
    assert read_manifest(config.out)["facts"]["largest_family"] == config.max_family
    refused(lambda: gwas(cohort.config("smaller", max_family=config.max_family - 1)))


def test_a_large_family_that_is_not_analysed_is_no_hindrance(make_cohort, tmp_path):
    """Only the people who have phenotypes count."""
    cohort = make_cohort(tmp_path, 5, n=60, m=5)
    cohort.grm_NN[:30, :30] = np.where(np.eye(30, dtype=bool), 1.0, 0.3)
    cohort.grm_NN[:30, 30:] = cohort.grm_NN[30:, :30] = 0
    cohort.write()
    assert refused(lambda: gwas(cohort.config(max_family=10)))[0] == 30
    table = pd.read_csv(tmp_path / "c.pheno", sep="\t")
    table.iloc[25:].to_csv(tmp_path / "few.pheno", sep="\t", index=False)
    gwas(cohort.config("few", phenotypes=tmp_path / "few.pheno", max_family=10))


def test_negative_eigenvalues_are_clipped_with_a_warning(make_cohort, tmp_path, caplog):
    """Sibs of sibs who are no sibs themselves: 1 + 0.8 * 2^0.5 and 1 - 0.8 * 2^0.5 = -0.131."""
    cohort = make_cohort(tmp_path, 6, n=90, m=8, h2=(0.5,), missing_calls=0)
    cohort.grm_NN = np.eye(90)
    trio = np.array([[1, 0.8, 0], [0.8, 1, 0.8], [0, 0.8, 1]])
    for start in range(0, 30, 3):
        cohort.grm_NN[start : start + 3, start : start + 3] = trio
    cohort.write()
    config = cohort.config(min_maf=0)
    gwas(config)
    assert "10 negative eigenvalues (the smallest -0.131), which are set to 0" in caplog.text
    found, null = Sumstats.open(config.out), pd.read_csv(config.out / "null.tsv", sep="\t").iloc[0]
    value, vector = np.linalg.eigh(cohort.grm_NN)
    inverse = np.linalg.inv(null.vg * (vector * np.maximum(value, 0)) @ vector.T + null.ve * np.eye(90))
    for m, x in enumerate(cohort.counts_MN):
        whole = np.column_stack([x, np.ones(90), cohort.covariates])
        covariance = np.linalg.inv(whole.T @ inverse @ whole)
        beta = (covariance @ whole.T @ inverse @ cohort.traits.y0.to_numpy())[0]
        assert found.se("y0")[m] == pytest.approx(np.sqrt(covariance[0, 0]), rel=5e-7)
        assert found.beta("y0")[m] == pytest.approx(beta, rel=1e-6, abs=1e-8 * float(found.se("y0")[m]))
