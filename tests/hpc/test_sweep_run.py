"""Sweeps of a toy on a real Ray of this machine: answers, failures, kills, restarts."""

from __future__ import annotations

import importlib
import itertools
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

from hpc.errors import ConfigError, OutputExists
from hpc.parts import fix_plan
from hpc.sweep import Trial, outcomes, read_reports
from hpc.testing import HANGS

HERE = Path(__file__).parent


@pytest.fixture
def toy(monkeypatch):
    """The module of the toy, which the processes of trials can import too."""
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("sweep_toy")


def starts(folder: Path) -> int:
    """How often the program of a trial was started."""
    return len((folder / "starts.txt").read_text().splitlines())


def driver(place: Path, **keys) -> subprocess.Popen:
    """A sweep in a process of its own."""
    words = [sys.executable, str(HERE / "sweep_toy.py"), str(place)]
    words += [f"{key}={json.dumps(value)}" for key, value in keys.items()]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    place.mkdir(exist_ok=True)
    with (place / "driver.log").open("a") as file:
        return subprocess.Popen(
            words, env=environ, stdout=subprocess.PIPE, stderr=file, text=True, start_new_session=True
        )


def wait_for(condition: Callable[[], object], seconds: float = HANGS) -> None:
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


def test_killed_trials_and_a_killed_driver(tmp_path, monkeypatch):
    """One trial ends, two fail, one is killed and runs again; then the driver is killed. The same command goes on."""
    monkeypatch.setenv("TOY_PLACE", str(tmp_path))
    settings = {"good": {"x": 3}, "dies": {"x": 2, "kill": 1, "wait": 2}, "bad": {"fail": 1}, "high": {"x": 60}}
    keys = {"space": {"set": {"grid": settings}}, "seeds": [5], "search": {}}
    keys["ray"] = {"cpus": 4, "ranks": 2, "gather": 0}  # with the service, one trial at a time
    trials, log = tmp_path / "trials", tmp_path / "driver.log"
    folder = {name: trials / f"{name}-seed5" for name in settings}

    process = driver(tmp_path, **keys)
    wait_for(lambda: (folder["dies"] / "epoch1.json").exists() or process.poll() is not None)
    process.kill()
    process.communicate()
    wait_for(lambda: not of_sweep(tmp_path), 20)
    found = {o.trial.configuration: o for o in outcomes(tmp_path, "score", "max")}
    assert {name: o.state for name, o in found.items()} == {
        "good": "finished",
        "dies": "unfinished",
        "bad": "failed",
        "high": "failed",
    }, log.read_text()
    assert starts(folder["dies"]) == 2  # the killed one was begun again, and had its first epoch
    assert found["good"].best == found["good"].metrics == {"epoch": 2, "score": 9}
    assert found["high"].error == "x=60: is above 50" and read_reports(folder["high"]) == []
    assert found["bad"].error == "ZeroDivisionError: broken in epoch 1"
    said = found["bad"].log.read_text()
    assert "epoch 0 is done" in said and "Traceback" in said and "ZeroDivisionError: broken" in said
    assert json.loads((folder["bad"] / "failed.json").read_text())["error"] == "ZeroDivisionError"
    assert found["good"].trial.seed == 5 and found["good"].trial == Trial.read(folder["good"])

    (trials / "mended").touch()
    (trials / "go").touch()
    process = driver(tmp_path, **keys)
    said = process.communicate()[0]
    assert process.returncode == 0, log.read_text()
    states = {"good": "finished", "dies": "finished", "bad": "finished", "high": "failed"}
    assert json.loads(said) == {f"{name}-seed5": state for name, state in states.items()}
    assert {name: starts(path) for name, path in folder.items()} == {"good": 1, "dies": 3, "bad": 2, "high": 2}
    assert [r["score"] for r in read_reports(folder["dies"])] == [2, 4, 6]
    assert "dies-seed5: finished" in log.read_text() and "4 of 4 trials are over, 0 run, 1 failed" in log.read_text()
    spans = sorted(tuple(map(float, (path / "span.txt").read_text().split())) for path in folder.values())
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))  # never two of two ranks at a time
    wait_for(lambda: not of_sweep(tmp_path), 20)


def test_another_plan_is_refused(toy, tmp_path):
    fix_plan(tmp_path / "ray", {"seeds": [5]})
    with pytest.raises(OutputExists, match="another plan"):
        toy.sweep(tmp_path, {}, [6], {}, {"service_cpus": 0})


def test_a_ray_that_is_not_there(toy, tmp_path):
    with pytest.raises(ConfigError, match=r"ray\.address=127\.0\.0\.1:1: no Ray answers there"):
        toy.sweep(tmp_path, {}, [6], {}, {"address": "127.0.0.1:1"})


@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.usefixtures("terminal")
def test_a_signal_to_all_ends_a_sweep_which_then_goes_on(tmp_path, monkeypatch, number):
    """As a terminal and a scheduler send it. A Ray that RAY_ADDRESS names, and files like modules, are not meant."""
    monkeypatch.setenv("TOY_PLACE", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    for name in ("hpc.py", "sweep_toy.py", "socket.py"):
        (tmp_path / name).write_text("raise SystemExit('the file of the user was imported')\n")
    monkeypatch.chdir(tmp_path)
    keys = {"space": {"set": {"grid": {"long": {"wait": 1}}}}, "seeds": [1], "search": {}, "ray": {"cpus": 2}}
    folder = tmp_path / "trials" / "long-seed1"
    process = driver(tmp_path, **keys)
    wait_for(lambda: (folder / "epoch0.json").exists() or process.poll() is not None)
    os.killpg(process.pid, number)
    said = process.communicate()[0]
    assert process.returncode == 75 and "the same command continues" in said
    assert not (folder / "failed.json").exists() and not (folder / "ended.json").exists()
    wait_for(lambda: not of_sweep(tmp_path), 20)
    (tmp_path / "trials" / "go").touch()
    process = driver(tmp_path, **keys)
    assert json.loads(process.communicate()[0]) == {"long-seed1": "finished"}
    assert starts(folder) == 2


@pytest.mark.cluster
@pytest.mark.parametrize("algorithm", ["asha", "optuna", "pbt"])
def test_algorithms_of_tune(toy, tmp_path, monkeypatch, algorithm):
    """Each runs all its trials; halving stops some, and a population takes over the state of its best."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # as other tests in this process: Ray reads it once
    search = {"algorithm": algorithm, "samples": 4, "quantile": 0.4, "startup": 2}
    found = toy.sweep(tmp_path, {"x": {"uniform": [1, 40]}}, [1], search, {"cpus": 3, "gather": 0})
    states = [outcome.state for outcome in found]
    first = [outcome for outcome in found if outcome.trial.parent is None]
    assert len(first) == 4 and set(states) <= {"finished", "stopped"}
    assert ("stopped" in states) == (algorithm != "optuna")
    if algorithm == "pbt":
        heirs = [outcome.trial for outcome in found if outcome.trial.parent is not None]
        assert heirs and all(1 <= heir.values["x"] <= 40 and heir.parent_metrics for heir in heirs)
    before = {path: path.read_text() for path in tmp_path.glob("trials/*/starts.txt")}
    assert toy.sweep(tmp_path, {"x": {"uniform": [1, 40]}}, [1], search, {"cpus": 3}) == found
    assert before == {path: path.read_text() for path in tmp_path.glob("trials/*/starts.txt")}
