"""The layouts of summary statistics in text: which header means what, and how a file's columns are separated.

fastGWA, GWAS-SSF, FUMA's input, plink2 --glm, regenie, and their relatives: what counts is what a column is called.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from hpc.errors import InputError, some

_LINES_LOOKED_AT = 100
NULLS = ["", "NA", "NaN", "nan", "na", "N/A", "#N/A", "#NA", ".", "-", "NULL", "null", "None"]

# In order of preference; lower case, without anything but letters and digits.
SPELLINGS = {
    "chrom": ("chrom", "chr", "chromosome", "chrid", "chrname", "hmchrom"),
    "position": (
        "position", "pos", "bp", "basepairlocation", "basepair", "bppos", "physpos", "genpos", "hmpos",
    ),
    "snp": ("rsid", "rsids", "snp", "snpid", "markername", "marker", "markerid", "id", "variantid", "variant", "name"),
    "a1": ("a1", "effectallele", "allele1", "alleleb", "ea", "testedallele", "codedallele", "allele1effect"),
    "a2": (
        "a2", "otherallele", "noneffectallele", "nea", "omitted", "ax", "allele2", "allelea", "allele0",
        "noncodedallele", "oa",
    ),
    "ref": ("ref", "referenceallele", "refallele"),
    "alt": ("alt", "alternateallele", "altallele", "alternativeallele"),
    "log10p": (
        "neglog10pvalue", "neglog10p", "log10p", "mlog10p", "mlogp", "minuslog10p", "nlog10p", "logp", "neglogp",
        "nlogp",
    ),
    "p": (
        "p", "pvalue", "pval", "pvalues", "pboltlmm", "pboltlmminf", "pwald", "plrt", "pscore", "punadjusted",
        "gcpvalue", "frequentistaddpvalue",
    ),
    "beta": ("beta", "b", "effect", "effects", "logor"),
    "se": ("se", "standarderror", "stderr", "logorse", "sebeta"),
    "z": ("z", "zscore", "zstat", "zstatistic", "zvalue", "tstat", "tstatistic", "tvalue"),
    "test": ("test",),
    "trait": ("trait", "phenotype", "minptrait"),
}  # fmt: skip


@dataclass(frozen=True)
class TextLayout:
    """Of a file: `columns` maps what is known (the keys of SPELLINGS) to header names; `header` are all of them.

    `separator` is None for blanks in any number; `skip` lines stand before the header.
    """

    columns: dict[str, str]
    header: list[str]
    separator: str | None
    skip: int

    @property
    def gwas_ssf(self) -> bool:
        """True for GWAS-SSF's names of columns; there chromosome 25 is MT, which PLINK numbers 26."""
        return {"chromosome", "base_pair_location", "effect_allele", "other_allele"} <= set(self.header)


def open_text(path: Path) -> pa.NativeFile:
    """The bytes of a file, unpacked where it is gzip, bgzip, bz2 or zstd (by its first bytes)."""
    with path.open("rb") as file:
        magic = file.read(4)
    packed = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd", b"BZ": "bz2"}.get(magic[:2])
    return pa.input_stream(str(path), compression=packed, buffer_size=1 << 22)


def layout_of(path: Path) -> TextLayout:
    """How a file is to be read, by its first lines. Raises InputError."""
    try:
        with open_text(path) as stream:
            head = stream.read(1 << 18).decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < (1 << 18) - 4:
            line = 1 + error.object[: error.start].count(b"\n")
            raise InputError(
                f"{path}, line {line}: holds the byte {error.object[error.start]:#04x}, so it is not UTF-8 text; "
                f"sumstats= takes a table with a header line. If it is Latin-1 text, type: iconv -f latin1 -t utf-8 "
                f"{path.name}"
            ) from None
        head = error.object[: error.start].decode("utf-8")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error}); is it cut off, or packed in another way than gzip?"
        ) from None
    lines = head.removeprefix("\ufeff").split("\n")
    skip = len(list(itertools.takewhile(lambda line: line.startswith("##"), lines)))
    lines = [line.rstrip("\r") for line in lines[skip:]][:_LINES_LOOKED_AT]
    if not lines or not lines[0].strip():
        raise InputError(f"{path}: is empty; sumstats= takes a table with a header line")
    separator = _separator(lines[:-1] or lines)
    header = lines[0].split(separator)
    header = [name.strip().strip('"') for name in header]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(f"{path}: has two columns {twice[0]!r}; column names must differ")
    columns = columns_of(header, path)
    cells = [line.split(separator) for line in lines[1:-1] or lines[1:]]
    columns |= _harmonised(columns, header, [row for row in cells if len(row) == len(header)])
    return TextLayout(columns, header, separator, skip)


def _harmonised(columns: dict[str, str], header: list[str], rows: list[list[str]]) -> dict[str, str]:
    """The GWAS Catalog's harmonised places, where the original ones are missing; of one build throughout the file."""
    if not {"hm_chrom", "hm_pos"} <= set(header) or columns["chrom"] == "hm_chrom":
        return {}
    at = header.index(columns["chrom"])
    if any(row[at].strip().strip('"') not in NULLS for row in rows):
        return {}
    return {"chrom": "hm_chrom", "position": "hm_pos"}


def columns_of(header: list[str], path: Path) -> dict[str, str]:
    """Which column is what. Raises InputError naming what is lacking, and how it may be called."""
    plain: dict[str, str] = {}
    for name in header:
        plain.setdefault(re.sub(r"[^a-z0-9]", "", name.lower()), name)
    found = {}
    for what, spellings in SPELLINGS.items():
        names = [plain[spelling] for spelling in spellings if spelling in plain]
        if names:
            found[what] = names[0]
    if "a1" in found and "a2" not in found and "allele0" in plain:
        found["a2"] = plain["allele0"]
    lacks = [what for what in ("chrom", "position") if what not in found]
    alleles = {"a1", "a2"} <= found.keys() or {"ref", "alt"} <= found.keys()
    lacks += [] if alleles else ["a1 and a2"]
    lacks += [] if {"p", "log10p"} & found.keys() else ["p"]
    if lacks:
        may_be = {
            "chrom": "CHR, chromosome, #CHROM", "position": "POS, BP, base_pair_location, GENPOS",
            "a1 and a2": "A1 and A2, effect_allele and other_allele, REF and ALT",
            "p": "P, p_value, LOG10P, neg_log_10_p_value",
        }  # fmt: skip
        wanted = "; ".join(f"{what} (called {may_be[what]} ...)" for what in lacks)
        raise InputError(f"{path}: its header lacks {wanted}; it has {some(header, 20)}")
    return found


def _separator(lines: list[str]) -> str | None:
    """The character between columns; None for blanks in any number."""
    for mark in ("\t", ",", ";", " "):
        counts = {line.count(mark) for line in lines if line}
        words = [line.split(mark) for line in lines if line]
        blank = mark == " " and any("" in row for row in words)
        if counts and len(counts) == 1 and counts != {0} and not blank:
            return mark
    return "\t" if "\t" in lines[0] else "," if "," in lines[0] else None
