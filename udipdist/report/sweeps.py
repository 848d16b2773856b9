"""The page of a sweep: table 1, loci by epoch, how well replicates agree, which trials failed, and the best one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from hpc.sweep import Outcome, outcomes
from udipdist.report.figures import sweeps as figures
from udipdist.report.section import Album, Code, Section, Table, Tile, count, fixed, number, plural

FACTS = "sweep.json"
_TABLES = {
    "table1": ("kind", "configuration", "pass", "loci", "multivariate_loci", "panel_hits", "val_loss", "ssim"),
    "curves": ("trial", "configuration", "epoch", "pass", "loci", "multivariate_loci", "val_loss"),
    "overlap": ("kind", "pass", "configuration_a", "configuration_b", "analysis", "jaccard"),
    "similarity": ("kind", "pass", "configuration_a", "configuration_b", "cka", "cca_r2", "matched_r"),
}
_TEXT = (
    "kind",
    "configuration",
    "pass",
    "trial",
    "analysis",
    "configuration_a",
    "configuration_b",
    "trial_a",
    "trial_b",
)
_WHOLE = (
    "replicates", "loci", "panel_hits", "multivariate_loci", "untrained_loci", "epoch", "loci_union", "loci_in_all",
)  # fmt: skip
_CURE = "run the same sweep command again: it rewrites the tables"
_AFTER = 7  # lines of a failed trial's log that are shown


@dataclass(frozen=True)
class SweepPage:
    """What `udipdist sweep` left: its tables, facts (sweep.json), how each trial ended, and the best one's script."""

    path: Path
    tables: dict[str, pd.DataFrame]
    facts: dict[str, Any]
    outcomes: list[Outcome]
    best: str

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read all. Raises InputError for what is not there or cannot be read."""
        facts = _read_facts(path / FACTS)
        tables = {name: _table(path / f"{name}.tsv", columns) for name, columns in _TABLES.items()}
        best = path / "best.sh"
        script = best.read_text(encoding="utf-8") if best.exists() else ""
        return cls(path, tables, facts, outcomes(path, "loci", "max"), script)

    def inputs(self) -> dict[str, Path]:
        """The files that the page is made of."""
        names = [FACTS, *(f"{name}.tsv" for name in self.tables), *(["best.sh"] if self.best else [])]
        return {name: self.path / name for name in names}

    def rows(self, kind: str, of: str) -> pd.DataFrame:
        """Rows of table 1 of a kind (configuration, untrained, consensus) and pass."""
        table = self.tables["table1"]
        return table[(table["kind"] == kind) & (table["pass"] == of)]

    @property
    def shown(self) -> str:
        """The pass that the figures show: the one with the most looks, as curves need all epochs."""
        passes = self.tables["curves"]["pass"]
        return str(passes.value_counts().idxmax()) if len(passes) else "full"

    def about(self) -> str:
        """Which pass the figures are of, where there are two."""
        names = {"full": "all variants", "screening": "the thinned variants of the screening"}
        return f" Of {names[self.shown]}." if len(self.facts["passes"]) > 1 else ""


def is_sweep(path: Path) -> bool:
    """True for a folder that holds what `udipdist sweep` writes."""
    return (path / FACTS).exists()


def reached(sweep: SweepPage, album: Album) -> Section:
    """Table 1, and its picture."""
    section = Section("table1", "Loci by configuration")
    if not len(sweep.tables["curves"]):
        section.missing = "No trial has come to its first look yet."
        return section
    section.lead = (
        "Each configuration is trained from several seeds and scored after several epochs. What counts is how many "
        "genomic loci its latents discover. The best number grows with the number of looks. So compare the "
        "differences between rows with the spread of the replicates, and both with the untrained network, the floor."
    )
    rows = sweep.rows("configuration", sweep.shown)
    drawn = rows.dropna(subset=["loci"]).iloc[: figures.MOST]
    curves = sweep.tables["curves"]
    curves = curves[curves["pass"] == sweep.shown]
    untrained = sweep.rows("untrained", sweep.shown)
    floor = {score: untrained[score].max() for score in ("loci", "multivariate_loci")} if len(untrained) else {}
    if len(drawn):
        caption = (
            "For each configuration the look with the most loci; dots: the best of each replicate; dashed line: the "
            f"best untrained network.{sweep.about()}"
        )
        if len(drawn) < len(rows):
            caption += f" The {len(drawn)} best of {len(rows)} configurations."
        section.add(album.add("sweep_loci", figures.reached(drawn, curves, floor), caption, "Loci by configuration"))
    best = sweep.facts["best"]
    if best is not None:
        section.tiles.append(Tile(count(_whole(best["scores"]["loci"])), "loci of the best look"))
    if floor and np.isfinite(floor["loci"]):
        section.tiles.append(Tile(count(_whole(floor["loci"])), "loci of an untrained network"))
    section.tiles.append(
        Tile(count(sweep.facts["trials"]), f"trials of {plural(sweep.facts['configurations'], 'configuration')}")
    )
    for of in dict.fromkeys(sweep.tables["table1"]["pass"]):
        section.add(_table1(sweep, of))
    section.add(
        "Loci, validation loss and SSIM are the best across epochs and replicates. The spread is that of the "
        "replicates' own bests. Epoch and panel: of the look with the most loci. Found by all: loci in the union over "
        "replicates that every one of them has."
    )
    return section


def _table1(sweep: SweepPage, of: str) -> Table:
    table = sweep.tables["table1"]
    keys = list(table.columns[2 : list(table.columns).index("pass")])
    rows = []
    for row in table[table["pass"] == of].to_dict("records"):
        whole = {name: count(_whole(row[name])) for name in _WHOLE}
        again = f"{whole['loci_in_all']} of {whole['loci_union']}" if row["kind"] == "configuration" else "\u2013"
        rows.append(
            (
                row["configuration"], *(_value(row[key]) for key in keys), whole["replicates"],
                fixed(row["val_loss"], 4), fixed(row["ssim"], 3), whole["loci"], _spread(row, "loci"),
                whole["panel_hits"], whole["multivariate_loci"], _spread(row, "multivariate_loci"),
                whole["untrained_loci"], whole["epoch"], again,
            )
        )  # fmt: skip
    columns = (
        "configuration", *keys, ">replicates", ">validation loss", ">SSIM", ">loci", ">mean \u00b1 sd", ">in the panel",
        ">joint test", ">mean \u00b1 sd", ">untrained", ">epoch", ">found by all",
    )  # fmt: skip
    what = {"full": "All variants.", "screening": "Thinned variants (screening)."}[of]
    return Table(columns, rows, f"{what} Sorted by {sweep.facts['objective']}, the best first.")


def by_epoch(sweep: SweepPage, album: Album) -> Section:
    """Loci by epoch."""
    section = Section("epochs", "Loci by epoch")
    curves = sweep.tables["curves"]
    curves = curves[curves["pass"] == sweep.shown]
    if not len(curves):
        section.missing = "No trial has come to its first look yet."
        return section
    section.lead = (
        "How the number of loci follows training. A low validation loss does not mean many loci: once the curves "
        "of the loci are flat while the loss still falls, more training does not pay."
    )
    order = list(dict.fromkeys([*sweep.rows("configuration", sweep.shown)["configuration"], *curves["configuration"]]))
    caption = (
        "Thin lines: trials; thick: the mean of a configuration, at epochs that all its trials reached; the best in "
        f"colour.{sweep.about()}"
    )
    section.add(album.add("sweep_epochs", figures.by_epoch(curves, order), caption, "Loci by epoch"))
    return section


def agreement(sweep: SweepPage, album: Album) -> Section:
    """Do replicates find the same loci, and learn the same latents?"""
    section = Section("agreement", "Do replicates agree?")
    overlap, alike = (t[t["pass"] == sweep.shown] for t in (sweep.tables["overlap"], sweep.tables["similarity"]))
    if not len(overlap):
        section.missing = "Fewer than two trained trials: nothing to compare."
        return section
    section.lead = (
        "Each trial counts with the epoch that the objective chooses, each configuration with its best trial. On the "
        "diagonal are the replicates of one configuration. Jaccard: loci of both over loci of either. Linear CKA and "
        "canonical correlations compare latents whatever their rotation; 1 means equal. The univariate test depends "
        "on the rotation; the joint test does not."
    )
    joint = overlap["analysis"] == "multivariate_loci"
    columns = {"Jaccard of loci": (overlap[~joint], "jaccard"), "Jaccard, joint test": (overlap[joint], "jaccard"),
               "linear CKA of latents": (alike, "cka")}  # fmt: skip
    trained = overlap[overlap["kind"] != "untrained"]
    known = {*trained["configuration_a"], *trained["configuration_b"]}
    order = [name for name in sweep.rows("configuration", sweep.shown)["configuration"] if name in known]
    if order:
        matrices = {title: _matrix(pairs, value, order[: figures.MOST]) for title, (pairs, value) in columns.items()}
        caption = f"Means over pairs; grey: no pair.{sweep.about()}"
        section.add(album.add("sweep_agreement", figures.agreement(matrices), caption, "Agreement of configurations"))
    within = alike[alike["kind"] == "replicates"]
    if len(within):
        section.tiles.append(Tile(fixed(within["cka"].mean(), 2), "CKA of replicates, mean"))
    section.add(_of_replicates(overlap[~joint], overlap[joint], alike))
    return section


def _of_replicates(loci: pd.DataFrame, joint: pd.DataFrame, alike: pd.DataFrame) -> Table:
    loci, joint, alike = (_labelled(table) for table in (loci, joint, alike))
    jaccard = [table.groupby("of")["jaccard"].mean() for table in (loci, joint)]
    rows = []
    for name, pairs in alike.groupby("of", sort=False):
        mean = pairs[["cka", "cka_chance", "cca_r2", "cca_r2_chance", "matched_r"]].mean()
        shared = [fixed(means[name], 2) for means in jaccard]
        rows.append((name, count(len(pairs)), *shared, *(fixed(value, 3) for value in mean)))
    columns = (
        "configuration", ">pairs", ">Jaccard", ">Jaccard, joint", ">CKA", ">by chance", ">canonical r\u00b2",
        ">by chance", ">matched |r|",
    )  # fmt: skip
    caption = (
        "Means over pairs of replicates; last: pairs of untrained networks, which see the same heads. By chance: what "
        "shuffled people would give. Matched |r|: latents of the two paired one to one."
    )
    return Table(columns, rows, caption)


def _labelled(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs of replicates, `of` a configuration, then those of untrained networks."""
    replicates, untrained = (pairs[pairs["kind"] == kind] for kind in ("replicates", "untrained"))
    return pd.concat([replicates.assign(of=replicates["configuration_a"]), untrained.assign(of="untrained networks")])


