"""A sweep on the simulated cohort: schedules and lengths of training, scored by the planted loci.

Three configurations, two replicates and three epochs: a training that stops early, one whose rate falls by steps, and
one with a cosine. The known loci that hits are counted against are those that were planted.
"""

from __future__ import annotations

import logging
from typing import Any

from hpc.lock import held
from udipdist import pipeline
from udipdist.config import IngestConfig, SimulateConfig, SweepConfig, SweepDemoConfig
from udipdist.pipeline import Step
from udipdist.sweep.verb import preview as preview_of_sweep
from udipdist.sweep.verb import sweep

log = logging.getLogger(__name__)

# One optimiser step sees 8 people and the network is a quarter of the published depth, as in `udipdist demo`.
TRAIN: dict[str, Any] = {"global_batch": 8, "model": {"patch": 8, "depth": 3}, "tensorboard": False}
SPACE: dict[str, Any] = {
    "training": {
        "grid": {
            "undertrained": {"epochs": 1, "schedule.name": "step", "schedule.step_epochs": 1},
            "step": {"epochs": 6, "schedule.name": "step", "schedule.step_epochs": 1},
            "cosine": {"epochs": 6, "schedule.name": "cosine"},
        }
    }
}
LOOK_AT = (0, 3)  # and the last


def sweep_demo(config: SweepDemoConfig) -> None:
    """Simulate, ingest, sweep; prints the table. Raises StageFailed, Incomplete, InUse."""
    with held(config.out, "sweep-demo"):
        pipeline.execute_all(steps(config), config.out, config.overwrite)
        sweep(sweep_config(config))
        print("In the panel: found loci among those that were planted.")


def preview(config: SweepDemoConfig) -> list[str]:
    """What is up to date, and the trials."""
    lines = [f"{step.name:18s} {'up to date' if step.current else 'to do'}" for step in steps(config)]
    return lines + (preview_of_sweep(sweep_config(config)) if all(step.current for step in steps(config)) else [])


def steps(config: SweepDemoConfig) -> list[Step]:
    """What comes before the sweep."""
    cohort, keys = config.out / "cohort", {"preset": config.preset, "seed": config.seed, "workers": config.workers}
    found = [Step("simulate", "simulate", SimulateConfig.parse({"out": cohort, **keys}), cohort)]
    for name in ("train", "gwas"):
        store = config.out / f"{name}.zarr"
        ingest = IngestConfig(volumes=str(cohort / f"volumes_{name}.csv"), out=store, workers=config.workers)
        found.append(Step(f"ingest {name}", "ingest", ingest, store))
    return found


def sweep_config(config: SweepDemoConfig) -> SweepConfig:
    """The sweep: two trials at a time, a core each, and the association on those that wait for it."""
    cohort = config.out / "cohort"
    tree: dict[str, Any] = {
        "out": config.out / "sweep", "store": config.out / "train.zarr", "test_store": config.out / "gwas.zarr",
        "genotypes": cohort / "genotypes", "covariates": cohort / "covariates.tsv", "sparse_grm": cohort / "sparse",
    }  # fmt: skip
    tree = {key: str(path.absolute()) for key, path in tree.items()}
    stages = {"gwas": {"normalise": "rank"}, "panel": {"panel": str((cohort / "truth" / "loci.tsv").absolute())}}
    return SweepConfig.parse(
        tree | {
            "train": TRAIN, "space": SPACE, "seeds": [config.seed, config.seed + 1], "look_at": LOOK_AT,
            "stages": stages, "ray": {"service_cpus": 0, "gather": 10}, "overwrite": config.overwrite,
        }
    )  # fmt: skip
