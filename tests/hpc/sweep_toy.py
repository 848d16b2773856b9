"""A trial that takes no time, for the tests of hpc.sweep; `sweep_toy.py PLACE KEY=JSON ...` runs a sweep of it."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

from hpc import log, words
from hpc.errors import InputError
from hpc.sweep import Outcome, RayConfig, SearchConfig, parse_space, run
from hpc.sweep.ranks import started

EPOCHS = 3


def program(trial, report, ask) -> None:
    """Three epochs, each a file; score = x (1 + epoch), as the service says.

    `kill`, `wait` and `fail` name an epoch. span.txt: when the last start began, and when it ended.
    """
    begun = time.time()
    try:
        _epochs(trial, report, ask)
    finally:
        (trial.folder / "span.txt").write_text(f"{begun} {time.time()}")


def _epochs(trial, report, ask) -> None:
    with (trial.folder / "starts.txt").open("a") as file:
        file.write(f"{os.getpid()}\n")
    (trial.folder / "host.txt").write_text(socket.gethostname())
    for epoch in range(EPOCHS):
        path = trial.folder / f"epoch{epoch}.json"
        if not path.exists():
            trial.say(f"epoch {epoch}")
            if trial.values.get("kill") == epoch and not (trial.folder / "killed").exists():
                (trial.folder / "killed").touch()
                os.kill(os.getpid(), 9)
            while trial.values.get("wait") == epoch and not (trial.folder.parent / "go").exists():
                time.sleep(0.05)
            if trial.values.get("fail") == epoch and not (trial.folder.parent / "mended").exists():
                raise ZeroDivisionError("broken in epoch 1")
            score = ask((trial.values.get("x", 1), epoch))
            print(f"epoch {epoch} is done", flush=True)
            path.write_text(json.dumps({"epoch": epoch, "score": score}))
        report(json.loads(path.read_text()))


class Sums:
    """The service: writes down how many asked at once."""

    def __init__(self, place: Path):
        self.place = place

    def handle(self, requests):
        """x (1 + epoch); an x above 50 is refused."""
        with (self.place / "batches.txt").open("a") as file:
            file.write(f"{len(requests)} {os.getpid()}\n")
        time.sleep(0.3)
        return [InputError(f"x={x}: is above 50") if x > 50 else x * (1 + epoch) for x, epoch in requests]


class Make:
    """Makes the service in its process."""

    def __init__(self, place: Path):
        self.place = place

    def __call__(self) -> Sums:
        return Sums(self.place)


def sweep(place: Path, space: dict, seeds: list[int], search: dict, ray: dict) -> list[Outcome]:
    """Run a sweep of the toy."""
    keys = {"metric": "score", "mode": "max", "service": Make(place), "columns": ["epoch"]}
    return run(place, program, parse_space(space), seeds, SearchConfig.parse(search), RayConfig.parse(ray), **keys)


class Spread:
    """A trial that starts ranks, which add up their numbers and say on which node of the trial they run."""

    def __init__(self, config: RayConfig):
        self.config = config

    def __call__(self, trial, report, ask) -> None:
        with started(self.config, "sweep_rank", [str(trial.folder)]) as process:
            assert process.wait() == 0
        report(json.loads((trial.folder / "sum.json").read_text()))


if __name__ == "__main__":
    log.setup()
    try:
        tree: dict = {"ray": {}}
        for word in sys.argv[2:]:
            key, _, value = word.partition("=")
            if key.startswith("ray."):
                tree["ray"][key.removeprefix("ray.")] = words.plain(words.load(value))
            else:
                tree[key] = json.loads(value)
        found = sweep(Path(sys.argv[1]), **tree)
    except Exception as error:
        print(error)
        sys.exit(getattr(error, "exit_code", 1))
    print(json.dumps({outcome.trial.name: outcome.state for outcome in found}))
