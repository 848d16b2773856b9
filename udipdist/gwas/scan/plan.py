"""The plan of a scan: who is analysed, which variants, the null models; made once, kept in OUT/model, read by parts.

`make` checks all input, fits the models, makes the empty output of every table (gwas.outputs) and writes the ScanPlan
(gwas.scan.planned) last. `load` is what a part needs of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from hpc import parts
from hpc.errors import InputError
from hpc.files import publish, remove, require_space
from hpc.stage import fingerprint
from udipdist.config import GwasConfig, NullConfig, ScanOptions
from udipdist.genome import chromosomes
from udipdist.genotypes import bim, filters, sex, source
from udipdist.genotypes.counts import Quality
from udipdist.gwas import samples
from udipdist.gwas.engine import saved
from udipdist.gwas.engine.joint import JointTest, NullScores, TableScores
from udipdist.gwas.engine.prepared import Model
from udipdist.gwas.outputs import TablePlan
from udipdist.gwas.scan import rare
from udipdist.gwas.scan.fitting import fit_group, relatedness
from udipdist.gwas.scan.planned import ScanPlan, joint_dir, model_dir
from udipdist.people import design as designs
from udipdist.sumstats import store as sumstats

log = logging.getLogger(__name__)


def make(config: GwasConfig) -> None:
    """Check everything, fit the null models and make the empty output. Raises InputError, NoSpace."""
    bed = source.open_hard_calls(config.genotypes)
    chosen = filters.choose(bed.variants, config)
    about = {
        "left_out": chosen.left_out,
        "unusual": bim.look_over(bed.variants, config.genotypes),
        "min_mac": config.fewest_copies,
    }
    bed = bed if chosen.rows is None else bed.select(chosen.rows)
    sample = samples.assemble(bed.people, f"{config.genotypes}.fam", config.phenotypes, config)
    for table in sample.tables:
        if table.stop - table.start > sumstats.MOST_TRAITS:
            raise InputError(
                f"{table.path}: has {table.stop - table.start:,} traits, and one table holds at most "
                f"{sumstats.MOST_TRAITS:,}; split the table"
            )
    rare.tell_default(config)
    matrix = relatedness(config, sample)
    if config.test == "linear" and config.null_model != NullConfig():
        log.warning(
            "test=linear has no variance components: null_model.variance and null_model.total_variance are not used"
        )
    require_space(config.out, output_bytes(bed.n_variants, len(sample.traits)))
    models, frames, groups = [], [], sample.groups()
    added = [TableScores(table.row_N, table.stop - table.start) for table in sample.tables]
    remove(model_dir(config.out))
    try:
        for i, group in enumerate(groups):
            fitted = fit_group(config, sample, group, matrix)
            folder = model_dir(config.out) / f"group-{i:05d}"
            fitted.model.save(folder)
            models.append(Model.load(folder))  # mapped: hundreds of groups need no memory for their models
            frames.append(fitted.frame)
            for t, of_P, column_P in _of_tables(sample, group):
                added[t].add(group.row_N, of_P, fitted.weights, column_P)
            if len(models) % 50 == 0:
                log.info("null models of %d groups of traits with the same people are fitted", len(models))
        for t, (table, scores) in enumerate(zip(sample.tables, added, strict=True)):
            parts = [
                (group.row_N, of_P, model, column_P)
                for group, model in zip(groups, models, strict=True)
                for number, of_P, column_P in _of_tables(sample, group)
                if number == t
            ]
            null = scores.null_scores(parts, matrix)
            _tell_if_untestable(table, null)
            saved.save(null, joint_dir(config.out, t))
    except BaseException:
        remove(model_dir(config.out))
        raise
    order = np.argsort(np.concatenate([model.trait_P for model in models]))
    _save(config, bed, sample, models, pd.concat(frames, ignore_index=True).iloc[order], about)


def _of_tables(sample: samples.Sample, group: samples.Group) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The tables that have traits of a group: number, which traits of the table they are, which of the group."""
    for t, table in enumerate(sample.tables):
        column_P = np.flatnonzero((group.trait_P >= table.start) & (group.trait_P < table.stop))
        if len(column_P):
            yield t, group.trait_P[column_P] - table.start, column_P


