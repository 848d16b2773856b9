"""What a result must not depend on: how the variants are cut, who computes, which files hold them, who else is there.

Where the arithmetic of a variant does not change, results are equal bit for bit; with other traits beside it a trait
may get weights factorised to another rank, and is equal to 1e-6 of chi2.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc import int8
from hpc.stage import read_manifest
from udipdist.gwas.scan.verb import gwas
from udipdist.sumstats.store import Sumstats

STORED = ("beta", "se", "minp_log10p", "minp_trait", "multivariate_log10p", "n", "af1")
CASES = {  # people, ways of missing values, heritabilities, sets of 28 variants
    "complete": (203, 1, (0.0, 0.3, 0.6, 0.8, 0.9), 5),
    "patterns": (203, 3, (0.0, 0.3, 0.6, 0.8, 0.9), 5),
    "many": (1003, 1, np.linspace(0, 0.95, 33), 2),
}
RUNS = ["complete mixed gls", "complete mixed project", "patterns mixed gls", "patterns linear gls", "many mixed gls"]


def stored(config) -> dict[str, np.ndarray]:
    """Run, and everything that it wrote about variants."""
    gwas(config)
    found = Sumstats.open(config.out)
    return {name: found.values(name) for name in STORED}


def assert_same_bits(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], names=STORED) -> None:
    for name in names:
        a, b = found[name], expected[name]
        assert a.dtype == b.dtype and a.shape == b.shape, name
        both = np.isnan(a) & np.isnan(b) if a.dtype.kind == "f" else np.zeros(a.shape, bool)
        different = (a != b) & ~both
        assert not different.any(), f"{name}: {different.sum()} of {a.size} values differ, the first at " + str(
            [(tuple(map(int, at)), a[tuple(at)], b[tuple(at)]) for at in np.argwhere(different)[:3]]
        )


def assert_same_chi2(beta, se, beta_expected, se_expected) -> None:
    beta, se, beta_expected, se_expected = (np.asarray(a, np.float64) for a in (beta, se, beta_expected, se_expected))
    np.testing.assert_array_equal(np.isnan(beta), np.isnan(beta_expected))
    np.testing.assert_allclose(se, se_expected, rtol=5e-7)
    np.testing.assert_allclose((beta / se) ** 2, (beta_expected / se_expected) ** 2, rtol=1e-6, atol=1e-9)


@pytest.fixture(scope="module")
def cases(make_case, tmp_path_factory):
    """The cohorts, by name, each made once."""
    return {
        name: make_case(tmp_path_factory.mktemp(name), 17, n, "mixed", h2_P, 3, patterns=patterns, sets=sets)
        for name, (n, patterns, h2_P, sets) in CASES.items()
    }


@pytest.fixture(scope="module", params=RUNS)
def run(request, cases):
    """A cohort, the keys of the run, and what one block in one part gives."""
    name, test, adjust = request.param.split()
    keys = {"test": test, "adjust": adjust}
    config = cases[name].config(f"whole {test} {adjust}", **keys)
    return cases[name], keys, stored(config), config.out


@pytest.mark.parametrize(("block", "per_part"), [(1, 140), (2, 55), (7, 50), (64, 64), (55, 8192)])
def test_blocks_and_parts(run, block, per_part):
    case, keys, expected, _ = run
    config = case.config(f"cut-{block}", block=block, variants_per_part=per_part, overwrite=True, **keys)
    assert_same_bits(stored(config), expected)


@given(block=st.integers(1, 160), per_part=st.integers(20, 160))
@settings(max_examples=6, deadline=None, derandomize=True)
def test_any_cut(cases, block, per_part):
    case = cases["patterns"]
    if not (case.folder / "any").exists():
        gwas(case.config("any"))
    found = Sumstats.open(case.folder / "any")
    expected = {name: found.values(name) for name in STORED}
    config = case.config("any-cut", block=block, variants_per_part=per_part, overwrite=True)
    assert_same_bits(stored(config), expected)


def test_workers(cases):
    case = cases["many"]
    expected = stored(case.config("one process", variants_per_part=30))
    assert_same_bits(stored(case.config("workers", workers=2, variants_per_part=30, block=11)), expected)


@pytest.mark.skipif(int8.fastest() != "int8", reason="8-bit products are not exact, or not quick, on this processor")
@pytest.mark.parametrize("name", ["patterns", "many"])
def test_processors(cases, name, monkeypatch):
    """With and without fast products of 8-bit integers."""
    found = {}
    for kind in ("int8", "float64"):
        monkeypatch.setattr(int8, "fastest", lambda kind=kind: kind)
        found[kind] = stored(cases[name].config(f"products of {kind}"))
    assert_same_bits(found["int8"], found["float64"])


def test_one_file_a_chromosome(run, plink_writer):
    case, keys, expected, _ = run
    m = len(case.counts_MN)
    cuts = {"1": (0, m // 3), "2": (m // 3, m // 3 + 1), "22": (m // 3 + 1, m)}
    for chromosome, (start, stop) in cuts.items():
        part_MN = case.counts_MN[start:stop]
        plink_writer(case.folder / f"split{chromosome}", part_MN, case.ids, chromosome, start)
    config = case.config("split", genotypes=case.folder / "split{chr}", block=32, overwrite=True, **keys)
    assert_same_bits(stored(config), expected)
    chrom = Sumstats.open(config.out).variants.chrom
    assert chrom.tolist() == [name for name, (start, stop) in cuts.items() for _ in range(start, stop)]


def test_people_who_are_not_analysed(run, plink_writer):
    """A .bed that holds others in between gives the same bits: who is analysed, and their order, is the same."""
    case, keys, expected, _ = run
    rng = np.random.default_rng(1)
    n, others = len(case.ids), 58
    place_N = np.sort(rng.permutation(n + others)[:n])
    counts_MN = rng.integers(-1, 3, (len(case.counts_MN), n + others))
    counts_MN[:, place_N] = case.counts_MN
    ids = pd.DataFrame({"FID": "other", "IID": [f"other{i}" for i in range(n + others)]})
    ids.iloc[place_N] = case.ids.to_numpy()
    plink_writer(case.folder / "more", counts_MN, ids)
    config = case.config("more", genotypes=case.folder / "more", overwrite=True, **keys)
    assert_same_bits(stored(config), expected)
    assert (pd.read_csv(config.out / "dropped.tsv", sep="\t").reason == "no row in c.pheno").sum() == others


def test_the_other_allele(run, plink_writer):
    case, keys, expected, _ = run
    flipped_MN = np.where(case.counts_MN < 0, -1, 2 - case.counts_MN)
    plink_writer(case.folder / "flipped", flipped_MN, case.ids)
    found = stored(case.config("flipped", genotypes=case.folder / "flipped", overwrite=True, **keys))
    assert_same_chi2(found["beta"], found["se"], expected["beta"], expected["se"])
    np.testing.assert_allclose(found["beta"], -expected["beta"], rtol=1e-5, atol=1e-4 * np.nanmin(expected["se"]))
    np.testing.assert_allclose(found["af1"], 1 - expected["af1"], atol=1e-7)


def test_a_trait_alone(run):
    """Each trait equals the one that is run alone on the people who have it."""
    case, keys, expected, out = run
    together = pd.read_csv(out / "null.tsv", sep="\t", keep_default_na=False)
    table = pd.read_csv(case.folder / "c.pheno", sep="\t", dtype={"FID": str, "IID": str})
    for p, trait in list(enumerate(case.traits))[:: max(1, len(case.traits) // 5)]:
        path = case.folder / f"{trait}.pheno"
        table[["FID", "IID", trait]].dropna().to_csv(path, sep="\t", index=False)
        config = case.config(f"alone-{trait}", phenotypes=path, overwrite=True, **keys)
        found = stored(config)
        assert_same_chi2(found["beta"][:, 0], found["se"][:, 0], expected["beta"][:, p], expected["se"][:, p])
        alone = pd.read_csv(config.out / "null.tsv", sep="\t", keep_default_na=False).iloc[0]
        assert alone.n == together.n[p] and alone.boundary == together.boundary[p]
        both = [pd.to_numeric(row[["vg", "ve"]], errors="coerce").astype(float) for row in (alone, together.loc[p])]
        np.testing.assert_allclose(*both, rtol=1e-7)  # no vg in linear regression


def test_traits_with_the_same_people_share_the_work(run):
    case, _, _, out = run
    facts = read_manifest(out)["facts"]
    patterns = len(np.unique(np.isfinite(case.y_NP), axis=1).T)
    assert facts["groups"] == patterns and patterns in (1, 3)


def test_the_order_of_traits(run):
    case, keys, expected, _ = run
    table = pd.read_csv(case.folder / "c.pheno", sep="\t", dtype={"FID": str, "IID": str})
    path = case.folder / "reversed.pheno"
    table[["FID", "IID", *reversed(case.traits)]].to_csv(path, sep="\t", index=False)
    found = stored(case.config("reversed", phenotypes=path, overwrite=True, **keys))
    assert_same_chi2(found["beta"][:, ::-1], found["se"][:, ::-1], expected["beta"], expected["se"])


def test_scale_and_offset_of_a_trait(run):
    """y -> a + b y multiplies beta and se by b, whatever the units."""
    case, keys, expected, _ = run
    size_P = np.resize([1e-12, 1e-3, 1, 1e5, -1e12], len(case.traits))
    offset_P = np.resize([0, 1, -1e6, 1e9, 0], len(case.traits))
    changed = replace(case, folder=case.folder / "scaled", y_NP=case.y_NP * size_P + offset_P, keys={}).write()
    found = stored(changed.config(overwrite=True, **keys))
    np.testing.assert_array_equal(np.isnan(found["beta"]), np.isnan(expected["beta"]))
    assert_same_chi2(found["beta"] / size_P, found["se"] / abs(size_P), expected["beta"], expected["se"])
