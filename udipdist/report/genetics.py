"""Sections about the association: calibration, null models, Manhattan plots, loci, panel."""

from __future__ import annotations

import numpy as np
import pandas as pd

from udipdist.config.analyses import MINP, MULTIVARIATE
from udipdist.genome import assemblies
from udipdist.report import naming, regions
from udipdist.report.analysis import Analysis
from udipdist.report.calibration import POINTS, Calibration, calibrate, exact_curve
from udipdist.report.collect import RunFolder, with_hits
from udipdist.report.figures import bars, qq
from udipdist.report.figures.manhattan import BREAK, LABELS, Scan, manhattan
from udipdist.report.section import Album, Section, Table, Tile, count, fixed, number, plural

LAMBDA = "\u03bb"
THINNED = (
    "Points with p < 0.01 are all drawn (at most the 100,000 highest), the others once per pixel; "
    "no number on this page comes from thinned points."
)


def calibration(run: RunFolder, album: Album) -> Section | None:
    """QQ curves, lambda of each trait, null models."""
    section = Section("calibration", "Are the tests calibrated?")
    if not run.begun("gwas"):
        return None
    if not run.done("gwas"):
        section.missing = run.stages["gwas"].why_absent
        return section
    null = run.null_chromosomes()
    result = calibrate(run.sumstats, np.isin(run.statistics.chrom_M, null) if null else None)
    curves = {
        "all traits": result.pooled,
        "joint test": exact_curve(run.sumstats.log10p(MULTIVARIATE)),
    }
    lambdas = result.lambda_P[~np.isnan(result.lambda_P)]
    section.lead = (
        f"If there were only noise, the points would follow the diagonal and every {LAMBDA} would be about 1. "
        "True effects lift the right end; confounding (relatives, ancestry, scanner) lifts the whole curve. Many true "
        f"effects on a few chromosomes also lift {LAMBDA}, so judge it where no effect is expected."
    )
    if len(lambdas):
        section.tiles.append(Tile(fixed(float(np.median(lambdas))), f"median {LAMBDA} over traits"))
        section.add(f"{LAMBDA} of the traits is between {lambdas.min():.3f} and {lambdas.max():.3f}.")
    if not np.isnan(result.null_lambda_P).all():
        middle = float(np.nanmedian(result.null_lambda_P))
        section.tiles.append(Tile(fixed(middle), f"median {LAMBDA} on null chromosomes"))
    caption = (
        f"Left and middle: {plural(result.pooled.n, 'test')} of {plural(len(lambdas), 'trait')} pooled (the smallest p "
        "over traits is not the p of a single test and is left out). The band has 95 % of the points if tests are "
        f"independent; linkage and correlated traits make it wider. Right: {LAMBDA} of each trait. {THINNED}"
    )
    section.add(album.add("qq", qq.qq(curves, result), caption, "QQ curves and lambda of each trait"))
    _of_each_trait(section, run, album, result)
    _null_models(section, run, album, result.lambda_P)
    return section


def _of_each_trait(section: Section, run: RunFolder, album: Album, result: Calibration) -> None:
    tested = int((~np.isnan(result.lambda_P)).sum())
    if not tested:
        return
    shown = min(tested, qq.MOST_TRAITS)
    caption = (
        f"The same for each trait, with its {LAMBDA}; orange if that is outside 0.9 to 1.1. Each curve is drawn "
        f"from {POINTS} to {POINTS + 50} points, including the highest, and cut off at -log10 p = {qq.FOOT:g}."
    )
    if shown < tested:
        caption += f" Shown are the {shown} of {tested} traits whose {LAMBDA} is farthest from 1."
    figure = qq.qq_traits(run.sumstats.traits, result.traits, result.lambda_P)
    folded = f"QQ curves of {plural(shown, 'trait')}, one by one"
    section.add(album.add("qq_traits", figure, caption, "QQ curve of each trait", folded=folded))


