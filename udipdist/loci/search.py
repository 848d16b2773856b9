"""The search for loci: significant SNPs of some analyses and LD of a reference -> loci of each analysis, and merged.

Places and -log10 p of all variants are looked at once; then, chromosome by chromosome, ids and alleles within the LD
window of significant SNPs, and genotypes only within the window of independent significant ones. What one analysis
asked of the reference the others find in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from hpc.progress import Progress
from udipdist.config import LociOptions
from udipdist.genome import assemblies
from udipdist.genotypes.source import open_hard_calls
from udipdist.loci import fuma
from udipdist.loci.reference import Index, Reference, Stretch
from udipdist.loci.rules import Independent, Rules, Snps, independent_snps, lead_snps, merge
from udipdist.sumstats.analyses import Statistics

log = logging.getLogger(__name__)


@dataclass
class Analysis:
    """One column of p and what was found in it: its leads by chromosome, and its loci in order of the genome."""

    name: str
    rules: Rules
    leads: dict[int, list[fuma.RiskLead]] = field(default_factory=dict)
    loci: list[fuma.RiskLocus] = field(default_factory=list)
    n_significant: int = 0
    n_present: int = 0
    n_absent: int = 0

    @property
    def facts(self) -> dict[str, float]:
        """For the manifest."""
        return {
            "n_loci": len(self.loci), "threshold_log10p": self.rules.log10p, "n_significant": self.n_significant,
            "n_not_in_reference": self.n_absent,
        }  # fmt: skip


@dataclass
class Run:
    """One set of summary statistics and its analyses; `index` has its variants by place."""

    name: str
    statistics: Statistics
    index: Index
    analyses: list[Analysis]

    @property
    def merged(self) -> list[fuma.RiskLocus]:
        """The loci of all its analyses, merged by the rule that merges those of one."""
        return self.analyses[0].loci if len(self.analyses) == 1 else merge_all(self.analyses)


def rules_of(config: LociOptions, statistics: Statistics, analysis: str) -> Rules:
    """The thresholds for one analysis; p divided by the number of tests a variant."""
    return Rules(
        log10p=-np.log10(config.p / divisor(config, statistics, analysis)),
        log10p_candidate=-np.log10(config.p_candidate),
        r2=config.r2,
        r2_lead=config.r2_lead,
        window_bp=config.window_bp,
        merge_bp=config.merge_bp,
        r2_floor=config.r2_floor,
    )


def divisor(config: LociOptions, statistics: Statistics, analysis: str) -> int:
    """What p is divided by: the key `tests`, or the number of tests a variant."""
    return statistics.n_tests(analysis) if config.tests is None else config.tests


def reference_of(config: LociOptions) -> Reference:
    """The reference of a configuration. Raises InputError."""
    source = open_hard_calls(config.genotypes)
    reference = Reference(source, left_out(config), config.window_bp, config.r2_floor)
    assemblies.check_build(reference.chrom_M, reference.position_M, config.assembly, f"{config.genotypes}.bim")
    return reference


def left_out(config: LociOptions) -> tuple[int, int, int] | None:
    """The MHC as (chromosome, first, last), where it is to be left out."""
    return (assemblies.MHC[0], *(config.mhc or assemblies.MHC_OF[config.assembly])) if config.exclude_mhc else None


def search(name: str, statistics: Statistics, reference: Reference, config: LociOptions) -> Run:
    """Loci of every analysis that `config.trait` names. Raises InputError where the inputs do not fit each other."""
    assemblies.check_build(statistics.chrom_M, statistics.position_M, config.assembly, statistics.path)
    index = Index.of(statistics.chrom_M, statistics.position_M, left_out(config))
    names = statistics.analyses(config.trait)
    run = Run(name, statistics, index, [Analysis(n, rules_of(config, statistics, n)) for n in names])
    kept_M = np.zeros(len(statistics.chrom_M), bool)
    kept_M[index.rows] = True
    hits = statistics.significant({one.name: one.rules.log10p for one in run.analyses})
    hits = {one: rows[kept_M[rows]] for one, rows in hits.items()}
    for one in run.analyses:
        one.n_significant = len(hits[one.name])
    everything = np.unique(np.concatenate(list(hits.values())))
    absent: dict[str, str] = {}
    with Progress("loci", len(everything), "significant SNPs") as progress:
        for chrom in np.unique(statistics.chrom_M[everything]).tolist():
            rows = everything[statistics.chrom_M[everything] == chrom]
            absent |= _search_chromosome(chrom, run, reference, np.sort(statistics.position_M[rows]), config)
            progress.advance(len(rows))
    _report_absent(absent, len(everything), run, config.genotypes)
    for one in run.analyses:
        one.loci = _numbered(one.leads, config.merge_bp)
    return run


def merge_all(analyses: Iterable[Analysis]) -> list[fuma.RiskLocus]:
    """Loci of several analyses together, by the rule that merges leads of one."""
    analyses = list(analyses)
    chromosomes = sorted({chrom for one in analyses for chrom in one.leads})
    leads = {c: fuma.pool(lead for one in analyses for lead in one.leads.get(c, [])) for c in chromosomes}
    return _numbered(leads, analyses[0].rules.merge_bp)


def _numbered(leads: dict[int, list[fuma.RiskLead]], merge_bp: int) -> list[fuma.RiskLocus]:
    found: list[fuma.RiskLocus] = []
    for chrom, those in leads.items():
        for locus in merge(those, merge_bp):
            found.append(fuma.RiskLocus(len(found) + 1, chrom, locus.start, locus.end, locus.leads))
    return found


def _search_chromosome(
    chrom: int, run: Run, reference: Reference, places: np.ndarray, config: LociOptions
) -> dict[str, str]:
    """Fill in the leads of each analysis on a chromosome whose significant SNPs lie at `places` (sorted). Returns the
    significant ones that the reference lacks: their uniqID and id."""
    statistics = run.statistics
    stretch = reference.near(chrom, places)
    rows = run.index.near(chrom, places, reference.window_bp)
    names = statistics.names(rows)
    ids = assemblies.unique_ids(chrom, statistics.position_M[rows], names["a1"], names["a2"])
    found = pd.Index(stretch.id_S).get_indexer(ids)
    log10p_of = statistics.log10p([one.name for one in run.analyses], rows)
    absent: dict[str, str] = {}
    for one in run.analyses:
        log10p = log10p_of(one.name)
        high = log10p > one.rules.log10p
        lost = np.flatnonzero(high & (found < 0))
        one.n_present += int((high & (found >= 0)).sum())
        missing = {ids[g]: names["snp"][g] or ids[g] for g in lost.tolist()}
        one.n_absent += len(missing)
        absent |= missing
        leads = _leads(one, stretch, found, log10p, rows, names["snp"], statistics, config.min_maf)
        if leads:
            one.leads[chrom] = leads
    return absent


def _leads(
    one: Analysis, stretch: Stretch, found: np.ndarray, log10p: np.ndarray, rows: np.ndarray, snp: pd.Series,
    statistics: Statistics, min_maf: float,
) -> list[fuma.RiskLead]:  # fmt: skip
    """The lead SNPs of a chromosome in order of position. `found` has the SNP of `stretch` of each variant (or -1)."""
    known = np.flatnonzero((found >= 0) & ~np.isnan(log10p))
    known = known[np.lexsort((-known, log10p[known]))]  # of repeats the most significant one stays, then the first
    log10p_S, whose_S = np.full(len(stretch.row_S), np.nan), np.full(len(stretch.row_S), -1)
    log10p_S[found[known]], whose_S[found[known]] = log10p[known], known

    def common_enough(i: int) -> bool:
        return min_maf == 0 or stretch.minor_frequency(i) >= min_maf

    snps = Snps(stretch.position_S, log10p_S, stretch.id_S)
    independent = independent_snps(snps, one.rules, stretch.r2, common_enough)
    at = whose_S[[snp.index for snp in independent]] if independent else np.empty(0, int)
    order = np.argsort(rows[at], kind="stable")
    traits = dict(zip(at[order].tolist(), statistics.trait_of(one.name, rows[at[order]]), strict=True))

    def named(single: Independent) -> fuma.RiskSnp:
        i, candidates = single.index, single.candidates
        return fuma.RiskSnp(
            unique_id=stretch.id_S[i],
            rsid=snp[whose_S[i]] or stretch.id_S[i],
            position=int(stretch.position_S[i]),
            log10p=float(log10p_S[i]),
            trait=traits[int(whose_S[i])],
            candidates=stretch.row_S[candidates],
            tested=stretch.row_S[candidates[~np.isnan(log10p_S[candidates])]],
            stretch=stretch,
            index=i,
        )

    leads = [
        fuma.RiskLead([named(single) for single in lead.independent], lead.start, lead.end)
        for lead in lead_snps(snps, independent)
    ]
    return sorted(leads, key=lambda lead: (lead.snp.position, lead.snp.unique_id))


def _report_absent(absent: dict[str, str], n: int, run: Run, genotypes: Path) -> None:
    """Warn of significant SNPs (`n` in all) that the reference lacks. Raises InputError where it lacks all."""
    if not absent:
        return
    names = some(f"{snp} ({key})" for key, snp in absent.items())
    what = f"{len(absent):,} of {n:,} significant SNPs are not in it by position and alleles: {names}"
    if not any(one.n_present for one in run.analyses):
        raise InputError(
            f"{genotypes}: {what}. Without LD there are no loci; give genotypes= of the same genome build and "
            "variants, best those of the GWAS"
        )
    log.warning("%s: %s. They are left out", genotypes, what)
