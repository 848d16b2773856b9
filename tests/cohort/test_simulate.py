"""The verb: the same bytes for a seed, files in their forms, effects as configured, clear refusals."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from bed_reader import open_bed

from hpc.errors import ConfigError, OutputExists
from hpc.stage import read_manifest
from udipdist.cohort import traits
from udipdist.cohort.factors import NAMES
from udipdist.cohort.people import SITE_NAMES
from udipdist.cohort.simulate import VolumeJob, preview, simulate
from udipdist.config import SimulateConfig

TINY = {
    "train": 8,
    "gwas": 100,
    "seed": 3,
    "genomes": {"chromosomes": 3, "windows_per_chromosome": 2, "window_bp": 200_000},
    "traits": {"loci": 3, "ncp_min": 20, "ncp_max": 40, "null_chromosomes": 1, "polygenic_variants": 40},
    "brains": {"resolution_mm": 8},
    "workers": 0,
}


def make(out: Path, **keys) -> Path:
    simulate(SimulateConfig.parse(TINY | {"out": out} | keys))
    return out


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("tiny") / "cohort")


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Path:
    """Enough people to see effects; no volumes."""
    return make(
        tmp_path_factory.mktemp("scored") / "cohort",
        gwas=1000,
        traits_only=True,
        genomes={"chromosomes": 8, "windows_per_chromosome": 2, "window_bp": 300_000},
        traits={"loci": 10, "ncp_min": 40, "ncp_max": 120, "null_chromosomes": 2, "polygenic_variants": 300},
    )


def content(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "manifest.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_same_seed_same_bytes_whatever_the_workers(tiny, tmp_path):
    again = content(make(tmp_path / "again", workers=2))
    first = content(tiny)
    assert list(first) == list(again)
    assert [name for name in first if first[name] != again[name]] == []
    other = content(make(tmp_path / "other", seed=4))
    assert other["genotypes.bed"] != first["genotypes.bed"]
    assert other["volumes/G000000.nii.gz"] != first["volumes/G000000.nii.gz"]


def test_anatomy_and_genomes_do_not_depend_on_resolution(tiny, tmp_path):
    fine = content(make(tmp_path / "fine", brains={"resolution_mm": 6}))
    first = content(tiny)
    differ = {name for name in first if first[name] != fine[name]}
    assert differ == {name for name in first if name.startswith("volumes/")} | {"plan.json"}


def test_an_interrupted_cohort_goes_on_to_the_same_bytes(tiny, tmp_path, monkeypatch):
    whole = VolumeJob.part

    def dies(self, index):
        if index == 1:
            raise KeyboardInterrupt
        return whole(self, index)

    monkeypatch.setattr(VolumeJob, "part", dies)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "again")
    monkeypatch.setattr(VolumeJob, "part", whole)
    kept = (tmp_path / "again" / "work" / "genomes" / "window-0000.rows").stat().st_mtime_ns
    seen = []
    monkeypatch.setattr(VolumeJob, "part", lambda self, i: seen.append(i) or whole(self, i))
    monkeypatch.setattr("udipdist.cohort.simulate.remove", lambda path: None)
    make(tmp_path / "again")
    assert seen == [1]
    assert (tmp_path / "again" / "work" / "genomes" / "window-0000.rows").stat().st_mtime_ns == kept
    again = {name: data for name, data in content(tmp_path / "again").items() if not name.startswith("work")}
    assert again == content(tiny)


def test_files_agree_on_the_people(tiny):
    fam = pd.read_csv(tiny / "genotypes.fam", sep="\t", header=None, dtype=str)
    ids = fam[[0, 1]].to_numpy().tolist()
    assert len(ids) == 100 and len({i for _, i in ids}) == 100
    tables = [
        pd.read_csv(tiny / "sparse.grm.id", sep="\t", header=None, dtype=str)[[0, 1]],
        pd.read_csv(tiny / "covariates.tsv", sep="\t", dtype=str)[["FID", "IID"]],
        pd.read_parquet(tiny / "truth" / "factors.parquet")[["FID", "IID"]],
        pd.read_csv(tiny / "volumes_gwas.csv", dtype=str)[["FID", "EID"]],
    ]
    for table in tables:
        assert table.to_numpy().tolist() == ids
    train = pd.read_csv(tiny / "volumes_train.csv", dtype=str)
    assert len(train) == 8 and not set(train["EID"]) & set(fam[1])
    covariates = pd.read_csv(tiny / "covariates.tsv", sep="\t")
    names = ["FID", "IID", "age", "sex", "site", "head_size", "head_x", "head_y", "head_z"]
    assert list(covariates) == names + [f"PC{i}" for i in range(1, 11)]
    assert covariates["age"].between(44, 83).all() and not covariates.isna().any().any()
    np.testing.assert_array_equal(np.where(covariates["sex"] == 1, "1", "2"), fam[4])


def test_genotypes_open_with_bed_reader(tiny):
    facts = read_manifest(tiny)["facts"]
    bed = open_bed(tiny / "genotypes.bed")
    counts = bed.read(dtype="int8", num_threads=1)
    assert counts.shape == (100, facts["variants"])
    assert 0.0005 < (counts == -127).mean() < 0.005
    frequency = np.ma.masked_less(counts, 0).mean(0) / 2
    assert np.minimum(frequency, 1 - frequency).min() > 0.005
    assert (bed.allele_1 != bed.allele_2).all() and set(bed.allele_1) == set("ACGT")
    order = np.lexsort((bed.bp_position, bed.chromosome.astype(int)))
    np.testing.assert_array_equal(order, np.arange(len(order)))
    assert len(set(bed.sid)) == len(bed.sid)


def test_sparse_grm_has_the_form_of_gcta(scored):
    grm = np.loadtxt(scored / "sparse.grm.sp")
    rows, columns, values = grm[:, 0].astype(int), grm[:, 1].astype(int), grm[:, 2]
    assert (rows >= columns).all() and len({*zip(rows, columns, strict=True)}) == len(grm)
    assert sorted(rows[rows == columns]) == list(range(1000))
    assert (values[rows == columns] == 1).all()
    pair = rows > columns
    assert set(values[pair]) == {0.5, 0.25, 0.125}
    fid = pd.read_csv(scored / "sparse.grm.id", sep="\t", header=None)[0].to_numpy()
    assert (fid[rows] == fid[columns]).all()
    related = {*rows[pair].tolist(), *columns[pair].tolist()}
    assert 0.3 < len(related) / 1000 < 0.4


def test_relatives_share_genotypes_as_the_grm_says(scored):
    """Genomic relationship over common variants against the pedigree's, on average (there is little genome here)."""
    counts = open_bed(scored / "genotypes.bed").read(dtype="float64", num_threads=1)
    covariates = pd.read_csv(scored / "covariates.tsv", sep="\t")
    main = covariates.filter(like="PC").to_numpy()
    mean = np.nanmean(counts, 0)
    keep = (mean > 0.2) & (mean < 1.8)
    x = np.where(np.isnan(counts), mean, counts)[:, keep]
    basis, _ = np.linalg.qr(np.c_[np.ones(1000), main])
    x -= basis @ (basis.T @ x)
    grm = np.loadtxt(scored / "sparse.grm.sp")
    rows, columns, values = grm[:, 0].astype(int), grm[:, 1].astype(int), grm[:, 2]
    x /= np.sqrt((x**2).sum(1, keepdims=True))
    for value in (0.5, 0.25):
        pairs = values == value
        assert abs((x[rows[pairs]] * x[columns[pairs]]).sum(1).mean() - value) < 0.08


