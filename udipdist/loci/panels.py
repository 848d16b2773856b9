"""Panels of known loci, whatever file they come from, brought to the genome build of the loci."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from udipdist.config import PanelConfig
from udipdist.genome import assemblies
from udipdist.genotypes.bim import read_bim
from udipdist.genotypes.plink1 import find_prefixes
from udipdist.loci import big40, builds, catalog, intervals
from udipdist.sumstats.store import Sumstats

log = logging.getLogger(__name__)

BIG40 = "big40"


@dataclass(frozen=True)
class Panel:
    """Known loci: `table` has chrom (code), start, end (base pairs of `build`), lead, and of the GWAS Catalog traits
    (lists). `facts` says what was read and what was lost on the way."""

    name: str
    source: str
    build: str
    table: pd.DataFrame
    facts: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)


def read_all(config: PanelConfig, build: str, hint: str = "") -> list[Panel]:
    """The panels of a configuration, in `build`; `hint` is a value that variants= could have. Raises InputError."""
    panels = [read(name, config, build) for name in config.panel]
    names = [panel.name for panel in panels]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"panel=: several are called {some(twice)}; rename a file, as its name heads the columns")
    if any(panel.build != build for panel in panels):
        panels = _bring(panels, config, build, hint)
    panels = [_mapped(panel) for panel in panels]
    for panel in panels:
        if panel.table.empty:
            raise InputError(f"panel={panel.source}: {_losses(panel)}, so nothing is left; {_ways(panel, build, hint)}")
        if panel.facts.get("lost"):
            log.warning("panel %s: %s, left out", panel.name, _losses(panel))
    return panels


def read(name: str, config: PanelConfig, build: str) -> Panel:
    """One panel in its own build, with what speaks against that build refused. Raises InputError."""
    if name == BIG40:
        known = big40.load()
        return Panel(BIG40, BIG40, big40.BUILD, known.assign(chrom=assemblies.codes(known.chrom)))
    path = Path(name)
    if not path.is_file():
        raise InputError(
            f"panel={name}: is not a file; give big40, a table with the columns chr, start, end (or chr, pos), BED, or "
            "the GWAS Catalog's table of associations"
        )
    called = re.sub(r"\W+", "_", re.sub(r"(\.(tsv|txt|csv|bed|gz|zip))+$", "", path.name)).strip("_")
    bed = intervals.is_bed(path)
    comments, header = ([], "") if bed else intervals.head(path)
    if catalog.is_catalog(header):
        known, facts = catalog.read(path, config.catalog_p, config.catalog_traits)
        return Panel(called, name, catalog.BUILD, known, facts)
    if config.catalog_traits and len(config.panel) == 1:
        raise InputError(
            f"catalog_traits=: {path} is not a GWAS Catalog table (it lacks CHR_ID, CHR_POS, SNPS); leave the key out"
        )
    known = intervals.of_file(path)
    if known.empty:
        raise InputError(f"{path}: has no rows; give a table with one row per known locus")
    own = builds.stated(intervals.head(path)[0] if bed else comments)
    if own and config.panel_assembly not in (None, own):
        raise InputError(f"{path}: says that it is {own}, panel_assembly={config.panel_assembly}; leave that out")
    own = own or config.panel_assembly or build
    say = f"give panel_assembly={builds.other(own)}"
    beyond = builds.check_lengths(known, own, f"panel={path}", say)
    if beyond:
        raise InputError(
            f"panel={path}: {beyond:,} of {len(known):,} positions are beyond their chromosome in GRCh37 and GRCh38; "
            "give positions in base pairs of one of them"
        )
    builds.check_snps(known, own, f"panel={path}", say)
    return Panel(called, name, own, known)


def _bring(panels: list[Panel], config: PanelConfig, build: str, hint: str) -> list[Panel]:
    """The panels with those of the other build brought to `build`, by chain file or by rsID."""
    strange = [panel for panel in panels if panel.build != build]
    if config.chain is None and config.variants is None:
        panel = strange[0]
        raise InputError(
            f"panel={panel.source}: is of {panel.build}, the loci are of {build}; {_ways(panel, build, hint)}"
        )
    if config.chain is not None:
        lift = builds.Lift.open(config.chain, builds.other(build), build)
        return [panel if panel.build == build else _lifted(panel, lift, build) for panel in panels]
    wanted = {rsid for panel in strange for rsid in panel.table.lead if rsid.startswith("rs")}
    where = places_of(config.variants, wanted)
    builds.check_snps(where.assign(start=where.position, end=where.position), build, f"variants={config.variants}",
                      f"give variants of {build}")  # fmt: skip
    return [panel if panel.build == build else _placed(panel, where, build) for panel in panels]


def _lifted(panel: Panel, lift: builds.Lift, build: str) -> Panel:
    mapped = panel.table[panel.table.start > 0]
    table = lift.intervals(mapped)
    facts = {"from": panel.build, "by": "chain file", "lost": len(panel) - len(table)}
    return Panel(panel.name, panel.source, build, table, panel.facts | facts)


def _placed(panel: Panel, where: pd.DataFrame, build: str) -> Panel:
    """Lead SNPs alone, at the places of their rsIDs."""
    table = panel.table.drop(columns=["chrom", "start", "end"]).merge(where, on="lead")
    table = table.assign(start=table.position, end=table.position).drop(columns="position")
    facts = {"from": panel.build, "by": "rsID", "lost": len(panel) - len(table)}
    return Panel(panel.name, panel.source, build, table, panel.facts | facts)


def _mapped(panel: Panel) -> Panel:
    """Without the variants of the GWAS Catalog that have no place."""
    table = panel.table[panel.table.chrom != assemblies.UNPLACED].reset_index(drop=True)
    return Panel(panel.name, panel.source, panel.build, table, panel.facts)


def places_of(variants: Path, wanted: Iterable[str]) -> pd.DataFrame:
    """lead (rsID), chrom (code), position of those of `wanted` that are in a folder of gwas or a .bim, each once."""
    wanted = pd.Index(list(wanted))
    if Path(variants).is_dir():
        sumstats = Sumstats.open(variants)
        blocks: Iterable[pd.DataFrame] = (
            sumstats.variant_rows(start, stop, ("chrom", "position", "snp")) for start, stop in sumstats.blocks()
        )
    else:
        blocks = (read_bim(prefix) for prefix in _prefixes(str(variants).removesuffix(".bim")))
    found = [block.loc[block.snp.isin(wanted), ["snp", "chrom", "position"]] for block in blocks]
    table = pd.concat([f.assign(chrom=assemblies.codes(f.chrom.astype(str))) for f in found], ignore_index=True)
    table = table[table.chrom != assemblies.UNPLACED].drop_duplicates("snp")
    return table.rename(columns={"snp": "lead"}).astype({"lead": "str", "position": np.int64})


def _prefixes(prefix: str) -> list[str]:
    """Prefixes of .bim files: one, of which nothing else need be there, or a set with {chr}."""
    if "{chr}" in prefix:
        return find_prefixes(prefix)
    if not Path(f"{prefix}.bim").is_file():
        raise InputError(f"variants={prefix}: no {prefix}.bim; give the prefix of a .bim, or the folder of gwas")
    return [prefix]


def _losses(panel: Panel) -> str:
    """What was lost between the file and the table."""
    lost = panel.facts.get("lost", panel.facts.get("unmapped", 0))
    why = {"chain file": "could not be lifted", "rsID": "have no rsID among variants="}
    return f"{lost:,} of {lost + len(panel):,} known loci {why.get(panel.facts.get('by', ''), 'have no place')}"


def _ways(panel: Panel, build: str, hint: str) -> str:
    own = builds.other(build)
    chain = builds.chain_name(own, build)
    ways = [
        f"variants={hint or 'PREFIX'} ({'' if hint else 'a .bim, or the folder of gwas; '}its rsIDs give the places)",
        f"chain={chain} (of https://hgdownload.soe.ucsc.edu/goldenPath/{chain.split('To')[0]}/liftOver/)",
    ]
    return "give " + ", or ".join(ways) + (f", or assembly={panel.build} if the loci are" if panel.build == own else "")
