"""The verb `interpret clusters`: lead SNPs by their direction in latent space, of one analysis or of two."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.errors import InputError
from hpc.files import publish, safe_names
from hpc.stage import stage
from udipdist.analysis.clusters import leads, naming, tree
from udipdist.analysis.clusters.effects import read_effects
from udipdist.analysis.clusters.output import PICTURE, Grown, write_analysis
from udipdist.analysis.clusters.pairing import TANGLEGRAM, pair, write_pair
from udipdist.config.clusters import DIRECTION, PUBLISHED, ClustersConfig
from udipdist.loci.verb import run_names
from udipdist.sumstats.store import Sumstats

log = logging.getLogger(__name__)


def clusters(config: ClustersConfig) -> None:
    """Write the tree, its clusters and their names, the similarities and the picture; of two sumstats for each, and
    how far they agree. Raises InputError where loci and statistics do not fit each other, or leads are too few."""
    with stage("clusters", config.out, config, _inputs(config), config.overwrite) as made:
        regions = [naming.read_regions(folder) for folder in config.maps] or [None] * len(config.sumstats)
        analyses = [grow(config, number) for number in range(len(config.sumstats))]
        found = pair(*analyses, config.match_bp, config.permutations, config.seed) if len(analyses) == 2 else None
        with publish(config.out) as partial:
            partial.mkdir()
            captions = {}
            if found is not None:
                captions[f"{TANGLEGRAM}.png"] = write_pair(partial, found, config.permutations)
            for one, own_regions in zip(analyses, regions, strict=True):
                place = partial if found is None else partial / one.name
                place.mkdir(exist_ok=True)
                captions[str((place / f"{PICTURE}.png").relative_to(partial))] = write_analysis(place, one, own_regions)
        if found is None:
            made.note(**analyses[0].facts, captions=captions)
        else:
            each = {one.name: one.facts for one in analyses}
            made.note(**found.facts, analyses=each, captions=captions)
    for one in analyses:
        _tell(one, len(analyses) > 1)


def too_little(config: ClustersConfig) -> str:
    """Why there is no tree where loci, latents or maps are too few for one, though nothing is wrong; otherwise ""."""
    count = len(leads.read_leads(config.loci, config.leads == "all")[0])
    if count < leads.FEWEST:
        return f"{count} lead SNPs, and a tree needs {leads.FEWEST}"
    if any(len(Sumstats.open(place).traits) < 2 for place in config.sumstats):
        return "one latent, and a direction needs several"
    return "" if all(folder.exists() for folder in config.maps) else "no maps of lead SNPs to name clusters by"


def preview(config: ClustersConfig) -> list[str]:
    """How many leads and traits there are, and what would be written."""
    lines, tables = [], []
    for number, place in enumerate(config.sumstats):
        sumstats, table, overlapping = _leads(config, number)
        more = f"; {overlapping:,} of loci that another folder has are left out" if overlapping else ""
        lines.append(f"{len(table):,} lead SNPs, {len(sumstats.traits):,} traits of {place}{more}")
        tables.append(table)
    if len(tables) == 2:
        lines.append(f"{len(leads.match(*tables, config.match_bp)):,} of them are of the same loci")
    return [
        *lines,
        f"support from {config.trees:,} bootstrap trees, clusters by {config.cut_by}",
        f"writes {config.out}/",
    ]


def grow(config: ClustersConfig, number: int) -> Grown:
    """The tree and clusters of one of the analyses. Raises InputError."""
    sumstats, table, overlapping = _leads(config, number)
    published = config.method == PUBLISHED
    effects = read_effects(sumstats, table, published, config.most)
    directions = effects.directions
    similarity_LL = directions.similarity()
    grown = tree.grow(similarity_LL)
    support_C = tree.support(directions, grown, config.trees, config.seed)
    if config.cut_by == DIRECTION:
        node_L, least = tree.by_direction(directions, grown, config.similar)
    else:
        node_L, least = tree.by_support(grown, support_C, config.support), config.support
    cluster_L = tree.numbered(grown, node_L)
    n = len(cluster_L)
    table = effects.leads.assign(
        cluster=cluster_L, support=np.where(node_L >= 0, support_C[np.maximum(node_L - n, 0)], np.nan),
        reliability=directions.reliability_L, chi2=directions.chi2_L,
    )  # fmt: skip
    if config.panel:
        table = leads.with_genes(table, config.panel[number])
    facts = {
        "leads": n, "clusters": int(cluster_L.max()), "alone": int((cluster_L == tree.ALONE).sum()),
        "supported": int(table.loc[table["support"] >= config.support, "cluster"].nunique()),
        "traits": effects.traits, "rank": directions.whitening.rank, "null_correlation": effects.null,
        "median_reliability": float(np.median(directions.reliability_L)), "cut": config.cut_by, "least": least,
        "absent": effects.absent, "untested": effects.untested, "overlapping": overlapping,
    }  # fmt: skip
    return Grown(
        _names(config)[number], grown, support_C, config.support, config.trees, table, similarity_LL,
        None if published else directions.corrected(), facts,
    )  # fmt: skip


def _leads(config: ClustersConfig, number: int) -> tuple[Sumstats, pd.DataFrame, int]:
    """The statistics and the leads of one of the analyses, and how many leads are of loci that another folder has."""
    place = config.sumstats[number]
    folders = config.loci if len(config.sumstats) == 1 else (config.loci[number],)
    sumstats = Sumstats.open(place)
    for folder in folders:
        leads.check_same_analysis(folder, place)
    table, overlapping = leads.read_leads(folders, config.leads == "all")
    if len(table) < leads.FEWEST:
        raise InputError(
            f"{', '.join(map(str, folders))}: {len(table)} lead SNPs, and a tree needs {leads.FEWEST}; give several "
            "folders of loci, as loci=[loci, loci_multivariate], or run loci with a larger p="
        )
    return sumstats, table, overlapping


def _tell(one: Grown, several: bool) -> None:
    facts = one.facts
    log.info(
        "%s%d lead SNPs in %d clusters, %d alone; %d of the clusters have support %g or more; median reliability %.2f",
        f"{one.name}: " if several else "",
        facts["leads"],
        facts["clusters"],
        facts["alone"],
        facts["supported"],
        one.supported,
        facts["median_reliability"],
    )
    if not facts["clusters"]:
        log.warning("%s: no cluster: by cut=%s every lead SNP stands alone", one.name, facts["cut"])


def _names(config: ClustersConfig) -> list[str]:
    """A short name for each analysis, fit for a folder: what tells the paths apart."""
    if len(set(config.sumstats)) < len(config.sumstats):
        return safe_names([f"{config.sumstats[0].name}-{loci.name}" for loci in config.loci])
    return run_names(config.sumstats)


def _inputs(config: ClustersConfig) -> dict[str, Path | None]:
    given = {"sumstats": config.sumstats, "loci": config.loci, "maps": config.maps, "panel": config.panel}
    return {
        f"{key} {number}" if len(paths) > 1 else key: path
        for key, paths in given.items()
        for number, path in enumerate(paths, 1)
    }
