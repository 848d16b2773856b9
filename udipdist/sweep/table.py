"""Table 1 of a sweep: what each configuration reached, across epochs and replicates, and how far that varies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from udipdist.sweep.agreement import found_by
from udipdist.sweep.folder import SCORES, Look, SweepFolder, read_json
from udipdist.sweep.objective import LESS_IS_BETTER

SPREAD = ("loci", "multivariate_loci", "val_loss", "ssim")
COLUMNS = (
    "kind", "configuration", "pass", "replicates", "failed", "looks", "trial", "epoch", "loci", "loci_mean", "loci_sd",
    "loci_min", "loci_max", "panel_hits", "multivariate_loci", "multivariate_loci_mean", "multivariate_loci_sd",
    "multivariate_loci_min", "multivariate_loci_max", "val_loss", "val_loss_mean", "val_loss_sd", "val_loss_min",
    "val_loss_max", "ssim", "ssim_mean", "ssim_sd", "ssim_min", "ssim_max", "loci_union", "loci_in_all",
    "untrained_loci", "untrained_multivariate_loci",
)  # fmt: skip
TEXT = ("kind", "configuration", "pass", "trial")
CURVES = ("trial", "configuration", "seed", "epoch", "step", "pass", "variants", *SCORES)


def curves(sweep: SweepFolder) -> pd.DataFrame:
    """CURVES: a row a look."""
    rows = [
        (
            look.trial.name, look.trial.configuration, look.trial.seed, look.epoch, look.step, look.of, look.variants,
            *(look.scores[name] for name in SCORES),
        )
        for look in sweep.looks
    ]  # fmt: skip
    types = {"seed": "int64", "epoch": "int64", "step": "int64", "variants": "int64"}
    return pd.DataFrame(rows, columns=list(CURVES)).astype(types | dict.fromkeys(SCORES, "float64"))


def table1(sweep: SweepFolder) -> pd.DataFrame:
    """COLUMNS, with a column for each key that differs between configurations after `configuration`.

    A row (`kind` configuration) for each configuration and pass, the best by the objective first; then the consensus
    phenotypes, and the untrained networks, which are the floor. `loci`, `multivariate_loci`, `val_loss` and `ssim` are
    the best across epochs and replicates; _mean, _sd, _min and _max are over the replicates' own bests (sd with n - 1;
    NaN for one). `panel_hits`, `epoch` and `trial` are of the look with the most loci. `loci_union` counts unions of
    the loci of all replicates, each at the epoch that the objective chooses, `loci_in_all` those that each of them has.
    Raises InputError.
    """
    rows = []
    keys = varying(sweep)
    for of in sweep.passes() or ["full"]:
        rows += [_configuration(sweep, name, of, keys) for name in _ranked(sweep, of)]
        rows += _consensus(sweep, of)
        floor = sweep.untrained(of)
        if floor:
            rows.append({"kind": "untrained", "configuration": "untrained", "pass": of} | _best(floor))
    split = COLUMNS.index("configuration") + 1
    table = pd.DataFrame(rows, columns=[*COLUMNS[:split], *keys, *COLUMNS[split:]], dtype=object)
    return table.astype({name: "float64" for name in COLUMNS if name not in TEXT})


def varying(sweep: SweepFolder) -> list[str]:
    """Dotted keys in which trials differ."""
    keys = dict.fromkeys(key for trial in sweep.trials for key in trial.values)
    return [key for key in keys if len({repr(trial.values.get(key)) for trial in sweep.trials}) > 1]


def markdown(table: pd.DataFrame, objective: str) -> str:
    """The table for reading."""
    keys = [name for name in table if name not in COLUMNS]
    head = [
        "configuration", *keys, "replicates", "validation loss", "SSIM", "loci", "mean \u00b1 sd (range)", "epoch",
        "in the panel", "joint-test loci", "untrained",
    ]  # fmt: skip
    passes = table["pass"].unique()
    lines = [f"# Loci by configuration\n\nSorted by {objective}, the best first.\n"]
    for of in passes:
        if len(passes) > 1:
            name = "all variants, finalists" if of == "full" else "thinned variants (screening)"
            lines.append(f"\n## {name[0].upper()}{name[1:]}\n")
        lines.append("| " + " | ".join(head) + " |")
        lines.append("|---" * len(head) + "|")
        rows = table[table["pass"] == of].to_dict("records")
        lines += ["| " + " | ".join(_escape(cell) for cell in _cells(row, keys)) + " |" for row in rows]
    lines.append(
        "\nLoci, validation loss and SSIM: the best across epochs and replicates; mean, standard deviation and range: "
        "of the replicates' own bests. In the panel, epoch: of the look with the most loci. Untrained: loci of the "
        "same network before training; its row is the floor.\n"
    )
    return "\n".join(lines)


def text(value: Any, decimals: int) -> str:
    """A number, or a dash for what is not known."""
    return "\u2013" if value is None or pd.isna(value) else f"{value:,.{decimals}f}"


def spread(row: dict[str, Any], name: str, decimals: int) -> str:
    """'31.5 +- 2.1 (30-33)' of the replicates; a dash for a single one."""
    if pd.isna(row[f"{name}_sd"]):
        return "\u2013"
    low, high = (text(row[f"{name}_{end}"], 0 if decimals < 2 else decimals) for end in ("min", "max"))
    return f"{text(row[f'{name}_mean'], decimals)} \u00b1 {text(row[f'{name}_sd'], decimals)} ({low}\u2013{high})"


def _cells(row: dict[str, Any], keys: list[str]) -> list[str]:
    return [
        str(row["configuration"]), *("\u2013" if pd.isna(row[key]) else str(row[key]) for key in keys),
        text(row["replicates"], 0), text(row["val_loss"], 4), text(row["ssim"], 3), text(row["loci"], 0),
        spread(row, "loci", 1), text(row["epoch"], 0), text(row["panel_hits"], 0), text(row["multivariate_loci"], 0),
        text(row["untrained_loci"], 0),
    ]  # fmt: skip


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def _ranked(sweep: SweepFolder, of: str) -> list[str]:
    """Configurations of which this pass has looks, the best first; then those that have none in any pass."""
    looks = sweep.trained(of)
    names = [look.trial.configuration for look in sweep.leading(looks) + looks]
    seen = {look.trial.configuration for look in sweep.trained()}
    names += [trial.configuration for trial in sweep.trials if trial.configuration not in seen]
    return list(dict.fromkeys(names))


def _configuration(sweep: SweepFolder, name: str, of: str, keys: list[str]) -> dict[str, Any]:
    values = next(trial.values for trial in sweep.trials if trial.configuration == name)
    looks = [look for look in sweep.trained(of) if look.trial.configuration == name]
    floor = [look for look in sweep.looks if look.trial.configuration == name and look.epoch == 0 and look.of == of]
    chosen = [look for look in sweep.chosen(of) if look.trial.configuration == name]
    times = found_by(chosen)
    return {
        "kind": "configuration", "configuration": name, "pass": of,
        "failed": sum(trial.configuration == name for trial in sweep.failed),
        "loci_union": len(times), "loci_in_all": int(np.sum(times == len(chosen))),
        "untrained_loci": _top(floor, "loci"), "untrained_multivariate_loci": _top(floor, "multivariate_loci"),
    } | {key: values.get(key) for key in keys} | _best(looks)  # fmt: skip


def _best(looks: Sequence[Look]) -> dict[str, Any]:
    """What looks of several trials reached, and how far the trials vary."""
    trials = sorted({look.trial.name for look in looks})
    row: dict[str, Any] = {"replicates": len(trials), "looks": len(looks)}
    for name in SPREAD:
        own = [_top([look for look in looks if look.trial.name == trial], name) for trial in trials]
        own = np.array([value for value in own if value is not None], np.float64)
        row[name] = _top(looks, name)
        if len(own):
            sd = own.std(ddof=1) if len(own) > 1 else np.nan
            row |= {f"{name}_mean": own.mean(), f"{name}_sd": sd, f"{name}_min": own.min(), f"{name}_max": own.max()}
    found = [look for look in looks if look.scores["loci"] is not None]
    if found:
        top = max(found, key=lambda look: (look.scores["loci"], look.scores["multivariate_loci"] or 0, -look.epoch))
        row |= {"trial": top.trial.name, "epoch": top.epoch, "panel_hits": top.scores["panel_hits"]}
    return row


def _top(looks: Iterable[Look], name: str) -> float | None:
    values = [look.scores[name] for look in looks if look.scores[name] is not None]
    return (min if name in LESS_IS_BETTER else max)(values, default=None)


def _consensus(sweep: SweepFolder, of: str) -> list[dict[str, Any]]:
    """A row for each consensus that has been tested."""
    rows, names = [], ("loci", "multivariate_loci", "panel_hits")
    for file in sorted(sweep.path.glob("consensus/*/scores.json")):
        scores = read_json(file, ("screening", *names))
        if ("screening" if scores["screening"] else "full") == of:
            name = f"{file.parent.name} (consensus)"
            row = {"kind": "consensus", "configuration": name, "pass": of, "looks": 1}
            rows.append(row | {key: scores[key] for key in names})
    return rows
