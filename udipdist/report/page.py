"""The verb `report`: read a run folder, draw the figures, write one HTML page that needs nothing else."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import jinja2

import hpc
from hpc.errors import ConfigError
from hpc.files import publish, publish_text, refuse_existing
from hpc.progress import Progress
from hpc.stage import stage
from udipdist.config import ReportConfig
from udipdist.report import (
    clusters,
    cost,
    genetics,
    imaging,
    interpretation,
    networks,
    phewas,
    probes,
    regions,
    scans,
    sweeps,
    truth,
)
from udipdist.report.collect import RunFolder
from udipdist.report.section import Album, Bar, Code, Heading, Picture, Section, Table

log = logging.getLogger(__name__)
TEMPLATE = "page.html.j2"
SECTIONS = (
    imaging.cohort,
    scans.quality,
    imaging.training,
    imaging.reconstruction,
    genetics.manhattans,
    genetics.loci,
    regions.regions,
    genetics.calibration,
    truth.comparison,
    truth.confounding,
    truth.recall,
    networks.networks,
    probes.probes,
    phewas.phewas,
    clusters.clusters,
    interpretation.interpretation,
    cost.cost,
    cost.provenance,
)


def report(config: ReportConfig) -> None:
    """Write the page `out` and the folder of its figures, of a run or of a sweep.

    Raises InputError for a stage that is there but broken.
    """
    figures = figures_folder(config.out)
    run: RunFolder | sweeps.SweepPage
    if sweeps.is_sweep(config.run):
        run = sweeps.SweepPage.open(config.run)
        made_of, inputs = sweeps.SECTIONS, run.inputs()
    else:
        run = RunFolder.open(config.run)
        made_of, inputs = SECTIONS, _inputs(run)
    with stage("report", config.out, config, inputs, config.overwrite) as current:
        refuse_existing(figures, config.overwrite)
        current.beside.append(figures)
        with publish(figures) as partial:
            partial.mkdir()
            album = Album(partial)
            sections = []
            with Progress("report", len(made_of), "sections") as progress:
                for make in made_of:
                    section = make(run, album)
                    if section is not None:
                        sections.append(section)
                    progress.advance()
            publish_text(config.out, render(config.title or study(run.path), run.path, sections))
        current.note(figures=album.names, missing=[section.id for section in sections if section.missing])
    log.info("page: %s; its figures as PNG and PDF: %s", config.out, figures)


def preview(config: ReportConfig) -> list[str]:
    """Which stages the page would show, and where it goes."""
    if sweeps.is_sweep(config.run):
        return [f"a sweep: {config.run}", f"writes {config.out} and {figures_folder(config.out)}"]
    run = RunFolder.open(config.run)
    lines = [f"{name:18s} {made.state:12s} {made.path}" for name, made in run.stages.items()]
    truth_known = "known" if run.comparison is not None else "not known"
    return [*lines, f"planted loci: {truth_known}", f"writes {config.out} and {figures_folder(config.out)}"]


def study(run: Path) -> str:
    """What a page is called if the user has said nothing: the run's folder, or the one around a folder `run`."""
    path = run.resolve()
    return path.parent.name if path.name == "run" and path.parent.name else path.name


def _inputs(run: RunFolder) -> dict[str, Path]:
    inputs = {name: made.path for name, made in run.finished.items()}
    return inputs if run.comparison is None else inputs | {"comparison": run.path / "comparison.json"}


def figures_folder(out: Path) -> Path:
    """The folder of the figures, beside the page. Raises ConfigError where the page is not named NAME.html."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"out={out}: a page is named NAME.html")
    return out.with_name(out.stem + "_figures")


def render(title: str, run: Path, sections: list[Section]) -> str:
    """The page as text; every name in it is escaped, and a content security policy forbids it to load anything."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests |= {
        "picture": lambda part: isinstance(part, Picture),
        "table": lambda part: isinstance(part, Table),
        "heading": lambda part: isinstance(part, Heading),
        "code": lambda part: isinstance(part, Code),
        "bar": lambda cell: isinstance(cell, Bar),
    }
    return environment.get_template(TEMPLATE).render(
        title=title,
        run=str(run),
        sections=sections,
        tiles=[tile for section in sections for tile in section.tiles],
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        version=hpc.__version__,
    )
