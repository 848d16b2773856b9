"""The section about lead SNPs that move the latents in the same direction."""

from __future__ import annotations

from udipdist.report.collect import RunFolder
from udipdist.report.interpretation import add_pictures, table_of
from udipdist.report.section import Album, Section, Table, Tile, count, fixed, number

_STAGE = "interpret clusters"
_SHOWN = "names.tsv"  # at once; the others behind a line


def clusters(run: RunFolder, album: Album) -> Section | None:
    """The tree of SNP directions, its clusters, and how well these are the planted factors where they are known."""
    section = Section("clusters", "Which SNPs act alike")
    made = run.interpretations[_STAGE]
    if made.manifest is None:
        if made.state != "unfinished":
            return None
        section.missing = made.why_absent
        return section
    facts, tables = made.facts, run.tables_of(_STAGE)
    section.lead = (
        "The effects of a SNP on all latents are a direction. Lead SNPs with the same direction move the brain in the "
        "same way, also from different chromosomes. Error makes directions look less alike than they are, so look at "
        "both halves of the picture, and at the support of a cluster before you believe it."
    )
    if "analyses" not in facts:
        section.tiles += [
            Tile(count(facts["clusters"]), "clusters"),
            Tile(f"{facts['leads'] - facts['alone']} of {facts['leads']}", "lead SNPs in a cluster"),
            Tile(number(facts["median_reliability"], 2), "median reliability of a direction"),
        ]
    add_pictures(section, _STAGE, made, album)
    scored = (run.comparison or {}).get("clusters", [])
    if scored:
        rows = [
            (
                str(row["name"]), count(row["clusters"]), count(row["leads"]), fixed(row["ari"], 2),
                count(row["leads_one_factor"]), fixed(row["ari_one_factor"], 2),
            )
            for row in scored
        ]  # fmt: skip
        caption = (
            "Clusters against the factors that were planted: 1 is the same grouping, 0 is chance. The direction of a "
            "locus that moves two factors is between theirs; it counts for the one that it moves more."
        )
        columns = (
            "phenotypes", ">clusters", ">lead SNPs of planted loci", ">adjusted Rand index", ">of one factor",
            ">adjusted Rand index",
        )  # fmt: skip
        section.add(Table(columns, rows, caption))
    for file in sorted(tables, key=lambda file: file != _SHOWN):
        section.add(table_of(file, tables[file], made.path))
    return section
