"""The verb `export`: summary statistics as other programs read them, one file a trait.

All traits of a call are written in one pass over the store, shard by shard, so memory does not grow with the number of
variants. Threads put blocks into text and compress them; the bytes do not depend on how many threads there are.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from hpc.errors import ConfigError, InputError, some
from hpc.files import publish, publish_text, require_space, safe_names
from hpc.progress import Progress
from hpc.stage import read_manifest, stage
from hpc.world import cores
from udipdist.config import ExportConfig
from udipdist.config.analyses import ALL, AnalysisKind
from udipdist.sumstats.formats import LAYOUTS, LOG10P, Layout, Results, Variants, ssf_meta
from udipdist.sumstats.store import COLUMNS, Sumstats
from udipdist.sumstats.tablefiles import BYTES_A_ROW, SUFFIXES, ParquetFile, TextFile, encoding_of, lines, packed

log = logging.getLogger(__name__)

FILES_AT_ONCE = 256  # open in one pass; more traits take more passes, each over its own columns
ROWS_AT_ONCE = 65_536  # put into text by one thread
GROUP_ROWS = 1_048_576  # of a Parquet row group, shared out among the files of a pass
_NO_LIMIT = np.iinfo(np.int32).max


@dataclass
class Target:
    """One file to write: a trait (its column), or minp or multivariate (column -1); and what was written."""

    name: str
    kind: AnalysisKind
    column: int
    file: str
    rows: int = 0
    untested: int = 0
    unfit: int = 0


@dataclass(frozen=True)
class Job:
    """What one call writes. `people` of each trait, as far as they are known."""

    config: ExportConfig
    sumstats: Sumstats
    targets: list[Target]
    encoding: str
    people: dict[str, int]

    @property
    def bytes(self) -> int:
        """About what the files will take."""
        return self.sumstats.n_variants * len(self.targets) * BYTES_A_ROW[self.encoding]


def export(config: ExportConfig) -> None:
    """Write the tables. Raises InputError for traits that are not there or that the format cannot hold."""
    job = _plan(config)
    several = _several(config)
    with stage("export", config.out, config, {"sumstats": config.sumstats}, config.overwrite) as current:
        require_space(config.out, job.bytes)
        with publish(config.out) as partial:
            if several:
                partial.mkdir()
                _write(job, [partial / target.file for target in job.targets])
                _list(job.targets).to_csv(partial / "files.tsv", sep="\t", index=False)
            else:
                _write(job, [partial])
            if config.format == "ssf":
                metas = [_meta(job, t, partial / t.file if several else partial) for t in job.targets]
                for target, text in zip(job.targets, metas if several else [], strict=several):
                    _meta_path(partial / target.file).write_text(text, encoding="utf-8")
        if config.format == "ssf" and not several:
            publish_text(_meta_path(config.out), metas[0])
        current.note(**_tell(job))


def preview(config: ExportConfig) -> list[str]:
    """What `export` would write."""
    job = _plan(config)
    return [
        f"{job.sumstats.n_variants:,} variants of {_what(job.targets)} as {config.format} -> {config.out}",
        f"about {job.bytes / 1e9:.2g} GB ({job.encoding})",
    ]


# ---------------------------------------------------------------------------------------------------------- plan


def _plan(config: ExportConfig) -> Job:
    """What to write, and where; refuses what cannot be written."""
    sumstats = Sumstats.open(config.sumstats)
    encoding, layout = _encoding(config), LAYOUTS[config.format]
    everything = config.trait == ALL
    names = sumstats.traits if everything else [config.trait] if isinstance(config.trait, str) else config.trait
    if not names:
        raise ConfigError("trait=[]: is empty; give a trait, minp, multivariate, a list of them, or all")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice and not everything:
        raise ConfigError(f"trait={config.trait}: names {twice[0]} twice; name it once")
    kinds = [AnalysisKind.TRAIT if everything else AnalysisKind.of(name) for name in names]
    if AnalysisKind.MULTIVARIATE in kinds and layout.without_effects == "refuse":
        raise InputError(
            f"trait=multivariate: the joint test has no effect sizes, which format={config.format} demands; "
            "use format=fuma, fastgwa or regenie"
        )
    if config.untested and not layout.holds_untested:
        raise ConfigError(
            f"untested=true: format={config.format} cannot hold variants without p; use fastgwa or regenie"
        )
    columns = (
        range(len(names))
        if everything
        else [sumstats.trait_index(n) if k is AnalysisKind.TRAIT else -1 for n, k in zip(names, kinds, strict=True)]
    )
    prefix = f"{config.out.name}_" if config.format == "regenie" else ""
    targets = [
        Target(name, kind, column, f"{prefix}{stem}{layout.suffix}{SUFFIXES[encoding]}")
        for name, kind, column, stem in zip(names, kinds, columns, safe_names(names), strict=True)
    ]
    return Job(config, sumstats, targets, encoding, _people(sumstats))


def _p_floor(config: ExportConfig) -> float:
    """The smallest p that is printed; 0 for no limit."""
    return LAYOUTS[config.format].p_floor if config.p_floor is None else config.p_floor


def _several(config: ExportConfig) -> bool:
    return config.trait == ALL or isinstance(config.trait, list)


def _encoding(config: ExportConfig) -> str:
    """Of one file as its suffix says, of several as `encoding` says. Raises ConfigError."""
    said = encoding_of(config.out)
    if _several(config):
        if said != "text" or config.out.suffix in {layout.suffix for layout in LAYOUTS.values()}:
            raise ConfigError(
                f"out={config.out}: several traits are files in a folder; give the name of a folder "
                "(encoding=text, gz or parquet says how they are written)"
            )
        said = config.encoding or "gz"
    elif not config.out.suffix:
        raise ConfigError(f"out={config.out}: must be one file; give it a suffix, such as .tsv, .tsv.gz or .parquet")
    if config.encoding not in (None, said):
        raise ConfigError(
            f"encoding={config.encoding}: out={config.out} says {said}; one file is encoded as its suffix says "
            "(.gz, .parquet, else text)"
        )
    if config.format == "ssf":
        if said == "parquet":
            raise ConfigError("format=ssf: GWAS-SSF is text; choose encoding=text or gz, or another format")
        if not _several(config) and not config.out.name.endswith((".tsv", ".tsv.gz")):
            raise ConfigError(f"out={config.out}: GWAS-SSF asks for a name that ends in .tsv or .tsv.gz; name it so")
    return said


def _people(sumstats: Sumstats) -> dict[str, int]:
    """People with each trait, of null.tsv beside the store; empty where there is none."""
    path = sumstats.path / "null.tsv"
    if not path.exists():
        path = sumstats.path.parent / "null.tsv"
    differ, everybody = sumstats.attrs.get("groups", 1) > 1, sumstats.attrs.get("n_samples")
    if not path.exists():
        if differ:
            log.warning(
                "%s: traits differ in who is missing, and the store has no null.tsv beside it with their numbers: "
                "N and the allele frequency are of all %s people analysed", sumstats.path, everybody,
            )  # fmt: skip
        return {}
    if differ:
        log.info(
            "%s: traits differ in who is missing: N is the smaller of the genotypes called and the people with the "
            "trait; the allele frequency is of all %s people analysed", sumstats.path, everybody,
        )  # fmt: skip
    table = pd.read_csv(path, sep="\t", dtype={"trait": str}, na_filter=False, usecols=["trait", "n"])
    return dict(zip(table["trait"], table["n"].astype(int), strict=True))


# --------------------------------------------------------------------------------------------------------- write


def _write(job: Job, paths: list[Path]) -> None:
    lows = range(0, len(paths), FILES_AT_ONCE)
    with Progress("export", job.sumstats.n_variants * len(lows), "variants") as progress:
        for low in lows:
            some_targets = job.targets[low : low + FILES_AT_ONCE]
            _Pass(job, some_targets).run(paths[low : low + FILES_AT_ONCE], progress)


class _Pass:
    """One pass over the store for the files of `targets`."""

    def __init__(self, job: Job, targets: list[Target]):
        self.layout: Layout = LAYOUTS[job.config.format]
        self.sumstats, self.targets, self.encoding = job.sumstats, targets, job.encoding
        self.untested, self.p_floor = job.config.untested, _p_floor(job.config)
        self.headers = [self._header(target) for target in targets]
        self.people_P = np.array([job.people.get(name, _NO_LIMIT) for name in job.sumstats.traits], np.int32)
        self.traits = pa.array(job.sumstats.traits, pa.large_string())

    def _header(self, target: Target) -> list[str]:
        header = self.layout.header(effects=target.kind is not AnalysisKind.MULTIVARIATE)
        if self.encoding == "parquet" and LOG10P not in self.layout.columns.values():
            header.append(LOG10P)  # a float64 p ends at 5e-324
        return header

    def run(self, paths: list[Path], progress: Progress) -> None:
        """Write them all, block by block."""
        threads = cores()
        pending: deque[tuple[int, Future[tuple[Any, int, int, int]]]] = deque()
        with ExitStack() as stack:
            writers = [stack.enter_context(self._writer(i, path)) for i, path in enumerate(paths)]
            pool = stack.enter_context(ThreadPoolExecutor(threads))

            def drain(limit: int) -> None:
                while len(pending) > limit:
                    i, future = pending.popleft()
                    writers[i].write(self._count(self.targets[i], future.result()))

            for start, stop in self.sumstats.spans(ROWS_AT_ONCE):
                pieces = self._variants(start, stop)
                for i, values in self._results(start, stop):
                    for rows, variants in pieces:
                        pending.append((i, pool.submit(self._render, i, variants, [v[rows] for v in values])))
                        drain(2 * threads)
                progress.advance(stop - start)
            drain(0)

    def _writer(self, i: int, path: Path) -> AbstractContextManager[TextFile | ParquetFile]:
        if self.encoding == "parquet":
            return ParquetFile(path, max(GROUP_ROWS // len(self.targets), 1))
        head = self.layout.separator.join(self.headers[i]) + "\n"
        return TextFile(path, packed(head.encode(), self.encoding))

    def _variants(self, start: int, stop: int) -> list[tuple[slice, Variants]]:
        """The variants of a block, in pieces for the threads."""
        columns = {name: self.sumstats.values(name, start, stop) for name in (*COLUMNS, "n", "af1")}
        pieces = [slice(low, low + ROWS_AT_ONCE) for low in range(0, stop - start, ROWS_AT_ONCE)]
        return [(rows, Variants({name: values[rows] for name, values in columns.items()})) for rows in pieces]

    def _results(self, start: int, stop: int) -> Iterator[tuple[int, list[np.ndarray]]]:
        """(target, [beta, se]) of a block, with the column of each value for minp; [log10p] for multivariate. Each
        chunk of the store is read once."""
        p, width = len(self.sumstats.traits), self.sumstats.traits_per_chunk
        minp = [i for i, target in enumerate(self.targets) if target.kind is AnalysisKind.MINP]
        if minp:
            best_M = self.sumstats.minp_trait(start, stop).astype(np.int64)
            best_beta_M, best_se_M = (np.full(stop - start, np.nan, np.float32) for _ in range(2))
        for low in range(0, p, width):
            high = min(low + width, p)
            wanted = {i: target.column for i, target in enumerate(self.targets) if low <= target.column < high}
            if not wanted and not minp:
                continue
            first, last = (low, high - 1) if minp else (min(wanted.values()), max(wanted.values()))
            beta_MP, se_MP = self.sumstats.effects(start, stop, slice(first, last + 1))
            for i, column in wanted.items():
                yield i, [np.ascontiguousarray(values[:, column - first]) for values in (beta_MP, se_MP)]
            if minp:
                here = np.flatnonzero((best_M >= low) & (best_M < high))
                best_beta_M[here] = beta_MP[here, best_M[here] - low]
                best_se_M[here] = se_MP[here, best_M[here] - low]
        for i, target in enumerate(self.targets):
            if i in minp:
                yield i, [best_beta_M, best_se_M, best_M]
            elif target.kind is AnalysisKind.MULTIVARIATE:
                yield i, [self.sumstats.log10p(target.name, start, stop)]

    def _render(self, i: int, variants: Variants, values: list[np.ndarray]) -> tuple[Any, int, int, int]:
        """The rows of one target, packed or as a table; and how many, how many untested, how many do not fit."""
        results = self._named(self.targets[i], variants, values)
        tested_B = ~np.isnan(results.log10p_B)
        fits_B = self.layout.fits(variants) if self.layout.fits else np.ones(len(variants), bool)
        keep_B = (tested_B | self.untested) & fits_B
        text = self.encoding != "parquet"
        table = self.layout.table(variants, results, keep_B, self.headers[i], text)
        block = packed(lines(table, self.layout.separator), self.encoding) if text else table
        return block, int(keep_B.sum()), int((~tested_B).sum()), int((tested_B & ~fits_B).sum())

    def _named(self, target: Target, variants: Variants, values: list[np.ndarray]) -> Results:
        n_B = variants.n_B
        if len(values) == 1:
            none_B = np.full(len(n_B), np.nan, np.float32)
            return Results(none_B, none_B, values[0], n_B, target.name, "JOINT", self.p_floor)
        beta_B, se_B, *columns = values
        column_B = columns[0] if columns else target.column
        trait = self.traits.take(pa.array(np.maximum(column_B, 0))) if columns else target.name
        limit_B = self.people_P[column_B]
        if (limit_B < n_B).any():  # else the text of n is made once for all traits
            n_B = np.minimum(n_B, limit_B)
        return Results(beta_B, se_B, self.sumstats.log10p_from(beta_B, se_B, column_B), n_B, trait, "ADD", self.p_floor)

    def _count(self, target: Target, rendered: tuple[Any, int, int, int]) -> Any:
        block, rows, untested, unfit = rendered
        target.rows += rows
        target.untested += untested
        target.unfit += unfit
        return block


# ---------------------------------------------------------------------------------------------------------- tell


def _what(targets: list[Target]) -> str:
    return targets[0].name if len(targets) == 1 else f"{len(targets):,} traits ({some([t.name for t in targets])})"


def _list(targets: list[Target]) -> pd.DataFrame:
    names = {"trait": "name", "file": "file", "variants": "rows", "not_tested": "untested", "not_held": "unfit"}
    return pd.DataFrame([{column: getattr(target, name) for column, name in names.items()} for target in targets])


def _tell(job: Job) -> dict[str, int]:
    """Log what was written and left out; the counts for the manifest."""
    rows, untested, unfit = (sum(getattr(t, name) for t in job.targets) for name in ("rows", "untested", "unfit"))
    log.info("%s: %s of %s, %s rows", job.config.out, job.config.format, _what(job.targets), f"{rows:,}")
    if untested:
        how = "kept, as NA" if job.config.untested else "left out"
        log.info("%s rows of variants that were not tested are %s", f"{untested:,}", how)
    if unfit:
        log.warning("%s rows are left out: %s", f"{unfit:,}", LAYOUTS[job.config.format].holds)
    floor = _p_floor(job.config)
    if floor:
        log.info("p-values below %g are written as %g", floor, floor)
    return {"files": len(job.targets), "variants": rows, "not_tested": untested, "not_held": unfit}


def _meta_path(path: Path) -> Path:
    return path.with_name(f"{path.name}-meta.yaml")


def _meta(job: Job, target: Target, data: Path) -> str:
    """The metadata of the GWAS-SSF file `data`."""
    sumstats = job.sumstats
    what = target.name if target.kind is AnalysisKind.TRAIT else f"smallest p over {len(sumstats.traits)} traits"
    facts: dict[str, Any] = {"trait_description": [what], "genome_assembly": job.config.assembly}
    people = sumstats.attrs.get("n_samples")
    if target.kind is AnalysisKind.TRAIT:
        people = job.people.get(target.name, people)
    if people is not None:
        facts["samples"] = [{"sample_size": int(people)}]
    manifest = read_manifest(sumstats.path) or {}
    min_maf = (manifest.get("config") or {}).get("min_maf")
    if min_maf is not None:
        copies = (manifest.get("facts") or {}).get("min_mac", 0)
        facts["minor_allele_freq_lower_limit"] = max(min_maf, copies / (2 * people)) if people else min_maf
    return ssf_meta(target.file if _several(job.config) else job.config.out.name, data, facts)
