"""The verb `gwas`: plan (people, families, null models), part (a run of variants, one shard), finish.

`plan` saves the models under OUT/model, so that parts need nothing but them and the .bed: a local loop, Dask workers
and the tasks of a job array do the same work and write the same bytes.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpc import cluster, parts
from hpc.errors import Incomplete, InputError
from hpc.files import publish, publish_json, remove, require_space
from hpc.stage import Stage, fingerprint, stage
from udipdist.config import GwasConfig
from udipdist.gwas import (
    bim,
    chromosomes,
    covariates,
    genotypes,
    grm,
    outputs,
    recorded,
    samples,
    sex,
    shard,
    sumstats,
    tables,
    variants,
)
from udipdist.gwas.fitting import fit_group, relatedness
from udipdist.gwas.model import Model

log = logging.getLogger(__name__)


def gwas(config: GwasConfig) -> None:
    """Test every variant against every trait; writes sumstats.zarr, null.tsv, samples.tsv and dropped.tsv.

    Raises InputError for unusable input, OutputExists, Incomplete. Its phases as verbs of their own: gwas.phases.
    """
    with stage("gwas", config.out, config, inputs=input_files(config), overwrite=config.overwrite) as running:
        job = plan(config)
        done = parts.run(job, "gwas", cluster.runner(config.workers, config.cluster))
        finish(config, job, done, running)


def finish(config: GwasConfig, job: shard.Scan, done: list[dict[str, Any]], running: Stage) -> None:
    """End a scan of which all parts are done; `done` are the facts of the parts (`parts.finish(job)`).

    Called inside `stage("gwas", config.out, config, inputs=input_files(config))`, which writes the manifest.
    """
    tallies = [variants.total(tally) for tally in zip(*(part["tally_by_table"] for part in done), strict=True)]
    tested = sum(part["tested"] for part in done)
    for name, tally in zip(outputs.names(config.phenotypes), tallies, strict=True):
        log.log(
            logging.INFO if tally["tested"] else logging.WARNING,
            "%s%s", f"{name}: " if len(tallies) > 1 else "", variants.describe(tally),
        )  # fmt: skip
    masked = sum(part["masked"] for part in done)
    sex.tell_masked(masked, job.facts["male_calls_on_x"])
    running.note(**job.facts, male_heterozygotes_on_x=masked, n_tested=tested)
    if len(tallies) == 1:
        running.note(variants=tallies[0])
    if len(config.phenotypes) > 1:
        _finish_tables(config, tallies, masked, running)
    shard.forget()
    remove(shard.model_dir(config.out))


def _finish_tables(config: GwasConfig, tallies: list[dict[str, int]], masked: int, running: Stage) -> None:
    """Write the manifest of each table's folder: the one that a run of this table alone would have."""
    entries = json.loads(shard.planned_path(config.out).read_text(encoding="utf-8"))["tables"]
    common = {key: seen for key, seen in running.inputs.items() if key not in _phenotype_files(config)}
    labels = _phenotype_files(config)
    for entry, label, path, tally in zip(entries, labels, config.phenotypes, tallies, strict=True):
        folder = config.out / entry["folder"]
        alone = config.model_copy(update={"phenotypes": (path,), "out": folder})
        inputs = common | {"phenotypes": running.inputs[label]}
        facts = entry["facts"] | {"male_heterozygotes_on_x": masked, "n_tested": tally["tested"], "variants": tally}
        running.complete(folder, alone, inputs, facts)
        log.info("%s -> %s", entry["name"], folder)


def check(config: GwasConfig) -> None:
    """Look at all input but the phenotypes, which a pipeline makes only after hours. Raises InputError."""
    variants.choose(genotypes.Bed.open(config.genotypes).variants, config)
    if config.covariates is not None:
        table = tables.read_covariates(config.covariates, config.match)
        covariates.Formula.parse(config.formula, list(table.columns[2:]))
    if config.test == "mixed":
        grm.read(str(config.sparse_grm))


