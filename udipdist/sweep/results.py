"""What comes out of a sweep: its tables, the command that repeats its best trial, and the page that shows them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hpc.files import publish, publish_json, publish_text
from udipdist.config import ReportConfig
from udipdist.sweep import agreement, best, table
from udipdist.sweep.folder import Look, SweepFolder

log = logging.getLogger(__name__)


def write(out: str | Path) -> str:
    """Write the tables of `write_tables` and the page report.html; returns table 1 as Markdown. Raises InputError."""
    from udipdist.report import page  # with matplotlib a second to import

    text = write_tables(out)
    page.report(ReportConfig(run=out, out=Path(out) / "report.html", overwrite=True))
    return text


def write_tables(out: str | Path) -> str:
    """Write table1.tsv and .md, curves.tsv, overlap.tsv, similarity.tsv, sweep.json and, where a look has a score,
    best.sh into the folder of a sweep, over those that stand there; returns table 1 as Markdown.

    Whatever is finished counts; trials that failed are named. Raises InputError for files that cannot be read.
    """
    sweep = SweepFolder.open(out)
    rows = table.table1(sweep)
    tables = {
        "table1": rows,
        "curves": table.curves(sweep),
        "overlap": agreement.overlaps(sweep),
        "similarity": agreement.similarities(sweep),
    }
    for name, made in tables.items():
        with publish(sweep.path / f"{name}.tsv") as partial:
            made.to_csv(partial, sep="\t", index=False, na_rep="NA", float_format="%.6g")
    text = table.markdown(rows, sweep.objective.name)
    publish_text(sweep.path / "table1.md", text)
    first = best.look(sweep)
    if first is not None:
        best.write(sweep, first)
    publish_json(sweep.path / "sweep.json", _facts(sweep, first))
    for trial in sweep.failed:
        log.warning("trial %s failed; its log is %s", trial.name, trial.folder / "log.txt")
    return text


def _facts(sweep: SweepFolder, first: Look | None) -> dict[str, Any]:
    return {
        "objective": sweep.objective.name,
        "trials": len(sweep.trials),
        "configurations": len({trial.configuration for trial in sweep.trials}),
        "looks": len(sweep.looks),
        "passes": sweep.passes(),
        "failed": [trial.name for trial in sweep.failed],
        "compared": agreement.MOST,
        "best": None if first is None else {
            "trial": first.trial.name, "configuration": first.trial.configuration, "values": first.trial.values,
            "seed": first.trial.seed, "epoch": first.epoch, "pass": first.of,
            "value": sweep.objective.value(first.scores), "scores": first.scores,
        },
    }  # fmt: skip
