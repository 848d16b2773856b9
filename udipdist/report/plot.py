"""The verb `plot`: one figure of any summary statistics, as PNG, PDF, SVG, or a page with tooltips."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from hpc.errors import ConfigError, InputError, some
from hpc.files import publish, publish_text, refuse_existing
from hpc.stage import read_manifest, stage
from udipdist.config import PlotConfig
from udipdist.config.analyses import ALL, MINP
from udipdist.figures.style import Chart, save
from udipdist.genome import assemblies
from udipdist.genotypes.source import find_sets
from udipdist.loci import genes
from udipdist.report import page
from udipdist.report.analysis import Analysis, Linkage
from udipdist.report.calibration import calibrate, exact_curve, lambda_of
from udipdist.report.collect import read_hits, read_loci, with_hits
from udipdist.report.figures import heatmap, qq, regional
from udipdist.report.figures.manhattan import Scan, manhattan, miami
from udipdist.report.section import Album, Section, png
from udipdist.sumstats.analyses import StoreStatistics
from udipdist.sumstats.opening import open_statistics
from udipdist.sumstats.pvalues import p_text

log = logging.getLogger(__name__)
FORMS = (".png", ".pdf", ".svg", ".html")
MM_OF_INCH = 25.4
_REGION = re.compile(r"(?:chr)?([0-9a-z]+):([\d,]+)-([\d,]+)", re.IGNORECASE)


def plot(config: PlotConfig) -> None:
    """Draw and write the figure `out`, and `also` its other forms beside it. Raises InputError."""
    files = forms(config)
    with stage("plot", config.out, config, _inputs(config), config.overwrite) as current:
        for path in files[1:]:
            refuse_existing(path, config.overwrite)
        figure, caption = DRAW[config.kind](config)
        for path in files:
            _write(path, figure, caption, config)
        current.note(kind=config.kind, files=[path.name for path in files], spots=len(figure.spots))
    log.info("%s", caption)


def preview(config: PlotConfig) -> list[str]:
    """What would be read and written."""
    read = [f"reads {key}: {path}" for key, path in _inputs(config).items()]
    return [*read, f"writes {', '.join(map(str, forms(config)))}"]


def forms(config: PlotConfig) -> list[Path]:
    """The files to write, `out` first. Raises ConfigError for an ending that is none of FORMS."""
    if config.out.suffix.lower() not in FORMS:
        raise ConfigError(f"out={config.out}: must end in one of {', '.join(FORMS)}, as in NAME.png")
    return list(dict.fromkeys([config.out, *(config.out.with_suffix(f".{form}") for form in config.also)]))


def _write(path: Path, figure: Chart, caption: str, config: PlotConfig) -> None:
    form = path.suffix.lower()
    if form == ".html":
        with tempfile.TemporaryDirectory() as folder:
            section = Section("figure", config.kind.capitalize(), lead="Point at a mark, or tap it, for details.")
            section.add(Album(Path(folder)).add(config.kind, figure, caption, f"{config.kind} plot"))
        publish_text(path, page.render(config.out.stem, config.sumstats, [section]))
        return
    with publish(path) as partial:
        if form == ".png":
            partial.write_bytes(png(figure, config.dpi)[0])
        else:
            save(figure, partial, config.dpi, form)


def _manhattan(config: PlotConfig) -> tuple[Chart, str]:
    scan, words = _scan(config, config.sumstats, config.trait or MINP, config.loci, config.panel)
    return manhattan(scan, **_width(config)), f"Manhattan plot of {words}."


def _miami(config: PlotConfig) -> tuple[Chart, str]:
    above, words = _scan(config, config.sumstats, config.trait or MINP, config.loci, config.panel)
    below, others = _scan(config, config.below or config.sumstats, config.below_trait, config.below_loci, None)
    caption = f"Upwards {words}; downwards {others}."
    names = config.names or (config.trait or MINP, config.below_trait)
    if config.names is None and config.below is not None:
        names = (f"{config.sumstats.name}, {names[0]}", f"{config.below.name}, {names[1]}")
    return miami(above, below, names, **_width(config)), caption


def _scan(config: PlotConfig, sumstats: Path, trait: str, loci: Path | None, panel: Path | None) -> tuple[Scan, str]:
    """A scan, and in words what it is of."""
    analysis = Analysis.open(sumstats, trait)
    threshold = _threshold(config, analysis, loci)
    table = None if loci is None else _loci(loci, panel)
    words = f"{analysis.name} of {sumstats}, p < {p_text([threshold])[0]}"
    return analysis.scan(threshold, table), words + ("" if table is None else f", {len(table)} loci")


def _qq(config: PlotConfig) -> tuple[Chart, str]:
    statistics = open_statistics(config.sumstats)
    band = "the band has 95 % of the points if tests are independent and there is only noise"
    trait = config.trait or ALL
    if trait == ALL and isinstance(statistics, StoreStatistics):
        result = calibrate(statistics.sumstats)
        figure = qq.qq_traits(statistics.traits, result.traits, result.lambda_P, **_width(config))
        return figure, f"QQ curve and lambda of each trait of {config.sumstats}; {band}."
    analysis = Analysis.of(statistics, trait)
    curve, value = exact_curve(analysis.log10p_M), lambda_of(analysis.log10p_M)
    if statistics.n_tests(analysis.name) > 1:
        raise InputError(
            f"trait={trait}: the smallest of {statistics.n_tests(analysis.name)} p-values is not the p of a single "
            f"test, so not on the diagonal; give trait=all, multivariate, or a trait ({some(statistics.traits)})"
        )
    return qq.qq_one(analysis.name, curve, value, **_width(config)), f"QQ curve of {analysis.name}; {band}."


def _regional(config: PlotConfig) -> tuple[Chart, str]:
    analysis = Analysis.open(config.sumstats, config.trait or MINP)
    threshold = _threshold(config, analysis, config.loci)
    linkage = None if config.genotypes is None else Linkage(config.genotypes)
    table = None
    if config.genes is not None:
        table = genes.read(config.genes, config.assembly, list(config.gene_types)).table
    if config.region is not None:
        code, start, end = _place(config.region)
        region = analysis.stretch(code, start, end, threshold, linkage, table)
    else:
        loci = _loci(config.loci, config.panel)
        chosen = loci[loci["locus"] == config.locus]
        if chosen.empty:
            raise InputError(f"locus={config.locus}: {config.loci} has the loci {some(loci['locus'], 20)}; give one")
        row = next(chosen.itertuples())
        region = analysis.region(row, threshold, linkage, table, config.flank_bp)
    known = int(region.variants["r2"].notna().sum())
    caption = f"{region.name}: {len(region.variants):,} variants of {analysis.name}, r2 to the lead of {known:,} known."
    return regional.regional(region, **_width(config)), caption


def _heatmap(config: PlotConfig) -> tuple[Chart, str]:
    analysis = Analysis.open(config.sumstats, config.trait or MINP)
    if len(analysis.statistics.traits) < 2:
        raise InputError(f"sumstats={config.sumstats}: has one trait; loci by traits need the folder that gwas wrote")
    loci = _loci(config.loci, config.panel)
    if loci.empty:
        raise InputError(f"loci={config.loci}: has no loci, so there is nothing to draw")
    strengths = analysis.strengths(loci, _threshold(config, analysis, config.loci))
    caption = (
        f"Smallest p of each of {len(strengths.traits)} traits in each of {len(loci)} loci, as -log10 p, capped at "
        f"{config.cap:g}. Dots: beyond the threshold."
    )
    return heatmap.heatmap(strengths, config.cap, **_width(config)), caption


DRAW: dict[str, Callable[[PlotConfig], tuple[Chart, str]]] = {
    "manhattan": _manhattan,
    "miami": _miami,
    "qq": _qq,
    "regional": _regional,
    "heatmap": _heatmap,
}


def _width(config: PlotConfig) -> dict[str, float]:
    return {} if config.width_mm is None else {"width": config.width_mm / MM_OF_INCH}


def _threshold(config: PlotConfig, analysis: Analysis, loci: Path | None) -> float:
    """That of the loci where their folder tells it, otherwise p over the number of traits."""
    told = (read_manifest(loci) or {}).get("facts", {}).get("threshold_log10p") if loci is not None else None
    return float(told) if isinstance(told, int | float) else analysis.threshold(config.p)


def _loci(folder: Path, panel: Path | None) -> pd.DataFrame:
    table = read_loci(folder)
    if panel is None:
        return table
    hits = read_hits(panel)
    if not set(table["locus"]) <= set(hits["locus"]):
        raise InputError(
            f"panel={panel}: has {len(hits)} loci, loci={folder} has {len(table)}; give the panel of these loci"
        )
    return with_hits(table, hits)


def _place(region: str) -> tuple[int, int, int]:
    found = _REGION.fullmatch(region.strip())
    code = assemblies.code(found[1]) if found else assemblies.UNPLACED
    if code == assemblies.UNPLACED:
        raise ConfigError(f"region={region}: is not of the form chr:start-end; write 17:43900000-44900000")
    start, end = (int(text.replace(",", "")) for text in found.groups()[1:])
    if start >= end:
        raise ConfigError(f"region={region}: ends before it starts; write the smaller position first")
    return code, start, end


def _inputs(config: PlotConfig) -> dict[str, Path]:
    """What is read, by key."""
    keys = ("sumstats", "loci", "panel", "below", "below_loci")
    inputs = {key: path for key in keys if (path := getattr(config, key)) is not None}
    if config.genes not in (None, genes.ENSEMBL):
        inputs["genes"] = Path(config.genes)
    if config.genotypes is not None:
        sets = find_sets(config.genotypes)
        inputs |= {f"genotypes: {path.name}": path for one in sets for path in one.calls.values()}
    for key, path in inputs.items():
        if not path.exists():
            raise InputError(f"{key}={path}: does not exist; give the path of an existing file or folder")
    return inputs
