"""Summary statistics and genotypes -> genomic risk loci, as FUMA SNP2GENE computes them.

-log10 p of all variants is read at once; then, chromosome by chromosome, ids and alleles within the LD window of
significant SNPs, and genotypes only within the window of independent significant ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from hpc.files import publish
from hpc.progress import Progress
from hpc.stage import stage
from udipdist.config import LociConfig
from udipdist.gwas.genotypes import Bed, count_from_size, find_sets
from udipdist.gwas.sumstats import Sumstats
from udipdist.loci import fuma, genome
from udipdist.loci.ld import LinkageReader
from udipdist.loci.rules import Independent, Rules, Snps, independent_snps, lead_snps, merge

log = logging.getLogger(__name__)
PLACES = 10**10  # base pairs that fit between two chromosomes in one number


def loci(config: LociConfig) -> None:
    """Write the three tables of FUMA and loci.parquet. Raises InputError where the inputs do not fit each other."""
    inputs = {"sumstats": config.sumstats} | _genotype_files(config.genotypes)
    with stage("loci", config.out, config, inputs, config.overwrite) as current:
        sumstats = Sumstats.open(config.sumstats)
        rules = rules_of(config, sumstats)
        found, facts = find_loci(sumstats, Bed.open(config.genotypes), config, rules)
        with publish(config.out) as partial:
            partial.mkdir()
            fuma.write_all(partial, found)
        current.note(n_loci=len(found), threshold_log10p=rules.log10p, trait=config.trait, **facts)
        log.info(
            "%d loci, %d lead and %d independent significant SNPs of %s, at p < %s",
            len(found),
            sum(len(locus.leads) for locus in found),
            sum(len(locus.independent) for locus in found),
            config.trait,
            f"{config.p / _divisor(config, sumstats):.3g}",
        )


def preview(config: LociConfig) -> list[str]:
    """What `loci` would read and which threshold it would use."""
    sumstats = Sumstats.open(config.sumstats)
    rules = rules_of(config, sumstats)
    people, variants = count_from_size(config.genotypes)
    return [
        f"{sumstats.n_variants:,} variants, {len(sumstats.traits)} traits in {config.sumstats}; of {config.trait} the "
        f"SNPs with p < {config.p / _divisor(config, sumstats):.3g} (-log10 p > {rules.log10p:.3f}) are significant",
        f"LD from {people:,} people, {variants:,} variants, within {config.window_bp:,} bp of significant SNPs",
        f"memory: about {(sumstats.n_variants * 30 + variants * 250) / 1e9:.2f} GB; writes {config.out}/",
    ]


def rules_of(config: LociConfig, sumstats: Sumstats) -> Rules:
    """The thresholds of a configuration; p divided by the number of traits tested."""
    if config.trait not in ("minp", "multivariate"):
        sumstats.trait_index(config.trait)
    return Rules(
        log10p=-np.log10(config.p / _divisor(config, sumstats)),
        log10p_candidate=-np.log10(config.p_candidate),
        r2=config.r2,
        r2_lead=config.r2_lead,
        window_bp=config.window_bp,
        merge_bp=config.merge_bp,
    )


def find_loci(
    sumstats: Sumstats, bed: Bed, config: LociConfig, rules: Rules
) -> tuple[list[fuma.RiskLocus], dict[str, int]]:
    """Loci in order of the genome, and counts: significant SNPs, those not in the reference."""
    chrom_M, position_M = _places(sumstats)
    log10p_M = sumstats.log10p(config.trait)
    if np.isnan(log10p_M).all():
        log.warning("%s: no variant has a p-value of %s, so there are no loci", config.sumstats, config.trait)
    gwas = _Index.of(chrom_M, position_M, config.exclude_mhc)
    significant = gwas.rows[log10p_M[gwas.rows] > rules.log10p]
    facts = {"n_significant": len(significant), "n_not_in_reference": 0}
    if not len(significant):
        return [], facts

    reference = _Index.of(
        genome.codes(bed.variants.chrom), bed.variants.position.to_numpy(np.int64), config.exclude_mhc
    )
    linkage, trait_of = LinkageReader(bed), _trait_of(config.trait, sumstats)
    leads_of: dict[int, list[fuma.RiskLead]] = {}
    absent: list[str] = []
    n_present = 0
    with Progress("loci", len(significant), "significant SNPs") as progress:
        for chrom in np.unique(chrom_M[significant]).tolist():
            places = np.sort(position_M[significant[chrom_M[significant] == chrom]])
            near = (chrom, places, rules.window_bp)
            known = _gwas_table(chrom, gwas.near(*near), sumstats, log10p_M)
            table, not_there = _join(_reference_table(chrom, reference.near(*near), bed), known, rules)
            absent += not_there
            n_present += int((table.log10p > rules.log10p).sum())
            leads_of[chrom] = _leads(table, rules, linkage, config.min_maf, trait_of)
            progress.advance(len(places))
    facts["n_not_in_reference"] = len(absent)
    _report_absent(absent, n_present, config.genotypes)

    found = []
    for chrom in leads_of:
        for locus in merge(leads_of[chrom], rules.merge_bp):
            found.append(fuma.RiskLocus(len(found) + 1, chrom, locus.start, locus.end, locus.leads))
    return found, facts


# ------------------------------------------------------------------------------------ from genome to chromosomes


@dataclass(frozen=True)
class _Index:
    """Variants by place: `rows` are their numbers in the file in order of the genome, `places` chromosome and position
    in one number."""

    rows: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, chrom_M: np.ndarray, position_M: np.ndarray, exclude_mhc: bool) -> _Index:
        """All variants on known chromosomes; without the MHC if wanted."""
        keep_M = chrom_M != genome.UNPLACED
        if exclude_mhc:
            chrom, start, end = genome.MHC
            keep_M &= ~((chrom_M == chrom) & (position_M >= start) & (position_M <= end))
        rows = np.flatnonzero(keep_M)
        places = chrom_M[rows] * PLACES + position_M[rows]
        order = np.argsort(places, kind="stable")
        return cls(rows[order], places[order])

    def near(self, chrom: int, positions: np.ndarray, window_bp: int) -> np.ndarray:
        """Numbers, ascending, of a chromosome's variants within `window_bp` of one of `positions` (sorted)."""
        first, last = np.searchsorted(self.places, [chrom * PLACES, (chrom + 1) * PLACES])
        here = self.places[first:last] - chrom * PLACES
        until = np.searchsorted(positions, here + window_bp, side="right")
        return np.sort(self.rows[first:last][until > np.searchsorted(positions, here - window_bp)])