def _null_models(section: Section, run: RunFolder, album: Album, lambda_P: np.ndarray) -> None:
    null = run.null_models()
    lambda_of = dict(zip(run.sumstats.traits, lambda_P, strict=True))
    if null["h2_se"].notna().any():
        caption = (
            "Heritability of each trait by REML, with its standard error: the share of variance that follows the "
            "relationship matrix. Traits at 0 show no family resemblance, so a discovery from them is unlikely."
        )
        section.add(album.add("heritability", bars.heritability(null), caption, "Heritability of each trait"))
    else:
        section.add("The null models have no standard errors (linear test, or variance components that were given).")
    flags = null["boundary"] if "boundary" in null else [""] * len(null)
    rows = [
        (trait, count(int(n)), fixed(h2), fixed(se), flag or "", fixed(lambda_of.get(trait)))
        for trait, n, h2, se, flag in zip(
            null["trait"], null["n"].astype(float), null["h2"], null["h2_se"], flags, strict=True
        )
    ]
    columns = ("trait", ">people", ">h\u00b2", ">SE", "at a boundary", f">{LAMBDA}")
    section.add(Table(columns, rows, folded=f"{plural(len(rows), 'trait')}, one by one"))


def manhattans(run: RunFolder, album: Album) -> Section | None:
    """Manhattan plots of the smallest p and of the joint test, loci marked."""
    section = Section("manhattan", "Along the genome")
    if not run.begun("gwas"):
        return None
    if not run.done("gwas"):
        section.missing = run.stages["gwas"].why_absent
        return section
    section.lead = (
        "Each point is a variant; higher is stronger. Above the dashed line it is significant after correction "
        "for the number of traits. A column of points is one locus: neighbouring variants follow by linkage."
    )
    known = run.planted() is not None
    notes = " Triangles at the foot: variants that were planted." if known else ""
    null = run.null_chromosomes()
    unplaced = 0
    for stage, trait, words in (
        ("loci", MINP, "the smallest p over all traits"),
        ("loci multivariate", MULTIVARIATE, "the joint test of all traits"),
    ):
        scan = scan_of(run, trait, stage)
        unplaced = int((scan.code_M == assemblies.UNPLACED).sum())
        if not np.isfinite(scan.log10p_M).any():
            section.add(f"There are no p-values of {words}{_why_none(run, trait)}.")
            continue
        caption = f"Manhattan plot of {words}.{notes} Point at a locus, or tap it, for details. {THINNED}"
        if scan.has_loci and scan.trait_of is not None:
            caption += " Variants in a locus have the colour of the trait with that p."
        if np.nanmax(scan.log10p_M) > 2 * BREAK:
            caption += f" Above {BREAK:g} the axis is logarithmic."
        if scan.loci is None:
            caption += " " + run.stages[stage].why_absent
        elif len(scan.loci) > LABELS:
            caption += f" The {LABELS} strongest of {len(scan.loci)} loci are named."
        name = "manhattan" if trait == MINP else "manhattan_joint"
        section.add(album.add(name, manhattan(scan, null), caption, f"Manhattan plot of {words}"))
    if unplaced:
        section.add(f"{plural(unplaced, 'variant')} without a known chromosome are not drawn.")
    return section


def _why_none(run: RunFolder, trait: str) -> str:
    people = run.sumstats.attrs.get("n_effective")
    if trait != MULTIVARIATE or people is None:
        return ""
    return (
        f": {plural(len(run.sumstats.traits), 'trait')} are too many for {max(0, people):,.0f} people "
        "(those that count, after relatives and covariates)"
    )


def scan_of(run: RunFolder, trait: str, stage: str) -> Scan:
    """What a Manhattan plot of `trait` shows; loci and threshold from `stage` where it is done."""
    loci = threshold = None
    links: dict[int, str] = {}
    if run.done(stage):
        loci, threshold = run.loci(stage), run.stages[stage].facts.get("threshold_log10p")
        if stage == "loci":
            links = {int(row.locus): regions.region_name(row) for row in regions.strongest(loci).itertuples()}
            if run.done("panel"):
                loci = with_hits(loci, run.panel()[0])
    analysis = Analysis(run.statistics, trait, run.sumstats.log10p(trait))
    return analysis.scan(threshold, loci, planted=run.planted(), links=links)