def test_planted_loci_have_their_effects(scored):
    """The regression of a factor on its SNP with all covariates recovers beta within its standard error, and beta
    explains r2."""
    loci = pd.read_csv(scored / "truth" / "loci.tsv", sep="\t")
    windows = pd.read_csv(scored / "truth" / "windows.tsv", sep="\t")
    assert loci["locus"].nunique() == 10 == (loci["role"] == "primary").sum() == windows["planted"].sum()
    assert not set(loci["chr"]) & {7, 8} and (windows["null"] == windows["chr"].isin([7, 8])).all()
    assert loci.loc[loci["role"] == "primary", "r2"].between(0.04, 0.12).all()
    factors = pd.read_parquet(scored / "truth" / "factors.parquet")
    table = pd.read_csv(scored / "covariates.tsv", sep="\t").drop(columns=["FID", "IID"])
    design = np.c_[np.ones(1000), pd.get_dummies(table, drop_first=True).to_numpy(float)]
    bed = open_bed(scored / "genotypes.bed")
    index = {snp: i for i, snp in enumerate(bed.sid)}
    off = []
    for locus in loci.itertuples():
        g = bed.read(np.s_[:, index[locus.snp]], dtype="float64", num_threads=1)[:, 0]
        g = np.where(np.isnan(g), np.nanmean(g), g)
        np.testing.assert_allclose(locus.beta**2 * g.var(), locus.r2, rtol=0.03)
        y = factors[locus.factor].to_numpy()
        x = np.c_[g, design]
        estimate, rss, *_ = np.linalg.lstsq(x, y, rcond=None)
        se = np.sqrt(rss[0] / (1000 - x.shape[1]) * np.linalg.inv(x.T @ x)[0, 0])
        off.append((estimate[0] - locus.beta) / se)
    assert np.abs(off).max() < 4
    assert np.mean(np.square(off)) < 2.5


