"""The whole pipeline on a simulated cohort; what it finds is compared with what was planted.

Beside the trained ViT autoencoder stand a PCA of the voxels, the untrained encoder, the oracle (the true factors as
phenotypes) and the trained encoder again without covariates, so that the reader sees what each is worth.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hpc.config import Config, merge
from hpc.errors import ConfigError
from hpc.files import publish, publish_json
from hpc.lock import held
from hpc.stage import is_current, stage
from udipdist import pipeline
from udipdist.config import DemoConfig, EmbedConfig, RunConfig, SimulateConfig
from udipdist.pipeline import Step

log = logging.getLogger(__name__)

# What the demo sets apart from the defaults of each stage. One optimiser step sees 8 people and the network is a
# quarter of the published depth, so that a laptop trains it in two minutes; the looks into it are few people's.
_GWAS = {"normalise": "rank"}
TITLE = "Demo: simulated brains and genotypes"
# What latents are probed for beside the factors: what may, and what must not be known of people.
PROBED = ("age", "sex", "site_ashford", "site_reading", "null_0", "null_half")
STAGES: dict[str, dict[str, dict[str, Any]]] = {
    "demo": {
        "train": {"epochs": 12, "global_batch": 8, "model": {"patch": 8, "depth": 3}},
        "gwas": _GWAS,
        "gallery": {"sample": 128, "top": 4},
        "attention": {"layer": 3, "rollout": True},
        "saliency": {"subjects": 8, "top": 3, "steps": 16, "methods": ["integrated_gradients", "gradient_x_input"]},
        "perturb": {"latents": [0, 1, 2, 3], "subjects": 100, "permutations": 760},
        "snp": {"subjects": 100, "permutations": 760, "controls": 5},
    },
    "smoke": {
        "train": {"epochs": 24, "global_batch": 8, "model": {"patch": 8, "depth": 2}},
        "gwas": _GWAS,
        "gallery": {"sample": 32, "top": 2},
        "attention": {"subjects": 20},
        "saliency": {"subjects": 2, "top": 1, "steps": 4, "methods": ["gradient_x_input"]},
        "perturb": {"latents": [0], "subjects": 20, "permutations": 760},
        "snp": {"subjects": 20, "permutations": 760, "controls": 2},
        "probe": {"draws": 100},
    },
}


@dataclass(frozen=True)
class Analysis:
    """One row of the table: its name, its phenotypes, and the folder that holds its gwas and loci."""

    name: str
    phenotypes: Path
    folder: Path
    covariates: bool = True


class VoxelPcaConfig(Config):
    """The inputs of the PCA row; it has no verb of its own."""

    train: Path
    embed: Path
    components: int = 128
    seed: int = 0


def demo(config: DemoConfig) -> None:
    """Simulate, run, compare, report; prints the table and the report's path. Raises StageFailed, InUse."""
    with held(config.out, "demo"):
        _demo(config)


def _demo(config: DemoConfig) -> None:
    cohort, out = config.out / "cohort", config.out / "run"
    simulate = Step("simulate", "simulate", _simulate_config(config), cohort)
    pipeline.execute_all([simulate], config.out, config.overwrite)
    run = _run_config(config)
    pipeline.run(run)
    analyses = _analyses(config, run)
    for analysis in analyses[1:]:
        log.info("comparison: %s", analysis.name)
        pipeline.execute_all(_association(analysis, run), analysis.folder, config.overwrite)
    clustered = [analyses[0], analyses[3]]
    pipeline.execute_all(
        [pipeline.clusters_step(run, analysis.folder) for analysis in clustered[1:]], out, config.overwrite
    )
    known = [_probe(run, cohort, analyses[:2]), _phewas(run, cohort, analyses[:2])]
    pipeline.execute_all(known, out, config.overwrite)
    comparison = compare(analyses, cohort) | {"clusters": score_clusters(clustered, cohort)}
    publish_json(out / "comparison.json", comparison)
    maps = score_maps(out / "interpret" / "snp", cohort) if comparison["rows"][0]["planted_found"] else pd.DataFrame()
    pipeline.execute(pipeline.report_step(out, TITLE), out)
    print(table(comparison["rows"]))
    print(about_maps(maps))
    print(about_clusters(comparison["clusters"]))
    print(about_diagnoses(score_diagnoses(out / "phewas", cohort)))
    print(f"\nreport: {out / 'report.html'}")


