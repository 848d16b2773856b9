"""What `python -m hpc` says of launchers, and ranks that lose theirs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil

from hpc.__main__ import launchers, processor

ROOT = Path(__file__).parents[2]


def test_launchers_found_and_missing(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}" if name in ("mpirun", "pdsh") else None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    lines = launchers()
    assert lines[0].startswith("launchers  torchrun (launch/torchrun.sh")
    assert "deepspeed (launch/deepspeed.sh, on several nodes by pdsh)" in lines[1]
    assert [line.strip() for line in lines[2:]] == ["mpirun (/bin/mpirun)", "not here: slurm, ray"]


def test_a_slurm_that_does_not_answer(monkeypatch, tmp_path):
    for name in ("sbatch", "srun", "sinfo"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert any("slurm (installed, but does not answer)" in line for line in launchers())


def test_ranks_leave_when_their_launcher_is_killed(here, tmp_path):
    program = tmp_path / "rank.py"
    program.write_text(
        "import os, signal\nfrom hpc.torchrun import end_with_launcher\n"
        "signal.signal(signal.SIGTERM, lambda *_: (open(f'{os.getpid()}.left', 'w').close(), os._exit(0)))\n"
        "end_with_launcher(os.environ)\nopen(f'{os.getpid()}.here', 'w').close()\nsignal.pause()\n"
    )
    words = ["-m", "hpc.torchrun", "--standalone", "--nproc-per-node=2", program]
    folder = tmp_path / "ranks"
    folder.mkdir()
    started = here.start("env", "-C", folder, sys.executable, *words, PYTHONPATH=str(ROOT))
    wait_for(lambda: len(list(folder.glob("*.here"))) == 2, started)
    psutil.Process(started.process.pid).kill()
    wait_for(lambda: len(list(folder.glob("*.left"))) == 2, started)


def wait_for(condition, started) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit, started.output
        time.sleep(0.05)


def test_a_processor_is_told_by_its_name_and_what_it_lacks(tmp_path):
    table = tmp_path / "cpuinfo"
    table.write_text("processor\t: 0\nmodel name\t: AMD EPYC 7763\nflags\t\t: fpu sse2 avx2 f16c\n\nprocessor\t: 1\n")
    assert processor(table) == "AMD EPYC 7763: avx2"
    table.write_text("model name : X\nflags : avx2 avx512f avx512_vnni avx512_bf16\n")
    assert processor(table) == "X: avx2, avx512, 8-bit products (avx512_vnni), bf16 (avx512_bf16)"
    assert processor(tmp_path / "missing")
