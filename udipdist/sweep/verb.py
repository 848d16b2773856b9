"""Sweeps: trainings side by side, each scored by the loci that its latents discover, by one association for all.

sweep     ->  hpc.sweep.run  ->  trial (train, embed, ask)  ->  association (gwas, loci, panel)
          ->  finalists, consensus  ->  results (tables, report)
"""

from __future__ import annotations

import logging
import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import hpc.sweep
from hpc import extras
from hpc.errors import Incomplete, some
from hpc.files import publish_text
from hpc.parts import fix_plan
from hpc.stage import stage
from udipdist.config import SweepConfig
from udipdist.gwas.scan.plan import input_files
from udipdist.sweep import configs, consensus, results
from udipdist.sweep.association import Association, Request
from udipdist.sweep.folder import Look, SweepFolder
from udipdist.sweep.objective import METRIC, Objective
from udipdist.sweep.trial import COLUMNS, TrialProgram

log = logging.getLogger(__name__)


def sweep(config: SweepConfig) -> None:
    """Run the trials that are left, test the finalists, write the tables and the report; prints the table.

    Raises ConfigError and InputError before the first trial; Incomplete where more trials failed than allow_failures;
    Preempted. The same command goes on.
    """
    _require_ray(config)
    config = config.model_copy(update={"out": config.out.absolute()})
    space = configs.check(config)
    with stage("sweep", config.out, config, _inputs(config), config.overwrite) as running:
        if not any(config.out.glob("trials/*/trial.json")):
            (config.out / "plan.json").unlink(missing_ok=True)  # of a start that refused its input
        fix_plan(config.out, {"sweep": config.semantics(), "inputs": running.inputs}, _counts)
        publish_text(config.out / "config.yaml", config.yaml())
        cwd = Path.cwd()
        outcomes = hpc.sweep.run(
            config.out, TrialProgram(config, cwd), space, config.seeds, config.search, config.ray, metric=METRIC,
            mode="max", service=partial(service, config, cwd), columns=COLUMNS,
        )  # fmt: skip
        failed = [outcome.trial.name for outcome in outcomes if outcome.state == "failed"]
        if len(failed) == len(outcomes):
            raise Incomplete(f"{config.out}: all {len(failed)} trials failed; their logs are trials/*/log.txt")
        association = Association(config)
        score_finalists(config, association)
        score_consensus(config, association)
        print(results.write(config.out))
        running.note(trials=len(outcomes), failed=failed, objective=Objective.of(config.objective).name)
        if len(failed) > config.allow_failures:
            raise Incomplete(
                f"{config.out}: {len(failed)} of {len(outcomes)} trials failed: {some(failed)}; the tables are of the "
                "others. Each has its log in trials/NAME/log.txt; the same command tries them again, or type "
                f"allow_failures={len(failed)}"
            )


def preview(config: SweepConfig) -> list[str]:
    """The trials, and what each of them occupies."""
    _require_ray(config)
    space = configs.check(config)
    trials = hpc.sweep.plan_trials(config.out, space, config.seeds, config.search)
    number = len(trials) or config.search.samples * len(config.seeds)
    names = list(dict.fromkeys(trial.configuration for trial in trials))
    epochs = sorted({configs.train_config(config, trial).epochs for trial in trials})
    looks = [len(configs.look_epochs(config, configs.train_config(config, trial).epochs)) for trial in trials]
    count, ray = len(names) or config.search.samples, config.ray
    return [
        f"{number} trials: {count} configurations ({some(names) or 'as they are found'}), seeds {some(config.seeds)}",
        f"epochs {some(epochs) or 'as they are found'}; {sum(looks) or 'all'} checkpoints are tested, at most "
        f"{config.tables_per_pass} in one pass",
        f"a trial: cores {ray.nodes * ray.trial_cpus}, ranks {ray.nodes * ray.ranks}; the association: "
        + (f"cores {ray.service_cpus:g}" if ray.service_cpus else "the cores of trials that wait for it"),
        f"objective: {Objective.of(config.objective).name}, on "
        + (f"about {config.objective.variants:,} variants" if config.objective.variants else "all variants"),
    ]


def _require_ray(config: SweepConfig) -> None:
    extras.require("sweep", "ray", extra="sweep")
    if config.search.algorithm == "optuna":
        extras.require("search.algorithm=optuna", "optuna", extra="sweep")


def service(config: SweepConfig, cwd: Path) -> Association:
    """The association as the shared service of a sweep, in a process of its own; paths are as seen from `cwd`."""
    os.chdir(cwd)
    return Association(config, math.ceil(config.ray.service_cpus) or None)


def score_finalists(config: SweepConfig, association: Association) -> None:
    """Where the sweep screened: test the best epochs of the best trials, and their untrained networks, with all
    variants. Raises what the association says of one."""
    if config.objective.variants is None:
        return
    found = SweepFolder.open(config.out)
    best = found.leading(found.chosen("screening"), config.objective.finalists)
    names = [look.trial.name for look in best]
    floor = [look for look in found.looks if look.epoch == 0 and look.screening and look.trial.name in names]
    log.info("all variants: %s", some(f"epoch {look.epoch} of {look.trial.name}" for look in best))
    _ask(association, [_in_full(config.out, look) for look in best + floor])


def _in_full(out: Path, look: Look) -> Request:
    place = out / "full" / look.trial.name / f"{look.epoch:04d}"
    known = {"epoch": look.epoch, "step": look.step, "val_loss": look.scores["val_loss"], "ssim": look.scores["ssim"]}
    return Request(f"full-{look.trial.name}-{look.epoch:04d}", str(look.latents), str(place), known, full=True)


def score_consensus(config: SweepConfig, association: Association) -> None:
    """What the replicates of each configuration have in common, tested like any latents."""
    if config.consensus == "none":
        return
    found = SweepFolder.open(config.out)
    replicates: dict[str, int] = {}
    for look in found.chosen():
        replicates[look.trial.configuration] = replicates.get(look.trial.configuration, 0) + 1
    requests = []
    for name, count in replicates.items():
        if count < 2:
            log.warning("%s: %d replicate has scores, and a consensus needs two", name, count)
            continue
        latents = consensus.make(config.out, name, config.consensus)
        known = {"configuration": name, "val_loss": None, "ssim": None}
        full = config.objective.variants is not None
        requests.append(Request(f"consensus-{name}", str(latents), str(latents.parent), known, full))
    _ask(association, requests)


def _ask(association: Association, requests: list[Request]) -> None:
    for answer in association.handle(requests):
        if isinstance(answer, Exception):
            raise answer


def _counts(plan: dict[str, Any]) -> dict[str, Any]:
    """What of a plan makes it another: of its inputs the content, not the paths."""
    return plan | {"sweep": SweepConfig.identity_of(plan["sweep"])}


def _inputs(config: SweepConfig) -> dict[str, Path | None]:
    """The files that the sweep reads itself, or has read, by key."""
    files = input_files(configs.scan_options(config), ())  # the latents are yet to come
    return files | {"store": config.store, "test_store": config.test_store}