def loci(run: RunFolder, album: Album) -> Section | None:
    """The table of genomic risk loci, and how they compare with the panel."""
    section = Section("loci", "Genomic risk loci")
    if not run.begun("loci"):
        return None
    if not run.done("loci"):
        section.missing = run.stages["loci"].why_absent
        return section
    table, hits = run.loci("loci"), None
    if run.done("panel"):
        rows, hits = run.panel()
        table = with_hits(table, rows)
    threshold = run.stages["loci"].facts.get("threshold_log10p")
    section.lead = (
        "Significant variants in linkage count as one finding: a locus spans all of them. Its name is its strongest "
        "variant, the lead SNP. The trait is the one with the smallest p there."
    )
    section.tiles.append(Tile(count(len(table)), "loci of the smallest p"))
    if run.done("loci multivariate"):
        section.tiles.append(Tile(count(len(run.loci("loci multivariate"))), "loci of the joint test"))
    if hits is not None:
        _panel(section, hits)
    elif run.begun("panel"):
        section.add(run.stages["panel"].why_absent)
    if not len(table):
        section.add("No variant passed the threshold, so there are no loci.")
    else:
        columns, rows = _locus_table(table, hits is not None)
        at = "" if threshold is None else f" Threshold: p < {10.0**-threshold:.2g} (-log10 p > {threshold:.2f})."
        section.add(Table(columns, rows, f"Loci of the smallest p over traits, along the genome.{at}"))
    if run.done("loci multivariate") and len(run.loci("loci multivariate")):
        columns, rows = _locus_table(run.loci("loci multivariate"), panel=False)
        section.add(Table(columns, rows, folded=f"{plural(len(rows), 'locus', 'loci')} of the joint test"))
    return section


def _locus_table(table: pd.DataFrame, panel: bool) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    columns = ("locus", ">chr", ">start", ">end", ">kb", "lead SNP", ">-log10 p", "trait", ">SNPs", ">leads")
    rows = [
        (
            str(row.locus), str(row.chrom), count(int(row.start)), count(int(row.end)),
            fixed((row.end - row.start) / 1000, 0), str(row.lead_snp), fixed(row.log10p, 2), str(row.trait),
            count(int(row.n_snps)), count(int(row.n_lead)), *((naming.near(row),) if panel else ()),
        )
        for row in table.itertuples()
    ]  # fmt: skip
    return (*columns, "known locus (panel)") if panel else columns, rows


def _panel(section: Section, summary: dict) -> None:
    share = summary.get("our_share")
    section.tiles.append(Tile(count(summary.get("n_hits")), "loci known to the panel"))
    if share is None:
        return
    words = [f"{share:.0%} of the loci hit the panel of {count(summary.get('n_panel'))} known ones."]
    if summary.get("matched_share") is not None:
        words.append(
            f"Of loci that look like these ({_matched(summary['matched_on'])}) {summary['matched_share']:.0%} would "
            f"(p = {number(summary['matched_p'], 2)})."
        )
    if summary.get("rotation_share") is not None:
        words.append(
            f"Of random places {summary['rotation_share']:.0%} would (p = {number(summary['rotation_p'], 2)}; loci of "
            "any trait do better than random places, as panels too lie near genes)."
        )
    words.append(
        f"The panel is dense, so a hit alone means little. {number(100 * summary['recall'])} % of the panel is found "
        "here."
    )
    section.add(" ".join(words))


def _matched(features: dict) -> str:
    """What chance loci were matched on, in words."""
    words = {"maf": "as common", "partners": "as many SNPs in LD with the lead", "genes": "as many genes near"}
    return ", ".join(words[name] for name in features)