def preview(config: GwasConfig) -> list[str]:
    """What a run would do, from headers and file sizes only."""
    n, m = genotypes.count_from_size(config.genotypes)
    names = outputs.names(config.phenotypes)
    traits = [len(tables.column_names(path)) for path in config.phenotypes]
    p = sum(traits)
    n_parts = -(-m // config.variants_per_part)
    row_bytes = -(-n // 4)
    block = min(config.block, config.variants_per_part, max(1, shard.BLOCK_BYTES // row_bytes)) * _threads(config)
    several = [
        f"{count:,} traits of {path} -> {config.out / name}"
        for name, path, count in zip(names, config.phenotypes, traits, strict=True)
        if len(names) > 1
    ]
    return [
        f"{n:,} people with genotypes, {m:,} variants, {p:,} traits, test={config.test}, adjust={config.adjust}",
        f"{n_parts:,} parts of {config.variants_per_part:,} variants, {config.workers} workers (0: this process)",
        f"memory about {0.5 + (block * (row_bytes + n * 1.5 + p * 30) + n * p * 40) / 1e9:.1f} GB a process, "
        f"disk at most {_output_bytes(m, p) / 1e9:.2f} GB",
        *several,
    ]


def plan(config: GwasConfig) -> recorded.RecordedScan:
    """Check everything, fit the null models and make the empty output; what is already planned is kept."""
    unplanned = not shard.planned_path(config.out).exists()
    if unplanned and parts.drop_plan(config.out):  # a start that refused its input, or was killed before its first part
        outputs.discard(config.out)
    parts.fix_plan(config.out, _plan_of(config))
    if unplanned:
        _make_plan(config)
    job = planned(config)
    parts.record_plan(job)
    return job


def _make_plan(config: GwasConfig) -> None:
    bed = genotypes.Bed.open(config.genotypes)
    chosen = variants.choose(bed.variants, config)
    about = {"left_out": chosen.left_out, "unusual": bim.look_over(bed.variants, config.genotypes)}
    bed = bed if chosen.rows is None else bed.select(chosen.rows)
    sample = samples.assemble(config, bed.samples)
    for table in sample.tables:
        if table.stop - table.start > sumstats.MOST_TRAITS:
            raise InputError(
                f"{table.path}: has {table.stop - table.start:,} traits, and one table holds at most "
                f"{sumstats.MOST_TRAITS:,}; split the table"
            )
    matrix = relatedness(config, sample)
    require_space(config.out, _output_bytes(bed.n_variants, len(sample.traits)))
    models, frames = [], []
    remove(shard.model_dir(config.out))
    try:
        for i, group in enumerate(sample.groups()):
            model, frame = fit_group(config, sample, group, matrix)
            folder = shard.model_dir(config.out) / f"group-{i:05d}"
            model.save(folder)
            models.append(Model.load(folder))  # mapped: hundreds of groups need no memory for their models
            frames.append(frame)
            if len(models) % 50 == 0:
                log.info("null models of %d groups of traits with the same people are fitted", len(models))
    except BaseException:
        remove(shard.model_dir(config.out))
        raise
    order = np.argsort(np.concatenate([model.trait_P for model in models]))
    _save(config, bed, sample, models, pd.concat(frames, ignore_index=True).iloc[order], about)


def _save(
    config: GwasConfig,
    bed: genotypes.Bed,
    sample: samples.Sample,
    models: list[Model],
    frame: pd.DataFrame,
    about: dict,
) -> None:
    """Write for each table its folder with null.tsv, samples.tsv, dropped.tsv and the empty store; the plan's marker
    last. `frame` has a row a trait, in order; `about` are facts of the variants."""
    people: dict[bytes, int] = {}
    entries = []
    for table in sample.tables:
        own = [model for model in models if ((table.start <= model.trait_P) & (model.trait_P < table.stop)).any()]
        number = people.setdefault(sample.fam_N[table.row_N].tobytes(), len(people))
        facts = _lay_out(config, bed, sample, table, own, frame.iloc[table.start : table.stop])
        entries.append(
            {
                "name": table.name,
                "folder": str(_folder(config, table).relative_to(config.out)),
                "columns": [table.start, table.stop],
                "people": number,
                "facts": facts,
            }
        )
    facts = entries[0]["facts"]
    if len(entries) > 1:
        log.info("%d tables, %d groups of traits with the same people", len(entries), len(models))
        facts = _facts(
            bed, sample.n, sample.n_dropped, models, frame, max(entry["facts"]["n_covariates"] for entry in entries)
        )
        facts |= {"tables": [table.name for table in sample.tables]}
    x_runs = sex.x_runs(chromosomes.codes(bed.variants.chrom))
    n_x, code_N = sum(stop - start for start, stop in x_runs), sex.sex_codes(bed.samples)
    sex.tell_unknown(code_N[sample.fam_N], n_x, str(config.genotypes))
    about = about | {"male_calls_on_x": int((code_N == sex.MALE).sum()) * n_x}
    for each in (facts, *(entry["facts"] for entry in entries)):
        each |= about
    contents = {
        "n_variants": bed.n_variants,
        "rows": {
            "paths": [str(Path(path).absolute()) for path in bed.rows.paths],
            "counts": bed.rows.counts,
            "n_samples": bed.n_samples,
            "stamps": bed.rows.stamps,
            "selection": _save_selection(config, bed),
        },
        "x_runs": x_runs,
        "sex": code_N.tolist() if x_runs else [],
        "groups": len(models),
        "fam": sample.fam_N.tolist(),
        "people": [np.frombuffer(key, sample.fam_N.dtype).tolist() for key in people],
        "tables": entries,
        "facts": facts,
    }
    publish_json(shard.planned_path(config.out), contents)


def _save_selection(config: GwasConfig, bed: genotypes.Bed) -> str | None:
    """Which rows of the files are tested, where not all are: the file that says it."""
    if bed.rows.selection is None:
        return None
    path = shard.model_dir(config.out).absolute() / "selection.npy"
    with publish(path) as partial, partial.open("wb") as file:
        np.save(file, bed.rows.selection)
    return str(path)


def _folder(config: GwasConfig, table: samples.Table) -> Path:
    """Where the results of a table go."""
    return config.out / table.name if len(config.phenotypes) > 1 else config.out


def _lay_out(
    config: GwasConfig, bed: genotypes.Bed, sample: samples.Sample, table: samples.Table, models: list, frame
) -> dict[str, Any]:
    """Make the folder of a table: null.tsv, samples.tsv, dropped.tsv and the empty store; the facts of its manifest.

    `models` are those of its groups, `frame` its rows of null.tsv.
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
        n_covariates = len(covariates.design(sample.covariates.iloc[table.row_N]).names)
    if not (folder / sumstats.STORE).exists():
        attrs = {
            "test": config.test,
            "adjust": config.adjust,
            "n_samples": len(table.row_N),
            "n_covariates": n_covariates,
            "df": _degrees_of_freedom(config, models, table),
            "genotypes": str(config.genotypes),
            "groups": len(models),
        }
        rows = min(config.variants_per_part, bed.n_variants)  # a shard is filled up to its size in memory
        sumstats.create(folder / sumstats.STORE, bed.variants, traits, rows, attrs)
    if len(models) > 1:
        log.info(
            "%s: its traits differ in who is missing (%d groups), so they get no joint test; a table without the "
            "people who miss some would", table.path, len(models),
        )  # fmt: skip
    return _facts(bed, len(table.row_N), len(table.dropped), models, frame, n_covariates)


def _facts(
    bed: genotypes.Bed, n: int, n_dropped: int, models: list[Model], frame: pd.DataFrame, n_covariates: int
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


def planned(config: GwasConfig) -> recorded.RecordedScan:
    """The scan that `plan` prepared. Raises Incomplete, and OutputExists where the plan there is another one."""
    path = shard.planned_path(config.out)
    if not path.exists():
        raise Incomplete(f"{config.out}: has no plan yet; run gwas-plan with the same words first")
    parts.fix_plan(config.out, _plan_of(config))
    contents = json.loads(path.read_text(encoding="utf-8"))
    return recorded.RecordedScan(
        place=config.out.absolute(),
        n_variants=contents["n_variants"],
        variants_per_part=min(config.variants_per_part, contents["n_variants"]),
        block=config.block,
        threads=_threads(config),
        limits=variants.Limits(config.min_maf, config.max_missing, config.min_hwe),
        facts=contents["facts"],
        planned=shard.stamp_of(path),
    )


def _plan_of(config: GwasConfig) -> dict[str, Any]:
    """What decides the bytes of the output."""
    return {
        "config": config.semantics(),
        "variants_per_part": config.variants_per_part,
        "inputs": {name: fingerprint(path) for name, path in input_files(config).items() if path is not None},
    }


def input_files(config: GwasConfig) -> dict[str, Path | None]:
    """Every file that is read. Raises InputError where genotypes are missing."""
    sets = genotypes.find_sets(config.genotypes)
    files: dict[str, Path | None] = {}
    for i, prefix in enumerate(sets):
        label = "genotypes" if len(sets) == 1 else f"genotypes{i}"
        files |= {f"{label}.{suffix}": Path(f"{prefix}.{suffix}") for suffix in ("bed", "bim", "fam")}
    files |= variants.input_files(config)
    files |= _phenotype_files(config) | {"covariates": config.covariates, "variance": config.null.variance}
    if config.test == "mixed":
        files |= {f"sparse_grm.{suffix}": Path(f"{config.sparse_grm}.grm.{suffix}") for suffix in ("id", "sp")}
    for name, path in files.items():
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file ({name})")
    return files


def _phenotype_files(config: GwasConfig) -> dict[str, Path | None]:
    one = len(config.phenotypes) == 1
    return {"phenotypes" if one else f"phenotypes{i}": path for i, path in enumerate(config.phenotypes)}


def _threads(config: GwasConfig) -> int:
    """Threads of one part."""
    return cluster.threads(config.workers, config.cluster)


def _output_bytes(n_variants: int, n_traits: int) -> int:
    return n_variants * (8 * n_traits + 64)
