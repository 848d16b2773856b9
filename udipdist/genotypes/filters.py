"""Which variants are tested, as far as is known without the genotypes: regions, lists of ids, quality of imputation.

The plan of a scan applies these filters: a variant that one of them leaves out is not in the output. (One beyond a
limit on what its genotypes turn out to be is there with NaN: gwas.engine.limits.)
"""

from __future__ import annotations

import gzip
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from udipdist.config import VariantFilter
from udipdist.genome import chromosomes
from udipdist.genotypes import info
from udipdist.genotypes.bim import find, hashes

log = logging.getLogger(__name__)

_LAST = 2**31 - 1
_BED = (".bed", ".bed.gz")
_HAPLOID = (chromosomes.Y, chromosomes.MT)


@dataclass(frozen=True)
class Chosen:
    """The variants that pass the static filters: ascending `rows` of the .bim (None: all), and how many others were
    left out, by the first filter that they fail."""

    rows: np.ndarray | None
    left_out: dict[str, int]


def choose(variants: pd.DataFrame, config: VariantFilter) -> Chosen:
    """Apply region, extract, exclude and info to variants (chrom snp position a1 a2); Y and MT are left out as well.

    Raises InputError for lists that cannot be read or know none of the variants, and where nothing is left.
    """
    code_M = chromosomes.codes(variants["chrom"])
    keep_M = np.ones(len(variants), bool)
    left_out: dict[str, int] = {}

    def leave_out(reason: str, wrong_M: np.ndarray) -> None:
        wrong_M = wrong_M & keep_M
        keep_M[wrong_M] = False
        if wrong_M.any():
            left_out[reason] = int(wrong_M.sum())

    leave_out("haploid", np.isin(code_M, _HAPLOID))
    if "haploid" in left_out:
        log.warning(
            "%s: %d variants of Y and MT are left out: calls are haploid", config.genotypes, left_out["haploid"]
        )
    if config.region:
        leave_out("region", ~in_regions(read_regions(config.region), code_M, variants["position"].to_numpy()))
    if config.extract is not None:
        leave_out("extract", ~_listed(variants["snp"], config.extract, "extract"))
    if config.exclude is not None:
        leave_out("exclude", _listed(variants["snp"], config.exclude, "exclude"))
    if config.info is not None and keep_M.any():
        rows = np.flatnonzero(keep_M)
        info_M = np.full(len(variants), np.nan)
        info_M[rows] = info.read(config.info, variants.iloc[rows], code_M[rows])
        leave_out("info_unknown", np.isnan(info_M))
        leave_out("info", ~(info_M >= config.min_info))
    said = ", ".join(f"{_STATIC[reason]}: {number:,}" for reason, number in left_out.items())
    if not keep_M.any():
        raise InputError(f"{config.genotypes}: no variant of {len(variants):,} is left ({said}); widen the filters")
    if said:
        log.info("%d of %d variants are tested; left out: %s", keep_M.sum(), len(variants), said)
    return Chosen(np.flatnonzero(keep_M) if left_out else None, left_out)


_STATIC = {
    "haploid": "on Y or MT",
    "region": "outside region",
    "extract": "not in extract",
    "exclude": "in exclude",
    "info_unknown": "not in info, or NA there",
    "info": "below min_info",
}


def input_files(config: VariantFilter) -> dict[str, Path]:
    """The files that the static filters read. Raises InputError where info={chr} has none."""
    files = {"extract": config.extract, "exclude": config.exclude}
    files |= {f"region{i}": Path(text) for i, text in enumerate(config.region) if _is_bed(text)}
    if config.info is not None and "{chr}" not in config.info:
        files["info"] = Path(config.info)
    elif config.info is not None:
        there = [config.info.replace("{chr}", n) for names in chromosomes.IN_FILE_NAMES.values() for n in names]
        there = [path for path in there if Path(path).is_file()]
        if not there:
            raise InputError(f"{config.info}: none of the files for chr = 1..22, X, XY exists (info)")
        files |= {f"info{i}": Path(path) for i, path in enumerate(there)}
    return {name: path for name, path in files.items() if path is not None}


@dataclass(frozen=True)
class Region:
    """Base pairs first..last (1-based, both included) of a chromosome (code; X takes in its pseudo-autosomal part)."""

    chromosome: int
    first: int
    last: int


def read_regions(entries: Iterable[str]) -> list[Region]:
    """Regions from texts ('6', 'chrX', 'chr6:25000000-35000000', '6:25,000,000-35,000,000') and BED files (0-based).

    Raises InputError.
    """
    regions: list[Region] = []
    for text in entries:
        regions += _read_bed(Path(text)) if _is_bed(text) else [_region(text)]
    return regions


