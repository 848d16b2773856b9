"""The section about what can be read from the latents."""

from __future__ import annotations

from udipdist.report.collect import RunFolder
from udipdist.report.interpretation import add_pictures, table_of
from udipdist.report.section import Album, Section, Table, Tile, count, fixed

_STAGE = "probe"
_WORDS = {"R2": ("R\u00b2", "measurements"), "AUC": ("AUC", "yes or no")}


def probes(run: RunFolder, album: Album) -> Section | None:
    """Each target with its interval, the means of each table of latents, and the tables behind them."""
    section = Section("probes", "What can be read from the latents")
    made = run.interpretations[_STAGE]
    if made.manifest is None:
        if made.state != "unfinished":
            return None
        section.missing = made.why_absent
        return section
    facts, tables = made.facts, run.tables_of(_STAGE)
    section.lead = (
        "A linear model reads each target from the latents, for people whom it has not seen, nor their relatives. "
        "R\u00b2 is the share of variance that it predicts (0: nothing), AUC the chance that a case ranks above a "
        "control (0.5: nothing)."
    )
    section.tiles += [Tile(count(facts["people"]), "people"), Tile(count(facts["targets"]), "targets")]
    if facts["skipped"]:
        section.tiles.append(Tile(count(facts["skipped"]), "targets skipped"))
    add_pictures(section, _STAGE, made, album)
    rows = [
        (
            str(row["latents"]), _WORDS[row["metric"]][1], count(row["targets"]), count(row["known"]),
            fixed(row["mean"]), fixed(row.get("added")),
        )
        for row in facts["means"]
    ]  # fmt: skip
    caption = (
        "Known: p below 0.05 over the number of targets. Added: mean of what latents with covariates predict beyond "
        "covariates alone."
    )
    columns = ("latents", "targets", ">number", ">known", ">mean R\u00b2 or AUC", ">added")
    section.add(Table(columns, rows, caption))
    for file in tables:
        section.add(table_of(file, tables[file], made.path))
    return section