def _tell_if_untestable(table: samples.Table, null: NullScores) -> None:
    if not null.testable:
        log.warning(
            "%s: no joint test, as %d traits are too many for its people: relatives and covariates leave %.0f of them "
            "that count; the column is NaN",
            table.path, len(null.trace_P), max(0.0, null.n_effective),
        )  # fmt: skip


def _save(
    config: GwasConfig,
    bed: source.GenotypeSource,
    sample: samples.Sample,
    models: list[Model],
    frame: pd.DataFrame,
    about: dict[str, Any],
) -> None:
    """Write for each table its folder with null.tsv, samples.tsv, dropped.tsv and the empty store; the ScanPlan
    last. `frame` has a row a trait, in order; `about` are facts of the variants."""
    people: dict[bytes, int] = {}
    entries: list[TablePlan] = []
    for table in sample.tables:
        own = [model for model in models if ((table.start <= model.trait_P) & (model.trait_P < table.stop)).any()]
        number = people.setdefault(sample.fam_N[table.row_N].tobytes(), len(people))
        null = saved.load(NullScores, joint_dir(config.out, len(entries)))
        rows = frame.iloc[table.start : table.stop]
        rare.warn_of_tails(config, table.path, rows)
        facts = _lay_out(config, bed, sample, table, own, rows, null)
        folder = str(_folder(config, table).relative_to(config.out))
        entries.append(TablePlan(table.name, folder, table.start, table.stop, number, facts))
    facts = entries[0].facts
    if len(entries) > 1:
        log.info("%d tables, %d groups of traits with the same people", len(entries), len(models))
        facts = _facts(
            bed, sample.n, sample.n_dropped, models, frame, max(entry.facts["n_covariates"] for entry in entries)
        )
        facts |= {"tables": [table.name for table in sample.tables]}
    x_runs = sex.x_runs(chromosomes.codes(bed.variants.chrom))
    n_x, code_N = sum(stop - start for start, stop in x_runs), sex.sex_codes(bed.people)
    sex.tell_unknown(code_N[sample.fam_N], n_x, str(config.genotypes))
    about = about | {"male_calls_on_x": int((code_N == sex.MALE).sum()) * n_x}
    for each in (facts, *(entry.facts for entry in entries)):
        each |= about
    ScanPlan(
        n_variants=bed.n_variants,
        rows=asdict(_with_selection_in_a_file(config, bed.rows).record()),
        x_runs=x_runs,
        sex=code_N.tolist() if x_runs else [],
        groups=len(models),
        people=[np.frombuffer(key, sample.fam_N.dtype).tolist() for key in people],
        tables=entries,
        facts=facts,
    ).save(config.out)


def _with_selection_in_a_file(config: GwasConfig, rows: source.GenotypeRows) -> source.GenotypeRows:
    """The same rows; where not all of the files are tested, a file beside the models says which."""
    if rows.selection is None:
        return rows
    path = _selection_path(config)
    with publish(path) as partial, partial.open("wb") as file:
        np.save(file, rows.selection)
    return rows.select(path)


def _selection_path(config: GwasConfig) -> Path:
    return model_dir(config.out).absolute() / "selection.npy"


def _folder(config: GwasConfig, table: samples.Table) -> Path:
    """Where the results of a table go."""
    return config.out / table.name if len(config.phenotypes) > 1 else config.out


