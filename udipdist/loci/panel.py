"""Found loci against panels of known ones: recall, our share, novel loci, what chance would give; and nearby genes.

Chance has two forms: places as they come (the panel rotated along the genome), and loci that look like the found ones.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpc.errors import InputError
from hpc.files import publish, publish_json
from hpc.stage import read_manifest, stage
from udipdist.config import PanelConfig
from udipdist.genome import assemblies
from udipdist.genotypes.source import find_sets, open_hard_calls
from udipdist.loci import builds, fuma, genes, intervals, matching, panels, proximity
from udipdist.loci.panels import BIG40, Panel

log = logging.getLogger(__name__)

DEFAULT_BUILD = "GRCh37"
TRAITS_SHOWN = 5


@dataclass(frozen=True)
class Loci:
    """Found loci: `table` has locus, chrom (code), start, end, lead, first and last (the place of the lead SNP; the
    whole locus where it is not known). `genotypes` is the prefix that LD came from, where that is known."""

    table: pd.DataFrame
    build: str
    genotypes: str = ""


def panel(config: PanelConfig) -> None:
    """Write hits.tsv (a row a locus) and panel.json. Raises InputError for tables that cannot be read, or are of
    different genome builds."""
    with stage("panel", config.out, config, _inputs(config), config.overwrite) as current:
        loci = read_loci(config)
        known = panels.read_all(config, loci.build, loci.genotypes)
        table = _genes(config, loci.build)
        alike = look_alikes(loci, config, table)
        rows, summary = compare(loci, known, config, alike)
        if config.genes is not None and table is not None:
            rows = rows.join(genes.near(loci.table, table, config.gene_window_bp))
            summary["genes"] = config.genes
        with publish(config.out) as partial:
            partial.mkdir()
            rows.to_csv(partial / "hits.tsv", sep="\t", index=False)
            publish_json(partial / "panel.json", summary)
        current.note(**summary)
        for one in [*summary["panels"], *([summary | {"name": "all of them"}] if len(known) > 1 else [])]:
            log.info(
                "%s: %d of %d loci hit it, %d are novel; %s of its %d loci are found. By chance %s of loci that look "
                "like these would hit it (p = %s), and %s of random places (p = %s)",
                one["name"], one["n_hits"], summary["n_loci"], one["novel"], _percent(one["recall"]), one["n_panel"],
                _percent(one["matched_share"]), _p(one["matched_p"]), _percent(one["rotation_share"]),
                _p(one["rotation_p"]),
            )  # fmt: skip


def preview(config: PanelConfig) -> list[str]:
    """What `panel` would compare."""
    loci = read_loci(config)
    known = panels.read_all(config, loci.build, loci.genotypes)
    lines = [
        f"{len(loci.table):,} loci against {len(one):,} of {one.name}, {loci.build}, {config.rotations:,} rotations"
        for one in known
    ]
    table = _genes(config, loci.build)
    if config.genes is not None and table is not None:
        lines.append(
            f"the nearest of {len(table):,} genes of {config.genes}, and all within {config.gene_window_bp:,} bp"
        )
    reference = _reference(loci, config)
    if reference:
        lines.append(f"chance loci from {config.pool:,} SNPs of {reference}, {_matched_by(table)}")
    return lines


@dataclass(frozen=True)
class LookAlikes:
    """The lead SNPs of the loci, and the SNPs that may stand for them."""

    leads: matching.Snps
    pool: matching.Snps


def look_alikes(loci: Loci, config: PanelConfig, table: pd.DataFrame | None) -> LookAlikes | None:
    """SNPs for chance loci; None without loci, or where no reference is known, which is said. Raises InputError."""
    prefix = _reference(loci, config)
    if not prefix or loci.table.empty:
        return None
    source = open_hard_calls(prefix)
    places = pd.DataFrame({"lead": source.variants.snp, "chrom": assemblies.codes(source.variants.chrom)})
    places = places.assign(start=source.variants.position, end=source.variants.position)
    builds.check_snps(places, loci.build, f"genotypes={prefix}", f"give genotypes of {loci.build}")
    reference = matching.Reference(source, table)
    found = LookAlikes(reference.leads(loci.table), reference.sample(config.pool, config.seed))
    log.info("chance loci are %s, of %d SNPs of %s", _matched_by(table), len(found.pool.chrom_K), prefix)
    lost = int(np.isnan(found.leads.features_KF[:, 0]).sum())
    if lost:
        log.warning("%d of %d lead SNPs are not in %s: their MAF and LD are not matched", lost, len(loci.table), prefix)
    return found


def compare(
    loci: Loci, known: list[Panel], config: PanelConfig, alike: LookAlikes | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """hits.tsv without genes, and panel.json: for all panels together, and for each."""
    table = loci.table
    rows = pd.DataFrame(
        {
            "locus": table.locus,
            "chr": [assemblies.label(chrom) for chrom in table.chrom],
            "start": table.start,
            "end": table.end,
            "lead": table.lead,
        }
    )
    whole = pd.concat([one.table.assign(panel=one.name) for one in known], ignore_index=True)
    summary = _summary(table, whole, config, loci.build, alike)
    together = _hits(table, whole, config.flank_bp)
    rows = rows.assign(**together)
    each = []
    for one in known:
        for name, column in _hits(table, one.table, config.flank_bp).items():
            rows[f"{one.name}_{name.removesuffix('_panel')}"] = column
        facts = {"name": one.name, "source": one.source, **one.facts}
        each.append(facts | _summary(table, one.table, config, loci.build, alike))
    return rows, summary | {"n_loci": len(table), "assembly": loci.build, "rotations": config.rotations, "panels": each}


def read_loci(config: PanelConfig) -> Loci:
    """The loci of GenomicRiskLoci.txt, of `loci` or of FUMA itself, and their build. Raises InputError."""
    folder = Path(config.loci)
    path = folder / fuma.LOCI
    if not path.is_file():
        raise InputError(f"{path}: does not exist; give loci= the folder that `udipdist loci` wrote (its out=)")
    manifest = read_manifest(folder) or {}
    told = manifest.get("config", {}).get("assembly")
    told = told if told in builds.BUILDS else None
    if told and config.assembly not in (None, told):
        raise InputError(f"assembly={config.assembly}: loci was given assembly={told} ({folder}); leave it out here")
    build = config.assembly or told or DEFAULT_BUILD
    raw = intervals.read(path)
    table = intervals.of_table(raw, path)
    numbers = raw["GenomicLocus"] if "GenomicLocus" in raw else range(1, len(raw) + 1)
    position = pd.to_numeric(raw["pos"], errors="coerce") if "pos" in raw else pd.Series(np.nan, table.index)
    table = table.assign(
        locus=numbers,
        lead=raw.get("rsID", ""),
        first=position.fillna(table.start).astype(np.int64),
        last=position.fillna(table.end).astype(np.int64),
    )
    say = f"give assembly={builds.other(build)}"
    beyond = builds.check_lengths(table, build, str(path), say)
    if beyond:
        log.warning("%s: %d loci are beyond the end of their chromosome in every known build", path, beyond)
    builds.check_snps(table.assign(start=table["first"], end=table["last"]), build, str(path), say)
    return Loci(table, build, str(manifest.get("config", {}).get("genotypes", "")))


def _hits(loci: pd.DataFrame, known: pd.DataFrame, flank_bp: int) -> dict[str, Any]:
    """Columns hit, nearest_panel, distance; of a panel with traits those of the loci that are hit, of several panels
    together the name of the nearest one."""
    row, distance = proximity.nearest(loci, known)
    lead = known.lead.to_numpy(object)
    away = pd.array(np.where(row >= 0, distance, 0), "Int64")
    away[row < 0] = pd.NA
    columns = {
        "hit": (distance <= flank_bp).astype(int),
        "nearest_panel": [lead[i] if i >= 0 else "" for i in row],
        "distance": away,
    }
    if "panel" in known:
        columns["panel"] = [known.panel.iloc[i] if i >= 0 else "" for i in row]
    elif "traits" in known:
        columns["traits"] = [_traits(known, near) for near in proximity.within(loci, known, flank_bp)]
    return columns


def _traits(known: pd.DataFrame, rows: np.ndarray) -> str:
    """The first distinct traits of some variants, and how many more there are."""
    names = list(dict.fromkeys(name for traits in known.traits.iloc[rows] for name in traits))
    more = [f"and {len(names) - TRAITS_SHOWN} more"] if len(names) > TRAITS_SHOWN else []
    return " | ".join([*names[:TRAITS_SHOWN], *more])


def _summary(
    loci: pd.DataFrame, known: pd.DataFrame, config: PanelConfig, build: str, alike: LookAlikes | None
) -> dict[str, Any]:
    """The numbers of a panel; shares are null where there is nothing to take a share of."""
    hit = proximity.touched(loci, known, config.flank_bp)
    shares, lengths = np.empty(0), builds.LENGTHS[build]
    if len(loci):
        shares = proximity.rotation_shares(loci, known, config.flank_bp, config.rotations, config.seed, lengths)
    share = float(hit.mean()) if len(loci) else None
    matched = matching.chance(loci, known, alike.leads, alike.pool, config.flank_bp, lengths) if alike else None
    return {
        "recall": float(np.mean(proximity.touched(known, loci, config.flank_bp))),
        "our_share": share,
        "novel": int((~hit).sum()),
        "matched_share": matched.share if matched else None,
        "matched_p": matched.p if matched else None,
        "matched_on": matched.balance if matched else {},
        "rotation_share": float(np.mean(shares)) if len(shares) else None,
        "rotation_p": (1 + int(np.sum(shares >= share - 1e-12))) / (1 + len(shares)) if len(shares) else None,
        "n_panel": len(known),
        "n_hits": int(hit.sum()),
    }


def _genes(config: PanelConfig, build: str) -> pd.DataFrame | None:
    """The genes that were asked for, else those that ship, where they are of this build. Raises InputError."""
    if config.genes is None and build != genes.SHIPPED_BUILD:
        return None
    return genes.read(config.genes or genes.ENSEMBL, build, list(config.gene_types)).table


def _reference(loci: Loci, config: PanelConfig) -> str:
    """The genotypes that chance loci come from: those given, else those of the loci; '' where there are none."""
    if config.pool == 0:
        return ""
    if config.genotypes is not None:
        return str(config.genotypes)
    if loci.genotypes and any(path.exists() for one in find_sets(loci.genotypes) for path in one.files.values()):
        return loci.genotypes
    where = f"{loci.genotypes}, which the loci were made with, is not there" if loci.genotypes else "none are known"
    log.warning("chance loci that look like these need genotypes, and %s; give genotypes=PREFIX, or pool=0", where)
    return ""


def _matched_by(table: pd.DataFrame | None) -> str:
    known = "MAF and SNPs in LD"
    return f"matched on {known} (genes= would add genes nearby)" if table is None else f"matched on {known} and genes"


def _inputs(config: PanelConfig) -> dict[str, Path]:
    """The files that are read, by key."""
    files = {f"panel {name}": Path(name) for name in config.panel if name != BIG40}
    files |= {"loci": config.loci}
    if config.genotypes is not None:
        sets = find_sets(config.genotypes)
        files |= {f"genotypes {path.name}": path for one in sets for path in one.files.values()}
    if config.genes not in (None, genes.ENSEMBL):
        files["genes"] = Path(config.genes)
    for key in ("chain", "variants"):
        path = getattr(config, key)
        if path is not None and path.exists():
            files[key] = path
    return files


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.0%}"


def _p(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2g}"