def _reference_table(chrom: int, rows: np.ndarray, bed: Bed) -> pd.DataFrame:
    """Reference SNPs of a chromosome: row (in the .bed), position, reference_snp, unique_id; of repeats the first."""
    here = bed.variants.iloc[rows]
    table = pd.DataFrame({"row": rows, "position": here.position.array, "reference_snp": here.snp.array})
    return table.assign(unique_id=genome.unique_ids(chrom, here)).drop_duplicates("unique_id")


def _gwas_table(chrom: int, variants: np.ndarray, sumstats: Sumstats, log10p_M: np.ndarray) -> pd.DataFrame:
    """GWAS SNPs of a chromosome: variant, log10p, snp, unique_id; of repeated ones the most significant."""
    first, last = int(variants[0]), int(variants[-1])
    here = sumstats.variant_rows(first, last + 1, ("position", "snp", "a1", "a2")).iloc[variants - first]
    table = pd.DataFrame({"variant": variants, "log10p": log10p_M[variants], "snp": here.snp.array})
    table["unique_id"] = genome.unique_ids(chrom, here)
    return table.sort_values("log10p", ascending=False, kind="stable").drop_duplicates("unique_id")


def _join(reference: pd.DataFrame, gwas: pd.DataFrame, rules: Rules) -> tuple[pd.DataFrame, list[str]]:
    """Reference SNPs by position with what the GWAS knows of them (log10p NaN where it does not), matched by position
    and unordered alleles; and the names of the significant SNPs that are not in the reference."""
    lost = gwas[(gwas.log10p > rules.log10p) & ~gwas.unique_id.isin(reference.unique_id)]
    table = reference.merge(gwas, how="left", on="unique_id")
    table["snp"] = table.snp.where(table.snp.notna(), table.reference_snp)
    table = table.sort_values(["position", "unique_id"], kind="stable", ignore_index=True)
    return table, [f"{snp} ({key})" for snp, key in zip(lost.snp, lost.unique_id, strict=True)]


