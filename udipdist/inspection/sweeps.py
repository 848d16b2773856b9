"""Folders of a sweep: the sweep itself, its trials, the latents that were tested, the passes over the genotypes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hpc.errors import ConfigError, InputError
from hpc.sweep import Outcome, parse_space, plan_trials
from hpc.sweep.trials import outcome_of
from udipdist.config import SweepConfig
from udipdist.inspection import outputs, records, training
from udipdist.inspection.finding import COMPLETE, DAMAGED, UNFINISHED, Finding

TABLES = ("table1.tsv", "table1.md", "curves.tsv", "overlap.tsv", "similarity.tsv", "sweep.json", "config.yaml")
FOUND = ("loci", "loci_multivariate", "panel")
_SCORES, _TRIAL, _REQUESTS, _DONE = "scores.json", "trial.json", "requests.json", "done.json"


def folder(path: Path, contents: bool) -> Finding | None:
    """A sweep or a folder of one; None where `path` is none."""
    if (path / _TRIAL).is_file():
        return _trial(path, contents)
    if (path / _SCORES).is_file() or (path.parent.name == "epochs" and (path.parents[1] / _TRIAL).is_file()):
        return _look(path, contents)
    if (path / _REQUESTS).is_file():
        return _pass(path, contents)
    try:
        manifest = records.open_manifest(path) if path.is_dir() else None
        if manifest is not None:
            return _finished(path, manifest, contents) if manifest["stage"] == "sweep" else None
        plan = records.read_json(path / "plan.json") if (path / "plan.json").is_file() else {}
    except records.Unreadable:
        return None  # outputs says so
    return _unfinished(path, contents) if isinstance(plan, dict) and "sweep" in plan else None


def _finished(path: Path, manifest: dict[str, Any], contents: bool) -> Finding | None:
    found = outputs.finished(path, contents)
    assert found is not None, "its manifest was read"
    found.worsen(DAMAGED, records.missing(path, TABLES))
    trials = [_trial(file.parent, contents) for file in _trials(path)]
    if len(trials) != (number := manifest.get("facts", {}).get("trials", len(trials))):
        found.worsen(DAMAGED, [f"trials/ holds {len(trials):,} trials, and {number:,} were run"])
    _hold(found, trials, excused=[one for one in trials if one.facts["ended"] == "failed"])  # as many as were allowed
    _hold_the_rest(found, contents)
    found.facts |= _best(found)
    return found


def _unfinished(path: Path, contents: bool) -> Finding:
    found = Finding(path, outputs.KINDS["sweep"])
    trials = [_trial(file.parent, contents) for file in _trials(path)]
    ended = sum(one.facts["ended"] in ("finished", "stopped") for one in trials)
    found.parts = {"done": ended, "total": _planned(path), "unit": "trials"}
    written = [file for name in ("reports.jsonl", "now.txt", _TRIAL) for file in path.glob(f"trials/*/{name}")]
    found.facts["last_written"] = records.last_change([path / "plan.json", *written])
    found.worsen(UNFINISHED, ["has no manifest: it is running, or was stopped; the same command continues it"])
    _hold(found, trials)
    _hold_the_rest(found, contents)
    return found


def _hold_the_rest(found: Finding, contents: bool) -> None:
    """Finalists, consensus, the page; of the passes those that are to be ended."""
    path = found.path
    looks = [*path.glob(f"full/*/*/{_SCORES}"), *path.glob(f"consensus/*/{_SCORES}")]
    found.hold([_look(file.parent, contents) for file in sorted(looks)])
    found.hold(_outputs_in(path, ["report.html"], contents))
    passes = sorted(path.glob(f"association/pass-*/{_REQUESTS}"))
    found.facts["passes"] = len(passes)
    found.hold([_pass(file.parent, contents) for file in passes if not (file.parent / _DONE).exists()])


def _trial(path: Path, contents: bool) -> Finding:
    """A trial; where the search stopped it, what its training and its looks have not come to is not missed."""
    found = Finding(path, "trial of a sweep")
    try:
        outcome = outcome_of(path, "objective", "max")
    except (InputError, ValueError, KeyError, TypeError) as error:
        found.facts = {"ended": None}
        found.worsen(DAMAGED, [f"its record is damaged ({error})"])
        return found
    found.facts = _of_trial(outcome)
    inside = _outputs_in(path, ["train"], contents)
    inside += [_look(folder, contents) for folder in sorted(path.glob("epochs/[0-9]*"))]
    if outcome.state == "failed":
        said = (outcome.error or "").split("\n")[0]
        found.worsen(UNFINISHED, [f"failed: {said}; its log is {outcome.log.name}; the sweep's command tries it again"])
    elif outcome.state == "unfinished":
        found.worsen(UNFINISHED, ["has not ended: it is running, or was stopped; the sweep's command continues it"])
    excused = [one for one in inside if one.state == UNFINISHED] if outcome.state == "stopped" else []
    _hold(found, inside, excused)
    if outcome.state == "stopped":
        found.notes.append("stopped by the search, so its training need not be complete")
    if outcome.state == "finished":
        found.worsen(DAMAGED, records.missing(path, ["train"]))
    return found


def _of_trial(outcome: Outcome) -> dict[str, Any]:
    trial = outcome.trial
    facts = {"ended": None if outcome.state == "unfinished" else outcome.state, "configuration": trial.configuration}
    facts |= {"values": trial.values, "seed": trial.seed, "last_report": outcome.metrics}
    return facts | ({"went_on_from": trial.parent.name} if trial.parent is not None else {})


def _look(path: Path, contents: bool) -> Finding:
    """Latents that were tested, or are to be: one epoch of a trial, or a consensus."""
    found = Finding(path, "tested latents")
    inside = _outputs_in(path, ["latents.parquet", *FOUND], contents)
    try:
        scores = dict(records.read_json(path / _SCORES)) if (path / _SCORES).exists() else None
    except (records.Unreadable, TypeError, ValueError) as error:
        found.worsen(DAMAGED, [f"{_SCORES} is damaged ({error})"])
        return found
    found.facts = scores or {}
    if scores is None:
        found.worsen(UNFINISHED, [f"has no {_SCORES}: it has not been tested yet"])
    elif scores.get("variants"):  # of latents that are the same for everybody there is nothing but scores
        there = {one.path.name for one in inside}
        found.worsen(DAMAGED, [f"{name} is missing, or has no manifest" for name in FOUND if name not in there])
    found.hold(inside)
    return found


def _pass(path: Path, contents: bool) -> Finding:
    """One pass over the genotypes for the tables of several trials; its summary statistics are kept where asked."""
    found = Finding(path, "pass of a sweep's association")
    try:
        names = [str(request["name"]) for request in records.read_json(path / _REQUESTS)]
        done = records.read_json(path / _DONE) if (path / _DONE).exists() else None
        found.facts = {"tables": names, "seconds": (done or {}).get("seconds")}
    except (records.Unreadable, KeyError, TypeError, AttributeError) as error:
        found.worsen(DAMAGED, [f"its record is damaged ({error})"])
        return found
    if done is None:
        found.worsen(UNFINISHED, [f"has no {_DONE}: it is unfinished; the sweep's command continues it"])
    found.hold(_outputs_in(path, ["gwas"], contents))
    return found


def _hold(found: Finding, inside: list[Finding], excused: Iterable[Finding] = ()) -> None:
    """As Finding.hold, but `excused` make it no worse, unless they are damaged."""
    harmless = [one for one in excused if one.state != DAMAGED]
    found.hold([one for one in inside if not any(one is other for other in harmless)])
    found.inside = sorted([*found.inside, *harmless], key=lambda one: str(one.path))


def _outputs_in(path: Path, names: Iterable[str], contents: bool) -> list[Finding]:
    """What stages have written, or are writing, below `path` under these names."""
    looks = (outputs.finished, training.unfinished, outputs.unfinished)
    found = [next((one for look in looks if (one := look(path / name, contents)) is not None), None) for name in names]
    return [one for one in found if one is not None]


def _trials(path: Path) -> list[Path]:
    return sorted(path.glob(f"trials/*/{_TRIAL}"))


def _planned(path: Path) -> int | None:
    """How many trials the sweep has by its configuration; None where that cannot be read."""
    try:
        config = SweepConfig.load(path / "config.yaml")
        planned = plan_trials(path, parse_space(config.space), config.seeds, config.search)
    except ConfigError:
        return None
    return len(planned) or config.search.samples * len(config.seeds)


def _best(found: Finding) -> dict[str, Any]:
    """The best look of a sweep that is whole."""
    if found.state != COMPLETE:
        return {}
    try:
        best = records.read_json(found.path / "sweep.json")["best"] or {}
        scores = {name: value for name, value in best.get("scores", {}).items() if value is not None}
    except (records.Unreadable, KeyError, TypeError, AttributeError) as error:
        found.worsen(DAMAGED, [f"sweep.json is damaged ({error})"])
        return {}
    return {"best": {name: best[name] for name in ("trial", "epoch") if name in best} | scores}