def in_regions(regions: list[Region], code_M: np.ndarray, position_M: np.ndarray) -> np.ndarray:
    """Whether variants lie in one of the regions, bool [M]."""
    inside_M = np.zeros(len(code_M), bool)
    for code in np.unique(code_M):
        spans = sorted((r.first, r.last) for r in regions if code in _meant(r.chromosome))
        if not spans:
            continue
        first, last = np.array(spans).T
        last = np.maximum.accumulate(last)
        rows = np.flatnonzero(code_M == code)
        before = np.searchsorted(first, position_M[rows], side="right") - 1
        inside_M[rows] = (before >= 0) & (position_M[rows] <= last[before])
    return inside_M


def _meant(chromosome: int) -> tuple[int, ...]:
    return (chromosomes.X, chromosomes.XY) if chromosome == chromosomes.X else (chromosome,)


def _is_bed(text: str) -> bool:
    return text.endswith(_BED) or Path(text).is_file()


def _region(text: str) -> Region:
    match = re.fullmatch(r"([^:\s]+)(?::([\d,]+)(?:-([\d,]+))?)?", text.strip())
    code = chromosomes.code(match[1]) if match else chromosomes.OTHER
    if match is None or code == chromosomes.OTHER:
        raise InputError(
            f"region={text}: is neither a region nor a file; write chr6:25000000-35000000, a chromosome (1..22, X, "
            "XY), a list of these, or the name of a BED file"
        )
    if match[2] is None:
        return Region(code, 0, _LAST)
    first = int(match[2].replace(",", ""))
    last = first if match[3] is None else int(match[3].replace(",", ""))
    if last < first:
        raise InputError(f"region={text}: ends before it begins; write chr{match[1]}:{last}-{first}")
    return Region(code, first, last)


def _read_bed(path: Path) -> list[Region]:
    regions = []
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                words = line.split()
                if not words or words[0].startswith("#") or words[0] in ("browser", "track"):
                    continue
                where = f"{path}, line {number}"
                if len(words) < 3 or not (words[1].isdecimal() and words[2].isdecimal()):
                    raise InputError(
                        f"{where}: is not a line of a BED file; that begins with chromosome, start, end (0-based)"
                    )
                start, end = int(words[1]), int(words[2])
                if end <= start:
                    raise InputError(f"{where}: ends at {end} and starts at {start}; the end must be after the start")
                code = chromosomes.code(words[0])
                if code != chromosomes.OTHER:  # contigs may stand in a BED file
                    regions.append(Region(code, start + 1, end))
    except FileNotFoundError:
        raise InputError(f"{path}: does not exist (region)") from None
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError):
        raise InputError(f"{path}: is not text; region= takes a BED file: chromosome, start, end (0-based)") from None
    if not regions:
        raise InputError(f"{path}: names no region of a chromosome 1..22, X or XY")
    return regions


def _listed(snp: pd.Series, path: Path, key: str) -> np.ndarray:
    """Whether the variants' ids stand in a file, bool [M]. Raises InputError where none of the file's is known."""
    try:
        table = pd.read_csv(path, sep=r"\s+", header=None, dtype="str", keep_default_na=False, quoting=3)
    except FileNotFoundError:
        raise InputError(f"{path}: does not exist ({key})") from None
    except pd.errors.EmptyDataError:
        raise InputError(f"{path}: is empty; {key}= takes a file with one variant id per line") from None
    except (UnicodeDecodeError, pd.errors.ParserError, gzip.BadGzipFile, EOFError):
        raise InputError(f"{path}: is not a list; {key}= takes a file with one variant id per line") from None
    if table.shape[1] != 1:
        raise InputError(f"{path}: has {table.shape[1]} columns; {key}= takes a file with one variant id per line")
    listed, ours_M = hashes(table[0]), hashes(snp)
    unknown = table[0][find(listed, np.sort(ours_M)) < 0].unique()
    listed = np.unique(listed)
    if len(unknown) == len(listed):
        raise InputError(
            f"{path}: none of its {len(listed):,} ids is in the .bim ({some(unknown[:3])}; there "
            f"{some(snp.iloc[:3])}); {key}= needs the same ids"
        )
    if len(unknown):
        level = logging.WARNING if key == "extract" else logging.INFO
        log.log(level, "%s: %d of %d ids are not in the .bim (%s)", path, len(unknown), len(listed), some(unknown[:3]))
    return find(ours_M, listed) >= 0