def _matrix(pairs: pd.DataFrame, value: str, order: list[str]) -> pd.DataFrame:
    """The mean of `value` by both configurations, symmetric; of trained networks."""
    pairs = pairs[pairs["kind"] != "untrained"]
    matrix = pd.DataFrame(np.nan, index=order, columns=order)
    for (a, b), mean in pairs.groupby(["configuration_a", "configuration_b"])[value].mean().items():
        if a in matrix.index and b in matrix.index:
            matrix.loc[a, b] = matrix.loc[b, a] = mean
    return matrix


def trials(sweep: SweepPage, album: Album) -> Section:
    """How each trial ended; the last lines of the logs of those that failed."""
    section = Section("trials", "Trials")
    if not sweep.outcomes:
        section.missing = "There are no trials."
        return section
    failed = [one for one in sweep.outcomes if one.state == "failed"]
    section.lead = "How each trial ended. A trial that fails does not end the sweep; the same command tries it again."
    for one in failed:
        section.add(f"{one.trial.name} failed: {one.error} Its log is {one.log}.")
        if one.log.exists():
            lines = one.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_AFTER:]
            section.add(Code("\n".join(lines), folded=f"end of the log of {one.trial.name}"))
    rows = [
        (one.trial.name, one.trial.configuration, str(one.trial.seed), one.state,
         ", ".join(f"{key}={value}" for key, value in one.trial.values.items()))
        for one in sweep.outcomes
    ]  # fmt: skip
    section.add(Table(("trial", "configuration", ">seed", "state", "values"), rows, folded=plural(len(rows), "trial")))
    return section


