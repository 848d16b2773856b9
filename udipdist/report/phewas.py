"""The section about diagnoses that the latents tell."""

from __future__ import annotations

from udipdist.report.collect import RunFolder
from udipdist.report.interpretation import add_pictures, table_of
from udipdist.report.section import Album, Section, Table, Tile, count, fixed

_STAGE = "phewas"


def phewas(run: RunFolder, album: Album) -> Section | None:
    """QQ plots, what each table of latents finds, and the tables behind them."""
    section = Section("phewas", "Diagnoses that the latents tell")
    made = run.interpretations[_STAGE]
    if made.manifest is None:
        if made.state != "unfinished":
            return None
        section.missing = made.why_absent
        return section
    facts, tables = made.facts, run.tables_of(_STAGE)
    section.lead = (
        "For every phecode a direction of the latents is found in one half of the people, and tested in the other; "
        "then the halves are exchanged. Covariates are taken out on both sides."
    )
    section.tiles += [Tile(count(facts["people"]), "people"), Tile(count(facts["phecodes"]), "phecodes")]
    if facts["skipped"]:
        section.tiles.append(Tile(count(facts["skipped"]), "phecodes skipped"))
    add_pictures(section, _STAGE, made, album)
    rows = [
        (
            str(row["latents"]), count(row["phecodes"]), count(row["bonferroni"]), count(row["fdr"]),
            fixed(row["lambda"]), fixed(row["lambda_shuffled"]),
        )
        for row in facts["tables"]
    ]  # fmt: skip
    columns = ("latents", ">phecodes", ">Bonferroni", ">FDR 0.05", ">lambda", ">lambda, people shuffled")
    section.add(Table(columns, rows, "Phecodes that each table of latents tells. Lambda counts true effects too."))
    for file in tables:
        section.add(table_of(file, tables[file], made.path))
    return section
