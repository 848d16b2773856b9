"""What a sweep's trials are, and what must be right before the first of them begins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc.config import Config, merge
from hpc.errors import ConfigError
from hpc.sweep import Space, Trial, parse_space
from hpc.sweep.space import leaves
from udipdist.config import (
    EmbedConfig,
    GwasConfig,
    LociConfig,
    LociOptions,
    PanelConfig,
    ScanOptions,
    SweepConfig,
    TrainConfig,
)
from udipdist.sweep.objective import Objective

OWN = {  # keys of train that a sweep sets itself
    "store": "store=", "modality": "modality=", "run_dir": "a folder for each trial", "seed": "seeds=",
    "keep_epochs": "look_at=", "threads": "ray.cpus_per_trial=", "resume": "always", "overwrite": "overwrite=",
}  # fmt: skip
PBT_MAY_VARY = ("optim.", "schedule.")


def space_of(config: SweepConfig) -> Space:
    """The search space, checked. Raises ConfigError for keys and values that train would refuse."""
    space = parse_space(config.space)
    for key in (*space.keys, *(key for key, _ in leaves(config.train))):
        if key in OWN:
            raise ConfigError(f"{key}: is set by the sweep ({OWN[key]}); leave it out of train and space")
    outside = [key for key in space.keys if not key.startswith(PBT_MAY_VARY)]
    if config.search.algorithm == "pbt" and outside:
        raise ConfigError(
            f"space.{outside[0]}: cannot vary with search.algorithm=pbt, where a network continues with other values; "
            f"it may vary keys that begin with {' or '.join(PBT_MAY_VARY)}"
        )
    for configuration in space.examples():
        TrainConfig.parse(_train_tree(config, configuration.values, config.seeds[0], config.out), "train")
    return space


def train_config(config: SweepConfig, trial: Trial) -> TrainConfig:
    """What a trial trains. Raises ConfigError."""
    return TrainConfig.parse(_train_tree(config, trial.values, trial.seed, trial.folder / "train"), "train")


def look_epochs(config: SweepConfig, epochs: int) -> tuple[int, ...]:
    """At which epochs a training of so many is looked at: those of look_at that it reaches, and its last."""
    return tuple(sorted({epoch for epoch in config.look_at if epoch <= epochs} | {epochs}))


def embed_config(config: SweepConfig, run_dir: Path, step: int, out: Path) -> EmbedConfig:
    """How the checkpoint of a step is embedded."""
    keys = {
        "run_dir": run_dir, "store": config.test_store or config.store, "modality": config.modality,
        "checkpoint": str(step), "out": out, "threads": config.ray.trial_cpus,
    }  # fmt: skip
    return _stage(EmbedConfig, config, "embed", keys)


def scan_options(config: SweepConfig) -> ScanOptions:
    """How latents are tested, whatever the latents."""
    return _stage(ScanOptions, config, "gwas", _gwas_keys(config))


def gwas_config(
    config: SweepConfig, phenotypes: tuple[Path, ...], out: Path, extract: Path | None = None
) -> GwasConfig:
    """How tables of latents are tested; `extract` lists the variants of a screening."""
    keys = _gwas_keys(config) | {"phenotypes": [str(path) for path in phenotypes], "out": out}
    found = _stage(GwasConfig, config, "gwas", keys)
    return found if extract is None else found.model_copy(update={"extract": extract})


def _gwas_keys(config: SweepConfig) -> dict[str, Any]:
    given = config.stages.get("gwas", {})
    return {
        "genotypes": config.genotypes, "covariates": config.covariates, "sparse_grm": config.sparse_grm,
        "test": "mixed" if given.get("sparse_grm", config.sparse_grm) else "linear",
    }  # fmt: skip


def loci_options(config: SweepConfig) -> LociOptions:
    """How loci are found, whatever the summary statistics."""
    return _stage(LociOptions, config, "loci", {"genotypes": config.genotypes})


def loci_config(config: SweepConfig, sumstats: Path, trait: str | tuple[str, ...], out: Path) -> LociConfig:
    """How loci are found. A divisor `tests` of the user is that of the smallest p; a joint test is one test."""
    keys = {"sumstats": sumstats, "genotypes": config.genotypes, "trait": trait, "out": out}
    found = _stage(LociConfig, config, "loci", keys)
    return found.of_test(trait) if isinstance(trait, str) else found


def panel_config(config: SweepConfig, loci: Path, out: Path) -> PanelConfig:
    """How loci are compared with the panel; only hits are scored, so chance loci are not drawn unless asked for."""
    return _stage(PanelConfig, config, "panel", {"loci": loci, "out": out, "pool": 0})


def check(config: SweepConfig) -> Space:
    """Refuse what would be refused only after hours: keys of any stage, genotypes, covariates, the GRM, the stores.

    Returns the search space. Raises ConfigError and InputError.
    """
    from udipdist.gwas.scan.verb import check as check_gwas
    from udipdist.volumes.store import VolumeStore

    space = space_of(config)
    objective = Objective.of(config.objective)
    validated = [_train_tree(config, c.values, 0, config.out).get("validation", 1) for c in space.examples()]
    if not all(validated) and objective.weights.keys() & {"val_loss", "ssim"}:
        raise ConfigError(f"objective.score={objective.name}: needs held-out subjects; give train a validation above 0")
    somewhere = config.out / "checked"
    embed_config(config, somewhere, 0, somewhere / "latents.parquet")
    loci_options(config)
    panel_config(config, somewhere, somewhere)
    check_gwas(scan_options(config))
    for store in (config.store, config.test_store or config.store):
        VolumeStore.open(store, config.modality)
    return space


def _train_tree(config: SweepConfig, values: Mapping[str, Any], seed: int, run_dir: Path) -> dict[str, Any]:
    tree = merge(nested(config.train), nested(values))
    epochs = tree.get("epochs", TrainConfig.model_fields["epochs"].default)
    return tree | {
        "store": config.store, "modality": config.modality, "run_dir": run_dir, "seed": seed,
        "threads": max(1, config.ray.trial_cpus // config.ray.ranks),
        "keep_epochs": list(look_epochs(config, epochs)) if isinstance(epochs, int) else [],
    }  # fmt: skip


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested mappings; of keys within each other the later lies on top."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        for name in reversed(key.split(".")):
            value = {name: value}
        tree = merge(tree, value)
    return tree


def _stage(cls: type[Config], config: SweepConfig, stage: str, keys: dict[str, Any]) -> Any:
    """The configuration of a stage: the sweep's keys, with the user's for that stage on top."""
    return cls.parse(keys | config.stages.get(stage, {}), f"stages.{stage}")