def _lay_out(
    config: GwasConfig,
    bed: source.GenotypeSource,
    sample: samples.Sample,
    table: samples.Table,
    models: list[Model],
    frame: pd.DataFrame,
    null: NullScores,
) -> dict[str, Any]:
    """Make the folder of a table: null.tsv, samples.tsv, dropped.tsv and the empty store; the facts of its manifest.

    `models` are those of its groups, `frame` its rows of null.tsv, `null` what its joint test is made of.
    """
    folder, traits = _folder(config, table), sample.traits[table.start : table.stop]
    for name, content in (
        ("null.tsv", frame),
        ("samples.tsv", sample.people.iloc[table.row_N]),
        ("dropped.tsv", table.dropped),
    ):
        with publish(folder / name) as partial:
            content.to_csv(partial, sep="\t", index=False, na_rep="NA")
    n_covariates = int(frame.k.max()) - 1
    if config.adjust == "phenotype":  # then k counts what is taken out of the genotypes: the intercept
        n_covariates = len(designs.design(sample.covariates.iloc[table.row_N]).names)
    if not (folder / sumstats.STORE).exists():
        attrs = {
            "test": config.test,
            "adjust": config.adjust,
            "n_samples": len(table.row_N),
            "n_covariates": n_covariates,
            "df": _degrees_of_freedom(config, models, table),
            "genotypes": str(config.genotypes),
            "groups": len(models),
            "n_effective": round(null.n_effective, 3),
        }
        rows = min(config.variants_per_part, bed.n_variants)  # a shard is filled up to its size in memory
        scale_P = np.empty(len(traits))
        for model in models:
            own = (model.trait_P >= table.start) & (model.trait_P < table.stop)
            scale_P[model.trait_P[own] - table.start] = model.traits.scale_P[own]
        scores = sumstats.NullScores(null.score_PP / np.outer(scale_P, scale_P), null.trace_P / scale_P**2)
        sumstats.create(folder / sumstats.STORE, bed.variants, traits, rows, attrs, scores)
    facts = _facts(bed, len(table.row_N), len(table.dropped), models, frame, n_covariates)
    return facts | {"n_effective": round(null.n_effective, 3), "joint_test": null.testable}


def _facts(
    bed: source.GenotypeSource, n: int, n_dropped: int, models: list[Model], frame: pd.DataFrame, n_covariates: int
) -> dict[str, Any]:
    """What a manifest says of `n` people, the models of their groups of traits, and the rows of null.tsv."""
    return {
        "n_samples": n,
        "n_dropped": n_dropped,
        "n_variants": bed.n_variants,
        "n_traits": len(frame),
        "n_covariates": n_covariates,
        "groups": len(models),
        "weight_rank": max(model.weight_rank for model in models),
        "weight_error": max(model.weight_error for model in models),
        "relatives": max(model.relatives for model in models),
        "largest_family": max(model.largest_family for model in models),
    }


def _degrees_of_freedom(config: GwasConfig, models: list[Model], table: samples.Table) -> int | list[int] | None:
    """None where the statistic is chi2_1 (mixed; GCTA's linear regression), else residual degrees of freedom: one
    number, or one a trait of the table."""
    if config.test == "mixed" or config.adjust == "phenotype":
        return None
    df_P = np.empty(table.stop, int)
    for model in models:
        own_P = model.trait_P[(table.start <= model.trait_P) & (model.trait_P < table.stop)]
        df_P[own_P] = model.df
    df_P = df_P[table.start :]
    return int(df_P[0]) if (df_P == df_P[0]).all() else df_P.tolist()


def plan_of(config: GwasConfig) -> dict[str, Any]:
    """What decides the bytes of the output."""
    return {
        "config": config.semantics(),
        "variants_per_part": config.variants_per_part,
        "inputs": {
            name: fingerprint(path) for name, path in input_files(config, config.phenotypes).items() if path is not None
        },
    }


def fix(config: GwasConfig) -> None:
    """Fix the plan of a scan. Raises OutputExists where another is there."""
    cls = type(config)
    parts.fix_plan(config.out, plan_of(config), lambda plan: plan | {"config": cls.identity_of(plan["config"])})


