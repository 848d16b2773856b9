"""udipdist interpret clusters: what it writes, and what it refuses."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import adjusted_rand_score

from hpc.errors import ConfigError, InputError
from hpc.files import publish_json
from hpc.stage import read_manifest
from tests.analysis.planted import plant, write_loci, write_store
from udipdist.analysis.clusters import effects, leads
from udipdist.analysis.clusters.verb import clusters, preview
from udipdist.config import ClustersConfig, GwasConfig
from udipdist.gwas.scan.verb import gwas
from udipdist.inspection.verb import look
from udipdist.sumstats import pvalues
from udipdist.sumstats.store import Sumstats


@pytest.fixture
def study(tmp_path):
    return plant(tmp_path)


def configured(study, out="out", **keys) -> ClustersConfig:
    places = {"sumstats": study.gwas, "loci": study.loci, "out": study.gwas.parent / out, "trees": 20}
    return ClustersConfig.parse(places | keys)


def read(folder, name) -> pd.DataFrame:
    return pd.read_csv(folder / name, sep="\t", keep_default_na=False, na_values="NA")


def test_the_planted_clades_are_found_and_written(study):
    config = configured(study)
    clusters(config)
    table = read(config.out, "clusters.tsv")
    clade = dict(zip(read(study.loci, "GenomicRiskLoci.txt")["rsID"], study.clade_L, strict=True))
    assert adjusted_rand_score([clade[snp] for snp in table["snp"]], table["cluster"]) == 1.0
    assert sorted(table["cluster"].unique()) == [1, 2, 3] and table["cluster"].is_monotonic_increasing
    assert (table["reliability"] > 0.9).all() and (table["support"] >= 0.9).all() and table["chrom"].nunique() == 4
    names = read(config.out, "names.tsv")
    assert names["n_snps"].tolist() == [4, 4, 4] and (names["corrected"] > names["similarity"]).all()
    pairs = read(config.out, "similarity.tsv")
    assert len(pairs) == 66 and pairs["same_cluster"].sum() == 18
    assert (config.out / "tree.nwk").read_text().count("rs") == 12
    facts = read_manifest(config.out)["facts"]
    assert (facts["leads"], facts["clusters"], facts["rank"], facts["null_correlation"]) == (
        12,
        3,
        12,
        "the joint test",
    )
    assert set(facts["captions"]) == {"tree.png"} and (config.out / "tree.pdf").stat().st_size > 1000
    assert "12 lead SNPs, 12 traits" in preview(config)[0]


def test_inspect_knows_it(study):
    config = configured(study)
    clusters(config)
    found = look(config.out, contents=True)
    assert found.kind == "clusters of SNP directions" and found.state == "complete", found.problems
    (config.out / "tree.nwk").unlink()
    found = look(config.out, contents=False)
    assert found.state == "damaged" and "tree.nwk is missing" in found.problems[0]


def test_the_result_depends_on_nothing_but_the_seed(study):
    for out in ("one", "two"):
        clusters(configured(study, out))
    one, two = (study.gwas.parent / out for out in ("one", "two"))
    for name in ("clusters.tsv", "similarity.tsv", "tree.nwk", "tree.png", "tree.pdf"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_two_analyses_are_compared(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        plant(tmp_path / name, seed)
    keys = {
        key: [tmp_path / name / folder for name in "ab"] for key, folder in (("sumstats", "gwas"), ("loci", "loci"))
    }
    config = ClustersConfig.parse({**keys, "out": tmp_path / "out", "trees": 19, "permutations": 99})
    clusters(config)
    measures = read(config.out, "agreement.tsv").set_index("measure")
    assert measures.loc["cophenetic_r", "value"] > 0.8 and measures.loc["cophenetic_r", "p"] == pytest.approx(0.01)
    assert measures.loc["clusters_ari", "value"] == 1.0
    matched = read(config.out, "matched.tsv")
    assert len(matched) == 12 and (matched["snp_a"] == matched["snp_b"]).all()
    clades = read(config.out, "clades.tsv")
    assert (clades.loc[(clades["size"] == 4) & (clades["jaccard"] == 1), "p"] <= 0.05).sum() == 3
    assert len(read(config.out, "partitions.tsv")) == 10
    for name in ("a", "b"):
        assert len(read(config.out / name, "clusters.tsv")) == 12
    facts = read_manifest(config.out)["facts"]
    assert set(facts["captions"]) == {"tanglegram.png", "a/tree.png", "b/tree.png"}
    assert facts["shared_loci"] == 12 and facts["shared_clades"] >= 3 and facts["bakers_gamma_p"] is None
    assert "12 of them are of the same loci" in preview(config)[2]


def test_loci_of_two_folders_count_once(study):
    store = Sumstats.open(study.gwas).variants
    more = store.iloc[[0, 3, 9]]  # the first is in a locus already
    write_loci(study.loci.with_name("joint"), more, study.gwas, "gwas-1")
    config = configured(study, loci=[study.loci, study.loci.with_name("joint")])
    clusters(config)
    table = read(config.out, "clusters.tsv")
    assert len(table) == 14 and table["loci"].value_counts().to_dict() == {"loci": 12, "joint": 2}
    assert read_manifest(config.out)["facts"]["overlapping"] == 1
    assert (table.loc[table["loci"] == "joint", "cluster"] == 0).all()
    assert "1 of loci that another folder has are left out" in preview(config)[0]


def test_maps_name_the_clusters_and_genes_the_snps(study):
    maps, panel = (study.gwas.with_name(name) for name in ("maps", "panel"))
    maps.mkdir()
    panel.mkdir()
    snps = read(study.loci, "GenomicRiskLoci.txt")["rsID"]
    region = np.array(["callosum", "frontal", "size"])[study.clade_L]
    directions = pd.DataFrame({"name": [f"d{i}" for i in range(12)], "kind": "snp", "snp": snps})
    directions.loc[0, "kind"] = "control"  # one has no map
    directions.to_csv(maps / "directions.tsv", sep="\t", index=False)
    rows = [
        (f"d{i}", name, 0.2 + 0.5 * (name == region[i]) + 0.01 * i, 0.01)
        for i in range(12)
        for name in ("size", "frontal", "callosum")
    ]
    pd.DataFrame(rows, columns=["direction", "region", "score", "q"]).to_csv(
        maps / "regions.tsv", sep="\t", index=False
    )
    genes = pd.DataFrame({"locus": range(1, 13), "nearest_gene": ["G1", "G1", "NA", *[f"G{i}" for i in range(3, 12)]]})
    genes.to_csv(panel / "hits.tsv", sep="\t", index=False)
    config = configured(study, maps=maps, panel=panel)
    clusters(config)
    names = read(config.out, "names.tsv")
    assert sorted(names["region"]) == ["callosum", "frontal", "size"] and sorted(names["maps"]) == [3, 4, 4]
    table = read(config.out, "clusters.tsv").set_index("locus")
    assert table["gene"].fillna("").to_dict() | {3: ""} == dict(
        zip(range(1, 13), genes["nearest_gene"].replace("NA", ""), strict=True)
    )
    newick = (config.out / "tree.nwk").read_text()
    assert "'G1 1:1000000':" in newick and "'G1 1:2200000':" in newick and "'G3':" in newick and "'rs12':" in newick


def test_published_cuts_by_support(study):
    config = configured(study, method="published")
    clusters(config)
    facts = read_manifest(config.out)["facts"]
    assert facts["cut"] == "support" and facts["least"] == 0.9
    assert "corrected" not in read(config.out, "similarity.tsv")
    assert read(config.out, "similarity.tsv")["similarity"].min() < -0.5


def test_the_length_of_a_direction_is_the_joint_test(make_cohort, tmp_path):
    """chi2 of each SNP gives the p that gwas wrote, of correlated traits, in linear and in mixed models."""
    cohort = make_cohort(tmp_path / "c", seed=3, n=150, m=12)
    for test in ("linear", "mixed"):
        config = cohort.config(test, test=test, **({"sparse_grm": None} if test == "linear" else {}))
        gwas(GwasConfig.parse(config.model_dump()))
        store = Sumstats.open(config.out)
        variants = store.variants
        table = pd.DataFrame(
            {
                "snp": variants["snp"], "unique_id": "", "chrom": 1, "position": variants["position"],
                "start": variants["position"], "end": variants["position"], "locus": range(12),
            }
        )  # fmt: skip
        found = effects.read_effects(store, table, published=False, most=100)
        q, people = found.directions.whitening.rank, store.attrs["n_effective"]
        share = found.directions.chi2_L / people
        log10p = pvalues.log10p_from_f((share / q) / ((1 - share) / (people - q)), q, people - q)
        np.testing.assert_allclose(log10p, store.log10p("multivariate"), rtol=2e-4)


def test_without_the_null_scores_it_is_estimated(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        study = plant(tmp_path, clades=4, each=10, q=4, scores=False)
        clusters(configured(study))
    assert "null correlation of the traits from 200 variants outside the loci" in caplog.text
    assert read_manifest(tmp_path / "out")["facts"]["null_correlation"] == "200 variants outside the loci"


def test_too_few_variants_to_estimate_it(tmp_path):
    study = plant(tmp_path, scores=False, q=12)
    with pytest.raises(InputError, match="has 60 variants outside the loci to estimate it, of 120 needed"):
        clusters(configured(study))


def test_loci_of_another_analysis(study, tmp_path):
    shutil.rmtree(study.loci)
    write_loci(study.loci, Sumstats.open(study.gwas).variants.iloc[::6], tmp_path / "other", "gwas-9")
    for refused in (clusters, preview):
        with pytest.raises(InputError, match=r"these loci were found in \S*other, not in \S*gwas as it is now; give"):
            refused(configured(study))


def test_loci_of_a_folder_with_several_runs(study):
    (study.loci.with_name("many")).mkdir()
    study.loci.rename(study.loci.with_name("many") / "gwas")
    inside = study.loci.with_name("many") / "gwas"
    manifest = read_manifest(inside)
    (inside / "manifest.json").unlink()
    leads.check_same_analysis(inside, study.gwas)  # nothing is known
    publish_json(inside.parent / "manifest.json", manifest | {"inputs": {"sumstats x": {"path": "x", "manifest": "g"}}})
    with pytest.raises(InputError, match="these loci were found in x"):
        leads.check_same_analysis(inside, study.gwas)
    publish_json(inside.parent / "manifest.json", manifest)
    leads.check_same_analysis(inside, study.gwas)


def test_loci_of_fuma_are_taken_and_absent_leads_counted(study, caplog):
    shutil.rmtree(study.loci)
    table = Sumstats.open(study.gwas).variants.iloc[::6].copy()
    table.iloc[0, table.columns.get_loc("position")] += 1
    write_loci(study.loci, table, study.gwas, None)
    with caplog.at_level(logging.WARNING):
        clusters(configured(study))
    assert "has no manifest" in caplog.text
    assert "1 lead SNPs are not in these statistics and are left out: rs0" in caplog.text
    facts = read_manifest(study.gwas.with_name("out"))["facts"]
    assert (facts["leads"], facts["absent"], facts["untested"]) == (11, 1, 0)


def test_leads_that_lack_a_trait_are_counted(study, caplog):
    store = Sumstats.open(study.gwas)
    beta, se = store.effects()
    z = (beta / se).astype(float)
    z[6, 3] = np.nan
    variants, null = store.variants[["chrom", "position", "snp", "a1", "a2"]], store.null_scores()
    shutil.rmtree(study.gwas)
    write_store(study.gwas, variants, z, "gwas-1", null)
    clusters(configured(study))
    assert "1 lead SNPs are not tested for all traits and are left out: rs6" in caplog.text


@pytest.mark.parametrize("n", [0, 2])
def test_fewer_than_three_leads(study, n):
    shutil.rmtree(study.loci)
    write_loci(study.loci, Sumstats.open(study.gwas).variants.iloc[: 6 * n : 6], study.gwas, "gwas-1")
    with pytest.raises(InputError, match=f"{n} lead SNPs, and a tree needs 3; give several folders of loci"):
        clusters(configured(study))


def test_fewer_than_three_leads_that_can_be_used(study):
    shutil.rmtree(study.loci)
    table = Sumstats.open(study.gwas).variants.iloc[:24:6].copy()
    table["position"] += [0, 0, 1, 1]
    write_loci(study.loci, table, study.gwas, "gwas-1")
    with pytest.raises(InputError, match=r"2 of 4 lead SNPs can be used \(2 are not in these statistics, 0 were not"):
        clusters(configured(study))


def test_one_trait(study):
    store = Sumstats.open(study.gwas)
    beta, se = store.effects()
    variants = store.variants[["chrom", "position", "snp", "a1", "a2"]]
    shutil.rmtree(study.gwas)
    write_store(study.gwas, variants, (beta / se)[:, :1], "gwas-1", None)
    with pytest.raises(InputError, match=r"has one trait \(z000\), and a direction needs several"):
        clusters(configured(study))


def test_too_many_leads(study):
    with pytest.raises(InputError, match="12 lead SNPs, and 5 can be clustered; give leads=loci"):
        clusters(configured(study, most=5))


def test_analyses_that_share_too_little(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        plant(tmp_path / name, seed)
    shutil.rmtree(tmp_path / "b" / "loci")
    table = Sumstats.open(tmp_path / "b" / "gwas").variants.iloc[[0, 6, 15, 27]]
    write_loci(tmp_path / "b" / "loci", table, tmp_path / "b" / "gwas", "gwas-2")
    keys = {
        key: [tmp_path / name / folder for name in "ab"] for key, folder in (("sumstats", "gwas"), ("loci", "loci"))
    }
    config = ClustersConfig.parse({**keys, "out": tmp_path / "out", "trees": 19, "match_bp": 1000})
    with pytest.raises(InputError, match="share 2 loci, and two trees need 4 to be compared; give a larger match_bp"):
        clusters(config)


def test_leads_of_one_stretch_are_matched_by_distance():
    def table(*rows):
        return pd.DataFrame(rows, columns=["chrom", "start", "end", "position"])

    one = table((1, 100, 900, 500), (1, 5000, 5100, 5050), (2, 1, 9, 5))
    other = table((1, 850, 1000, 990), (1, 50, 400, 300), (1, 5300, 5400, 5350), (3, 1, 9, 5))
    assert leads.match(one, other, 200).tolist() == [[0, 1]]
    assert leads.match(one, other, 300).tolist() == [[0, 1], [1, 2]]


@pytest.mark.parametrize("keys", [{}, {"method": "published"}, {"cut": "support"}], ids=str)
def test_a_saved_configuration_is_read_back(keys):
    config = ClustersConfig.parse({"sumstats": "g", "loci": ["l", "m"], "out": "o", **keys})
    assert ClustersConfig.parse(yaml.safe_load(config.yaml())) == config


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"sumstats": ["a", "b"], "loci": ["a"]}, "loci: names 1, and sumstats names 2"),
        ({"sumstats": ["a", "a"], "loci": ["l", "l"]}, "is listed twice with the same loci"),
        ({"method": "published", "cut": "direction"}, "cut=direction: needs effects in units of their error"),
        ({"cut": "support", "similar": 0.3}, "similar: is a key of cut=direction"),
        ({"permutations": 99}, "permutations: compares two sumstats"),
        ({"maps": ["m", "n"]}, "maps: names 2, and sumstats names 1"),
        ({"trees": 5}, "type 19 or more"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:12],
)
def test_keys_that_do_not_fit(keys, message):
    with pytest.raises(ConfigError, match=message):
        ClustersConfig.parse({"sumstats": "g", "loci": "l", "out": "o"} | keys)


@pytest.mark.parametrize(
    ("folder", "files", "message"),
    [
        ("maps", {}, "directions.tsv: does not exist; give maps="),
        ("maps", {"directions.tsv": "name\tkind\n", "regions.tsv": "direction\n"}, "lacks the column snp"),
        ("panel", {}, "hits.tsv: does not exist; give panel="),
        ("panel", {"hits.tsv": "locus\thit\n1\t0\n"}, "lacks the column nearest_gene; run panel with genes="),
        ("loci", {"GenomicRiskLoci.txt": "GenomicLocus\tchr\n"}, "lacks the columns uniqID, rsID, pos, start, end"),
        ("loci", {}, "GenomicRiskLoci.txt: does not exist; give loci="),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_folders_of_another_kind(study, folder, files, message):
    place = study.gwas.with_name(f"my_{folder}")
    place.mkdir()
    for name, text in files.items():
        (place / name).write_text(text)
    with pytest.raises(InputError, match=message):
        clusters(configured(study, **{folder: place}))