def best(sweep: SweepPage, album: Album) -> Section:
    """The best trial, and the commands that repeat it outside the sweep."""
    section = Section("best", "The best trial")
    first = sweep.facts["best"]
    if first is None:
        section.missing = "No trial has a score yet."
        return section
    scores = ", ".join(f"{name} {number(value, 4)}" for name, value in first["scores"].items())
    section.lead = (
        f"{first['trial']} at epoch {first['epoch']}: {scores}. Its objective, {sweep.facts['objective']}, is "
        f"{number(first['value'], 4)}."
    )
    section.add("best.sh in the sweep's folder repeats it without the sweep:")
    section.add(Code(sweep.best))
    return section


SECTIONS: tuple[Callable[[SweepPage, Album], Section], ...] = (reached, by_epoch, agreement, trials, best)


def _table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    text = dict.fromkeys((name for name in columns if name in _TEXT), str)
    try:
        table = pd.read_csv(path, sep="\t", na_values=["NA"], keep_default_na=False, dtype=text)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {_CURE}") from None
    lacks = [name for name in columns if name not in table]
    if lacks:
        raise InputError(f"{path}: lacks the columns {some(lacks)}; {_CURE}")
    wrong = [name for name in columns if name not in _TEXT and table[name].dtype.kind not in "fi" and len(table)]
    if wrong:
        raise InputError(f"{path}: {wrong[0]} has a value that is not a number; {_CURE}")
    return table


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        facts["objective"], facts["trials"], facts["configurations"], facts["passes"], facts["best"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: does not describe a sweep ({error!r}); {_CURE}") from None
    return facts


def _whole(value: Any) -> int | None:
    return None if value is None or pd.isna(value) else int(value)


def _value(value: Any) -> str:
    return "\u2013" if pd.isna(value) or value == "NA" else f"{value:g}" if isinstance(value, float) else str(value)


def _spread(row: dict[str, Any], name: str) -> str:
    if pd.isna(row[f"{name}_sd"]):
        return "\u2013"
    return f"{fixed(row[f'{name}_mean'], 1)} \u00b1 {fixed(row[f'{name}_sd'], 1)}"
