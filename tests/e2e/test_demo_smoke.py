"""The demo at its smallest, whole: every stage, the table, the report; then each stage again from what it left."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from hpc.stage import read_manifest
from udipdist.sumstats.store import Sumstats


def call(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-m", "udipdist", *map(str, words)], text=True, capture_output=True, check=False
    )
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("demo") / "smoke"
    return out, call("demo", "preset=smoke", "workers=1", f"out={out}").stdout


def test_table_has_a_row_for_each_phenotype_set(demo):
    out, printed = demo
    rows = json.loads((out / "run" / "comparison.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [
        "ViT-AE",
        "PCA of the voxels",
        "untrained encoder",
        "oracle (true factors)",
        "ViT-AE without covariates",
    ]
    for row in rows:
        assert re.search(rf"{re.escape(row['name'])} +{row['planted_found']}/{row['planted_total']} ", printed)
    vit, _, untrained, oracle, bare = rows
    assert oracle["planted_found"] >= 0.8 * oracle["planted_total"]
    assert oracle["strict_false"] <= 1
    assert 0 < vit["planted_found"] <= oracle["planted_found"]
    assert vit["factor_r2"] > untrained["factor_r2"]
    assert vit["strict_false"] <= 1
    assert bare["lambda_null"] > vit["lambda_null"]


def test_report_is_one_page(demo):
    out, printed = demo
    report = out / "run" / "report.html"
    assert f"report: {report}" in printed
    text = report.read_text()
    assert not re.search(r"""(src|href)=["']https?://""", text)
    assert text.count("data:image/png;base64") >= 4


def test_maps_of_found_snps_show_what_was_planted(demo):
    out, printed = demo
    maps = pd.read_csv(out / "run" / "interpret" / "snp" / "truth.tsv", sep="\t")
    found = json.loads((out / "run" / "comparison.json").read_text())["rows"][0]["planted_found"]
    assert len(maps) >= found > 0
    assert maps["correlation"].mean() > 0.5
    assert f"the maps of {len(maps)} lead SNPs" in printed


def test_directions_of_snps_are_compared_with_the_planted_factors(demo):
    out, printed = demo
    vit, oracle = json.loads((out / "run" / "comparison.json").read_text())["clusters"]
    assert (vit["name"], oracle["name"]) == ("ViT-AE", "oracle (true factors)")
    assert oracle["ari_one_factor"] >= 0.9 and oracle["leads"] >= 0.8 * 24
    assert f"oracle (true factors) {oracle['ari']:.2f} ({oracle['leads']} lead SNPs" in printed
    assert "Which SNPs act alike" in (out / "run" / "report.html").read_text()


def test_latents_are_probed_for_the_factors_and_for_nulls(demo):
    out, _ = demo
    table = pd.read_csv(out / "run" / "probe" / "probes.tsv", sep="\t").set_index(["target", "latents"])
    assert set(table.index.get_level_values(1)) == {"run", "pca"} and table.value["factor_size", "pca"] > 0.5
    assert table.p["null_0", "pca"] > 1e-4
    assert "What can be read from the latents" in (out / "run" / "report.html").read_text()


def test_diseases_are_told_from_dated_records(demo):
    out, printed = demo
    table = pd.read_csv(out / "run" / "phewas" / "phewas.tsv", sep="\t", dtype={"phecode": str})
    assert set(table.latents) == {"run", "pca"} and len(table) >= 6
    assert "diseases told by latents (false discovery rate 5 %): " in printed and "; run " in printed
    assert "Diagnoses that the latents tell" in (out / "run" / "report.html").read_text()


def test_every_stage_left_a_manifest(demo):
    out, _ = demo
    for name in (
        "ingest/train.zarr",
        "ingest/gwas.zarr",
        "train",
        "latents.parquet",
        "gwas",
        "loci",
        "panel",
        "interpret/snp",
    ):
        manifest = read_manifest(out / "run" / name)
        assert manifest["seconds"] > 0 and manifest["peak_memory_bytes"] > 10**7, name


