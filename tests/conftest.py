"""What every test may use. Nothing heavy is imported here: `pytest_configure` comes first, and then numpy's threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests and benchmarks are no installed packages

# Files of tests that take longest, wherever they stand. `make test-fast` leaves them out: 90 s on two idle cores.
SLOW = [
    "attention", "attention_statistics", "base", "batchnorm", "brains", "calibration_benchmark", "cli", "cluster",
    "cohort_maps", "comm", "cpu", "demo_smoke", "documented_commands", "embed", "engine_on_ranks", "exactness",
    "export", "export_benchmark", "feed", "gallery", "grm_benchmark", "gwas_benchmark", "imports", "inspect",
    "inspect_training", "interpret_benchmark", "interrupted", "invariance", "killed", "launch_deepspeed",
    "launch_program", "launch_ray", "launch_slurm", "launch_sweep", "launch_torchrun", "loci_rules", "loop",
    "pairs", "phases", "python_interface", "rare", "real_input", "report_page", "report_plot",
    "representations_benchmark", "saliency",
    "several_tables", "shelter", "simulate", "sweep_association", "sweep_benchmark", "sweep_run", "sweep_trial",
    "training_on_ranks", "verb", "volume_convert", "volume_description", "volume_ingest", "volume_killed",
    "volume_modalities", "volume_packed", "volume_quality", "volume_refusals", "volume_ukb", "volumes_benchmark",
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
def terminal():
    """Programs that a test starts hear Ctrl-C, though the tests may have been started with & by a script."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """For small matrices: threads inside a product would only wait for each other."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(scope="session")
def make_cohort() -> Callable:
    """`cohorts.simulate`, for tests."""
    from tests.cohorts import simulate

    return simulate


@pytest.fixture(scope="session")
def plink_writer() -> Callable:
    """`cohorts.write_plink`, for tests."""
    from tests.cohorts import write_plink

    return write_plink


@pytest.fixture
def make_study(tmp_path_factory) -> Callable:
    """make_study(reference, counts_NM, gwas, log10p): writes both, returns the Study."""
    from tests.studies import Study, write_gwas, write_reference

    def make(reference, counts_NM, gwas, log10p, rows: int = 7) -> Study:
        folder = tmp_path_factory.mktemp("study")
        write_reference(folder / "geno", reference, counts_NM)
        write_gwas(folder / "gwas", gwas, log10p, rows)
        return Study(folder)

    return make


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    """The store of a tiny cohort of 44; do not write to it."""
    from tests.balls import make_store

    return make_store(tmp_path_factory.mktemp("cohort"), 44)
