"""Ctrl-C and SIGTERM, as a terminal and a scheduler send them: the training saves, says so, and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc.checkpoint import Checkpoints
from hpc.testing import HANGS
from hpc.torchrun import started

pytestmark = pytest.mark.usefixtures("terminal")
KEYS = ["global_batch=4", "epochs=100000", "checkpoint_epochs=100000", "validation=0", "tensorboard=false", "threads=1"]
KEYS += ["model.patch=4", "model.width=24", "model.depth=1", "picture_epochs=100000"]


def wait_for_steps(run: Path, process: subprocess.Popen) -> None:
    limit, metrics = time.monotonic() + HANGS, run / "metrics.jsonl"
    while not metrics.exists() or '"train"' not in metrics.read_text():
        assert process.poll() is None and time.monotonic() < limit, process.communicate()
        time.sleep(0.02)


def words(store: Path, run: Path) -> list[str]:
    return ["train", f"store={store}", f"run_dir={run}", *KEYS]


def saved(run: Path) -> int:
    """The step of the last checkpoint, which only the signal can have caused."""
    steps = Checkpoints(run / "checkpoints").steps()
    assert len(steps) == 2 and steps[0] == 0 < steps[1]
    return steps[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_training_saves_and_leaves(store, tmp_path, number, ranks):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with started("udipdist", words(store, tmp_path / "run"), ranks, {"OMP_NUM_THREADS": "1"}, **pipes) as process:
        wait_for_steps(tmp_path / "run", process)
        process.send_signal(number)
        said = process.communicate(timeout=HANGS)[1]
    assert process.returncode == 75, said
    assert f"stopped by a signal; step {saved(tmp_path / 'run')} of" in said and "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_run_gives_its_stage_time_to_save(store, tmp_path, number):
    """Only the parent hears it; a terminal would tell both."""
    program = (
        "import sys; from hpc import warm; from hpc.stopping import stoppable\n"
        "with stoppable(): warm.run('udipdist', sys.argv[1:], ['udipdist.training.verb'])"
    )
    command = [sys.executable, "-c", program, *words(store, tmp_path / "run")]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ) as process:
        wait_for_steps(tmp_path / "run", process)
        process.send_signal(number)
        said = process.communicate(timeout=HANGS)[1]
    assert f"stopped by a signal; step {saved(tmp_path / 'run')} of" in said
    assert ("KeyboardInterrupt" if number == signal.SIGINT else "Stopped: ") in said
