"""The verb `erase`: latents without what confounders say of them linearly, and an audit of what is left."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from hpc.errors import InputError, some
from hpc.files import publish
from hpc.progress import Progress
from hpc.stage import stage
from udipdist.analysis import joining
from udipdist.analysis.erasure import audit, expansion, linear
from udipdist.analysis.erasure.figures import audit_figure
from udipdist.analysis.erasure.heritable import heritable
from udipdist.config.erase import EraseConfig
from udipdist.figures import style
from udipdist.latents import write_latents
from udipdist.people import design as designs

log = logging.getLogger(__name__)
LINEAR_FOLDS, TREE_FOLDS = 5, 2  # of the audited half
FEWEST = 40  # people in a half


@dataclass(frozen=True)
class Study:
    """What is erased from what: people (FID IID) in both tables, latents, the confounders as they are audited, all
    columns that are erased, and how many people of each table are left out."""

    people: pd.DataFrame
    names: list[str]
    x_NL: np.ndarray
    confounders: pd.DataFrame
    erased_NK: np.ndarray
    lost: dict[str, int]


def erase(config: EraseConfig) -> None:
    """Write the table of all people by a fit of all, and the audit: a fit of one half, judged in the other.

    Raises InputError where the tables do not fit, or the confounders leave nothing.
    """
    inputs = {"latents": config.latents, "confounders": config.confounders, "h2": config.h2}
    with stage("erase", config.out, config, inputs, config.overwrite) as made:
        study = read(config)
        inherited = heritable(config.h2, list(study.confounders)) if config.h2 is not None else {}
        eraser = fit(config, study, np.ones(len(study.people), bool))
        judged = judge(config, study)
        left_NL = eraser.apply(study.x_NL, study.erased_NK)
        facts = {
            "people": len(study.people), "lost": study.lost, "latents": len(study.names),
            "confounders": len(study.confounders.columns), "erased_columns": study.erased_NK.shape[1],
            "dimensions": eraser.dimensions, "variance_kept": _variance(left_NL) / _variance(study.x_NL),
            "linear_before": float(judged["linear_before"].max()), "linear_after": float(judged["linear_after"].max()),
            "heritable": inherited,
        }  # fmt: skip
        if config.trees:
            facts["boosted_after"] = float(judged["boosted_after"].max())
        beside = _audit_files(config.out)
        with publish(beside[0]) as partial:
            judged.to_csv(partial, sep="\t", index=False, na_rep="NA", float_format="%.6g")
        figure = audit_figure(judged, f"{config.method}: {facts['dimensions']} of {facts['latents']} dimensions stay")
        for path in beside[1:]:
            with publish(path) as partial:
                style.save(figure, partial, form=path.suffix)
        values = pd.DataFrame(left_NL.astype(_width(config.latents)), columns=study.names)
        write_latents(pd.concat([study.people, values], axis=1), config.out)
        made.note(**facts)
    _tell(config, facts)


def preview(config: EraseConfig) -> list[str]:
    """Who and what would be erased."""
    study = read(config)
    return [
        f"{len(study.people):,} people with {len(study.names)} latents and {len(study.confounders.columns)} "
        "confounders",
        f"method={config.method} erases {study.erased_NK.shape[1]} columns; fitted once more on one half, by family, "
        "and audited on the other",
        f"writes {config.out}, {config.out.with_suffix('.pheno')} and {_audit_files(config.out)[0]}",
    ]


def read(config: EraseConfig) -> Study:
    """The tables side by side. Raises InputError."""
    (latents,) = joining.read_latents([config.latents], config.match)
    known, columns = joining.covariates_of(config.confounders, config.formula, config.match, config.missing)
    lists = [(config.latents, latents.people), (config.confounders, known)]
    rows = joining.common_rows(lists, config.match)
    if len(rows[0]) < 2 * FEWEST:
        raise InputError(
            f"{config.confounders}: {len(rows[0])} people have latents and confounders, and two halves need "
            f"{2 * FEWEST}; give tables of the same people"
        )
    columns = columns.iloc[rows[1]].reset_index(drop=True)
    kept = designs.design(columns)
    designs.warn_dropped(kept)
    if not kept.names:
        raise InputError(
            f"{config.confounders}: every confounder is the same for all people; there is nothing to erase"
        )
    confounders = columns[kept.names]
    erased = expansion.expand(confounders, config.expand)
    return Study(
        people=latents.people.iloc[rows[0]].reset_index(drop=True),
        names=latents.names,
        x_NL=latents.values_NL[rows[0]],
        confounders=confounders,
        erased_NK=erased.to_numpy(np.float64),
        lost={str(path): len(people) - len(rows[0]) for path, people in lists},
    )


def fit(config: EraseConfig, study: Study, chosen_N: np.ndarray) -> linear.Eraser:
    """The eraser of these people. Raises InputError where it leaves nothing."""
    x_NL, z_NK = study.x_NL[chosen_N], study.erased_NK[chosen_N]
    eraser: linear.Eraser
    if config.method == "residual":
        eraser = linear.residual(x_NL, z_NK)
    elif config.method == "leace":
        eraser = linear.leace(x_NL, z_NK)
    else:
        eraser = linear.inlp(x_NL, z_NK, config.rounds, config.inlp)
    if eraser.dimensions == 0:
        instead = "" if config.method == "residual" else ", or type method=residual, which keeps dimensions"
        raise InputError(
            f"{config.confounders}: the confounders ({z_NK.shape[1]} columns: {some(study.confounders.columns)}) "
            f"explain everything: {config.method} leaves none of the {x_NL.shape[1]} latents; "
            f"choose fewer by formula={instead}"
        )
    return eraser


def judge(config: EraseConfig, study: Study) -> pd.DataFrame:
    """A row a confounder: R^2 from the latents of the half that the eraser has not seen, before and after it."""
    half_N = joining.folds(study.people, 2, config.seed)
    held_N = half_N == 1
    smallest = int(min(held_N.sum(), (~held_N).sum()))
    if smallest < FEWEST:
        raise InputError(
            f"{config.latents}: a half of the families has {smallest} people, and an audit needs {FEWEST}; give more "
            "people, or another seed="
        )
    before_NL = study.x_NL[held_N]
    z_NK = study.confounders.to_numpy(np.float64)[held_N]
    after_NL = fit(config, study, ~held_N).apply(before_NL, study.erased_NK[held_N])
    people = study.people[held_N]
    found: dict[str, Any] = {"confounder": list(study.confounders)}
    versions = {"before": before_NL, "after": after_NL}
    fold_N = joining.folds(people, LINEAR_FOLDS, config.seed + 1)
    found |= {f"linear_{name}": audit.linear_r2(x_NL, z_NK, fold_N) for name, x_NL in versions.items()}
    if config.trees:
        fold_N = joining.folds(people, TREE_FOLDS, config.seed + 2)
        with Progress("audit by boosted trees", 2 * z_NK.shape[1], "confounders") as progress:
            for name, x_NL in versions.items():
                found[f"boosted_{name}"] = audit.boosted_r2(x_NL, z_NK, fold_N, progress)
    return pd.DataFrame(found)


def _variance(x_NL: np.ndarray) -> float:
    return float(x_NL.var(axis=0).sum())


def _audit_files(out: Path) -> list[Path]:
    return [out.with_name(f"{out.stem}.audit{suffix}") for suffix in (".tsv", ".png", ".pdf")]


def _width(path: Path) -> type[np.floating]:
    """float32 where every latent is written so, otherwise float64."""
    if path.suffix not in (".parquet", ".pq"):
        return np.float64
    types = {str(field.type) for field in pq.read_schema(path) if str(field.type) in ("float", "double")}
    return np.float32 if types == {"float"} else np.float64


def _tell(config: EraseConfig, facts: dict[str, Any]) -> None:
    log.info(
        "%s: %d of %d dimensions and %.3f of the variance stay; R2 of the confounder told best, held out: %.3f before, "
        "%.3f after", config.method, facts["dimensions"], facts["latents"], facts["variance_kept"],
        facts["linear_before"], facts["linear_after"],
    )  # fmt: skip
    if config.trees and facts["boosted_after"] > 0.05:
        log.warning(
            "boosted trees still tell a confounder with R2 %.2f: only what is linear is erased; expand=splines takes "
            "out more of it", facts["boosted_after"],
        )  # fmt: skip
    for name, h2 in facts["heritable"].items():
        log.warning(
            "%s is heritable (h2 %.2f): SNPs that act on it can appear as effects on the erased latents that they do "
            "not have (collider bias)", name, h2,
        )  # fmt: skip
    log.info("for associations give the latents as they are, and the confounders as covariates= of gwas or phewas: "
             "that is exact for the people analysed, and keeps every dimension")  # fmt: skip
