"""What every test may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def pytest_configure(config):
    """Workers of pytest-xdist get a core each: threads of several that wait for one another take many times as long."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker.startswith("gw") and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})


@pytest.fixture
def udipdist(tmp_path):
    """Run the command line in a process of its own, in an empty folder: udipdist("gwas", "key=value", ...)."""

    def run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [sys.executable, "-m", "udipdist", *map(str, words)],
            cwd=tmp_path,
            text=True,
            capture_output=True,
        )
        if check and result.returncode:
            raise AssertionError(f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result

    return run