def test_polygenic_windows_say_what_they_carry(scored):
    windows = pd.read_csv(scored / "truth" / "windows.tsv", sep="\t")
    active = windows["null"] == 0
    assert (windows.loc[~active, "polygenic_r2"] == 0).all()
    assert (windows.loc[active, "polygenic_r2"] > 0).all()
    # windows share the 15 % among 12; the largest of 24 factors has more than the mean
    assert 0.15 / 12 < windows.loc[active, "polygenic_r2"].mean() < 3 * 0.15 / 12


def test_factors_vary_as_designed(scored):
    factors = pd.read_parquet(scored / "truth" / "factors.parquet")
    assert list(factors.columns[2:]) == list(NAMES)
    covariates = pd.read_csv(scored / "covariates.tsv", sep="\t")
    assert 0.85 < np.median(factors[list(NAMES)].var()) < 1.4
    by_sex = factors.groupby(covariates["sex"])["size"].mean()
    assert by_sex[1] - by_sex[0] > 0.5
    assert np.corrcoef(covariates["age"], factors["ventricles"])[0, 1] > 0.3


def test_traits_only_writes_phenotypes_and_no_volumes(scored):
    phenotypes = pd.read_parquet(scored / "phenotypes.parquet")
    assert phenotypes.shape == (1000, 130)
    assert not (scored / "volumes").exists() and not (scored / "volumes_train.csv").exists()
    np.testing.assert_allclose(phenotypes.iloc[:, 2:].std(), 1, atol=0.12)


def test_training_people_are_like_the_tested_ones():
    rng = np.random.default_rng(0)
    from udipdist.cohort.people import training_people

    people = training_people(4000, rng)
    covariates = people.standardised()
    assert abs(covariates["age"].mean()) < 0.1 and 0.9 < covariates["age"].std() < 1.1
    assert np.corrcoef(people.ancestry[:, 3], covariates["head_size"])[0, 1] < -0.03
    own = np.zeros((4000, len(NAMES)))
    truth = traits.Truth(pd.DataFrame(), pd.DataFrame(), own, own + rng.standard_normal(own.shape), np.zeros((4, 24)))
    values = traits.training_factors(truth, people, people, rng)
    assert 0.9 < np.median(values.var(0)) < 1.3


