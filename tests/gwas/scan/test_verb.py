"""The verb gwas: the same bytes however it is cut, resumed or distributed; and what it refuses."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hpc.errors import ConfigError, InputError, OutputExists
from hpc.stage import read_manifest
from udipdist.genotypes.source import open_genotypes
from udipdist.gwas.scan import plan
from udipdist.gwas.scan import verb as scan
from udipdist.gwas.scan.planned import ScanPlan
from udipdist.gwas.scan.verb import gwas, preview
from udipdist.sumstats.store import Sumstats

ARRAYS = ("beta", "se", "n", "af1", "minp_log10p", "minp_trait", "multivariate_log10p")


@pytest.fixture(scope="module")
def cohort(make_cohort, tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("scan"), seed=2, m=50)


@pytest.fixture(scope="module")
def reference(cohort):
    """One run in one piece."""
    config = cohort.config("reference", variants_per_part=1000)
    gwas(config)
    return arrays(config)


def arrays(config) -> dict[str, np.ndarray]:
    found = Sumstats.open(config.out)
    return {name: found.values(name) for name in ARRAYS}


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize(("block", "per_part"), [(1, 50), (7, 20), (50, 7), (16, 16), (1024, 49)])
def test_the_result_does_not_depend_on_how_the_variants_are_cut(cohort, reference, block, per_part):
    config = cohort.config(f"cut{block}_{per_part}", block=block, variants_per_part=per_part)
    gwas(config)
    same(arrays(config), reference)
    assert read_manifest(config.out)["facts"]["n_tested"] == 50


@pytest.mark.parametrize("threads", [1, 3])
def test_nor_on_threads(cohort, reference, threads, monkeypatch):
    monkeypatch.setattr(scan.cluster, "threads", lambda *_: threads)
    config = cohort.config(f"threads{threads}", variants_per_part=1000)
    gwas(config)
    same(arrays(config), reference)


def test_nor_on_workers(cohort):
    here = cohort.config("here", variants_per_part=13, block=8)
    gwas(here)
    there = cohort.config("there", variants_per_part=13, block=8, workers=2)
    gwas(there)
    same(arrays(there), arrays(here))


def test_nor_on_one_file_or_a_file_a_chromosome(cohort, reference, plink_writer, tmp_path):
    for chromosome, rows in ((1, slice(0, 20)), (2, slice(20, 50))):
        plink_writer(tmp_path / f"chr{chromosome}", cohort.counts_MN[rows], cohort.ids, str(chromosome))
    config = cohort.config("chromosomes", genotypes=tmp_path / "chr{chr}", variants_per_part=1000)
    gwas(config)
    same(arrays(config), reference)
    assert list(Sumstats.open(config.out).variants.chrom) == ["1"] * 20 + ["2"] * 30


def test_a_trait_gets_the_same_alone(make_cohort, tmp_path):
    """Traits that differ in who is missing, together and one by one."""
    cohort = make_cohort(tmp_path, seed=4, n=80, m=20, h2=(0.1, 0.5, 0.9, 0.5), missing_values=0.02)
    together = cohort.config("together")
    gwas(together)
    found = arrays(together)
    assert Sumstats.open(together.out).attrs["groups"] > 1
    null = pd.read_csv(together.out / "null.tsv", sep="\t").set_index("trait")
    traits = list(cohort.traits)
    assert read_manifest(together.out)["facts"]["groups"] == cohort.traits.notna().T.drop_duplicates().shape[0] > 1
    for p, trait in enumerate(traits):
        alone = cohort.ids.join(cohort.traits[[trait]])
        alone.to_csv(tmp_path / "alone.txt", sep="\t", index=False, na_rep="NA")
        config = cohort.config(f"alone{p}", phenotypes=tmp_path / "alone.txt")
        gwas(config)
        for name in ("beta", "se"):
            np.testing.assert_allclose(arrays(config)[name][:, 0], found[name][:, p], rtol=1e-6)
        row = pd.read_csv(config.out / "null.tsv", sep="\t").iloc[0]
        np.testing.assert_allclose(row.h2, null.h2[trait], atol=1e-8)
        assert row.n == null.n[trait] == cohort.traits[trait].notna().sum()
    every = open_genotypes(cohort.folder / "c").counts(0, 20)
    np.testing.assert_array_equal(found["n"], (every >= 0).sum(axis=1))


def test_degrees_of_freedom_of_each_trait_are_kept(make_cohort, tmp_path):
    cohort = make_cohort(tmp_path, seed=4, n=40, m=6, missing_values=0.03)
    config = cohort.config(test="linear")
    gwas(config)
    found = Sumstats.open(config.out)
    assert found.attrs["df"] == [int(n) - 4 for n in cohort.traits.notna().sum()]
    for p, trait in enumerate(found.traits):
        t = found.beta(trait).astype(float) / found.se(trait)
        expected = -np.log10(2 * stats.t.sf(abs(t), found.attrs["df"][p]))
        np.testing.assert_allclose(found.log10p(trait), expected, rtol=1e-6)


def test_more_traits_than_can_be_named(cohort, monkeypatch):
    monkeypatch.setattr(plan.sumstats, "MOST_TRAITS", 2)
    with pytest.raises(InputError, match="c.pheno: has 3 traits, and one table holds at most 2; split the table"):
        gwas(cohort.config("many"))


def test_variance_components_of_a_linear_test_are_not_ignored_silently(cohort, caplog):
    gwas(cohort.config("unused", test="linear", null_model={"total_variance": "sample"}))
    assert "null_model.variance and null_model.total_variance are not used" in caplog.text


def test_what_is_written(cohort):
    config = cohort.config("written", sparse_grm=cohort.folder / "c", normalise="rank")
    gwas(config)
    names = {path.name for path in config.out.iterdir()}
    assert {
        "sumstats.zarr",
        "null.tsv",
        "samples.tsv",
        "dropped.tsv",
        "manifest.json",
    } <= names and "model" not in names
    people = pd.read_csv(config.out / "samples.tsv", sep="\t")
    assert people.to_numpy().tolist() == cohort.ids.to_numpy().tolist()
    null = pd.read_csv(config.out / "null.tsv", sep="\t", keep_default_na=False)
    assert list(null)[:9] == ["trait", "n", "k", "vg", "ve", "h2", "h2_se", "boundary", "test"]
    assert list(null.trait) == ["y0", "y1", "y2"] and set(null.k) == {3} and set(null.test) == {"mixed"}
    facts = read_manifest(config.out)["facts"]
    assert facts["n_samples"] == 120 and facts["n_covariates"] == 2 and facts["weight_error"] <= 1e-9
    attrs = Sumstats.open(config.out).attrs
    assert attrs["test"] == "mixed" and attrs["adjust"] == "gls" and attrs["n_samples"] == 120


def test_nothing_tested_is_said_and_parts_larger_than_the_data_cost_nothing(cohort, caplog):
    config = cohort.config("nothing", min_maf=0.6, variants_per_part=10**9)
    gwas(config)
    assert "0 of 50 variants are tested; not: 50 below min_maf" in caplog.text
    assert Sumstats.open(config.out).rows_per_shard == 50


def test_absent_chromosomes_are_told_once(cohort, caplog):
    for suffix in ("bed", "bim", "fam"):
        shutil.copy(cohort.folder / f"c.{suffix}", cohort.folder / f"split1.{suffix}")
    gwas(cohort.config("split", genotypes=cohort.folder / "split{chr}"))
    assert caplog.text.count("no file for chr = 2, 3") == 1


def test_filters(make_cohort, tmp_path):
    cohort = make_cohort(tmp_path, seed=5, m=40, missing_calls=0.08)
    cohort.counts_MN[0] = 1
    cohort.counts_MN[1] = -1
    cohort.counts_MN[2] = 0
    cohort.counts_MN[3] = np.arange(120) < 24  # exactly the smallest frequency
    cohort.counts_MN[4, :12] = -1  # exactly the most missing calls
    cohort.counts_MN[4, 12:] = np.arange(108) % 3
    cohort.write()
    config = cohort.config(min_maf=0.1, max_missing=0.1)
    gwas(config)
    called = cohort.counts_MN >= 0
    with np.errstate(invalid="ignore"):
        af1 = np.where(called, cohort.counts_MN, 0).sum(axis=1) / (2 * called.sum(axis=1))
    expected = (np.minimum(af1, 1 - af1) >= 0.1) & ((~called).mean(axis=1) <= 0.1)
    assert expected[[3, 4]].all()
    expected[0] = False  # all are heterozygous: the allele is common, but nothing varies
    found = arrays(config)
    np.testing.assert_array_equal(np.isfinite(found["beta"]).all(axis=1), expected)
    np.testing.assert_allclose(found["af1"], af1, rtol=1e-6)
    assert 5 < expected.sum() < 35


def test_an_output_that_exists_is_kept_unless_told(cohort):
    config = cohort.config("taken")
    gwas(config)
    with pytest.raises(OutputExists, match="overwrite=true"):
        gwas(config)
    gwas(cohort.config("taken", overwrite=True, adjust="project"))
    assert Sumstats.open(config.out).attrs["adjust"] == "project"


def test_preview_reads_headers_only(cohort, monkeypatch):
    monkeypatch.setattr(scan, "plan", None)
    lines = preview(cohort.config("none", variants_per_part=20))
    assert "120 people with genotypes, 50 variants, 3 traits" in lines[0] and lines[1].startswith("3 parts")
    assert not any("min_mac" in line for line in lines)
    assert "not tested: fewer than 20 copies of the minor allele (min_mac)" in preview(
        cohort.config("none", min_mac=None)
    )
    assert not cohort.config("none").out.exists()


# ------------------------------------------------------------------------------------------------------ bad input


def test_people_who_are_not_in_the_grm(make_cohort, tmp_path):
    cohort = make_cohort(tmp_path, seed=6, n=30, m=5)
    ids = (tmp_path / "c.grm.id").read_text().replace("I3\n", "X3\n").replace("I7\n", "X7\n")
    (tmp_path / "c.grm.id").write_text(ids)
    with pytest.raises(InputError, match=r"c.grm.id: lacks 2 of the 30 people analysed \(F3 I3, F7 I7\); make the GRM"):
        gwas(cohort.config())
    gwas(cohort.config("linear", test="linear"))  # which does not read it


def test_a_mended_mistake_needs_no_overwrite(cohort, reference, monkeypatch):
    with pytest.raises(InputError, match="c9 is not a covariate"):
        gwas(cohort.config("mended", formula="c0 + c9"))
    monkeypatch.setattr(ScanPlan, "save", lambda self, out: 1 / 0)  # killed with the store made, the plan not yet
    with pytest.raises(ZeroDivisionError):
        gwas(cohort.config("mended", variants_per_part=8, test="linear"))
    monkeypatch.undo()
    gwas(cohort.config("mended", variants_per_part=1000))
    same(arrays(cohort.config("mended")), reference)


def test_a_mixed_model_needs_a_grm(cohort):
    with pytest.raises(ConfigError, match="sparse_grm: is required by test=mixed"):
        cohort.config(sparse_grm=None)


def test_a_family_that_is_too_large(cohort):
    with pytest.raises(InputError, match="max_family=2; keep only pairs above 0.5000"):
        gwas(cohort.config("family", max_family=2))


def test_a_trait_that_is_a_covariate(cohort):
    table = cohort.ids.assign(y=1.0, z=3 * cohort.covariates.c1 - 1)
    table["y"] = np.arange(len(table))
    table.to_csv(cohort.folder / "z.txt", sep="\t", index=False)
    with pytest.raises(InputError, match="trait z is a linear function of the covariates"):
        gwas(cohort.config("covariate", phenotypes=cohort.folder / "z.txt"))


def test_more_covariates_than_people(make_cohort, tmp_path):
    cohort = make_cohort(tmp_path, seed=7, n=12, m=4, n_covariates=10)
    with pytest.raises(InputError, match=r"trait y0 has 12 people for 11 columns of covariates"):
        gwas(cohort.config())


def test_a_tolerance_that_no_arithmetic_reaches(cohort):
    with pytest.raises(ConfigError, match="weight_tolerance=1e-30: .* type a larger one"):
        gwas(cohort.config("tolerance", weight_tolerance=1e-30))


def test_components_that_give_no_covariance(cohort):
    table = pd.DataFrame({"trait": ["y0", "y1", "y2"], "Vg": [1.0, 2, 3], "Ve": [1, -1.9, 1]})
    table.to_csv(cohort.folder / "v.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match="Vg and Ve of y1 give no valid covariance"):
        gwas(cohort.config("components", null_model={"variance": cohort.folder / "v.tsv"}))


@pytest.mark.parametrize("key", ["phenotypes", "covariates", "genotypes", "sparse_grm"])
def test_files_that_are_not_there(cohort, key):
    with pytest.raises(InputError, match="nowhere.*does not exist"):
        gwas(cohort.config("files", **{key: cohort.folder / "nowhere"}))


def test_a_grm_without_relatives_is_said(make_cohort, tmp_path, caplog):
    cohort = make_cohort(tmp_path, seed=8, n=40, m=6, h2=(0.5,))
    cohort.grm_NN = np.eye(40)
    cohort.write()
    gwas(cohort.config("mixed"))
    assert "no relatives among the people analysed" in caplog.text
    assert pd.read_csv(tmp_path / "mixed" / "null.tsv", sep="\t").boundary.tolist() == ["flat"]
    gwas(cohort.config("linear", test="linear"))
    mixed, linear = arrays(cohort.config("mixed")), arrays(cohort.config("linear"))
    np.testing.assert_allclose(mixed["beta"], linear["beta"], rtol=1e-6)


def test_the_command_line(cohort, udipdist):
    words = [
        f"{key}={value}"
        for key, value in cohort.config("cli").tree().items()
        if value and key not in ("null_model", "out", "cluster")
    ]
    result = udipdist("gwas", *words, "out=there", "--dry-run")
    assert "3 traits" in result.stdout
    udipdist("gwas", *words, "out=there")
    bad = udipdist("gwas", *words, "out=other", "phenotypes=nowhere.txt", check=False)
    assert bad.returncode == 2 and "does not exist" in bad.stderr and "Traceback" not in bad.stderr
