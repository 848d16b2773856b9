"""Loci as tables: the files of FUMA SNP2GENE with its columns, and one tidy Parquet table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

from udipdist.genome import assemblies
from udipdist.loci.reference import Stretch
from udipdist.sumstats.pvalues import p_text

LOCI, LEADS, INDEPENDENT, LD = "GenomicRiskLoci.txt", "leadSNPs.txt", "IndSigSNPs.txt", "ld.txt"
TIDY = "loci.parquet"
FILES = (LOCI, LEADS, INDEPENDENT, LD, TIDY)
LD_COLUMNS = ("SNP1", "SNP2", "r2")
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
    """An independent significant SNP, the SNP `index` of `stretch`; `candidates` are reference rows, `tested` those of
    them in the GWAS."""

    unique_id: str
    rsid: str
    position: int
    log10p: float
    trait: str
    candidates: np.ndarray
    tested: np.ndarray
    stretch: Stretch
    index: int


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
    """A genomic risk locus, numbered from 1; `chrom` is the code of `assemblies.code`."""

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
        return _distinct(snp for lead in self.leads for snp in lead.independent)

    @property
    def top(self) -> RiskSnp:
        """The SNP with the smallest p."""
        return self.by_p[0].snp


def write_all(folder: Path, loci: list[RiskLocus]) -> None:
    """Write GenomicRiskLoci.txt, leadSNPs.txt, IndSigSNPs.txt, ld.txt and loci.parquet into `folder`."""
    for name, columns, rows in (
        (LOCI, LOCI_COLUMNS, _locus_rows(loci)),
        (LEADS, LEADS_COLUMNS, _lead_rows(loci)),
        (INDEPENDENT, INDEPENDENT_COLUMNS, _independent_rows(loci)),
    ):
        at = columns.index("p")
        texts = p_text([row[at] for row in rows])
        rows = [(*row[:at], text, *row[at + 1 :]) for row, text in zip(rows, texts, strict=True)]
        lines = ["\t".join(map(str, row)) for row in [columns, *rows]]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_ld(folder / LD, loci)
    tidy(loci).to_parquet(folder / TIDY, index=False)


def pool(leads: Iterable[RiskLead]) -> list[RiskLead]:
    """Leads of several analyses on one chromosome, in order of position: a SNP that leads in several is one lead with
    its smallest p, the independent SNPs of all of them, and a block over all of theirs."""
    same: dict[str, list[RiskLead]] = {}
    for lead in leads:
        same.setdefault(lead.snp.unique_id, []).append(lead)
    pooled = []
    for name, group in same.items():
        independent = _distinct(snp for lead in group for snp in lead.independent)
        first = next(snp for snp in independent if snp.unique_id == name)
        rest = [snp for snp in independent if snp is not first]
        start, end = min(lead.start for lead in group), max(lead.end for lead in group)
        pooled.append(RiskLead([first, *rest], start, end))
    return sorted(pooled, key=lambda lead: (lead.snp.position, lead.snp.unique_id))


def tidy(loci: list[RiskLocus]) -> pd.DataFrame:
    """One row a locus; lists joined by ';'. `log10p` and `trait` are those of the lead with the smallest p."""
    rows = [
        (
            locus.number, assemblies.label(locus.chrom), locus.start, locus.end, locus.top.rsid, locus.top.position,
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
    """nSNPs and nGWASSNPs count candidates that no independent SNP of smaller p has, as FUMA's script does, so that
    those of a locus add up; in merged loci that SNP may be of another analysis."""
    counted = []
    for locus in loci:
        seen = np.empty(0, np.int64)
        for snp in locus.independent:
            new = np.setdiff1d(snp.candidates, seen)
            seen = np.union1d(seen, new)
            counted.append((locus, snp, len(new), len(np.intersect1d(new, snp.tested))))
    counted.sort(key=lambda row: (row[0].number, row[1].position, row[1].unique_id))
    return [(i, locus.number, *_identity(locus, snp), *counts) for i, (locus, snp, *counts) in enumerate(counted, 1)]


def _identity(locus: RiskLocus, snp: RiskSnp) -> tuple:
    """uniqID rsID chr pos and -log10 p; chr as FUMA writes it, X = 23."""
    return snp.unique_id, snp.rsid, locus.chrom, snp.position, snp.log10p


def _count(snps: list[RiskSnp], what: str) -> int:
    return len(np.unique(np.concatenate([getattr(snp, what) for snp in snps])))


def _names(snps) -> str:
    return ";".join(snp.rsid for snp in snps)


def _distinct(snps: Iterable[RiskSnp]) -> list[RiskSnp]:
    """By ascending p; one that several analyses found is there once, with its smallest p and all its candidates."""
    found: dict[str, RiskSnp] = {}
    for snp in sorted(snps, key=_order):
        if snp.unique_id in found:
            first = found[snp.unique_id]
            both = {k: np.union1d(getattr(first, k), getattr(snp, k)) for k in ("candidates", "tested")}
            found[snp.unique_id] = replace(first, **both)
        else:
            found[snp.unique_id] = snp
    return list(found.values())


def _write_ld(path: Path, loci: Sequence[RiskLocus]) -> None:
    """r2 of the independent significant SNPs with those of the reference, from the floor on, by position."""
    schema = pa.schema([(LD_COLUMNS[0], pa.large_string()), (LD_COLUMNS[1], pa.large_string()), ("r2", pa.float64())])
    options = csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    with path.open("wb") as file:
        file.write(("\t".join(LD_COLUMNS) + "\n").encode())
        with csv.CSVWriter(file, schema, write_options=options) as writer:
            for locus in loci:
                for snp in sorted(locus.independent, key=lambda s: (s.position, s.unique_id)):
                    at, r2 = snp.stretch.linked(snp.index)
                    others = at != snp.index
                    names = snp.stretch.id_S[at[others]]
                    one = pa.repeat(pa.scalar(snp.unique_id, pa.large_string()), len(names))
                    columns = [one, pa.array(names, pa.large_string()), np.round(r2[others], 6)]
                    writer.write(pa.table(columns, schema=schema))


def _order(snp: RiskSnp) -> tuple:
    return -snp.log10p, snp.position, snp.unique_id
