"""The phases of a scan as verbs of their own, for job arrays: gwas-plan, gwas-part I, gwas-finish.

Each is a process that may run on another node; they meet in OUT: the plan saves the models there, a part writes its
shards and its record, and finish checks that every part is done and every shard as it was written.
"""

from __future__ import annotations

import json
import logging

from hpc import parts
from hpc.errors import ConfigError, some
from hpc.lock import held
from hpc.stage import make_way, stage
from udipdist.config import GwasConfig, GwasPartConfig
from udipdist.gwas.scan import plan
from udipdist.gwas.scan import verb as scan
from udipdist.gwas.scan.planned import planned_path

log = logging.getLogger(__name__)


def gwas_plan(config: GwasConfig) -> None:
    """Check all input, fit the null models and make the empty output; what is planned already is kept.

    Raises InputError for unusable input, OutputExists where another plan or a finished output is there, InUse.
    """
    with held(config.out, "gwas-plan"):
        make_way(config.out, config.overwrite)
        job = scan.plan(config)
    log.info("%s: planned, %d parts (gwas-part 0 .. %d, then gwas-finish)", config.out, job.n_parts, job.n_parts - 1)


def gwas_part(config: GwasPartConfig) -> None:
    """Do the parts that `part` names, those that are done already excepted. Raises Incomplete without a plan,
    OutputExists where the input or the configuration is not that of the plan, ConfigError for no such part."""
    job = scan.planned(config)
    parts.do(job, numbers(config.part, job.n_parts), "gwas-part", parts.here)


def gwas_finish(config: GwasConfig) -> None:
    """Check that all parts are done and their files whole, and write the manifest. Raises Incomplete."""
    with stage("gwas", config.out, config, inputs=plan.input_files(config, config.phenotypes)) as running:
        job = scan.planned(config)
        scan.finish(config, job, parts.finish(job), running)


def preview(config: GwasConfig) -> list[str]:
    """What the whole scan would do, and how much of it is done."""
    lines = scan.preview(config)
    if not planned_path(config.out).exists():
        return [*lines, f"{config.out}: has no plan yet"]
    job = scan.planned(config)
    todo = parts.pending(job)
    if isinstance(config, GwasPartConfig):
        lines.append(f"parts to do now: {some(sorted({*numbers(config.part, job.n_parts)} & {*todo}))}")
    done = [i for i in range(job.n_parts) if i not in {*todo}]
    records = [json.loads(parts.marker(job.place, i).read_text(encoding="utf-8")) for i in done]
    seconds = sum(record["seconds"] for record in records)
    state = f"{len(done):,} of {job.n_parts:,} parts are done"
    if seconds > 0:
        state += f", {sum(job.size_of_part(i) for i in done) / seconds:,.0f} variants/s in one process"
    return [*lines, state, *([f"parts left: {some(todo, 20)}"] if todo else [])]


def numbers(text: str, n_parts: int) -> list[int]:
    """The parts that '7', '0-9' or '0-9,12' names, ascending; a range may end beyond the last. Raises ConfigError."""
    found: set[int] = set()
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        low, high = int(first), int(last or first)
        if low > high:
            raise ConfigError(f"part={piece}: ends before it begins; write part={high}-{low}")
        if low >= n_parts:
            raise ConfigError(f"part={piece}: there are {n_parts} parts, 0..{n_parts - 1}")
        found.update(range(low, min(high, n_parts - 1) + 1))
    return sorted(found)
