"""The GWAS Catalog's table of associations (Sollis et al. 2023, Nucleic Acids Research 51) as a panel.

It is the file that https://www.ebi.ac.uk/gwas/docs/file-downloads offers ("all associations", as TSV, .gz or .zip).
A cell may hold several variants: `6;6` and `31;32` for a haplotype, `1 x 5` for an interaction; or none, where the
variant could not be mapped. Positions are of GRCh38.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from udipdist.genome import assemblies
from udipdist.loci import intervals

BUILD = "GRCh38"
_CHROM, _POSITION, _SNPS, _TRAIT, _P, _MAPPED = "CHR_ID", "CHR_POS", "SNPS", "DISEASE/TRAIT", "P-VALUE", "MAPPED_TRAIT"
_APART = re.compile(r"\s*[;,]\s*|\s+x\s+")
_RSID = re.compile(r"rs\d+")


def is_catalog(header: str) -> bool:
    """True for the first line of such a table."""
    return {_CHROM, _POSITION, _SNPS} <= set(header.split("\t"))


def read(path: Path, p: float, words: Sequence[str]) -> tuple[pd.DataFrame, dict[str, int]]:
    """The variants of associations with P-VALUE <= `p` and one of `words` (none: all) in DISEASE/TRAIT or MAPPED_TRAIT:
    chrom (code), start, end (both the position; all three 0 where it is not mapped), lead (rsID), traits (a list, by
    ascending p); and how many associations and variants there were. A word is found where
    words begin, in either case. Raises InputError."""
    _, header = intervals.head(path)
    names = header.split("\t")
    absent = [name for name in (_TRAIT, _P) if name not in names]
    if absent:
        raise InputError(
            f"{path}: is a GWAS Catalog table without the columns {some(absent)}; fetch the file of all associations, "
            "https://www.ebi.ac.uk/gwas/docs/file-downloads"
        )
    columns = [name for name in (_CHROM, _POSITION, _SNPS, _TRAIT, _P, _MAPPED) if name in names]
    raw = intervals.read(path, columns, quoted=False)
    counts = {"associations": len(raw)}
    raw = raw[pd.to_numeric(raw[_P], errors="coerce") <= p]
    counts["significant"] = len(raw)
    if words:
        said = re.compile("|".join(rf"(?<!\w){re.escape(word)}" for word in words), re.IGNORECASE)
        text = raw[_TRAIT] + "\n" + raw[_MAPPED] if _MAPPED in raw else raw[_TRAIT]
        raw = raw[text.str.contains(said)]
        if raw.empty and counts["significant"]:
            raise InputError(
                f"{path}: no trait of {counts['significant']:,} associations with p <= {p:g} has a word that begins "
                f"with {some(words)}; give other catalog_traits=[...], or leave it out to take all"
            )
        counts["of_the_traits"] = len(raw)
    if raw.empty:
        raise InputError(f"{path}: has no association with P-VALUE <= {p:g}; give a larger catalog_p=")
    variants = _variants(raw)
    counts["unmapped"] = int((variants.start == 0).sum())
    return variants, counts


def _variants(raw: pd.DataFrame) -> pd.DataFrame:
    """One row for each variant (place and rsID), with the traits of its associations by ascending p."""
    order = np.argsort(pd.to_numeric(raw[_P]).to_numpy(), kind="stable")
    cells = [raw[name].to_numpy(object)[order] for name in (_CHROM, _POSITION, _SNPS, _TRAIT)]
    codes: dict[str, int] = {}
    traits: dict[tuple[int, int, str], dict[str, None]] = {}
    for chroms, positions, snps, trait in zip(*cells, strict=True):
        for name, position, snp in _split(chroms, positions, snps):
            chrom = codes[name] if name in codes else codes.setdefault(name, assemblies.code(name))
            place = (chrom, int(position)) if chrom and position.isdigit() else (0, 0)
            if place[0] or _RSID.fullmatch(snp):
                traits.setdefault((*place, snp), {})[trait] = None
    table = pd.DataFrame(list(traits), columns=["chrom", "start", "lead"]).astype({"chrom": int, "start": int})
    table["end"], table["traits"] = table.start, [list(names) for names in traits.values()]
    return table.sort_values(["chrom", "start", "lead"], ignore_index=True)


def _split(chroms: str, positions: str, snps: str) -> list[tuple[str, str, str]]:
    """The variants of one association; without places where chromosomes and positions do not pair up."""
    if positions.isdigit() and _APART.search(snps) is None:  # nearly all
        return [(chroms.strip(), positions, snps.strip())]
    names, places, ids = (_APART.split(cell.strip()) if cell.strip() else [] for cell in (chroms, positions, snps))
    if len(names) == 1:
        names = names * len(places)
    if not places or len(names) != len(places):
        return [("", "", snp) for snp in ids]
    if len(ids) != len(places):
        ids = [ids[0] if len(set(ids)) == 1 else ""] * len(places)
    return list(zip(names, places, ids, strict=True))
