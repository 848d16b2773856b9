"""The verb `phewas`: which diagnoses the latents tell, in people who were not used to find the direction."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpc.errors import InputError
from hpc.files import publish
from hpc.stage import stage
from udipdist.analysis import joining
from udipdist.analysis.phewas import crossfit, phenome, study
from udipdist.analysis.phewas.figures import qq_figure
from udipdist.config.phewas import PhewasConfig
from udipdist.figures import style
from udipdist.people import design as designs
from udipdist.people.tables import keys, read_table

log = logging.getLogger(__name__)
ALPHA = 0.05
FEWEST_HALF = 5  # cases, and controls, in each half


@dataclass(frozen=True)
class Prepared:
    """Everything that is tested: people (FID IID) of all tables, their latents, covariates (orthonormal, the intercept
    first), halves, the codes that are kept (a row each of `codes`) and their statuses [P, N], and those skipped."""

    people: pd.DataFrame
    latents: list[tuple[str, np.ndarray]]
    q_NK: np.ndarray
    half_N: np.ndarray
    codes: pd.DataFrame
    status_PN: np.ndarray
    skipped: pd.DataFrame
    facts: dict[str, Any]


def phewas(config: PhewasConfig) -> None:
    """Write phewas.tsv, summary.tsv, skipped.tsv and a QQ plot for each table. Raises InputError where tables do not
    fit."""
    with stage("phewas", config.out, config, _inputs(config), config.overwrite) as made:
        prepared = read(config)
        plan = study.Plan(config.crossfit, config.permutations, config.seed)
        tables, rows, captions = [], [], {}
        with publish(config.out) as partial:
            partial.mkdir()
            for name, x_NL in prepared.latents:
                latents = crossfit.prepare(x_NL, prepared.q_NK, prepared.half_N, config.direction)
                found = study.associate(latents, prepared.q_NK, prepared.status_PN, plan, name)
                table = pd.concat([prepared.codes, found.table], axis=1)
                tables.append(table.assign(latents=name))
                rows.append(_summary(name, found))
                limit = ALPHA / len(table)
                figure = qq_figure(table, name, found.inflation, limit)
                for form in (".png", ".pdf"):
                    style.save(figure, partial / f"qq_{name}{form}", form=form)
                captions[f"qq_{name}.png"] = _caption(name, rows[-1])
            whole = pd.concat(tables, ignore_index=True)
            whole.insert(0, "latents", whole.pop("latents"))
            _write(whole.sort_values(["latents", "p"], kind="stable"), partial / "phewas.tsv")
            _write(pd.DataFrame(rows), partial / "summary.tsv")
            _write(prepared.skipped, partial / "skipped.tsv")
        made.note(
            people=len(prepared.people), phecodes=len(prepared.codes), skipped=len(prepared.skipped),
            covariates=prepared.q_NK.shape[1] - 1, tables=rows, captions=captions, **prepared.facts,
        )  # fmt: skip
    for row in rows:
        log.info(
            "%s: %d of %d phecodes after Bonferroni, %d with a false discovery rate below %g; lambda %.3f",
            row["latents"], row["bonferroni"], row["phecodes"], row["fdr"], ALPHA, row["lambda"],
        )  # fmt: skip
    if len(prepared.skipped):
        log.warning("%d phecodes are skipped; skipped.tsv says why", len(prepared.skipped))


def preview(config: PhewasConfig) -> list[str]:
    """Who would be tested for what."""
    prepared = read(config)
    columns = ", ".join(f"{x_NL.shape[1]} of {name}" for name, x_NL in prepared.latents)
    half = np.bincount(prepared.half_N, minlength=2)
    return [
        f"{len(prepared.people):,} people in all tables, in halves of {half[0]:,} and {half[1]:,}; latents: {columns}; "
        f"{prepared.q_NK.shape[1] - 1} covariate columns",
        f"{len(prepared.codes):,} phecodes, {len(prepared.skipped):,} skipped; direction={config.direction}"
        f"{'' if config.crossfit else ', one half tested'}, {config.permutations} shuffles",
        f"writes {config.out}/",
    ]


def read(config: PhewasConfig) -> Prepared:
    """The tables side by side. Raises InputError."""
    latents = joining.read_latents(config.latents, config.match)
    if config.phecodes is not None:
        known = phenome.from_table(config.phecodes, config.match, config.missing)
    else:
        assert config.events is not None and config.map is not None
        known = phenome.from_events(
            config.events, config.map, latents[0].people, config.min_dates, config.rollup
        )  # fmt: skip
    lists = [(one.path, one.people) for one in latents] + [(known.path, known.people)]
    covariates = None
    if config.covariates is not None:
        had, covariates = joining.covariates_of(config.covariates, config.formula, config.match, config.missing)
        lists.append((config.covariates, had))
    elif config.formula is not None:
        raise InputError("formula=: chooses covariates, and there are none; give covariates=TABLE or leave it out")
    rows = joining.common_rows(lists, config.match)
    people = latents[0].people.iloc[rows[0]].reset_index(drop=True)
    columns = pd.DataFrame(index=range(len(people)))
    if covariates is not None:
        columns = covariates.iloc[rows[-1]].reset_index(drop=True)
    design = designs.design(columns)
    designs.warn_dropped(design)
    at = len(latents)
    here = phenome.Phenome(
        known.path, people, known.codes, known.status_PN[:, rows[at]], known.record_PN[:, rows[at]], known.facts
    )
    definitions = phenome.read_definitions(config.definitions, known.codes)
    of_one_sex = (definitions["sex"].str.lower().str[:1] != "b").any()
    male_N = _males(config, had.iloc[rows[-1]]) if covariates is not None and of_one_sex else None
    status_PN, refined = phenome.refine(here, definitions, male_N, config.exclusions)
    half_N = joining.folds(people, 2, config.seed)
    codes, kept, skipped = _kept(definitions, status_PN, half_N, config)
    return Prepared(
        people, [(one.name, one.values_NL[row]) for one, row in zip(latents, rows, strict=False)], design.q_NK, half_N,
        codes, status_PN[kept], skipped,
        {"lost": {str(path): len(them) - len(people) for path, them in lists}, **known.facts, **refined},
    )  # fmt: skip


def _males(config: PhewasConfig, people: pd.DataFrame) -> np.ndarray | None:
    """Who is male, of these rows of the covariates; None where no column tells. Raises InputError."""
    assert config.covariates is not None
    table = read_table(config.covariates, config.match, config.missing, "COVAR")
    if config.sex not in table:
        return None
    index = keys(table, config.match).to_numpy()
    value = table[config.sex].set_axis(index)[keys(people, config.match).to_numpy()]
    number = pd.to_numeric(value, errors="coerce").to_numpy(np.float64)
    if not (number == config.male).any():
        raise InputError(
            f"{config.covariates}: nobody's {config.sex} is male={config.male:g}; give the value that it has for "
            "males, or another column by sex="
        )
    return number == config.male


def _kept(
    definitions: pd.DataFrame, status_PN: np.ndarray, half_N: np.ndarray, config: PhewasConfig
) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    """The codes that are tested (phecode, phenotype, category, cases, controls), their rows, and those skipped with a
    reason. Raises InputError where none is left."""
    codes = definitions.rename_axis("phecode").reset_index()[["phecode", "phenotype", "category"]]
    codes["cases"], codes["controls"] = (status_PN == 1).sum(axis=1), (status_PN == 0).sum(axis=1)
    least = np.minimum(codes["cases"], codes["controls"]).to_numpy()
    in_half = np.array([[(status_PN[:, half_N == h] == s).sum(axis=1) for h in (0, 1)] for s in (0, 1)]).min(
        axis=(0, 1)
    )
    few, uneven = least < config.min_cases, in_half < FEWEST_HALF
    reason = np.where(few, f"fewer than {config.min_cases} cases or controls", f"fewer than {FEWEST_HALF} of a half")
    out = few | uneven
    if out.all():
        raise InputError(
            f"{config.phecodes or config.events}: none of its {len(codes)} phecodes has {config.min_cases} cases and "
            f"controls among the {status_PN.shape[1]:,} people (the most is {least.max()}); give more people, or a "
            "smaller min_cases="
        )
    kept = np.flatnonzero(~out)
    return codes.iloc[kept].reset_index(drop=True), kept, codes[out].assign(reason=reason[out]).reset_index(drop=True)


def _summary(name: str, found: study.Found) -> dict[str, Any]:
    table = found.table
    return {
        "latents": name, "phecodes": len(table), "bonferroni": int((table["bonferroni"] < ALPHA).sum()),
        "fdr": int((table["q"] < ALPHA).sum()), "familywise": int((table["p_familywise"] <= ALPHA).sum()),
        "lambda": found.inflation, "lambda_shuffled": _or_none(found.shuffled_inflation),
        "half_correlation": found.correlation, "firth": int((table["test"] == study.FIRTH).sum()),
    }  # fmt: skip


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _caption(name: str, row: dict[str, Any]) -> str:
    return (
        f"{name}: p of {row['phecodes']} phecodes against what chance gives, within each category (left, with the "
        f"names of what Bonferroni's limit leaves, {row['bonferroni']}) and over all (right, with the band of 95 % of "
        "nulls)"
    )


def _write(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, sep="\t", index=False, na_rep="NA", float_format="%.6g")


def _inputs(config: PhewasConfig) -> dict[str, Path | None]:
    several = len(config.latents) > 1
    latents = {f"latents {i}" if several else "latents": path for i, path in enumerate(config.latents)}
    others = {key: getattr(config, key) for key in ("phecodes", "events", "map", "definitions", "covariates")}
    return latents | others