def _leads(
    table: pd.DataFrame, rules: Rules, linkage: LinkageReader, min_maf: float, trait_of: Callable[[int], str]
) -> list[fuma.RiskLead]:
    """The lead SNPs of a chromosome, with LD read from the genotypes, in order of position."""
    column = {name: table[name].to_numpy() for name in table}
    rows, log10p = column["row"], column["log10p"].astype(np.float64)

    def r2_of(i: int, start: int, stop: int) -> np.ndarray:
        order = np.argsort(rows[start:stop], kind="stable")
        result = np.empty(stop - start)
        result[order] = linkage.r2(int(rows[i]), rows[start:stop][order])
        return result

    def common_enough(i: int) -> bool:
        return min_maf == 0 or linkage.minor_frequency(int(rows[i])) >= min_maf

    def named(snp: Independent) -> fuma.RiskSnp:
        i, candidates = snp.index, snp.candidates
        return fuma.RiskSnp(
            unique_id=column["unique_id"][i],
            rsid=column["snp"][i],
            position=int(column["position"][i]),
            log10p=float(log10p[i]),
            trait=trait_of(int(column["variant"][i])),
            candidates=rows[candidates],
            tested=rows[candidates[~np.isnan(log10p[candidates])]],
        )

    snps = Snps(column["position"], log10p, column["unique_id"])
    leads = [
        fuma.RiskLead([named(snp) for snp in lead.independent], lead.start, lead.end)
        for lead in lead_snps(snps, independent_snps(snps, rules, r2_of, common_enough))
    ]
    return sorted(leads, key=lambda lead: (lead.snp.position, lead.snp.unique_id))


def _report_absent(absent: list[str], n_present: int, genotypes: Path) -> None:
    """Warn of significant SNPs that the reference lacks. Raises InputError where it lacks all."""
    if not absent:
        return
    n = len(absent) + n_present
    what = f"{len(absent):,} of {n:,} significant SNPs are not in it by position and alleles: {some(absent)}"
    if n_present == 0:
        raise InputError(
            f"{genotypes}: {what}. Without LD there are no loci; give genotypes= of the same genome build and "
            "variants, best those of the GWAS"
        )
    log.warning("%s: %s. They are left out", genotypes, what)


# ------------------------------------------------------------------------------------------------ small helpers


def _places(sumstats: Sumstats) -> tuple[np.ndarray, np.ndarray]:
    """Chromosome code and position of every variant, int64 [M]; ids and alleles are not read."""
    chrom_M = np.empty(sumstats.n_variants, np.int64)
    for start, stop in sumstats.blocks():
        chrom_M[start:stop] = genome.codes(sumstats.group["chrom"][start:stop].astype(object))
    return chrom_M, sumstats.group["position"][:].astype(np.int64)


def _trait_of(trait: str, sumstats: Sumstats) -> Callable[[int], str]:
    """The trait that a variant's p belongs to: for minp the one with the smallest p."""
    if trait != "minp":
        return lambda variant: trait
    index_M = sumstats.minp_trait()
    return lambda variant: sumstats.traits[index_M[variant]]


def _divisor(config: LociConfig, sumstats: Sumstats) -> int:
    if config.traits is not None:
        return config.traits
    return len(sumstats.traits) if config.trait == "minp" else 1


def _genotype_files(prefix: Path) -> dict[str, Path]:
    """The files behind a prefix, as inputs of the stage."""
    sets = find_sets(prefix)
    return {f"genotypes: {Path(one).name}{suffix}": Path(one + suffix) for one in sets for suffix in (".bed", ".bim")}
