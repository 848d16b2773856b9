"""The section about single loci: which traits they move, and the strongest in close-up."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from udipdist.config.analyses import MINP
from udipdist.genome import assemblies
from udipdist.loci import genes
from udipdist.report import naming
from udipdist.report.analysis import Analysis, Linkage
from udipdist.report.collect import RunFolder, with_hits
from udipdist.report.figures import heatmap, regional
from udipdist.report.section import Album, Section

REGIONS = 12  # loci that are drawn from near


def region_name(row) -> str:
    """The name of the figure of a locus' region."""
    return f"region_{int(row.locus)}"


def strongest(loci: pd.DataFrame) -> pd.DataFrame:
    """The loci that are drawn from near."""
    return loci.nlargest(REGIONS, "log10p")


def regions(run: RunFolder, album: Album) -> Section | None:
    """Which traits each locus moves, and the strongest loci in close-up."""
    section = Section("regions", "Locus by locus")
    for name in ("gwas", "loci"):
        if not run.done(name):
            return None
    table, threshold = run.loci("loci"), run.stages["loci"].facts.get("threshold_log10p")
    if table.empty:
        return None
    if run.done("panel"):
        table = with_hits(table, run.panel()[0])
    section.lead = (
        "Which traits a locus moves, and its variants along the chromosome. In a sound locus the variants in "
        "strong linkage with the lead SNP (orange, red) rise with it. A lone high point is more likely an artefact."
    )
    analysis = Analysis(run.statistics, MINP, run.sumstats.log10p(MINP))
    strengths = analysis.strengths(table, threshold)
    caption = (
        "The smallest p of each trait in each locus, as -log10 p, capped. Columns are loci along the genome; a "
        "row is a trait, similar traits together. Dots: beyond the threshold."
    )
    section.add(album.add("heatmap", heatmap.heatmap(strengths), caption, "Loci by traits"))
    linkage, why = _linkage(run)
    if why:
        section.add(why)
    known = _genes(run)
    for row in strongest(table).itertuples():
        figure = regional.regional(analysis.region(row, threshold, linkage, known))
        name = naming.title(row)
        caption = f"Around {name}: each point is a variant, coloured by its r\u00b2 to the lead SNP."
        folded = f"{name}, chromosome {assemblies.label(row.code)}, -log10 p {row.log10p:.1f}"
        section.add(album.add(region_name(row), figure, caption, f"The region of {name}", folded=folded))
    if len(table) > REGIONS:
        section.add(
            f"These are the {REGIONS} strongest of {len(table)} loci; `udipdist plot kind=regional` draws the others."
        )
    return section


def _linkage(run: RunFolder) -> tuple[Linkage | None, str]:
    """LD from the genotypes that the loci were found with, or why there is none."""
    manifest = run.stages["loci"].manifest
    given = str(manifest["config"].get("genotypes", ""))
    beds = [Path(seen["path"]) for key, seen in manifest.get("inputs", {}).items() if key.endswith(".bed")]
    if not beds or not all(bed.exists() for bed in beds):
        return None, f"The genotypes {given} no longer exist, so the linkage with the lead SNPs is not known."
    # the run may have been started in another folder than this page
    return Linkage(given if "{chr}" in str(Path(given).parent) else beds[0].parent / Path(given).name), ""


def _genes(run: RunFolder) -> pd.DataFrame | None:
    """The genes that `panel` was given, where they still are."""
    if not run.done("panel"):
        return None
    config = run.stages["panel"].manifest["config"]
    name = config.get("genes")
    if name is None or not (name == genes.ENSEMBL or Path(name).is_file()):
        return None
    build = run.panel()[1].get("assembly", genes.SHIPPED_BUILD)
    return genes.read(name, build, list(config.get("gene_types", []))).table
