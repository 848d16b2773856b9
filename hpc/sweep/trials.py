"""A trial: its values, its folder, and how it ended. Files, and nothing of Ray."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from hpc.errors import InputError
from hpc.files import publish_json, publish_text

Metrics = dict[str, float]
State = Literal["finished", "stopped", "failed", "unfinished"]


@dataclass(frozen=True)
class Trial:
    """One configuration with one seed. `values` maps dotted keys to values, without the seed.

    `folder` is the same at every start. A program finds in it what it did before, and reports that again, in the same
    order, before it goes on. `parent`, of population-based training only: the folder of the trial whose state this one
    takes over (`parent_metrics` are those with which it did); where it is None a trial starts from nothing.
    """

    name: str
    number: int
    configuration: str
    values: dict[str, Any]
    folder: Path
    seed: int
    parent: Path | None = None
    parent_metrics: Metrics | None = None

    def say(self, text: str) -> None:
        """What the trial does just now, for the live table."""
        publish_text(self.folder / "now.txt", text + "\n")

    def write(self) -> None:
        """Write trial.json into the folder."""
        tree = {key: value for key, value in asdict(self).items() if key != "folder" and value is not None}
        publish_json(self.folder / "trial.json", {k: str(v) if isinstance(v, Path) else v for k, v in tree.items()})

    @classmethod
    def read(cls, folder: Path) -> Trial:
        """The trial of a folder. Raises InputError."""
        path = Path(folder) / "trial.json"
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            parent = (
                Path(folder).with_name(Path(tree["parent"]).name) if "parent" in tree else None
            )  # it may have moved
            return replace(cls(**{**tree, "folder": Path(folder)}), parent=parent)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: does not describe a trial ({error}); give the folder of a sweep") from None


class Service(Protocol):
    """What all trials of a sweep share."""

    def handle(self, requests: list[Any]) -> list[Any]:
        """An answer for each request, in their order; an exception in place of an answer is raised where it was asked.

        An exception that is raised here reaches all who asked. Requests come again where this process is killed, so
        that what was done before must be found in files.
        """


Report = Callable[[Metrics], None]  # blocks until the search has heard; may not return, where the trial is stopped
Ask = Callable[[Any], Any]  # blocks until the service has answered
Program = Callable[[Trial, Report, Ask], None]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: its last and its best report ({} where there was none), and what went wrong.

    `stopped` is the search's decision. `error` is the message of a failed trial, `log` the path of its log.
    """

    trial: Trial
    metrics: Metrics
    best: Metrics
    state: State
    log: Path
    error: str | None = None


def read_reports(folder: Path) -> list[Metrics]:
    """All that a trial has reported so far, in order; a last line that was cut off is left out."""
    path = Path(folder) / "reports.jsonl"
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in whole]


def outcomes(place: Path, metric: str, mode: str) -> list[Outcome]:
    """How the trials below `place` ended or stand, by their files, in the order of their numbers."""
    found = [outcome_of(path.parent, metric, mode) for path in Path(place).glob("trials/*/trial.json")]
    return sorted(found, key=lambda outcome: (outcome.trial.number, outcome.trial.name))


def outcome_of(folder: Path, metric: str, mode: str) -> Outcome:
    """How one trial ended or stands, by its files. Raises InputError where trial.json does not describe one."""
    trial, reports = Trial.read(folder), read_reports(folder)
    last = reports[-1] if reports else {}
    failed, ended = (json_of(folder / name) for name in ("failed.json", "ended.json"))
    state: State = "failed" if failed else ended["state"] if ended else "unfinished"
    error = failed["message"] if failed else None
    return Outcome(trial, last, best_of(reports, metric, mode), state, folder / "log.txt", error)


def generations(member: Trial) -> list[Trial]:
    """A member of a population, and what it became when it took over the state of others, the latest last."""
    found = [member]
    while (folder := member.folder.with_name(f"{member.name}-g{len(found) + 1}") / "trial.json").exists():
        found.append(Trial.read(folder.parent))
    return found


def best_of(reports: Iterable[Metrics], metric: str, mode: str) -> Metrics:
    """The report with the best value of `metric`; {} where none has one."""
    sign = 1 if mode == "max" else -1
    scored = [report for report in reports if report.get(metric) is not None and report[metric] == report[metric]]
    return max(scored, key=lambda report: sign * report[metric], default={})


def end(folder: Path, state: State) -> None:
    """Record that a trial is over: finished, or stopped by the search."""
    publish_json(Path(folder) / "ended.json", {"state": state, "when": _now()})


def fail(folder: Path, kind: str, message: str, run: str) -> None:
    """Record that a trial failed in the run of a sweep that is called `run`."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    publish_json(Path(folder) / "failed.json", {"error": kind, "message": message, "when": _now(), "run": run})


def json_of(path: Path) -> dict[str, Any] | None:
    """What a JSON file holds; None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
