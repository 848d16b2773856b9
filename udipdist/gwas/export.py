"""Summary statistics as other programs read them: GCTA .fastGWA, GWAS-SSF (Hayhurst et al. 2022), FUMA's input.

Variants are streamed shard by shard, so memory does not grow with their number. Variants that were not tested are left
out. p is written as text from -log10 p, so that it stays what it is below the smallest float64 (2e-308).
"""

from __future__ import annotations

import gzip
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from hpc.errors import InputError
from hpc.files import publish
from hpc.progress import Progress
from hpc.stage import stage
from udipdist.config import ExportConfig
from udipdist.gwas.sumstats import Sumstats, p_text

log = logging.getLogger(__name__)

MINP = "minp"
_STYLE = {"na_rep": "NA", "float_format": "%.7g", "lineterminator": "\n"}
_SSF_CHROMOSOMES = {"X": "23", "XY": "23", "25": "23", "Y": "24", "M": "25", "MT": "25", "26": "25"}


def export(config: ExportConfig) -> None:
    """Write one trait's table (or minP's, with effects of the trait it comes from). Raises InputError."""
    with stage("export", config.out, config, {"sumstats": config.sumstats}, config.overwrite) as current:
        sumstats = _open(config)
        format_block = {"fastgwa": _fastgwa, "ssf": _ssf, "fuma": _fuma}[config.format]
        rows = 0
        with (
            publish(config.out) as partial,
            _text_writer(partial, config.out.suffix == ".gz") as file,
            Progress("export", sumstats.n_variants, "variants") as progress,
        ):
            for start, stop in sumstats.blocks():
                table = format_block(_block(sumstats, config.trait, start, stop))
                table.to_csv(file, sep="\t", index=False, header=start == 0, **_STYLE)
                rows += len(table)
                progress.advance(stop - start)
        current.note(variants=rows, not_tested=sumstats.n_variants - rows)
        log.info("%s: %s of %s, %d variants", config.out, config.format, config.trait, rows)


def preview(config: ExportConfig) -> list[str]:
    """What `export` would write."""
    sumstats = _open(config)
    return [f"{sumstats.n_variants:,} variants of {config.trait} as {config.format} -> {config.out}"]


def _open(config: ExportConfig) -> Sumstats:
    sumstats = Sumstats.open(config.sumstats)
    if config.trait == "multivariate":
        raise InputError("trait=multivariate: has no effect sizes to export; give the name of a trait, or minp")
    if config.trait != MINP:
        sumstats.trait_index(config.trait)
    if sumstats.attrs.get("groups", 1) > 1:
        log.warning(
            "%s: traits differ in who is missing; N and the allele frequency are of all %s people analysed, not of "
            "those with the trait (null.tsv has their numbers)",
            config.sumstats,
            sumstats.attrs.get("n_samples"),
        )
    return sumstats


def _block(sumstats: Sumstats, trait: str, start: int, stop: int) -> pd.DataFrame:
    """The tested variants of a shard with columns beta, se, log10p beside those of the variants."""
    table = sumstats.variant_rows(start, stop)
    table["log10p"] = sumstats.log10p(trait, start, stop)
    if trait == MINP:
        column = np.maximum(sumstats.minp_trait(start, stop), 0)[:, None].astype(np.int64)
        for name in ("beta", "se"):
            values_MP = sumstats.group[name][start:stop]
            table[name] = np.take_along_axis(values_MP, column, axis=1)[:, 0]
    else:
        table["beta"], table["se"] = sumstats.beta(trait, start, stop), sumstats.se(trait, start, stop)
    table = table[table.log10p.notna()]
    return table.assign(p=p_text(table.log10p))


def _fastgwa(block: pd.DataFrame) -> pd.DataFrame:
    names = {
        "chrom": "CHR", "snp": "SNP", "position": "POS", "a1": "A1", "a2": "A2", "n": "N", "af1": "AF1", "beta": "BETA",
        "se": "SE", "p": "P",
    }  # fmt: skip
    return block[list(names)].rename(columns=names)


def _fuma(block: pd.DataFrame) -> pd.DataFrame:
    names = {
        "chrom": "CHR", "position": "BP", "snp": "SNP", "a1": "A1", "a2": "A2", "p": "P", "n": "N", "beta": "BETA",
        "se": "SE",
    }  # fmt: skip
    return block[list(names)].rename(columns=names)


def _ssf(block: pd.DataFrame) -> pd.DataFrame:
    """GWAS-SSF v1.1: the mandatory columns first, in its order. X, Y and MT are 23, 24 and 25; an id that is no rsid is
    kept as variant_id only."""
    block = block.assign(
        chromosome=[_SSF_CHROMOSOMES.get(name, name) for name in block.chrom.str.upper().str.removeprefix("CHR")],
        variant_id=block.snp.str.replace("[^A-Za-z0-9_]", "_", regex=True),
        rsid=block.snp.where(block.snp.str.fullmatch("rs[0-9]+")),
        effect_allele=block.a1.str.upper(),
        other_allele=block.a2.str.upper(),
    )
    names = {
        "chromosome": "chromosome", "position": "base_pair_location", "effect_allele": "effect_allele",
        "other_allele": "other_allele", "beta": "beta", "se": "standard_error", "af1": "effect_allele_frequency",
        "p": "p_value", "variant_id": "variant_id", "rsid": "rsid", "n": "n",
    }  # fmt: skip
    return block[list(names)].rename(columns=names)


@contextmanager
def _text_writer(path: Path, compress: bool) -> Iterator[IO[str]]:
    """A text file; with `compress` gzip without a time stamp, so that the same table gives the same bytes."""
    with path.open("wb") as raw:
        if not compress:
            with io.TextIOWrapper(raw, encoding="utf-8", newline="") as text:
                yield text
            return
        with (
            gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed,
            io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
        ):
            yield text