def test_training_and_association_see_different_people(demo):
    out, _ = demo
    train, gwas = (set(pd.read_csv(out / "cohort" / f"volumes_{s}.csv", dtype=str)["EID"]) for s in ("train", "gwas"))
    assert train and gwas and not train & gwas
    assert set(pd.read_parquet(out / "run" / "latents.parquet")["IID"]) == gwas


def test_second_run_does_nothing_and_a_changed_key_redoes_what_follows(demo, tmp_path):
    out, _ = demo
    again = call("demo", "preset=smoke", "workers=1", f"out={out}").stderr
    for stage in ("simulate", "ingest train", "train", "embed", "gwas", "loci", "panel", "interpret snp", "clusters"):
        assert f"] {stage}: up to date" in again
    tree = yaml.safe_load((out / "run" / "config.yaml").read_text())
    tree["stages"].setdefault("loci", {})["p"] = 1e-4
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    plan = call("run", tmp_path / "run.yaml", "--dry-run").stdout
    assert re.search(r"# gwas +up to date", plan)
    assert re.search(r"# loci +stale", plan)


def test_verbs_by_hand_on_what_the_demo_left(demo, tmp_path):
    out, _ = demo
    run, cohort = out / "run", out / "cohort"
    sumstats = Sumstats.open(run / "gwas")
    for form in ("fastgwa", "ssf", "fuma"):
        call("export", f"sumstats={run / 'gwas'}", "trait=minp", f"format={form}", f"out={tmp_path / form}.tsv.gz")
        table = pd.read_csv(tmp_path / f"{form}.tsv.gz", sep="\t")
        assert 0 < len(table) <= len(sumstats.variants)
    trait = sumstats.traits[0]
    words = [
        f"sumstats={run / 'gwas'}",
        f"genotypes={cohort / 'genotypes'}",
        f"trait={trait}",
        f"out={tmp_path / 'loci'}",
    ]
    call("loci", *words)
    header = (tmp_path / "loci" / "GenomicRiskLoci.txt").read_text().splitlines()[0].split("\t")
    assert header[:7] == ["GenomicLocus", "uniqID", "rsID", "chr", "pos", "p", "start"]
    assert "is up to date" in call("loci", *words).stderr
    refused = call("loci", *words, "r2=0.5", check=False)
    assert refused.returncode == 2 and "overwrite=true" in refused.stderr and "Traceback" not in refused.stderr


def test_a_slurm_array_of_parts_gives_the_same_numbers(demo, tmp_path):
    out, _ = demo
    config = yaml.safe_load((out / "run" / "configs" / "gwas.yaml").read_text())
    config |= {"out": str(tmp_path / "gwas"), "workers": 0, "variants_per_part": 2048}
    (tmp_path / "gwas.yaml").write_text(yaml.safe_dump(config))
    call("gwas-plan", tmp_path / "gwas.yaml")
    early = call("gwas-finish", tmp_path / "gwas.yaml", check=False)
    assert early.returncode == 3 and "parts are not done" in early.stderr
    parts = -(-len(Sumstats.open(out / "run" / "gwas").variants) // 2048)
    sbatch = Path(__file__).parents[2] / "launch" / "gwas.sbatch"
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    for index in range(parts):
        array = environment | {"SLURM_ARRAY_TASK_ID": str(index)}
        subprocess.run(
            [shutil.which("bash"), sbatch, tmp_path / "gwas.yaml"], env=array, check=True, capture_output=True
        )
    call("gwas-finish", tmp_path / "gwas.yaml")
    whole, cut = Sumstats.open(out / "run" / "gwas"), Sumstats.open(tmp_path / "gwas")
    for name in ("minp", "multivariate"):
        pd.testing.assert_series_equal(pd.Series(whole.log10p(name)), pd.Series(cut.log10p(name)), rtol=1e-6)
