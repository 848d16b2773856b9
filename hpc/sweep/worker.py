"""What the process of a trial does: find its folder, run the program, record how that ended."""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune

from hpc.errors import Preempted, of_the_user
from hpc.files import publish_json
from hpc.lock import locked
from hpc.sweep import trials
from hpc.sweep.guard import guarded
from hpc.sweep.service import Answer, log_to
from hpc.sweep.trials import Metrics, Program, Trial, generations, read_reports

log = logging.getLogger(__name__)
_STATE = "trial.json"  # in a checkpoint of Tune's: whose, and after which report
_HUGE = 1e300  # stands for the worst value there is


@dataclass(frozen=True)
class Work:
    """What all trials of a sweep have in common.

    `run` names this run of the sweep, `desk` the actor of its service. `members`, by name: those of a population.
    """

    program: Program
    metric: str
    mode: str
    run: str
    desk: str | None
    members: dict[str, Trial]

    def do(self, tree: dict[str, Any]) -> None:
        """Run the trial that Tune describes by `tree`, in the process that Tune made for it."""
        trial = self._trial(tree)
        trial.folder.mkdir(parents=True, exist_ok=True)
        log_to(trial.folder / "log.txt")
        with locked(trial.folder / ".lock"):
            reporter = _Reporter(self, trial, tune.get_context().get_trial_name())
            if (trial.folder / "ended.json").exists():
                reporter.repeat()
                return
            (trial.folder / "failed.json").unlink(missing_ok=True)
            trial.write()
            with guarded("HPC_SWEEP_TRIAL", uuid.uuid4().hex):
                self._program(trial, reporter.report)

    def _trial(self, tree: dict[str, Any]) -> Trial:
        """The trial, or with population-based training the one that its member has become by now."""
        if not self.members:
            return Trial(**{**tree, "folder": Path(tree["folder"])})
        # Tune gives a member that takes over another's state the whole tree of that other, with its values varied.
        member = replace(self.members[tune.get_context().get_trial_name()], values=tree["values"])
        checkpoint = tune.get_checkpoint()
        if checkpoint is None:
            return generations(member)[-1]
        with checkpoint.as_directory() as folder:
            state = json.loads((Path(folder) / _STATE).read_text(encoding="utf-8"))
        if state["member"] == member.name:
            return Trial.read(Path(state["folder"]))
        return _successor(member, Path(state["folder"]), state["metrics"])

    def _program(self, trial: Trial, report: Callable[[Metrics], None]) -> None:
        try:
            self.program(trial, report, self._ask)
        except Preempted as error:  # it has not failed: whoever starts it again goes on
            log.warning("%s", error)
            raise
        except Exception as error:
            told = of_the_user(error)
            log.error("%s", told or error, exc_info=None if told else error)
            message = str(told) if told else f"{type(error).__name__}: {error}"
            trials.fail(trial.folder, type(told or error).__name__, message, self.run)
        else:
            trials.end(trial.folder, "finished")

    def _ask(self, request: Any) -> Any:
        if self.desk is None:
            raise RuntimeError("this sweep has no service to ask")
        desk: Any = ray.get_actor(self.desk)  # it has the methods of hpc.sweep.service.Desk
        reply: Answer = ray.get(desk.ask.remote(request))
        good, answer = reply
        if not good:
            raise answer
        return answer


class _Reporter:
    """Writes each report of a trial to its folder once, and hands it to Tune."""

    def __init__(self, work: Work, trial: Trial, member: str):
        self.work, self.trial, self.member = work, trial, member
        self.path = trial.folder / "reports.jsonl"
        _drop_cut_off(self.path)
        self.known, self.count = len(read_reports(trial.folder)), 0

    def report(self, metrics: Metrics) -> None:
        """Returns once the search has heard, and lets the trial go on."""
        metrics = {key: _plain(key, value) for key, value in metrics.items()}
        if self.work.metric not in metrics:
            raise KeyError(f"the report {metrics} lacks {self.work.metric}, by which the sweep searches")
        self.count += 1
        if self.count > self.known:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")
        self._hand_on(metrics)

    def repeat(self) -> None:
        """Report what an ended trial has reported."""
        for metrics in read_reports(self.trial.folder):
            self.count += 1
            self._hand_on(metrics)

    def _hand_on(self, metrics: Metrics) -> None:
        value = metrics[self.work.metric]
        if value is None or not math.isfinite(value):  # Tune's algorithms compare numbers only
            value = -_HUGE if self.work.mode == "max" else _HUGE
        known = {key: value for key, value in metrics.items() if value is not None} | {self.work.metric: value}
        if not self.work.members:
            tune.report(known)
        elif self.count > self.known:  # Tune counts on from its checkpoint
            with tempfile.TemporaryDirectory() as folder:
                state = {"member": self.member, "folder": str(self.trial.folder), "metrics": metrics}
                publish_json(Path(folder) / _STATE, state)
                tune.report(known, checkpoint=tune.Checkpoint.from_directory(folder))


def _successor(member: Trial, parent: Path, metrics: Metrics) -> Trial:
    """The trial that goes on from the state of `parent`: made once, then found again."""
    known = generations(member)
    values = {key: _plain(key, value) for key, value in member.values.items()}
    if (known[-1].parent, known[-1].parent_metrics, known[-1].values) == (parent, metrics, values):
        return known[-1]
    trials.end(known[-1].folder, "stopped")
    name = f"{member.name}-g{len(known) + 1}"
    successor = replace(
        member,
        name=name,
        configuration=name,
        values=values,
        folder=member.folder.with_name(name),
        parent=parent,
        parent_metrics=metrics,
    )
    successor.folder.mkdir(exist_ok=True)
    successor.write()
    return successor


def _drop_cut_off(path: Path) -> None:
    """Remove a last line that a kill left unfinished."""
    if path.exists():
        data = path.read_bytes()
        os.truncate(path, data.rfind(b"\n") + 1)


def _plain(key: str, value: Any) -> Any:
    """A value as JSON has it; numpy's scalars become Python's."""
    value = value.item() if hasattr(value, "item") else value
    if value is not None and not isinstance(value, (str, int, float, list, dict)):
        raise TypeError(f"{key}={value!r}: is not a number")
    return value
