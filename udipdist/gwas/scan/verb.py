"""The verb `gwas`: plan (people, families, null models), part (a run of variants, one shard), finish.

`plan` saves the models under OUT/model, so that parts need nothing but them and the .bed: a local loop, Dask workers
and the tasks of a job array do the same work and write the same bytes.
"""

from __future__ import annotations

import logging
from typing import Any

from hpc import cluster, parts
from hpc.files import remove
from hpc.stage import Stage, stage
from udipdist.config import GwasConfig, ScanOptions
from udipdist.genotypes import filters, sex, source
from udipdist.gwas import outputs, samples
from udipdist.gwas.engine import limits
from udipdist.gwas.scan import plan as plans
from udipdist.gwas.scan.job import BLOCK_BYTES, Scan
from udipdist.gwas.scan.plan import input_files, output_bytes, phenotype_files
from udipdist.gwas.scan.planned import ScanPlan, model_dir, planned_path, stamp_of
from udipdist.people import raw
from udipdist.relatedness import grm

log = logging.getLogger(__name__)


def gwas(config: GwasConfig) -> None:
    """Test every variant against every trait; writes sumstats.zarr, null.tsv, samples.tsv and dropped.tsv.

    Raises InputError for unusable input, OutputExists, Incomplete. Its phases as verbs of their own: gwas.scan.phases.
    """
    inputs = input_files(config, config.phenotypes)
    with stage("gwas", config.out, config, inputs=inputs, overwrite=config.overwrite) as running:
        job = plan(config)
        done = parts.run(job, "gwas", cluster.runner(config.workers, config.cluster))
        finish(config, job, done, running)


def finish(config: GwasConfig, job: Scan, done: list[dict[str, Any]], running: Stage) -> None:
    """End a scan of which all parts are done; `done` are the facts of the parts (`parts.finish(job)`).

    Called inside `stage("gwas", config.out, config, input_files(config, config.phenotypes))`, which writes the
    manifest.
    """
    tallies = [limits.total(tally) for tally in zip(*(part["tally_by_table"] for part in done), strict=True)]
    tested = sum(part["tested"] for part in done)
    for name, tally in zip(outputs.names(config.phenotypes), tallies, strict=True):
        log.log(
            logging.INFO if tally["tested"] else logging.WARNING,
            "%s%s", f"{name}: " if len(tallies) > 1 else "", limits.describe(tally),
        )  # fmt: skip
    masked = sum(part["masked"] for part in done)
    sex.tell_masked(masked, job.facts["male_calls_on_x"])
    running.note(**job.facts, male_heterozygotes_on_x=masked, n_tested=tested)
    if len(tallies) == 1:
        running.note(variants=tallies[0])
    if len(config.phenotypes) > 1:
        _finish_tables(config, tallies, masked, running)
    plans.forget()
    remove(model_dir(config.out))


def _finish_tables(config: GwasConfig, tallies: list[dict[str, int]], masked: int, running: Stage) -> None:
    """Write the manifest of each table's folder: the one that a run of this table alone would have."""
    tables = ScanPlan.load(config.out).tables
    labels = phenotype_files(config.phenotypes)
    common = {key: seen for key, seen in running.inputs.items() if key not in labels}
    for table, label, path, tally in zip(tables, labels, config.phenotypes, tallies, strict=True):
        folder = config.out / table.folder
        alone = config.model_copy(update={"phenotypes": (path,), "out": folder})
        inputs = common | {"phenotypes": running.inputs[label]}
        facts = table.facts | {"male_heterozygotes_on_x": masked, "n_tested": tally["tested"], "variants": tally}
        running.complete(folder, alone, inputs, facts)
        log.info("%s -> %s", table.name, folder)


def check(config: ScanOptions) -> None:
    """Look at all input but the phenotypes, which a pipeline makes only after hours. Raises InputError."""
    filters.choose(source.open_hard_calls(config.genotypes).variants, config)
    if config.covariates is not None:
        samples.read_covariates(config, config.covariates)
    if config.test == "mixed":
        grm.read(str(config.sparse_grm))


def preview(config: GwasConfig) -> list[str]:
    """What a run would do, from headers and file sizes only."""
    n, m = source.count(config.genotypes)
    names = outputs.names(config.phenotypes)
    traits = [len(raw.column_names(path)) for path in config.phenotypes]
    p = sum(traits)
    n_parts = -(-m // config.variants_per_part)
    workers = min(config.workers, n_parts)
    row_bytes, fewest = -(-n // 4), config.fewest_copies
    block = min(config.block, config.variants_per_part, max(1, BLOCK_BYTES // row_bytes)) * _threads(config, m)
    several = [
        f"{count:,} traits of {path} -> {config.out / name}"
        for name, path, count in zip(names, config.phenotypes, traits, strict=True)
        if len(names) > 1
    ]
    return [
        f"{n:,} people with genotypes, {m:,} variants, {p:,} traits, test={config.test}, adjust={config.adjust}",
        f"{n_parts:,} parts of {config.variants_per_part:,} variants, {workers} workers (0: this process)",
        f"memory about {0.5 + (block * (row_bytes + n * 1.5 + p * 30) + n * p * 40) / 1e9:.1f} GB a process, "
        f"disk at most {output_bytes(m, p) / 1e9:.2f} GB",
        *([f"not tested: fewer than {fewest} copies of the minor allele (min_mac)"] if fewest else []),
        *several,
    ]


def plan(config: GwasConfig) -> Scan:
    """Check everything, fit the null models and make the empty output; what is already planned is kept."""
    unplanned = not planned_path(config.out).exists()
    if unplanned and parts.drop_plan(config.out):  # a start that refused its input, or was killed before its first part
        outputs.discard(config.out)
    plans.fix(config)
    if unplanned:
        try:
            plans.make(config)
        except BaseException:
            remove(model_dir(config.out))
            outputs.withdraw(config.out)
            raise
    job = planned(config)
    parts.record_plan(job)
    return job


def planned(config: GwasConfig) -> Scan:
    """The scan that `plan` prepared. Raises Incomplete, and OutputExists where the plan there is another one."""
    contents = ScanPlan.load(config.out)
    plans.fix(config)
    contents = plans.follow(config, contents)
    return Scan(
        place=config.out.absolute(),
        n_variants=contents.n_variants,
        variants_per_part=min(config.variants_per_part, contents.n_variants),
        block=config.block,
        threads=_threads(config, contents.n_variants),
        limits=limits.Limits(config.min_maf, config.max_missing, config.min_hwe, config.fewest_copies),
        facts=contents.facts,
        planned=stamp_of(planned_path(config.out)),
    )


def _threads(config: GwasConfig, n_variants: int) -> int:
    """Threads of one part: there are no more workers than parts to share the cores."""
    return cluster.threads(min(config.workers, -(-n_variants // config.variants_per_part)), config.cluster)
