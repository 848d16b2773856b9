"""The benchmark of shared machines: its loops end, and its figures are those of the stages. Not how fast."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager, suppress

import psutil
import pytest

from benchmarks import shared
from benchmarks.shared_stages import STAGES
from hpc.testing import HANGS


def loops() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "getppid" in " ".join(child.cmdline())]


def test_loops_run_in_the_block_and_end_with_it():
    with shared.busy_loops(2):
        found = loops()
        assert len(found) == 2
    assert not any(loop.is_running() for loop in found)


def test_loops_end_with_a_program_that_is_killed(tmp_path):
    program = (
        "import os, signal\nfrom benchmarks.shared import busy_loops\nimport psutil\n"
        "with busy_loops(1):\n"
        "    print(psutil.Process().children()[0].pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=shared.ROOT, stdout=subprocess.PIPE, text=True)
    with suppress(psutil.NoSuchProcess):  # it may have ended already
        psutil.Process(int(done.stdout)).wait(HANGS)


def test_slowdowns_are_ratios_of_the_smallest_times(monkeypatch, tmp_path, capsys):
    beside = []

    class Worker:
        def __init__(self, factor: float):
            self.factor, self.runs = factor, 0

        def run(self, stage: str) -> float:
            self.runs += 1
            disturbed = 3 if self.runs % 3 == 0 else 1
            return disturbed * self.factor * (1 + STAGES.index(stage)) * (2 if beside else 1)

    @contextmanager
    def worker(folder, quick, policy):
        yield Worker(1.0 if policy == shared.SHORT_SPIN else 0.5)

    @contextmanager
    def busy_loops(count):
        beside.extend([1] * count)
        yield

    monkeypatch.setattr(shared, "_worker", worker)
    monkeypatch.setattr(shared, "busy_loops", busy_loops)
    row = shared.measure(tmp_path, quick=False)
    assert [row[f"{stage}_slowdown"] for stage in STAGES] == pytest.approx([2, 2, 2, 2])
    assert row["idle_loss"] == pytest.approx(2) and row["train_slowdown_of_long_spins"] == pytest.approx(2)
    assert "train, long spins" in capsys.readouterr().out
