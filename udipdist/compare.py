"""Several networks on one cohort: each is trained, embedded and tested alike, and their loci are held together.

The first network is the run itself, with all that a run has; the others stand in networks/NAME of it and read the same
volume stores. `networks/loci` and `networks/loci_multivariate` hold the merged loci and their overlap, and
`networks/networks.json` what the report shows.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hpc.config import merge
from hpc.files import publish_json
from hpc.lock import held
from hpc.stage import read_manifest
from udipdist import pipeline
from udipdist.config import CompareConfig, EmbedConfig, LociConfig, PanelConfig, RunConfig, TrainConfig
from udipdist.config.analyses import LOCI_FOLDERS
from udipdist.pipeline import Step

log = logging.getLogger(__name__)
FOLDER, SUMMARY = "networks", "networks.json"


@dataclass(frozen=True)
class Network:
    """One of those compared, and the folder that holds its train, gwas, loci ..."""

    name: str
    folder: Path


def compare(config: CompareConfig) -> None:
    """Run each stage of each network that is not current; report. StageFailed, InUse; the same command goes on."""
    with held(config.out, "compare"):
        _compare(config)


def _compare(config: CompareConfig) -> None:
    run, networks = run_config(config), networks_of(config)
    steps = {network.name: steps_of(config, network) for network in networks[1:]}  # wrong keys are told before work
    pipeline.run_held(run)
    for name, own in steps.items():
        log.info("network %s", name)
        pipeline.execute_all(own, config.out / FOLDER / name, config.overwrite)
    pipeline.execute_all(overlap_steps(config), config.out / FOLDER, config.overwrite)
    publish_json(config.out / FOLDER / SUMMARY, summary(config))
    if config.report:
        pipeline.execute(pipeline.report_step(config.out, config.title), config.out)


def preview(config: CompareConfig) -> list[str]:
    """What `compare` would do, a line a stage."""
    lines = pipeline.preview(run_config(config))
    rest = [(n.name, steps_of(config, n)) for n in networks_of(config)[1:]] + [("together", overlap_steps(config))]
    for name, steps in rest:
        for step in steps:
            lines.append(f"{name + ' ' + step.name:28s} {'up to date' if step.current else 'to do':12s} -> {step.out}")
    return lines


def networks_of(config: CompareConfig) -> list[Network]:
    """In the order of the configuration; the first is the run itself."""
    first, *others = config.networks
    return [Network(first, config.out), *(Network(name, config.out / FOLDER / name) for name in others)]


def run_config(config: CompareConfig) -> RunConfig:
    """The run of the first network, without its report, which comes last."""
    keys = {key: getattr(config, key) for key in RunConfig.model_fields}
    train = _train_keys(config, next(iter(config.networks)))
    return RunConfig(**keys | {"stages": config.stages | {"train": train}, "report": False})


def steps_of(config: CompareConfig, network: Network) -> list[Step]:
    """The stages of another network, from training to panel. Raises ConfigError where its keys are wrong."""
    folder, stores = network.folder, config.out / "ingest"
    test = stores / "gwas.zarr"
    store = stores / "train.zarr" if config.train_volumes else test
    latents = folder / "latents.parquet"
    keys = _train_keys(config, network.name) | {"store": str(store), "run_dir": str(folder / "train")}
    train = TrainConfig.parse(keys, f"networks.{network.name}")
    own = {"run_dir": str(folder / "train"), "store": str(test), "out": str(latents)}
    embed = EmbedConfig.parse(config.stages.get("embed", {}) | own, "stages.embed")
    own = {"loci": str(folder / "loci"), "out": str(folder / "panel")}
    panel = PanelConfig.parse(config.stages.get("panel", {}) | own, "stages.panel")
    return [
        Step("train", "train", train, folder / "train", config.launch.ranks),
        Step("embed", "embed", embed, latents),
        *pipeline.association_steps(run_config(config), latents, folder, folder / "gwas"),
        Step("panel", "panel", panel, folder / "panel"),
    ]


def overlap_steps(config: CompareConfig) -> list[Step]:
    """The loci of all networks together, of the smallest p and of the joint test."""
    sumstats = [str(network.folder / "gwas") for network in networks_of(config)]
    steps = []
    for trait, folder in LOCI_FOLDERS.items():
        out = config.out / FOLDER / folder
        own = {"sumstats": sumstats, "genotypes": str(config.genotypes), "trait": trait, "out": str(out)}
        loci = LociConfig.parse(config.stages.get("loci", {}) | own, "stages.loci").of_test(trait)
        steps.append(Step(folder, "loci", loci, out))
    return steps


def summary(config: CompareConfig) -> dict[str, Any]:
    """networks.json: of each network what training and association found, and of each pair their overlap."""
    networks = networks_of(config)
    found: dict[str, Any] = {"networks": [_found(config, network) for network in networks], "overlap": {}}
    for folder in LOCI_FOLDERS.values():
        table = pd.read_csv(config.out / FOLDER / folder / "overlap.tsv", sep="\t")
        named = dict(zip(_runs(table), (network.name for network in networks), strict=True))
        pairs = json.loads(table.drop(columns="analysis").to_json(orient="records"))
        found["overlap"][folder] = [
            pair | {"run_a": named[pair["run_a"]], "run_b": named[pair["run_b"]]} for pair in pairs
        ]
    return found


def _found(config: CompareConfig, network: Network) -> dict[str, Any]:
    train = read_manifest(network.folder / "train")
    panel = json.loads((network.folder / "panel" / "panel.json").read_text(encoding="utf-8"))
    assert train is not None, "the stages are done"
    facts = train["facts"]
    row = {
        "name": network.name,
        "network": TrainConfig.load(network.folder / "train" / "config.yaml").model.name,
        "folder": str(network.folder.relative_to(config.out)),
        "parameters": facts["parameters"],
        "train_seconds": train["seconds"],
        **{key: facts[key] for key in ("loss", "ssim") if key in facts},
        "novel": panel["novel"],
    }
    for folder in LOCI_FOLDERS.values():
        row[folder] = len(pd.read_parquet(network.folder / folder / "loci.parquet"))
        if config.truth is not None:
            row |= {f"{folder}_{key}": value for key, value in _truth(network.folder / folder, config.truth).items()}
    return row


def _truth(loci: Path, truth: Path) -> dict[str, int]:
    from udipdist.cohort.score import score

    leads = pd.read_csv(loci / "leadSNPs.txt", sep="\t", dtype={"chr": str})
    result = score(leads.rename(columns={"chr": "chrom", "pos": "position"}), truth)
    return {"planted": len(result.planted_found), "planted_total": result.planted_total, "false": result.strict_false}


def _runs(table: pd.DataFrame) -> list[str]:
    """The names that `loci` gave to the runs of an overlap table, in order: of pairs (a, b), (a, c), ... (b, c)."""
    return list(dict.fromkeys([*table["run_a"].head(1), *table["run_b"]]))


def _train_keys(config: CompareConfig, name: str) -> dict[str, Any]:
    return merge(config.stages.get("train", {}), config.networks[name])
