"""Genes near loci, from a table of the user's (GENCODE or Ensembl GTF, UCSC refGene or refFlat, BED, any table with a
header) or the small one that ships.

`data/genes` ships with the package: `derive` is how it was made, see PROVENANCE.txt there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.errors import InputError
from udipdist.genome import assemblies
from udipdist.loci import builds, intervals

ENSEMBL = "ensembl"
SHIPPED_BUILD = "GRCh38"
_SHIPPED = files("udipdist.loci") / "data" / "genes" / "ensembl110.tsv.gz"
_NAME = re.compile(r'gene_name "([^"]+)"')
_ID = re.compile(r'gene_id "([^"]+)"')
_TYPE = re.compile(r'gene_(?:bio)?type "([^"]+)"')
_NOT_CODING = re.compile(
    r"pseudogene|non-?(?:protein[ -])?coding|\bRNA\b(?! (?:polymerase|helicase|binding|exonuclease|methyl|editing"
    r"|demethyl|processing|modif|export|transport|guanyl|pseudouridin|2',3'|5'-triphosphatase|debranching|ligase"
    r"|polII|sensor|exosome|specific|degrad|terminal|adaptor|adenosine|regulator|splicing))|readthrough"
    r"|antisense|(?:overlapping|intronic|divergent|bidirectional) transcript|locus control|microRNA|host gene"
    r"|specific transcript",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Genes:
    """Genes: `table` has chrom (code), start, end (1-based, base pairs of `build`) and gene; `source` names it."""

    source: str
    build: str
    table: pd.DataFrame


def read(name: str, build: str, types: list[str]) -> Genes:
    """The genes of `ensembl` (shipped) or of a file, of the loci's build and of these types (where the file knows them;
    none: all). Raises InputError."""
    if name == ENSEMBL:
        if build != SHIPPED_BUILD:
            raise InputError(
                f"genes={name}: the table that ships is {SHIPPED_BUILD}, the loci are {build}; give genes= the GTF of "
                "GENCODE for it (gencode.v19.annotation.gtf.gz, or a later one with lift37 in its name), or UCSC's "
                "refGene.txt.gz of hg19"
            )
        return Genes(name, build, shipped())
    path = Path(name)
    if not path.is_file():
        raise InputError(
            f"genes={name}: is not a file; give a GENCODE or Ensembl GTF, refGene.txt.gz of UCSC, or a table with the "
            f"columns chr, start, end, gene (for {SHIPPED_BUILD} also {ENSEMBL}, which is in the package)"
        )
    head, line = intervals.head(path)
    if line.count("\t") >= 8 and _is_gtf(line):
        table = _from_gtf(path, types)
    elif line.count("\t") >= 10 and line.split("\t")[3] in ("+", "-"):
        table = _from_refgene(path, types, bins=line.count("\t") >= 12)
    else:
        table = intervals.of_file(path, extra=("gene",))
        table = table.assign(gene=table.gene if "gene" in table else table.lead)
    table = table[table.chrom != assemblies.UNPLACED][["chrom", "start", "end", "gene"]]
    if table.empty:
        raise InputError(f"genes={path}: has no gene of the types {', '.join(types)}; give gene_types=[] to take all")
    _check_build(path, table, head, build)
    return Genes(path.name, build, table.sort_values(["chrom", "start", "end"], ignore_index=True))


@cache
def shipped() -> pd.DataFrame:
    """chrom, start, end, gene of the protein-coding genes of Ensembl 110, GRCh38."""
    with _SHIPPED.open("rb") as file:
        return pd.read_csv(file, sep="\t", compression="gzip", keep_default_na=False)


def near(loci: pd.DataFrame, genes: pd.DataFrame, window_bp: int) -> pd.DataFrame:
    """For each locus (chrom, start, end, first, last: the place of its lead) nearest_gene and
    distance_to_gene, from the lead SNP (0 inside the gene; both missing where the chromosome has none; of those equally
    near the shortest, then by name), and genes: those within `window_bp` of the locus, in
    order of the genome, joined by ';'."""
    found, distances, lists = [], [], []
    groups = dict(list(genes.groupby("chrom")))
    for locus in loci.itertuples():
        here = groups.get(locus.chrom)
        if here is None:
            found.append("")
            distances.append(pd.NA)
            lists.append("")
            continue
        start, end = here.start.to_numpy(), here.end.to_numpy()
        away = np.maximum(0, np.maximum(start - locus.last, locus.first - end))
        tied = np.flatnonzero(away == away.min())
        best = min(tied.tolist(), key=lambda i: (end[i] - start[i], here.gene.iloc[i]))
        inside = (start <= locus.end + window_bp) & (end >= locus.start - window_bp)
        found.append(here.gene.iloc[best])
        distances.append(int(away[best]))
        lists.append(";".join(dict.fromkeys(here.gene[inside])))
    return pd.DataFrame(
        {"nearest_gene": found, "distance_to_gene": pd.array(distances, "Int64"), "genes": lists}, index=loci.index
    )


def derive(path: str | Path) -> pd.DataFrame:
    """The shipped table from the gene cache of Ideogram.js (Ensembl genes with a symbol), without those whose
    description is that of an RNA gene or a pseudogene: it does not say which genes code for proteins."""
    names = ["chrom", "start", "length", "id", "gene", "description"]
    raw = pd.read_csv(
        path, sep="\t", comment=None, skiprows=5, names=names, usecols=range(6), dtype=str, keep_default_na=False
    )
    raw = raw.assign(chrom=assemblies.codes(raw.chrom), start=raw.start.astype(int), end=raw.length.astype(int))
    coding = (raw.chrom > 0) & (raw.description != "") & ~raw.description.str.contains(_NOT_CODING)
    coding &= ~raw.gene.str.fullmatch(r"(?:LINC|MIR|SNOR|RNU|RN7|RNA5|RNVU|Y_RNA|TR[ABDG][VDJC]|IG[HKL][VDJ]).*")
    table = raw[coding].assign(end=lambda t: t.start + t.end)
    return table[["chrom", "start", "end", "gene"]].sort_values(["chrom", "start", "end", "gene"], ignore_index=True)


def _is_gtf(line: str) -> bool:
    fields = line.split("\t")
    return fields[6] in ("+", "-", ".") and fields[3].isdigit() and fields[4].isdigit()


def _from_gtf(path: Path, types: list[str]) -> pd.DataFrame:
    """Genes of a GTF; where it has no lines of genes (UCSC's), the span of each gene's transcripts."""
    rows: dict[str, list[tuple]] = {"gene": [], "transcript": []}
    try:
        with intervals.opened(path) as file:
            for line in file:
                fields = line.rstrip("\n").split("\t")
                if len(fields) < 9 or fields[2] not in rows or (fields[2] == "transcript" and rows["gene"]):
                    continue
                kind, name = _TYPE.search(fields[8]), _NAME.search(fields[8]) or _ID.search(fields[8])
                if name is None:
                    raise InputError(f"genes={path}: a line of a gene has no gene_name; is it GFF3? give the GTF of it")
                if not (types and kind and kind[1] not in types):
                    rows[fields[2]].append((fields[0], int(fields[3]), int(fields[4]), name[1]))
    except (OSError, EOFError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"genes={path}: cannot be read as GTF ({error}); fetch it again") from None
    table = pd.DataFrame(rows["gene"] or rows["transcript"], columns=["chrom", "start", "end", "gene"])
    table = table.assign(chrom=assemblies.codes(table.chrom)).astype({"start": np.int64, "end": np.int64})
    return table if rows["gene"] else _spans(table)


def _from_refgene(path: Path, types: list[str], bins: bool) -> pd.DataFrame:
    """Spans of the transcripts of refGene (with a bin in front, name2 the gene) or refFlat (the gene in front)."""
    columns = (1, 2, 4, 5, 12) if bins else (1, 2, 4, 5, 0)
    try:
        raw = pd.read_csv(path, sep="\t", header=None, comment="#", dtype=str, usecols=columns, keep_default_na=False)
        raw = raw[list(columns)].set_axis(["name", "chrom", "start", "end", "gene"], axis=1)
        raw = raw.assign(start=raw.start.astype(int) + 1, end=raw.end.astype(int))  # starts count from 0
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"genes={path}: cannot be read as refGene or refFlat ({error}); fetch it again") from None
    if types == ["protein_coding"]:
        raw = raw[raw.name.str.startswith(("NM_", "XM_"))]
    elif types:
        raise InputError(f"genes={path}: refGene knows only protein_coding; give gene_types=[protein_coding], or []")
    return _spans(raw.assign(chrom=assemblies.codes(raw.chrom)))


def _spans(transcripts: pd.DataFrame) -> pd.DataFrame:
    """One row for each run of overlapping transcripts of a gene (a gene may have copies far apart)."""
    table = transcripts.sort_values(["chrom", "gene", "start"], ignore_index=True)
    reach = table.groupby(["chrom", "gene"]).end.cummax().groupby([table.chrom, table.gene]).shift()
    copy = (table.start > reach.fillna(np.inf)).cumsum()
    return table.groupby(["chrom", "gene", copy], as_index=False).agg(start=("start", "min"), end=("end", "max"))


def _check_build(path: Path, table: pd.DataFrame, head: list[str], build: str) -> None:
    """The build that the file states, the lengths of chromosomes, and where GRCh38 has the genes."""
    say = f"give the table of {build} (GENCODE: v19 or lift37 for GRCh37), or assembly={builds.other(build)}"
    named = builds.stated(head)
    if named not in (None, build):
        raise InputError(f"genes={path}: says that it is {named}, the loci are {build}; {say}")
    builds.check_lengths(table, build, f"genes={path}", say)
    both = table.drop_duplicates("gene").merge(shipped().drop_duplicates("gene"), on=["chrom", "gene"])
    there = int(((both.start_x - both.start_y).abs() < 2_000).sum())
    if len(both) >= builds.ENOUGH and (there > len(both) / 2) != (build == SHIPPED_BUILD):
        raise InputError(
            f"genes={path}: {there:,} of {len(both):,} known genes start where {SHIPPED_BUILD} has them, so it is "
            f"{SHIPPED_BUILD if there > len(both) / 2 else builds.other(SHIPPED_BUILD)}; the loci are {build}: {say}"
        )