def preview(config: DemoConfig) -> list[str]:
    """The stages of the demo, a line each."""
    simulate = Step("simulate", "simulate", _simulate_config(config), config.out / "cohort")
    lines = [f"{'simulate':18s} {'up to date' if simulate.current else 'to do'}"]
    lines += pipeline.preview(_run_config(config))
    return [*lines, "then the same association of: voxel PCA, untrained encoder, true factors, no covariates"]


def compare(analyses: list[Analysis], cohort: Path) -> dict[str, Any]:
    """Every analysis scored against the truth: `rows` of the table, and `planted` loci with who found them."""
    from udipdist.analysis.probes.factors import factor_r2
    from udipdist.cohort import score
    from udipdist.sumstats.store import Sumstats

    truth = cohort / "truth"
    factors = pd.read_parquet(truth / "factors.parquet")
    null = json.loads((truth / "truth.json").read_text())["null_chromosomes"]
    rows, found_by = [], {}
    for analysis in analyses:
        result = score.score(_leads(analysis.folder / "loci"), truth)
        multivariate = score.score(_leads(analysis.folder / "loci_multivariate"), truth)
        sumstats = Sumstats.open(analysis.folder / "gwas")
        r2 = factor_r2(pd.read_parquet(analysis.phenotypes), factors)
        rows.append(
            {
                "name": analysis.name,
                "planted_found": len(result.planted_found),
                "planted_total": result.planted_total,
                "leads": result.leads,
                "polygenic": result.polygenic,
                "strict_false": result.strict_false,
                "lambda_null": score.lambda_null(sumstats, null),
                "multivariate_loci": len(multivariate.planted_found),
                "multivariate_false": multivariate.strict_false,
                "lambda_joint": score.lambda_joint(sumstats, null),
                "factor_r2": sum(r2.values()) / len(r2),
            }
        )
        found_by[analysis.name] = set(result.planted_found)
    planted = pd.read_csv(truth / "loci.tsv", sep="\t")
    records = planted[planted["role"] == "primary"].to_dict("records")
    for record in records:
        record["found_by"] = [name for name, found in found_by.items() if record["locus"] in found]
    return {"rows": rows, "planted": records, "null_chromosomes": null}


def score_maps(maps: Path, cohort: Path) -> pd.DataFrame:
    """truth.tsv among the maps of the lead SNPs: each that found a planted locus, with the correlation of its map with
    what the planted factor does to the brain, and that of a random direction. Kept with the maps: it takes a while."""
    from udipdist.cohort import maps as truth

    path = maps / "truth.tsv"
    if not path.exists():
        with publish(path) as partial:
            truth.score_maps(maps, cohort).table.to_csv(partial, sep="\t", index=False, float_format="%.4g")
    return pd.read_csv(path, sep="\t")


def about_maps(maps: pd.DataFrame) -> str:
    """The maps of lead SNPs against the truth, in a sentence."""
    if maps.empty:
        return "no lead SNP found a planted locus, so there is no map to compare with the truth"
    found, random = maps["correlation"].mean(), maps["control"].abs().mean()
    return (
        f"SNP to brain: the maps of {len(maps)} lead SNPs correlate with what their planted factors do to the brain by "
        f"{found:.2f} on average; those of random directions by {random:.2f} in size"
    )


def score_clusters(analyses: list[Analysis], cohort: Path) -> list[dict[str, Any]]:
    """Of each analysis that has clusters of SNP directions: name, clusters, leads near planted loci, and the adjusted
    Rand index of their clusters with the planted factors (None: unknown); the same for loci of one factor."""
    from udipdist.cohort import score

    rows = []
    for analysis in analyses:
        path = analysis.folder / "clusters" / "clusters.tsv"
        if path.exists():
            found = pd.read_csv(path, sep="\t", dtype={"chrom": str})
            row: dict[str, Any] = {"name": analysis.name, "clusters": int(found["cluster"].max())}
            for key, one_factor in (("", False), ("_one_factor", True)):
                ari, leads = score.cluster_ari(found, cohort / "truth", one_factor)
                row |= {f"leads{key}": leads, f"ari{key}": None if pd.isna(ari) else ari}
            rows.append(row)
    return rows