def follow(config: GwasConfig, plan: ScanPlan) -> ScanPlan:
    """The plan with its files where they are now; they are the same (`fix`), but may have moved since it was made."""
    of_files = source.SourceRecord(**plan.rows)
    facts = source.format_of(config.genotypes).moved(of_files.facts, str(config.genotypes))
    if facts.get("selection") is not None:
        facts = facts | {"selection": str(_selection_path(config))}
    if facts == of_files.facts:
        return plan
    plan = plan.model_copy(update={"rows": asdict(source.SourceRecord(of_files.rows, facts))})
    plan.save(config.out)
    return plan


def input_files(config: ScanOptions, phenotypes: Sequence[Path]) -> dict[str, Path | None]:
    """Every file that a scan of these phenotypes reads. Raises InputError where one is missing."""
    sets = source.find_sets(config.genotypes)
    files: dict[str, Path | None] = {}
    for i, one in enumerate(sets):
        label = "genotypes" if len(sets) == 1 else f"genotypes{i}"
        files |= {f"{label}.{ending}": path for ending, path in one.files.items()}
    files |= filters.input_files(config)
    files |= phenotype_files(phenotypes)
    files |= {"covariates": config.covariates, "aliases": config.aliases, "variance": config.null_model.variance}
    if config.test == "mixed":
        files |= {f"sparse_grm.{suffix}": Path(f"{config.sparse_grm}.grm.{suffix}") for suffix in ("id", "sp")}
    for name, path in files.items():
        if path is not None and not path.exists():
            raise InputError(f"{path}: does not exist ({name})")
    return files


def phenotype_files(phenotypes: Sequence[Path]) -> dict[str, Path | None]:
    """The tables of phenotypes by their names among the inputs."""
    one = len(phenotypes) == 1
    return {"phenotypes" if one else f"phenotypes{i}": path for i, path in enumerate(phenotypes)}


def output_bytes(n_variants: int, n_traits: int) -> int:
    return n_variants * (8 * n_traits + 64)


class LoadedPlan:
    """What the plan left for its parts; threads share it."""

    def __init__(self, place: Path):
        planned = ScanPlan.load(place)
        self.rows = source.open_record(source.SourceRecord(**planned.rows))
        self.tables = planned.tables
        self.models = [Model.load(model_dir(place) / f"group-{i:05d}") for i in range(planned.groups)]
        self.people: list[np.ndarray] = []
        self.of_group = [self._number(model.fam_N) for model in self.models]
        of_table = [np.array(fam_N, np.int64) for fam_N in planned.people]
        self.of_table = [self._number(of_table[table.people]) for table in self.tables]
        self.quality = Quality(self.people, planned.sex, planned.x_runs)
        self.columns: dict[tuple[int, int], np.ndarray] = {}  # (group, table) -> columns of the group in the table
        self.joint = [
            JointTest(saved.load(NullScores, joint_dir(place, t)), self.models[0].chi2) for t in range(len(self.tables))
        ]
        for t, table in enumerate(self.tables):
            low, high = table.start, table.stop
            for g, model in enumerate(self.models):
                column_P = np.flatnonzero((model.trait_P >= low) & (model.trait_P < high))
                if len(column_P):
                    self.columns[g, t] = column_P

    @property
    def n_traits(self) -> int:
        """Traits of all tables."""
        return self.tables[-1].stop

    def _number(self, fam_N: np.ndarray) -> int:
        """The number of these people among those whose genotypes are counted."""
        for i, known_N in enumerate(self.people):
            if np.array_equal(known_N, fam_N):
                return i
        self.people.append(fam_N)
        return len(self.people) - 1


def forget() -> None:
    """Let go of the files of a plan before they are removed."""
    load.cache_clear()


@lru_cache(maxsize=1)
def load(place: Path, stamp: str) -> LoadedPlan:
    """The plan with this stamp. On one thread, so that a decomposition has the same bits in every process."""
    with threadpool_limits(1, user_api="blas"):
        return LoadedPlan(place)
