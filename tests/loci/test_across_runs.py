"""Several traits and several runs in one call: the same loci as one by one, merged, and held against each other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import zarr

from hpc.errors import ConfigError, InputError
from hpc.files import publish_json
from hpc.stage import read_manifest
from udipdist.config import LociConfig
from udipdist.loci.fuma import FILES
from udipdist.loci.verb import loci, preview, run_names
from udipdist.sumstats.pvalues import log10p_from_t, log10p_from_z
from udipdist.sumstats.store import SumstatsBlock, create, write

TRAITS = ["a", "b", "c/d"]


def simulated(seed: int = 3) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Variants of two chromosomes, counts of people, and z of three traits with some large ones."""
    rng = np.random.default_rng(seed)
    m, n = 300, 200
    haplotypes = rng.random((2, n, m)) < 0.4
    for j in range(1, m):
        keep = rng.random((2, n)) < 0.8
        haplotypes[:, :, j] = np.where(keep, haplotypes[:, :, j - 1], haplotypes[:, :, j])
    table = pd.DataFrame(
        {
            "chrom": ["1"] * 150 + ["chr6"] * 150, "position": 28_000_000 + 40_000 * (np.arange(m) % 150),
            "snp": [f"rs{i}" for i in range(m)], "a1": "A", "a2": "C",
        }
    )  # fmt: skip
    z = rng.standard_normal((m, 3))
    for trait, hit in [(0, 20), (0, 100), (1, 24), (1, 200), (2, 200), (2, 270)]:
        z[hit - 3 : hit + 4, trait] += [4, 5, 6, 9, 6, 5, 4]
    return table, haplotypes.sum(0), z


def write_run(folder, table, z, joint=True, df=None, rows=100) -> None:
    m, p = z.shape
    create(folder / "sumstats.zarr", table, TRAITS[:p], rows, {"df": df, "groups": 1 if joint else 2})
    log10p = log10p_from_z(z)
    for start in range(0, m, rows):
        part = slice(start, min(start + rows, m))
        b = part.stop - start
        together = log10p[part].max(axis=1) / 2 if joint else np.full(b, np.nan)
        ones = np.ones((b, p), np.float32)
        block = SumstatsBlock(
            z[part], ones, np.full(b, 200), np.full(b, 0.3), log10p[part].max(1), log10p[part].argmax(1), together
        )
        write(folder / "sumstats.zarr", start, block)
    publish_json(folder / "manifest.json", {"id": f"gwas-{folder.name}", "stage": "gwas"})


@pytest.fixture
def study(make_study):
    table, counts, z = simulated()
    made = make_study(table, counts, table, np.zeros(len(table)), rows=300)
    (made.folder / "runs").mkdir()
    write_run(made.folder / "runs" / "one", table, z.astype(np.float32))
    return made, table, z


def config(made, out, **keys) -> LociConfig:
    places = {"sumstats": made.folder / "runs" / "one", "genotypes": made.folder / "geno", "out": made.folder / out}
    return LociConfig(**(places | {"p": 1e-6} | keys))