def about_clusters(rows: list[dict[str, Any]]) -> str:
    """The clusters of SNP directions against the truth, in a sentence."""
    told = [
        f"{row['name']} {row['ari']:.2f} ({row['leads']} lead SNPs, {row['clusters']} clusters)"
        for row in rows
        if row["ari"] is not None
    ]
    if not told:
        return "no analysis has lead SNPs of planted loci enough for clusters of their directions"
    return f"SNP directions: adjusted Rand index of their clusters with the planted factors: {', '.join(told)}"


def table(rows: list[dict[str, Any]]) -> str:
    """The comparison as text."""
    head = (
        f"{'phenotypes':28s} {'planted':>9s} {'poly-':>6s} {'strict':>7s} {'lambda':>7s} {'joint test:':>11s} "
        f"{'lambda':>7s} {'factor':>7s}\n{'':28s} {'found':>9s} {'genic':>6s} {'false':>7s} {'null':>7s} "
        f"{'planted':>11s} {'null':>7s} {'R2':>7s}"
    )
    lines = [
        f"{r['name']:28s} {r['planted_found']:>5d}/{r['planted_total']:<3d} {r['polygenic']:>6d} "
        f"{r['strict_false']:>7d} {r['lambda_null']:>7.3f} {r['multivariate_loci']:>11d} "
        f"{r['lambda_joint']:>7.3f} {r['factor_r2']:>7.3f}"
        for r in rows
    ]
    rule = "-" * len(head.splitlines()[0])
    return "\n".join(["", head, rule, *lines, rule])


def _simulate_config(config: DemoConfig) -> SimulateConfig:
    keys = config.stages.get("simulate", {})
    base = {"out": config.out / "cohort", "preset": config.preset, "seed": config.seed, "workers": config.workers}
    return SimulateConfig.parse(base | keys)


def _run_config(config: DemoConfig) -> RunConfig:
    cohort = config.out / "cohort"
    known = {"simulate", *pipeline.STAGES, *pipeline.INTERPRETATIONS}
    unknown = sorted(set(config.stages) - known)
    if unknown:
        raise ConfigError(f"stages.{unknown[0]}: unknown stage; the stages are {', '.join(sorted(known))}")
    own = {name: keys for name, keys in config.stages.items() if name != "simulate"}
    stages = merge(merge(STAGES[config.preset], {"train": {"seed": config.seed}}), own)
    return RunConfig(
        out=config.out / "run", volumes=cohort / "volumes_gwas.csv", train_volumes=cohort / "volumes_train.csv",
        genotypes=cohort / "genotypes", covariates=cohort / "covariates.tsv", sparse_grm=cohort / "sparse",
        workers=config.workers, report=False, interpret=True, stages=stages, overwrite=config.overwrite,
        launch={"ranks": max(1, config.workers)},
    )  # fmt: skip


def _analyses(config: DemoConfig, run: RunConfig) -> list[Analysis]:
    """The rows; makes the phenotypes that the pipeline did not make."""
    folder = run.out / "comparison"
    pca, untrained = folder / "pca" / "latents.parquet", folder / "untrained" / "latents.parquet"
    embed = EmbedConfig(
        run_dir=run.out / "train", store=run.out / "ingest" / "gwas.zarr", out=untrained, checkpoint="0"
    )
    pipeline.execute_all([Step("embed untrained", "embed", embed, untrained)], run.out, config.overwrite)
    _voxel_pca(run, pca, config.overwrite)
    return [
        Analysis("ViT-AE", run.out / "latents.parquet", run.out),
        Analysis("PCA of the voxels", pca, folder / "pca"),
        Analysis("untrained encoder", untrained, folder / "untrained"),
        Analysis("oracle (true factors)", config.out / "cohort" / "truth" / "factors.parquet", folder / "oracle"),
        Analysis(
            "ViT-AE without covariates", run.out / "latents.parquet", folder / "without_covariates", covariates=False
        ),
    ]


