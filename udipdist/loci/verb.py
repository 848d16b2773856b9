"""The verb `loci`: summary statistics and genotypes -> genomic risk loci, as FUMA SNP2GENE computes them.

One run and one trait give one folder of tables. Several traits give such a folder each and their merged loci above
them; several runs give what each would give alone, their merged loci, and how far they agree.
"""

from __future__ import annotations

import logging
from pathlib import Path

from hpc.errors import InputError, some
from hpc.files import publish, safe_names
from hpc.stage import stage
from udipdist.config import LociConfig
from udipdist.config.analyses import MINP
from udipdist.genotypes.plink1 import count_from_size, find_sets
from udipdist.loci import across_runs, fuma
from udipdist.loci.search import Analysis, Run, divisor, merge_all, reference_of, search
from udipdist.sumstats.opening import open_statistics

log = logging.getLogger(__name__)

TRAITS_AT, LAMBDA, ALL_LOCI = "locus_traits.parquet", "lambda_gc.tsv", "all_loci.parquet"
UNIONS, OVERLAP = "loci_by_run.tsv", "overlap.tsv"
_RESERVED = (*fuma.FILES, TRAITS_AT, LAMBDA, ALL_LOCI, UNIONS, OVERLAP, "manifest.json")


def loci(config: LociConfig) -> None:
    """Write the tables of FUMA and what goes with them. Raises InputError where the inputs do not fit each other."""
    names = run_names(config.sumstats)
    inputs = {
        f"sumstats {name}" if names[1:] else "sumstats": p for name, p in zip(names, config.sumstats, strict=True)
    }
    with stage("loci", config.out, config, inputs | _genotype_files(config.genotypes), config.overwrite) as current:
        reference = reference_of(config)
        runs = [
            search(name, open_statistics(path), reference, config)
            for name, path in zip(names, config.sumstats, strict=True)
        ]
        merged = runs[0].merged if len(runs) == 1 else merge_all(one for run in runs for one in run.analyses)
        with publish(config.out) as partial:
            partial.mkdir()
            _write(partial, runs, merged, config)
        current.note(**_facts(runs, merged, config))
        for run in runs:
            for one in run.analyses:
                _tell(run, one, config, len(runs) > 1)


def preview(config: LociConfig) -> list[str]:
    """What `loci` would read and which threshold it would use."""
    people, variants = count_from_size(config.genotypes)
    lines, largest = [], 0
    for path in config.sumstats:
        if path.is_file():
            lines.append(f"{path}: a table of {path.stat().st_size / 1e9:.3g} GB, SNPs with p < {config.p:.3g}")
            largest = max(largest, path.stat().st_size // 60)
            continue
        statistics = open_statistics(path)
        count = len(statistics.chrom_M)
        names = statistics.analyses(config.trait)
        limit = config.p / divisor(config, statistics, names[0])
        lines.append(
            f"{count:,} variants, {len(statistics.traits)} traits in {path}; of {some(names)} the SNPs with p < "
            f"{limit:.3g} are significant"
        )
        largest = max(largest, count)
    return [
        *lines,
        f"LD from {people:,} people, {variants:,} variants, within {config.window_bp:,} bp of significant SNPs",
        f"memory: about {(largest * 60 + variants * 160) / 1e9 + 0.5:.2f} GB; writes {config.out}/",
    ]


def run_names(paths: tuple[Path, ...]) -> list[str]:
    """A short name for each run, fit for a folder: what tells their paths apart. Raises InputError."""
    parts = [path.absolute().parts for path in paths]
    if len(set(parts)) < len(parts):
        raise InputError(f"sumstats: {some(p for p in paths if paths.count(p) > 1)} stands there twice; name each once")
    if len(parts) == 1:
        return [paths[0].name]
    while len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    length = 1
    while len({part[-length:] for part in parts}) < len(parts):
        length += 1
    return safe_names([*_RESERVED, *("-".join(part[-length:]) for part in parts)])[len(_RESERVED) :]


# --------------------------------------------------------------------------------------------------------- write


def _write(folder: Path, runs: list[Run], merged: list[fuma.RiskLocus], config: LociConfig) -> None:
    """The folder of all runs, and below it one of each where there are several."""
    fuma.write_all(folder, merged)
    if len(runs) == 1:
        _write_run(folder, runs[0], merged, config)
    else:
        for run in runs:
            place, own = folder / run.name, run.merged
            place.mkdir()
            fuma.write_all(place, own)
            _write_run(place, run, own, config)
        table, overlap = across_runs.by_run(runs)
        table.to_csv(folder / UNIONS, sep="\t", index=False)
        overlap.to_csv(folder / OVERLAP, sep="\t", index=False, float_format="%.6g")
    if len(runs) > 1 or len(runs[0].analyses) > 1:
        across_runs.all_loci(runs).to_parquet(folder / ALL_LOCI, index=False)


def _write_run(folder: Path, run: Run, merged: list[fuma.RiskLocus], config: LociConfig) -> None:
    """Which traits are significant at its loci, lambda_GC, and a folder of each analysis where there are several."""
    names = [one.name for one in run.analyses]
    across_runs.traits_at(merged, run, _limits(run)).to_parquet(folder / TRAITS_AT, index=False)
    lambdas = run.statistics.lambdas(names, config.lambda_variants)
    lambdas.to_csv(folder / LAMBDA, sep="\t", index=False, float_format="%.6g")
    if len(names) > 1:
        for one, name in zip(run.analyses, safe_names([*_RESERVED, *names])[len(_RESERVED) :], strict=True):
            (folder / name).mkdir()
            fuma.write_all(folder / name, one.loci)


def _limits(run: Run) -> dict[str, float]:
    """What -log10 p of a trait must exceed: its own limit where it is an analysis, else the strictest of them."""
    own = {one.name: one.rules.log10p for one in run.analyses}
    strictest = max(own.values())
    return {trait: own.get(trait, own.get(MINP, strictest)) for trait in run.statistics.traits}


def _facts(runs: list[Run], merged: list[fuma.RiskLocus], config: LociConfig) -> dict:
    """For the manifest; of a single analysis its own facts at the top."""
    facts = {"n_loci": len(merged), "trait": config.trait, "assembly": config.assembly}
    if len(runs) == 1 and len(runs[0].analyses) == 1:
        return runs[0].analyses[0].facts | facts
    return facts | {"runs": {run.name: {one.name: one.facts for one in run.analyses} for run in runs}}


def _tell(run: Run, one: Analysis, config: LociConfig, several: bool) -> None:
    log.info(
        "%s%d loci, %d lead and %d independent significant SNPs of %s, at p < %s",
        f"{run.name}: " if several else "",
        len(one.loci),
        sum(len(locus.leads) for locus in one.loci),
        sum(len(locus.independent) for locus in one.loci),
        one.name,
        f"{config.p / divisor(config, run.statistics, one.name):.3g}",
    )


def _genotype_files(prefix: Path) -> dict[str, Path]:
    """The files behind a prefix, as inputs of the stage."""
    sets = find_sets(prefix)
    return {f"genotypes: {Path(one).name}{suffix}": Path(one + suffix) for one in sets for suffix in (".bed", ".bim")}