def files(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def test_several_traits_are_what_each_would_be(study):
    made, _, _ = study
    together = config(made, "together", trait="all")
    loci(together)
    for name, folder in {"minp": "minp", "multivariate": "multivariate", "a": "a", "b": "b", "c/d": "c_d"}.items():
        alone = config(made, f"alone_{folder}", trait=name)
        loci(alone)
        assert files(alone.out) == files(together.out / folder)
        facts = read_manifest(together.out)["facts"]["runs"]["one"][name]
        mine = read_manifest(alone.out)["facts"]
        assert {key: mine[key] for key in facts} == facts and facts["n_loci"] > 0
    every = pd.read_parquet(together.out / "all_loci.parquet")
    assert set(every.analysis) == {"minp", "multivariate", *TRAITS} and set(every.run) == {"one"}
    assert len(every) == sum(f["n_loci"] for f in read_manifest(together.out)["facts"]["runs"]["one"].values())
    merged = pd.read_csv(together.out / "GenomicRiskLoci.txt", sep="\t")
    assert len(merged) == read_manifest(together.out)["facts"]["n_loci"]
    inside = [
        ((merged.chr == int(row.chrom)) & (merged.start <= row.start) & (merged.end >= row.end)).sum() == 1
        for row in every.itertuples()
    ]
    assert all(inside)


def test_the_order_of_traits_does_not_show(study):
    made, _, _ = study
    loci(config(made, "x", trait=["a", "b"]))
    for folder in (made.folder / "x", made.folder / "x" / "a"):  # merged, as in each analysis, a SNP is counted once
        counts = pd.read_csv(folder / "IndSigSNPs.txt", sep="\t").groupby("GenomicLocus")[["nSNPs", "nGWASSNPs"]].sum()
        whole = pd.read_csv(folder / "GenomicRiskLoci.txt", sep="\t").set_index("GenomicLocus")
        pd.testing.assert_frame_equal(counts, whole[["nSNPs", "nGWASSNPs"]])
    loci(config(made, "y", trait=["b", "a"]))
    assert files(made.folder / "x") == files(made.folder / "y")


def test_which_traits_are_significant_at_a_locus(study):
    made, table, z = study
    loci(config(made, "out"))
    found = pd.read_parquet(made.folder / "out" / "loci.parquet")
    seen = pd.read_parquet(made.folder / "out" / "locus_traits.parquet")
    assert len(seen) == 3 * len(found)
    limit = -np.log10(1e-6 / 3)
    for locus in found.itertuples():
        here = (table.chrom.str.removeprefix("chr") == locus.chrom) & table.position.between(locus.start, locus.end)
        for p, trait in enumerate(TRAITS):
            (row,) = seen[(seen.locus == locus.locus) & (seen.trait == trait)].itertuples()
            rows = np.flatnonzero(here)
            best = rows[np.abs(z[rows, p]).argmax()]
            assert row.log10p == pytest.approx(log10p_from_z(z[best, p]), rel=1e-5)
            assert (row.snp, row.position) == (table.snp[best], table.position[best])
            assert row.significant == (row.log10p > limit)
    assert seen[seen.significant].groupby("locus").trait.agg(set).map(len).max() >= 2


def test_lambda_of_each_trait(make_study):
    rng = np.random.default_rng(1)
    table, counts, _ = simulated()
    table = pd.concat([table] * 20, ignore_index=True)
    table["position"] = np.arange(len(table)) + 1
    z = (rng.standard_normal((len(table), 3)) * np.sqrt([1.0, 1.3, 1.0])).astype(np.float32)
    z[:1000, 2] = np.nan
    made = make_study(table.iloc[:4], counts[:, :4], table.iloc[:4], np.zeros(4))
    write_run(made.folder / "runs" / "one", table, z, rows=200)
    loci(config(made, "all", lambda_variants=10**9, p=1e-300))
    got = pd.read_csv(made.folder / "all" / "lambda_gc.tsv", sep="\t").set_index("trait")
    expected = [np.nanmedian(np.square(z[:, p].astype(float))) / 0.4549364 for p in range(3)]
    np.testing.assert_allclose(got.lambda_gc[TRAITS], expected, rtol=1e-4)
    assert got.n_variants[TRAITS].tolist() == [6000, 6000, 5000]
    loci(config(made, "some", lambda_variants=2000, p=1e-300))
    part = pd.read_csv(made.folder / "some" / "lambda_gc.tsv", sep="\t").set_index("trait")
    assert (part.n_variants < 2100).all() and part.n_variants["a"] >= 1900
    error = (part.lambda_gc[TRAITS] - got.lambda_gc[TRAITS]).abs()
    assert (error < 4 * part.se[TRAITS]).all() and (part.se[TRAITS] < 0.1).all()
    loci(config(made, "single", trait=["a", "multivariate"], p=1e-300))
    assert "multivariate" in pd.read_csv(made.folder / "single" / "lambda_gc.tsv", sep="\t").trait.tolist()


def test_runs_are_held_against_each_other(study):
    made, table, z = study
    other = z.copy()
    other[197:204, 1:] = 0.1  # the hit of b and c/d on chromosome 6 is gone
    other[50, 0] = 9  # and a has a new one
    write_run(made.folder / "runs" / "two", table, other.astype(np.float32))
    both = [made.folder / "runs" / name for name in ("one", "two")]
    loci(config(made, "both", sumstats=both))
    out = made.folder / "both"
    for name in ("one", "two"):
        loci(config(made, f"alone_{name}", sumstats=made.folder / "runs" / name))
        assert files(out / name) == files(made.folder / f"alone_{name}")
        assert (out / name / "locus_traits.parquet").exists() and (out / name / "lambda_gc.tsv").exists()
    one, two = (pd.read_parquet(out / name / "loci.parquet") for name in ("one", "two"))

    def meets(a, b):
        return a.chrom == b.chrom and a.start <= b.end and b.start <= a.end

    shared = sum(any(meets(a, b) for b in two.itertuples()) for a in one.itertuples())
    pairs = pd.read_csv(out / "overlap.tsv", sep="\t")
    (pair,) = pairs.itertuples()
    assert (pair.run_a, pair.run_b, pair.n_a, pair.n_b, pair.shared_a) == ("one", "two", len(one), len(two), shared)
    assert 0 < shared < len(one) and pair.jaccard == pytest.approx(pair.shared / pair.union)
    covered = [
        {(row.chrom, base) for row in t.itertuples() for base in range(row.start // 1000, row.end // 1000 + 1)}
        for t in (one, two)
    ]
    assert pair.jaccard_bp == pytest.approx(len(covered[0] & covered[1]) / len(covered[0] | covered[1]), abs=0.02)
    table = pd.read_csv(out / "loci_by_run.tsv", sep="\t", keep_default_na=False)
    assert list(table.columns[:6]) == ["analysis", "union", "chrom", "start", "end", "n_runs"]
    assert len(table) == pair.union and (table.n_runs == 2).sum() == pair.shared
    assert sorted(";".join(table.one[table.one != ""]).split(";")) == sorted(one.lead_snp)
    merged = pd.read_parquet(out / "loci.parquet")
    assert len(merged) <= pair.union and read_manifest(out)["facts"]["n_loci"] == len(merged)
    assert "runs" in read_manifest(out)["facts"]


def test_runs_with_several_traits_and_tables(study):
    made, table, z = study
    write_run(made.folder / "runs" / "two", table, z.astype(np.float32))
    both = [made.folder / "runs" / name for name in ("one", "two")]
    loci(config(made, "both", sumstats=both, trait=["minp", "a"]))
    pairs = pd.read_csv(made.folder / "both" / "overlap.tsv", sep="\t")
    assert pairs.analysis.tolist() == ["minp", "a"] and (pairs.jaccard == 1).all() and (pairs.jaccard_bp == 1).all()
    assert (made.folder / "both" / "two" / "a" / "ld.txt").exists()
    text = table.assign(p=10.0 ** -log10p_from_z(z[:, 0])).rename(columns={"chrom": "chr", "position": "bp"})
    text.to_csv(made.folder / "a.tsv.gz", sep="\t", index=False)
    loci(config(made, "mixed", sumstats=[made.folder / "a.tsv.gz", both[0]], trait="minp", tests=1))
    pairs = pd.read_csv(made.folder / "mixed" / "overlap.tsv", sep="\t")
    assert len(pairs) == 1 and pairs.shared_a[0] == pairs.n_a[0] > 0
    loci(config(made, "text", sumstats=made.folder / "a.tsv.gz"))
    loci(config(made, "store", trait="a"))
    for name in ("GenomicRiskLoci.txt", "leadSNPs.txt", "ld.txt"):
        one, two = (pd.read_csv(made.folder / out / name, sep="\t") for out in ("text", "store"))
        pd.testing.assert_frame_equal(one, two, rtol=1e-4)
    assert set(pd.read_parquet(made.folder / "text" / "loci.parquet").trait) == {"a"}


def test_ld_is_of_independent_snps_with_all_near_them(study):
    made, _, _ = study
    loci(config(made, "out"))
    single = pd.read_csv(made.folder / "out" / "IndSigSNPs.txt", sep="\t")
    ld = pd.read_csv(made.folder / "out" / "ld.txt", sep="\t")
    assert list(ld) == ["SNP1", "SNP2", "r2"] and set(ld.SNP1) == set(single.uniqID)
    assert ld.r2.between(0.05, 1).all() and (ld.SNP1 != ld.SNP2).all() and not ld.duplicated(["SNP1", "SNP2"]).any()
    strong = ld[ld.r2 >= 0.6].groupby("SNP1").size().reindex(single.uniqID).fillna(0)
    assert (single.nSNPs.to_numpy() <= strong.to_numpy() + 1).all() and strong.max() > 0


def test_without_a_joint_test_there_are_no_multivariate_loci(study):
    made, table, z = study
    write_run(made.folder / "runs" / "none", table, z.astype(np.float32), joint=False)
    place = made.folder / "runs" / "none"
    with pytest.raises(InputError, match=r"no joint test was made \(all values are NaN\); use"):
        loci(config(made, "out", sumstats=place, trait="multivariate"))
    with pytest.raises(InputError, match="no joint test was made"):
        preview(config(made, "out", sumstats=place, trait=["minp", "multivariate"]))
    loci(config(made, "out", sumstats=place, trait="all"))
    assert not (made.folder / "out" / "multivariate").exists() and (made.folder / "out" / "minp").exists()


def test_a_folder_of_several_tables_names_them(study):
    made, table, z = study
    write_run(made.folder / "runs" / "two", table, z.astype(np.float32))
    with pytest.raises(InputError, match=r"holds the results of several tables: one, two; give one, as sumstats=.*one"):
        loci(config(made, "out", sumstats=made.folder / "runs"))


def test_traits_with_t_statistics(study):
    """The limit on beta / se that stands in for one on p."""
    made, table, z = study
    write_run(made.folder / "runs" / "t", table, z.astype(np.float32), df=[7, 30, 500])
    store = zarr.open_group(made.folder / "runs" / "t" / "sumstats.zarr", mode="r")
    assert store.attrs["df"] == [7, 30, 500]
    loci(config(made, "out", sumstats=made.folder / "runs" / "t", trait=TRAITS, p=1e-4))
    facts = read_manifest(made.folder / "out")["facts"]["runs"]["t"]
    z = z.astype(np.float32).astype(float)
    for p, (trait, df) in enumerate(zip(TRAITS, [7, 30, 500], strict=True)):
        assert facts[trait]["n_significant"] == (log10p_from_t(z[:, p], df) > 4).sum()


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/gwas"], ["gwas"]),
        (["s/a/gwas", "s/b/gwas"], ["a", "b"]),
        (["a.tsv.gz", "b.tsv.gz"], ["a.tsv.gz", "b.tsv.gz"]),
        (["s/a/e1", "s/b/e1", "s/b/e2"], ["a-e1", "b-e1", "b-e2"]),
        (["s/ld.txt/g", "s/A/g", "s/a/g"], ["ld.txt-2", "A", "a-2"]),
    ],
)
def test_names_of_runs(tmp_path, paths, names):
    assert run_names(tuple(tmp_path / path for path in paths)) == names


def test_keys_that_contradict_each_other():
    places = {"genotypes": "g", "out": "o"}
    for keys, message in [
        ({"sumstats": []}, "the list is empty"),
        ({"sumstats": "s", "trait": ["a", "a"]}, "a trait twice"),
        ({"sumstats": "s", "mhc": [5, 1], "exclude_mhc": True}, "ends before it begins"),
        ({"sumstats": "s", "mhc": [1, 5]}, "has no effect without exclude_mhc=true"),
    ]:
        with pytest.raises(ConfigError, match=message):
            LociConfig.parse(places | keys)
    same = LociConfig.parse(places | {"sumstats": ["s", "s"]})
    with pytest.raises(InputError, match="is listed twice"):
        loci(same)


def test_positions_beyond_their_chromosome_are_of_another_build(study):
    made, table, z = study
    far = table.assign(position=table.position + 145_000_000)  # the end of chromosome 6 is at 171 Mb
    write_run(made.folder / "runs" / "far", far, z.astype(np.float32))
    with pytest.raises(InputError, match=r"of chromosome 6, which ends at 170,805,979 in GRCh38"):
        loci(config(made, "out", sumstats=made.folder / "runs" / "far", assembly="GRCh38"))