def _probe(run: RunConfig, cohort: Path, analyses: list[Analysis]) -> Step:
    """What the latents of some analyses say of the factors and of PROBED, without covariates."""
    from udipdist.cohort.factors import NAMES

    keys = {"only": [*(f"factor_{name}" for name in NAMES), *PROBED]} | run.stages.get("probe", {})
    asked = {"targets": cohort / "truth" / "targets.tsv", "covariates": None, "stages": run.stages | {"probe": keys}}
    return pipeline.probe_step(run.model_copy(update=asked), tuple(one.phenotypes for one in analyses), run.out)


def _phewas(run: RunConfig, cohort: Path, analyses: list[Analysis]) -> Step:
    """Which of the simulated diseases the latents of some analyses tell, from dated records."""
    truth = cohort / "truth"
    tables = {"events": "events.tsv", "map": "phecode_map.tsv", "definitions": "phecode_definitions.tsv"}
    keys = {"formula": "age + sex + C(site)"} | run.stages.get("phewas", {})
    asked = {key: truth / name for key, name in tables.items()} | {"stages": run.stages | {"phewas": keys}}
    return pipeline.phewas_step(run.model_copy(update=asked), tuple(one.phenotypes for one in analyses), run.out)


def score_diagnoses(phewas: Path, cohort: Path) -> list[dict[str, Any]]:
    """Of each table of latents: diseases tested, and those told at a false discovery rate of 5 %, with a factor among
    their causes (`true`) and without (`false`)."""
    found = pd.read_csv(phewas / "phewas.tsv", sep="\t", dtype={"phecode": str})
    truth = pd.read_csv(cohort / "truth" / "diseases.tsv", sep="\t", dtype={"phecode": str}).set_index("phecode").b
    rows = []
    for latents, part in found[found["phecode"].isin(truth.index)].groupby("latents", sort=False):
        acts = part["phecode"].map(truth) != 0
        told = part["q"] < 0.05
        row = {"latents": latents, "tested": len(part), "with_cause": int(acts.sum())}
        rows.append(row | {"true": int((told & acts).sum()), "false": int((told & ~acts).sum())})
    return rows


def about_diagnoses(rows: list[dict[str, Any]]) -> str:
    """The diseases that latents tell, in a sentence."""
    told = [
        f"{r['latents']} {r['true']} of {r['with_cause']} with a cause in the brain, {r['false']} others" for r in rows
    ]
    return f"diseases told by latents (false discovery rate 5 %): {'; '.join(told)}"


def _voxel_pca(run: RunConfig, out: Path, overwrite: bool) -> None:
    from udipdist.analysis.voxel_pca import voxel_pca

    config = VoxelPcaConfig(train=run.out / "ingest" / "train.zarr", embed=run.out / "ingest" / "gwas.zarr")
    if is_current("voxel_pca", out, config) and not overwrite:
        return
    with stage("voxel_pca", out, config, {"train": config.train, "embed": config.embed}, overwrite=True) as made:
        latents = voxel_pca(config.train, config.embed, config.components, config.seed)
        made.note(subjects=len(latents))
        with publish(out) as partial:
            latents.to_parquet(partial, index=False)


def _association(analysis: Analysis, run: RunConfig) -> list[Step]:
    if not analysis.covariates:
        gwas = {key: value for key, value in run.stages["gwas"].items() if key not in ("covariates", "formula")}
        run = run.model_copy(update={"covariates": None, "stages": run.stages | {"gwas": gwas}})
    return pipeline.association_steps(run, analysis.phenotypes, analysis.folder, analysis.folder / "gwas")


def _leads(loci: Path) -> pd.DataFrame:
    """Lead SNPs of a loci folder: columns chrom, position."""
    leads = pd.read_csv(loci / "leadSNPs.txt", sep="\t", dtype={"chr": str})
    return leads.rename(columns={"chr": "chrom", "pos": "position"})[["chrom", "position"]]