def test_volumes_are_there_for_everybody(tiny):
    for name in ("train", "gwas"):
        table = pd.read_csv(tiny / f"volumes_{name}.csv")
        for path in table["T1"]:
            assert nib.load(tiny / path).shape == (24, 28, 24)
    assert len(list((tiny / "volumes").iterdir())) == 108
    assert not (tiny / "work").exists()
    assert read_manifest(tiny)["facts"]["volumes"] == 108


def test_truth_says_where_nothing_acts(tiny):
    truth = json.loads((tiny / "truth" / "truth.json").read_text())
    assert truth == {"seed": 3, "preset": "demo", "people": 100, "factors": list(NAMES), "null_chromosomes": ["3"]}


def test_bench_has_thirty_covariates_and_mostly_rare_variants():
    config = SimulateConfig.parse({"out": "x", "preset": "bench"})
    assert 2 + (len(SITE_NAMES) - 1) + 4 + config.genomes.components == 30  # age, sex, sites, head
    assert config.gwas == 22_867 and config.genomes.min_maf == 0.001 and config.genomes.variants_per_mb is None


def test_components_are_as_many_as_asked(tmp_path):
    folder = make(tmp_path / "c", genomes=TINY["genomes"] | {"components": 13})
    names = list(pd.read_csv(folder / "covariates.tsv", sep="\t", nrows=1))
    assert names[-13:] == [f"PC{i}" for i in range(1, 14)]


def test_preview_reads_and_writes_nothing(tmp_path):
    config = SimulateConfig.parse({"out": tmp_path / "x", "preset": "bench"})
    text = "\n".join(preview(config))
    assert "22,867 people" in text and "110 windows" in text and "no volumes" in text and "GB" in text
    assert os.listdir(tmp_path) == []
    assert "6,500 volumes at 6 mm" in "\n".join(preview(SimulateConfig.parse({"out": tmp_path / "x"})))


def test_a_finished_cohort_is_not_overwritten(tiny):
    with pytest.raises(OutputExists, match="already exists.*overwrite=true"):
        make(tiny)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"traits": {"ncp_max": 5000}}, "traits.ncp_max=5000 .*ncp_max <= gwas / 2 = 2000"),
        ({"traits": {"ncp_min": 90, "ncp_max": 80}}, "traits.ncp_min=90"),
        ({"traits": {"loci": 90}}, "traits.loci=90 needs as many windows, and there are 68"),
        ({"traits": {"null_chromosomes": 22}}, "leaves none"),
        ({"traits": {"polygenic_h2": 0.9}}, "above 0.8"),
        ({"genomes": {"spacing_bp": 500_000}}, "would overlap"),
        ({"brains": {"resolution_mm": 3}}, "brains.resolution_mm=3"),
        ({"genomes": {"windows": 3}}, "genomes.windows: unknown key; did you mean genomes.window"),
    ],
)
def test_cohorts_that_cannot_be_are_refused(keys, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        SimulateConfig.parse({"out": tmp_path / "x", **keys})


def test_loci_go_where_there_is_room():
    used = np.full(len(NAMES), 0.4)
    used[5] = 0.2
    popularity, rng = np.ones(len(NAMES)), np.random.default_rng(0)
    assert {traits._with_room(used, 0.25, popularity, rng) for _ in range(20)} == {5}
    with pytest.raises(ConfigError, match="explain more than 50% of every factor; give fewer loci"):
        traits._with_room(used, 0.35, popularity, rng)


def test_windows_without_common_variants_are_refused(tmp_path):
    sparse = {"chromosomes": 3, "windows_per_chromosome": 2, "window_bp": 2_000, "variants_per_mb": 500}
    with pytest.raises(ConfigError, match="traits.loci=3: only . windows .* give fewer loci, or more genomes.variants"):
        make(tmp_path / "x", genomes=sparse)
