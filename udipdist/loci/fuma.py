"""Loci as tables: the three files of FUMA SNP2GENE with its columns, and one tidy Parquet table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from udipdist.gwas.sumstats import p_text
from udipdist.loci import genome

LOCI, LEADS, INDEPENDENT, TIDY = "GenomicRiskLoci.txt", "leadSNPs.txt", "IndSigSNPs.txt", "loci.parquet"
LOCI_COLUMNS = (
    "GenomicLocus", "uniqID", "rsID", "chr", "pos", "p", "start", "end", "nSNPs", "nGWASSNPs", "nIndSigSNPs",
    "IndSigSNPs", "nLeadSNPs", "LeadSNPs",
)  # fmt: skip
LEADS_COLUMNS = ("No", "GenomicLocus", "uniqID", "rsID", "chr", "pos", "p", "nIndSigSNPs", "IndSigSNPs")
INDEPENDENT_COLUMNS = ("No", "GenomicLocus", "uniqID", "rsID", "chr", "pos", "p", "nSNPs", "nGWASSNPs")
TIDY_TYPES = {
    "locus": "int64", "chrom": "str", "start": "int64", "end": "int64", "lead_snp": "str", "lead_position": "int64",
    "log10p": "float64", "trait": "str", "n_snps": "int64", "n_lead": "int64", "n_ind_sig": "int64",
    "lead_snps": "str", "ind_sig_snps": "str",
}  # fmt: skip


@dataclass(frozen=True)
class RiskSnp:
    """An independent significant SNP; `candidates` are reference rows, `tested` those of them in the GWAS."""

    unique_id: str
    rsid: str
    position: int
    log10p: float
    trait: str
    candidates: np.ndarray
    tested: np.ndarray


@dataclass(frozen=True)
class RiskLead:
    """A lead SNP: the first of its independent SNPs; start..end span all their candidates."""

    independent: list[RiskSnp]
    start: int
    end: int

    @property
    def snp(self) -> RiskSnp:
        """The lead SNP itself."""
        return self.independent[0]


@dataclass(frozen=True)
class RiskLocus:
    """A genomic risk locus, numbered from 1; `chrom` is the code of `genome.code`."""

    number: int
    chrom: int
    start: int
    end: int
    leads: list[RiskLead]

    @property
    def by_p(self) -> list[RiskLead]:
        """Leads by ascending p (ties: position, then id)."""
        return sorted(self.leads, key=lambda lead: _order(lead.snp))

    @property
    def independent(self) -> list[RiskSnp]:
        """Independent significant SNPs by ascending p."""
        return sorted((snp for lead in self.leads for snp in lead.independent), key=_order)

    @property
    def top(self) -> RiskSnp:
        """The SNP with the smallest p."""
        return self.by_p[0].snp


def write_all(folder: Path, loci: list[RiskLocus]) -> None:
    """Write GenomicRiskLoci.txt, leadSNPs.txt, IndSigSNPs.txt and loci.parquet into `folder`."""
    for name, columns, rows in (
        (LOCI, LOCI_COLUMNS, _locus_rows(loci)),
        (LEADS, LEADS_COLUMNS, _lead_rows(loci)),
        (INDEPENDENT, INDEPENDENT_COLUMNS, _independent_rows(loci)),
    ):
        lines = ["\t".join(map(str, row)) for row in [columns, *rows]]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    tidy(loci).to_parquet(folder / TIDY, index=False)


def tidy(loci: list[RiskLocus]) -> pd.DataFrame:
    """One row a locus; lists joined by ';'. `log10p` and `trait` are those of the lead with the smallest p."""
    rows = [
        (
            locus.number, genome.label(locus.chrom), locus.start, locus.end, locus.top.rsid, locus.top.position,
            locus.top.log10p, locus.top.trait, _count(locus.independent, "candidates"), len(locus.leads),
            len(locus.independent), _names(lead.snp for lead in locus.by_p), _names(locus.independent),
        )
        for locus in loci
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(TIDY_TYPES)).astype(TIDY_TYPES)


def _locus_rows(loci: list[RiskLocus]) -> list[tuple]:
    return [
        (
            locus.number, *_identity(locus, locus.top), locus.start, locus.end, _count(locus.independent, "candidates"),
            _count(locus.independent, "tested"), len(locus.independent), _names(locus.independent), len(locus.leads),
            _names(lead.snp for lead in locus.by_p),
        )
        for locus in loci
    ]  # fmt: skip


def _lead_rows(loci: list[RiskLocus]) -> list[tuple]:
    pairs = [(locus, lead) for locus in loci for lead in locus.leads]
    return [
        (i, locus.number, *_identity(locus, lead.snp), len(lead.independent), _names(lead.independent))
        for i, (locus, lead) in enumerate(pairs, 1)
    ]


def _independent_rows(loci: list[RiskLocus]) -> list[tuple]:
    pairs = [
        (locus, snp) for locus in loci for snp in sorted(locus.independent, key=lambda s: (s.position, s.unique_id))
    ]
    return [
        (i, locus.number, *_identity(locus, snp), len(snp.candidates), len(snp.tested))
        for i, (locus, snp) in enumerate(pairs, 1)
    ]


def _identity(locus: RiskLocus, snp: RiskSnp) -> tuple:
    """uniqID rsID chr pos p; chr as FUMA writes it, X = 23."""
    return snp.unique_id, snp.rsid, locus.chrom, snp.position, p_text([snp.log10p])[0]


def _count(snps: list[RiskSnp], what: str) -> int:
    return len(np.unique(np.concatenate([getattr(snp, what) for snp in snps])))


def _names(snps) -> str:
    return ";".join(snp.rsid for snp in snps)


def _order(snp: RiskSnp) -> tuple:
    return -snp.log10p, snp.position, snp.unique_id
