"""The association engine against GCTA 1.94.1 (tests/golden/gcta: what was run, and on what)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from udipdist.config import GwasConfig
from udipdist.gwas.scan.verb import gwas
from udipdist.sumstats.store import Sumstats

GOLDEN = Path(__file__).parents[2] / "golden" / "gcta"
TRAITS = [f"trait{i}" for i in range(8)]


@pytest.fixture(scope="module")
def expected() -> pd.DataFrame:
    return pd.read_csv(GOLDEN / "expected.tsv.gz", sep="\t").set_index(["mode", "trait"]).sort_index()


@pytest.fixture(scope="module")
def variance() -> pd.DataFrame:
    return pd.read_csv(GOLDEN / "variance.tsv", sep="\t").set_index("mode")


def run(out: Path, **keys) -> Sumstats:
    tree = {
        "genotypes": GOLDEN / "cohort",
        "phenotypes": GOLDEN / "cohort.pheno",
        "covariates": GOLDEN / "cohort.covar",
        "sparse_grm": GOLDEN / "cohort",
        "out": out,
        "min_mac": 0,
    }
    gwas(GwasConfig.parse(tree | keys))
    return Sumstats.open(out)


def check(found: Sumstats, expected: pd.DataFrame, mode: str, traits, slack: float) -> None:
    """beta within 1e-5 relative, plus `slack` standard errors; se within 1e-5; the same variants, N and AF1."""
    variants = found.variants.set_index("snp")
    for trait in traits:
        theirs = expected.loc[(mode, trait)].set_index("SNP")
        beta, se = pd.Series(found.beta(trait), variants.index), pd.Series(found.se(trait), variants.index)
        assert set(beta.index[beta.notna()]) == set(theirs.index)
        beta, se = beta[theirs.index], se[theirs.index]
        np.testing.assert_array_less(abs(beta - theirs.BETA), 1e-5 * abs(theirs.BETA) + slack * theirs.SE, trait)
        np.testing.assert_allclose(se, theirs.SE, rtol=1e-5, err_msg=trait)
    np.testing.assert_array_equal(variants.n[theirs.index], theirs.N)
    np.testing.assert_allclose(variants.af1[theirs.index], theirs.AF1, atol=6e-7)


@pytest.mark.parametrize(("mode", "adjust"), [("mlm-exact", "phenotype"), ("mlm-exact-joint", "project")])
def test_mixed_model_with_the_components_of_gcta(mode, adjust, expected, variance, tmp_path):
    """The components are printed with six digits, which moves beta by up to 2e-6 standard errors."""
    components = variance.loc[mode]
    components[["trait", "Vg", "Ve"]].to_csv(tmp_path / "components.tsv", sep="\t", index=False)
    found = run(tmp_path / "out", adjust=adjust, null_model={"variance": tmp_path / "components.tsv"})
    mixed = components.trait[components.model_used == "mixed"]
    assert len(mixed) == 5
    check(found, expected, mode, mixed, slack=3e-6)


@pytest.mark.parametrize(("mode", "adjust"), [("mlm-exact", "phenotype"), ("mlm-exact-joint", "project")])
def test_own_reml_under_the_constraint_of_gcta(mode, adjust, expected, variance, tmp_path):
    found = run(tmp_path / "out", adjust=adjust, null_model={"total_variance": "sample"})
    ours = pd.read_csv(tmp_path / "out" / "null.tsv", sep="\t", keep_default_na=False, na_values=["NA"])
    theirs = variance.loc[mode].reset_index()
    np.testing.assert_allclose(ours.h2, theirs.h2, atol=2e-6)
    np.testing.assert_allclose(ours.vg_se, theirs.Vg_se, rtol=1e-5)
    np.testing.assert_allclose(ours.ve_se, theirs.Ve_se, rtol=1e-5)
    assert list(ours.boundary) == ["lower"] + [""] * 7
    check(found, expected, mode, theirs.trait[theirs.model_used == "mixed"], slack=2e-7)


@pytest.mark.parametrize(("mode", "adjust"), [("lr", "phenotype"), ("lr-joint", "project"), ("lr-joint", "gls")])
def test_linear_regression(mode, adjust, expected, tmp_path):
    found = run(tmp_path / "out", test="linear", adjust=adjust)
    check(found, expected, mode, TRAITS, slack=0)
    if adjust == "phenotype":  # GCTA takes the statistic for chi-squared; with the projection ours is t
        for trait in TRAITS:
            theirs = expected.loc[(mode, trait)].set_index("SNP")
            ours = pd.Series(found.log10p(trait), found.variants.snp)[theirs.index]
            np.testing.assert_allclose(ours, -np.log10(theirs.P), rtol=2e-5, atol=1e-6)
