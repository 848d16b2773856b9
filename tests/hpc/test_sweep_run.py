"""Sweeps of a toy on a real Ray of this machine: answers, failures, kills, restarts."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from hpc.errors import OutputExists
from hpc.sweep import Trial, outcomes, read_reports

HERE = Path(__file__).parent
SPACE = {"x": {"grid": [1, 60]}}


@pytest.fixture
def toy(monkeypatch):
    """The module of the toy, which the processes of trials can import too."""
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("sweep_toy")


def starts(place: Path, name: str) -> int:
    """How often the program of a trial was started."""
    lines = (place / "trials" / name / "starts.txt").read_text().splitlines()
    return sum(not line.startswith("end") for line in lines)


def driver(place: Path, **keys) -> subprocess.Popen:
    """A sweep in a process of its own."""
    words = [sys.executable, str(HERE / "sweep_toy.py"), str(place), json.dumps(keys)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    place.mkdir(exist_ok=True)
    file = (place / "driver.log").open("a")
    return subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=file, text=True)


def wait_for(condition: Callable[[], object], seconds: float = 90.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "did not come about"
        time.sleep(0.05)


def of_sweep(place: Path) -> list[psutil.Process]:
    """Processes that a sweep below `place` has left."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TOY_PLACE") == str(place) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_one_fails_and_one_is_killed_and_the_others_do_not_mind(toy, tmp_path):
    """Four trials: a good one, one that the service refuses, one that raises, one whose process is killed."""
    settings = {"good": {"x": 1}, "high": {"x": 60}, "bad": {"fail": 1}, "dies": {"x": 2, "kill": 2}}
    words = ({"set": {"grid": settings}}, [5], {}, {"cpus": 5, "gather": 0})
    found = {o.trial.configuration: o for o in toy.sweep(tmp_path, *words)}
    assert {name: o.state for name, o in found.items()} == {
        "good": "finished",
        "high": "failed",
        "bad": "failed",
        "dies": "finished",
    }
    assert found["good"].metrics == {"epoch": 2, "score": 3} and found["good"].trial.seed == 5
    assert found["high"].error == "x=60: is above 50" and read_reports(found["high"].trial.folder) == []
    assert found["bad"].error == "ZeroDivisionError: broken in epoch 1"
    log = found["bad"].log.read_text()
    assert "epoch 0 is done" in log and "ZeroDivisionError: broken" in log and "Traceback" in log
    assert json.loads((tmp_path / "trials" / "bad-seed5" / "failed.json").read_text())["error"] == "ZeroDivisionError"
    assert [r["score"] for r in read_reports(found["dies"].trial.folder)] == [2, 4, 6]
    assert starts(tmp_path, "dies-seed5") == 2
    assert Trial.read(tmp_path / "trials" / "good-seed5") == found["good"].trial

    (tmp_path / "trials" / "mended").touch()
    with pytest.raises(OutputExists, match="another plan"):
        toy.sweep(tmp_path, words[0], [6], *words[2:])
    again = {o.trial.configuration: o.state for o in toy.sweep(tmp_path, *words)}
    assert again == {"good": "finished", "high": "failed", "bad": "finished", "dies": "finished"}
    assert starts(tmp_path, "good-seed5") == 1 and starts(tmp_path, "bad-seed5") == 2
    assert len(read_reports(found["bad"].trial.folder)) == 3


def test_a_killed_driver_leaves_nothing_and_goes_on(tmp_path, monkeypatch):
    """SIGKILL while one trial has ended and one runs; the same command then ends the sweep, by SIGTERM in between."""
    monkeypatch.setenv("TOY_PLACE", str(tmp_path))
    settings = {"first": {"x": 1}, "second": {"x": 2, "wait": 1}, "third": {"x": 3}}
    keys = {"space": {"set": {"grid": settings}}, "seeds": [1], "search": {}}
    keys["ray"] = {"cpus": 2, "ranks": 1, "gather": 0}  # with the service, one trial at a time
    trials = tmp_path / "trials"
    second = trials / "second-seed1"

    process = driver(tmp_path, **keys)
    wait_for(lambda: (second / "epoch0.json").exists() or process.poll() is not None)
    process.kill()
    process.wait()
    wait_for(lambda: not of_sweep(tmp_path), 20)
    states = {o.trial.configuration: o.state for o in outcomes(tmp_path, "score", "max")}
    assert states == {"first": "finished", "second": "unfinished"}

    process = driver(tmp_path, **keys)
    wait_for(lambda: starts(tmp_path, "second-seed1") == 2 or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 75 and "the same command goes on" in said
    wait_for(lambda: not of_sweep(tmp_path), 20)

    (trials / "go").touch()
    process = driver(tmp_path, **keys)
    said = process.communicate(timeout=120)[0]
    log = (tmp_path / "driver.log").read_text()
    assert process.returncode == 0, log
    assert json.loads(said) == {f"{name}-seed1": "finished" for name in settings}
    assert [starts(tmp_path, f"{name}-seed1") for name in settings] == [1, 3, 1]
    assert [r["score"] for r in read_reports(second)] == [2, 4, 6]
    assert "first-seed1: finished" in log and "3 of 3 trials are over" in log
    ends = {name: (trials / f"{name}-seed1" / "starts.txt").read_text().split() for name in settings}
    assert float(ends["third"][1]) > float(ends["second"][-1])  # never two at a time
    wait_for(lambda: not of_sweep(tmp_path), 20)
