"""What every test may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Files of tests that take longest, wherever they stand. `make test-fast` leaves them out: 90 s on two idle cores.
SLOW = [
    "assoc", "attention", "batchnorm", "brains", "cli", "clump", "cluster", "cohort_maps", "comm", "demo_smoke",
    "embed", "engine_on_ranks", "exactness", "export", "export_benchmark", "feed", "grm_benchmark", "gwas_benchmark",
    "inspect", "interpret_benchmark", "invariance", "killed", "kinship", "launch_deepspeed", "launch_program",
    "launch_ray", "launch_slurm", "launch_sweep", "launch_torchrun", "loci_rules", "loop", "phases", "real_input",
    "report_page", "report_plot", "saliency", "scan", "several_tables", "simulate", "sweep_association",
    "sweep_benchmark", "sweep_run", "sweep_trial", "train", "training_on_ranks", "volume_convert", "volume_ingest",
    "volume_killed", "volume_modalities", "volume_packed", "volume_quality", "volumes_benchmark",
]  # fmt: skip


def pytest_configure(config):
    """Workers of pytest-xdist get a core each: threads of several that wait for one another take many times as long."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker.startswith("gw") and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem.removeprefix("test_") in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def slow_files() -> list[str]:
    """The names of the files that `make test-fast` leaves out."""
    return [f"test_{name}.py" for name in SLOW]


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
