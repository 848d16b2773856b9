"""What `probe` writes: a row a target and table, the tables against each other, what was skipped, and the picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hpc.files import publish
from udipdist.analysis.probes.job import ProbeJob

PROBES, COMPARISONS, SKIPPED, PICTURE = "probes.tsv", "comparisons.tsv", "skipped.tsv", "probes"
_DOTS_PER_INCH = 200


def write(
    out: Path, job: ProbeJob, found: Sequence[dict[str, Any]], skipped: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Publish the files in `out`, rows in the order of the targets. Returns facts for the manifest."""
    from udipdist.analysis.probes.figures import forest  # matplotlib
    from udipdist.figures.style import save

    order = {target.name: i for i, target in enumerate(job.targets)}
    probes, comparisons = (
        pd.DataFrame(sorted((row for one in found for row in one[key]), key=lambda row: order[row["target"]]))
        for key in ("probes", "comparisons")
    )
    tables = {PROBES: probes, SKIPPED: pd.DataFrame(skipped, columns=["target", "reason"])}
    if len(comparisons):
        tables[COMPARISONS] = comparisons
    for name, table in tables.items():
        with publish(out / name) as partial:
            table.to_csv(partial, sep="\t", index=False, float_format="%.6g", na_rep="NA")
    figure, caption = forest(probes)
    for ending, dpi in ((".png", _DOTS_PER_INCH), (".pdf", 300)):
        with publish(out / f"{PICTURE}{ending}") as partial:
            save(figure, partial, dpi, ending)
    facts: dict[str, Any] = {"targets": len(job.targets), "skipped": len(skipped), "means": means(probes)}
    unfinished = sum(one["unfinished"] for one in found)
    return facts | {"unfinished_fits": unfinished, "captions": {f"{PICTURE}.png": caption}}


def means(probes: pd.DataFrame) -> list[dict[str, Any]]:
    """For each table and metric the mean over targets, and how many differ from a probe that knows nothing at p < 0.05
    over the number of targets."""
    rows = []
    for (latents, metric), part in probes.groupby(["latents", "metric"], sort=False):
        known = int((part["p"] < 0.05 / len(part)).sum())
        row = {"latents": latents, "metric": metric, "targets": len(part), "mean": float(part["value"].mean())}
        if "added_value" in part:
            row["added"] = float(part["added_value"].mean())
        rows.append(row | {"known": known})
    return rows
