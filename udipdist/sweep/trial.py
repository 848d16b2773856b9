"""What a trial does: train; embed the checkpoint of every epoch that is to be looked at; have it tested; report.

A trial looks at its checkpoints while its training goes on, so a search may stop it early; and it does not wait for the
answers of the association, so that checkpoints of many epochs and trials share a pass. All that it knows it has in
files below its folder: train/ is a normal run directory, epochs/EEEE/ has latents, loci and scores of one look.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpc import torchrun
from hpc.checkpoint import META, Checkpoints
from hpc.config import Config, merge
from hpc.errors import Error, InputError, Preempted
from hpc.files import publish, publish_json, publish_text
from hpc.stage import read_manifest
from hpc.sweep import Trial, ranks
from hpc.sweep.options import RayConfig
from hpc.sweep.trials import Ask, Report
from udipdist.config import SweepConfig, TrainConfig
from udipdist.sweep import configs
from udipdist.sweep.association import Request
from udipdist.sweep.folder import SCORES
from udipdist.sweep.objective import METRIC, Objective

log = logging.getLogger(__name__)

COLUMNS = ("epoch", *SCORES)
_PAUSE = 0.5  # seconds between two looks for a checkpoint
_ASKED_AT_ONCE = 32  # looks that wait for the association while the trial goes on
_TAIL = 12  # lines of a stage that failed, in the message


class StageFailed(Error):
    """A process that a trial started ended with an error; the message has its last lines."""


@dataclass(frozen=True)
class TrialProgram:
    """The program of a trial: a callable for hpc.sweep.run, with the sweep's configuration; paths are as seen from
    `cwd`."""

    config: SweepConfig
    cwd: Path

    def __call__(self, trial: Trial, report: Report, ask: Ask) -> None:
        """Train and look. Raises StageFailed, and what the association says of the latents."""
        os.chdir(self.cwd)
        train, objective = configs.train_config(self.config, trial), Objective.of(self.config.objective)
        first = -1
        if trial.parent is not None:
            first = round(trial.parent_metrics["epoch"])
            inherit(trial.parent / "train", train.run_dir, first, {**trial.values, "seed": trial.seed})
        epochs = [epoch for epoch in configs.look_epochs(self.config, train.epochs) if epoch > first]

        def tell(epoch: int, scores: dict[str, Any]) -> None:
            if epoch:  # all networks are alike before they are trained: no search learns from that
                known = {name: _number(scores[name]) for name in SCORES}
                report({"epoch": epoch, **known, METRIC: _number(objective.value(scores))})

        with (
            _answers(ask, tell) as answers,
            _training(train, self.config.ray, trial.folder, answers.take) as training,
        ):
            for epoch in epochs:
                answers.expect(epoch, self._look(trial, train, epoch, training))
            trial.say("association, and the last steps of training")
            answers.take(wait=True)
            training.wait()

    def _look(self, trial: Trial, train: TrainConfig, epoch: int, training: _Training) -> Request:
        """What the association is asked about the checkpoint of an epoch, which may be yet to come."""
        folder = trial.folder / "epochs" / f"{epoch:04d}"
        request = Request(f"{trial.name}-{epoch:04d}", str(folder / "latents.parquet"), str(folder), {})
        if request.scores is not None:
            return request
        trial.say(f"training to epoch {epoch}")
        meta = training.checkpoint(epoch)
        if read_manifest(folder / "latents.parquet") is None:
            trial.say(f"embedding epoch {epoch}")
            embed = configs.embed_config(self.config, train.run_dir, meta["step"], folder / "latents.parquet")
            run_stage("embed", embed, trial.folder)
        known = {"epoch": epoch, "step": meta["step"]}
        known |= {"val_loss": meta["scores"].get("loss"), "ssim": meta["scores"].get("ssim")}
        return replace(request, known=known)


class _Answers:
    """What the association is asked while the trial goes on, and what it answers, told in the order of asking."""

    def __init__(self, ask: Ask, tell: Callable[[int, dict[str, Any]], None], pool: ThreadPoolExecutor):
        self._ask, self._tell, self._pool = ask, tell, pool
        self._asked: deque[tuple[int, Future]] = deque()

    def expect(self, epoch: int, request: Request) -> None:
        """Ask, unless that was answered before."""
        if request.scores is None:
            self._asked.append((epoch, self._pool.submit(self._ask, request)))
        else:
            self._asked.append((epoch, self._pool.submit(lambda: request.scores)))
        self.take()

    def take(self, wait: bool = False) -> None:
        """Tell the answers that are there; with `wait` all. Raises what was answered in place of one."""
        while self._asked and (wait or self._asked[0][1].done()):
            epoch, future = self._asked.popleft()
            self._tell(epoch, future.result())


@contextmanager
def _answers(ask: Ask, tell: Callable[[int, dict[str, Any]], None]) -> Iterator[_Answers]:
    pool = ThreadPoolExecutor(_ASKED_AT_ONCE)
    try:
        yield _Answers(ask, tell, pool)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Training:
    """A training that runs (or has ended), and its checkpoints as they come. `meanwhile`: called until they do."""

    def __init__(self, run_dir: Path, process: subprocess.Popen | None, output: Path, meanwhile: Callable[[], None]):
        self.checkpoints, self.process, self.output = Checkpoints(run_dir / "checkpoints"), process, output
        self.meanwhile = meanwhile
        self._epochs: dict[int, dict[str, Any]] = {}  # what meta.json says, by step

    def checkpoint(self, epoch: int) -> dict[str, Any]:
        """Wait for the checkpoint at the end of an epoch; its meta.json. Raises StageFailed, InputError."""
        while True:
            over = self._is_over()  # before the look: what it wrote last is seen
            for step in self.checkpoints.steps():
                if step not in self._epochs:
                    path = self.checkpoints.folder(step) / META
                    self._epochs[step] = json.loads(path.read_text(encoding="utf-8"))
            steps = [step for step, meta in self._epochs.items() if meta["epoch"] == epoch]
            if steps:  # a later one of the same epoch was saved when a signal came, in the middle of the next
                return self._epochs[min(steps)]
            if over:
                raise InputError(
                    f"{self.checkpoints.place}: has no checkpoint of epoch {epoch}, though the training is complete; "
                    "delete the folder of this trial, and run the sweep again"
                )
            self.meanwhile()
            time.sleep(_PAUSE)

    def wait(self) -> None:
        """Wait for the end. Raises StageFailed."""
        while not self._is_over():
            time.sleep(_PAUSE)

    def _is_over(self) -> bool:
        code = 0 if self.process is None else self.process.poll()
        if code == Preempted.exit_code:
            raise Preempted("the training was stopped by a signal, and has saved; the trial goes on from there")
        if code:
            raise StageFailed(_message("train", code, self.output))
        return code is not None


@contextmanager
def _training(config: TrainConfig, ray: RayConfig, folder: Path, meanwhile: Callable[[], None]) -> Iterator[_Training]:
    """The training of a trial, started unless it is complete; it ends with the block."""
    output = folder / "train.log"
    if read_manifest(config.run_dir) is not None:
        yield _Training(config.run_dir, None, output, meanwhile)
        return
    publish_text(folder / "train.yaml", config.yaml())
    with (
        output.open("a", encoding="utf-8") as file,
        ranks.started(
            ray, "udipdist", ["train", str(folder / "train.yaml")], stdout=file, stderr=subprocess.STDOUT
        ) as process,
    ):
        yield _Training(config.run_dir, process, output, meanwhile)


def run_stage(verb: str, config: Config, folder: Path) -> None:
    """Run a verb in a process of its own, which alone, and not the trial, may be a rank of something or hold a GPU.

    Raises StageFailed.
    """
    recipe, output = folder / f"{verb}.yaml", folder / f"{verb}.log"
    publish_text(recipe, config.yaml())
    with output.open("a", encoding="utf-8") as file:
        code = torchrun.run("udipdist", [verb, str(recipe)], stdout=file, stderr=subprocess.STDOUT)
    if code:
        raise StageFailed(_message(verb, code, output))


def inherit(parent: Path, run_dir: Path, epoch: int, values: dict[str, Any]) -> None:
    """Begin a run directory with the checkpoint of an epoch of another, and go on with other `values` (dotted keys);
    nothing where it has begun. Raises InputError where that checkpoint is gone."""
    own, theirs = Checkpoints(run_dir / "checkpoints"), Checkpoints(parent / "checkpoints")
    if own.steps():
        return
    metas = {step: json.loads((theirs.folder(step) / META).read_text(encoding="utf-8")) for step in theirs.steps()}
    steps = [step for step, meta in metas.items() if meta["epoch"] == epoch]
    if not steps:
        raise InputError(f"{theirs.place}: has no checkpoint of epoch {epoch} to continue from")
    with publish(run_dir / "metrics.jsonl") as partial:
        shutil.copy(parent / "metrics.jsonl", partial)
    recipe = json.loads((parent / "plan.json").read_text(encoding="utf-8"))
    publish_json(run_dir / "plan.json", recipe | {"train": merge(recipe["train"], configs.nested(values))})
    with publish(own.folder(min(steps))) as partial:
        shutil.copytree(theirs.folder(min(steps)), partial)


def _message(verb: str, code: int, output: Path) -> str:
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
    said = "\n".join(line for line in lines[-_TAIL:] if line.strip())
    return f"{verb} ended with exit code {code} ({output}):\n{said}"


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
