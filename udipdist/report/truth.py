"""Sections that only a simulated cohort can have: what was planted, and who found it."""

from __future__ import annotations

from typing import Any

from udipdist.config.analyses import MINP
from udipdist.report.analysis import Analysis
from udipdist.report.collect import RunFolder
from udipdist.report.figures import bars
from udipdist.report.figures.manhattan import miami
from udipdist.report.genetics import scan_of
from udipdist.report.section import Album, Section, Table, Tile, fixed, number

# key of a row -> heading, decimals, meaning
_COLUMNS = {
    "planted_found": ("planted found", 0, "planted loci with a lead SNP of the smallest p near the planted variant"),
    "leads": ("leads", 0, "all lead SNPs"),
    "polygenic": ("polygenic", 0, "leads where the simulated polygenic background is strong: true, but not planted"),
    "strict_false": ("strict false", 0, "leads on chromosomes where nothing acts: certainly false"),
    "lambda_null": ("\u03bb null", 3, "genomic-control \u03bb on those chromosomes, mean over traits; 1 is calibrated"),
    "multivariate_loci": ("joint: planted", 0, "planted loci found by the joint test of all traits"),
    "multivariate_false": ("joint: false", 0, "strict false leads of the joint test"),
    "lambda_joint": ("joint: \u03bb null", 3, "genomic-control \u03bb of the joint test on the null chromosomes"),
    "factor_r2": ("factor R\u00b2", 3, "held-out R\u00b2 of the true brain factors from the phenotypes, mean"),
}


def comparison(run: RunFolder, album: Album) -> Section | None:
    """The table of the demo, and the same association without covariates."""
    section = Section("comparison", "Compared with the truth")
    if run.comparison is None:
        return None
    rows = run.comparison["rows"]
    section.lead = (
        "The cohort is simulated, so the truth is known. Every row is the same association on other phenotypes. The "
        "oracle tests the true brain factors, and is the most that anyone could find. A good row finds much, with few "
        "strict false positives and \u03bb near 1 on the null chromosomes."
    )
    if all(key in row for row in rows for key in ("planted_found", "planted_total", "strict_false")):
        caption = "Planted loci found by the smallest p and by the joint test. Right: false ones, on null chromosomes."
        section.add(album.add("comparison", bars.comparison(rows), caption, "Loci found by each analysis"))
        first = rows[0]
        section.tiles.append(Tile(f"{first['planted_found']} of {first['planted_total']}", "planted loci found"))
        section.tiles.append(Tile(str(first["strict_false"]), "certainly false leads"))
    keys = [key for key in _COLUMNS if all(key in row for row in rows)]
    table = [(str(row["name"]), *(_cell(row, key) for key in keys)) for row in rows]
    section.add(Table(("phenotypes", *(">" + _COLUMNS[key][0] for key in keys)), table))
    section.add(Table(("column", "meaning"), [(_COLUMNS[k][0], _COLUMNS[k][2]) for k in keys], folded="the columns"))
    return section


def _cell(row: dict[str, Any], key: str) -> str:
    if key == "planted_found" and "planted_total" in row:
        return f"{row[key]} of {row['planted_total']}"
    return fixed(row[key], _COLUMNS[key][1])


def confounding(run: RunFolder, album: Album) -> Section | None:
    """The same phenotypes with and without covariates, one above the other."""
    section = Section("confounding", "Why covariates matter")
    bare = run.bare() if run.done("gwas") else None
    if bare is None:
        return None
    statistics, loci = bare
    above = scan_of(run, MINP, "loci")
    below = Analysis.of(statistics, MINP).scan(above.threshold, loci)
    section.lead = (
        "The same phenotypes, people and variants: upwards with the covariates, downwards without them. If "
        "ancestry, site or head position move both the image and the allele frequencies, leaving them out makes "
        "false loci."
    )
    null = run.null_chromosomes()
    caption = "Smallest p over traits with covariates (up) and without (down)."
    if null:
        false = [int(table["code"].isin(null).sum()) for table in (run.loci("loci"), loci)] if run.done("loci") else []
        if false:
            caption += f" Loci on the null chromosomes: {false[0]} with covariates, {false[1]} without."
    figure = miami(above, below, ("with covariates", "without covariates"), null)
    section.add(album.add("covariates", figure, caption, "Manhattan plots with and without covariates"))
    return section


def recall(run: RunFolder, album: Album) -> Section | None:
    """Each planted locus, and which analyses found it."""
    section = Section("recall", "Planted loci")
    planted = run.planted()
    if planted is None:
        return None
    names = [str(row["name"]) for row in run.comparison["rows"]]
    section.lead = (
        "Every planted locus and the analyses that found it. All miss weak loci. Those that the oracle finds "
        "and a network misses are in brain factors that the network has not learnt."
    )
    if "r2" in planted and len(planted):
        caption = "Each column is a planted locus, the strongest first; a filled square means that the row found it."
        section.add(album.add("recall", bars.recall(planted, names), caption, "Which analysis found which locus"))
    extra = [(key, name) for key, name in (("snp", "variant"), ("factor", "factor")) if key in planted]
    columns = ["locus", ">chr", ">position", *(name for _, name in extra), ">variance of the factor, %", *names]
    rows = []
    for row in planted.to_dict("records"):
        share = number(100 * row["r2"]) if "r2" in row else "\u2013"
        marks = ["\u25cf" if name in row["found_by"] else "\u00b7" for name in names]
        rows.append(
            (str(row["locus"]), str(row["chr"]), f"{int(row['pos']):,}", *(str(row[k]) for k, _ in extra), share,
             *marks)
        )  # fmt: skip
    section.add(Table(columns, rows, folded=f"{len(rows)} planted loci, one by one"))
    return section
