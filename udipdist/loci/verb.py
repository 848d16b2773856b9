"""The verb `loci`: summary statistics and genotypes -> genomic risk loci, as FUMA SNP2GENE computes them.

What the folders of one run, of several, and of several traits hold: loci.output.
"""

from __future__ import annotations

import logging
from pathlib import Path

from hpc.errors import InputError, some
from hpc.files import safe_names
from hpc.stage import stage
from udipdist.config import LociConfig
from udipdist.genotypes.source import count, find_sets
from udipdist.loci.output import RESERVED, write_loci
from udipdist.loci.search import Analysis, Run, divisor, reference_of, search
from udipdist.sumstats.opening import open_statistics

log = logging.getLogger(__name__)


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
        current.note(**write_loci(config.out, runs, config))
        for run in runs:
            for one in run.analyses:
                _tell(run, one, config, len(runs) > 1)


def preview(config: LociConfig) -> list[str]:
    """What `loci` would read and which threshold it would use."""
    people, variants = count(config.genotypes)
    lines, largest = [], 0
    for path in config.sumstats:
        if path.is_file():
            lines.append(f"{path}: a table of {path.stat().st_size / 1e9:.3g} GB, SNPs with p < {config.p:.3g}")
            largest = max(largest, path.stat().st_size // 60)
            continue
        statistics = open_statistics(path)
        n_tested = len(statistics.chrom_M)
        names = statistics.analyses(config.trait)
        limit = config.p / divisor(config, statistics, names[0])
        lines.append(
            f"{n_tested:,} variants, {len(statistics.traits)} traits in {path}; of {some(names)} the SNPs with p < "
            f"{limit:.3g} are significant"
        )
        largest = max(largest, n_tested)
    return [
        *lines,
        f"LD from {people:,} people, {variants:,} variants, within {config.window_bp:,} bp of significant SNPs",
        f"memory: about {(largest * 60 + variants * 160) / 1e9 + 0.5:.2f} GB; writes {config.out}/",
    ]


def run_names(paths: tuple[Path, ...]) -> list[str]:
    """A short name for each run, fit for a folder: what tells their paths apart. Raises InputError."""
    parts = [path.absolute().parts for path in paths]
    if len(set(parts)) < len(parts):
        raise InputError(f"sumstats: {some(p for p in paths if paths.count(p) > 1)} is listed twice; name each once")
    if len(parts) == 1:
        return [paths[0].name]
    while len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    length = 1
    while len({part[-length:] for part in parts}) < len(parts):
        length += 1
    return safe_names([*RESERVED, *("-".join(part[-length:]) for part in parts)])[len(RESERVED) :]


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
    return {f"genotypes: {path.name}": path for one in find_sets(prefix) for path in one.calls.values()}
