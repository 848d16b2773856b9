"""The verb `probe`: what a linear model reads from latents, out of fold, with intervals; several tables compared."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpc import cluster, parts
from hpc.errors import InputError
from hpc.stage import stage
from udipdist.analysis import joining
from udipdist.analysis.probes import output, targets
from udipdist.analysis.probes.job import Model, ProbeJob
from udipdist.analysis.probes.targets import BINARY, Target
from udipdist.config.probe import ProbeConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Study:
    """What is probed: the people in all tables (FID IID), latents of each table, covariates, targets, and which columns
    are skipped."""

    people: pd.DataFrame
    tables: list[Model]
    covariates_NC: np.ndarray | None
    fold_N: np.ndarray
    targets: list[Target]
    skipped: list[tuple[str, str]]
    lost: dict[str, int]


def probe(config: ProbeConfig) -> None:
    """Write probes.tsv, comparisons.tsv, skipped.tsv and the picture. Raises InputError where tables do not fit."""
    with stage("probe", config.out, config, _inputs(config), config.overwrite) as current:
        study = read(config)
        parts.fix_plan(config.out, {"probe": config.semantics(), "inputs": dict(current.inputs)}, _counts)
        job = ProbeJob(
            place=config.out.absolute(),
            targets=study.targets,
            groups=targets.groups(study.targets),
            tables=study.tables,
            covariates_NC=study.covariates_NC,
            fold_N=study.fold_N,
            family_N=joining.families(study.people),
            penalty=config.penalty,
            draws=config.draws,
            seed=config.seed,
        )
        found = parts.run(job, "probe", cluster.runner(config.workers))
        facts = output.write(config.out, job, found, study.skipped)
        current.note(people=len(study.people), lost=study.lost, **facts)
    _tell(facts, study)


def preview(config: ProbeConfig) -> list[str]:
    """Who would be probed for what."""
    study = read(config)
    binary = sum(target.kind == BINARY for target in study.targets)
    columns = ", ".join(f"{one.x_NC.shape[1]} of {one.name}" for one in study.tables)
    more = 0 if study.covariates_NC is None else study.covariates_NC.shape[1]
    lines = [
        f"{len(study.people):,} people in all tables; latents: {columns}; {more} covariate columns",
        f"{len(study.targets) - binary} measurements (R2) and {binary} of yes and no (AUC), {config.folds} folds",
    ]
    lines += [f"skipped: {name} {why}" for name, why in study.skipped]
    return [*lines, f"writes {config.out}/"]


def read(config: ProbeConfig) -> Study:
    """Read and join the tables. Raises InputError."""
    latents = joining.read_latents(config.latents, config.match)
    asked, columns = targets.read(config.targets, config.match, config.missing, config.only)
    lists = [(one.path, one.people) for one in latents] + [(config.targets, asked)]
    covariates = None
    if config.covariates is not None:
        known, covariates = joining.covariates_of(config.covariates, config.formula, config.match, config.missing)
        lists.append((config.covariates, known))
    elif config.formula is not None:
        raise InputError("formula=: chooses covariates, and there are none; give covariates=TABLE or leave it out")
    rows = joining.common_rows(lists, config.match)
    people = latents[0].people.iloc[rows[0]].reset_index(drop=True)
    fold_N = joining.folds(people, config.folds, config.seed)
    found, skipped = targets.sort(columns.iloc[rows[len(latents)]].reset_index(drop=True), config.min_cases)
    found, unfit = targets.in_all_folds(found, fold_N, config.folds)
    skipped += unfit
    targets.refuse_none(found, skipped, config.targets)
    return Study(
        people=people,
        tables=[Model(one.name, one.values_NL[row]) for one, row in zip(latents, rows, strict=False)],
        covariates_NC=None if covariates is None else covariates.iloc[rows[-1]].to_numpy(np.float64),
        fold_N=fold_N,
        targets=found,
        skipped=skipped,
        lost={str(path): len(people) - len(rows[0]) for path, people in lists},
    )


def _counts(plan: dict[str, Any]) -> dict[str, Any]:
    """What of a plan makes it another: of its inputs the content, not the paths."""
    return plan | {"probe": ProbeConfig.identity_of(plan["probe"])}


def _inputs(config: ProbeConfig) -> dict[str, Path | None]:
    several = len(config.latents) > 1
    latents = {f"latents {i}" if several else "latents": path for i, path in enumerate(config.latents)}
    return {**latents, "targets": config.targets, "covariates": config.covariates}


def _tell(facts: dict[str, Any], study: Study) -> None:
    if facts["unfinished_fits"]:
        log.warning("%d fits of yes and no had not settled when they were ended", facts["unfinished_fits"])
    if study.skipped:
        log.warning("%d targets are skipped; skipped.tsv says why", len(study.skipped))
    for row in facts["means"]:
        log.info(
            "%s: mean %s %.3f over %d targets, of which %d are known (p < 0.05 / %d)",
            row["latents"], row["metric"], row["mean"], row["targets"], row["known"], row["targets"],
        )  # fmt: skip
