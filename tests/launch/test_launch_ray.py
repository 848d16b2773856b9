"""A training inside a Ray worker: hpc.torchrun.started in a task and in an actor, and what is left when they go."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psutil
import pytest

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ray() -> Iterator[ModuleType]:
    """Ray on this machine, with two cores; it ends with this module."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", str(ROOT))
        module = pytest.importorskip("ray", reason="ray is not installed (pip install ray)")
        folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # Ray's sockets need a short path
        try:
            keys = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
            module.init(num_cpus=2, object_store_memory=150 << 20, _temp_dir=folder, **keys)
            yield module
        finally:
            module.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def train_in_a_task(ray):
    """A task that trains on two ranks, writes what they say to a file, and returns the exit code."""

    @ray.remote(num_cpus=2)
    def task(words: list[str], log: str) -> int:
        import subprocess

        from hpc.torchrun import run

        with open(log, "w") as file:
            return run("udipdist", ["train", *words], ranks=2, stdout=file, stderr=subprocess.STDOUT)

    return task


def ranks_of(run_dir: Path) -> list[psutil.Process]:
    """The processes that train into `run_dir`, and the launcher."""
    key = f"run_dir={run_dir}"
    return [process for process in psutil.process_iter(["cmdline"]) if key in (process.info["cmdline"] or [])]


def wait_until_gone(run_dir: Path) -> None:
    limit = time.monotonic() + 30
    while left := ranks_of(run_dir):
        assert time.monotonic() < limit, left
        time.sleep(0.1)


def test_a_task_trains(ray, train_in_a_task, trains, tmp_path):
    log = tmp_path / "log"
    assert ray.get(train_in_a_task.remote(trains.words(), str(log))) == 0, log.read_text()
    trains.check("torchrun")


def test_a_cancelled_task_takes_its_ranks_with_it(ray, train_in_a_task, trains, tmp_path):
    task = train_in_a_task.remote(trains.words("epochs=1000000"), str(tmp_path / "log"))
    trains.wait_for_steps()
    assert len(ranks_of(trains.run_dir)) == 3
    ray.cancel(task)
    with pytest.raises(ray.exceptions.RayError):
        ray.get(task)
    wait_until_gone(trains.run_dir)


def test_a_killed_actor_takes_its_ranks_with_it(ray, trains):
    @ray.remote(num_cpus=2)
    class Trial:
        def train(self, words: list[str]) -> int:
            from hpc.torchrun import run

            return run("udipdist", ["train", *words], ranks=2)

    trial = Trial.remote()
    trial.train.remote(trains.words("epochs=1000000"))
    trains.wait_for_steps()
    assert len(ranks_of(trains.run_dir)) == 3
    ray.kill(trial)
    wait_until_gone(trains.run_dir)


def test_a_rank_of_ray_train_starts_a_world_of_its_own(ray):
    """Ray Train tells its workers RANK and WORLD_SIZE; a program they start is none of these ranks."""

    @ray.remote(num_cpus=1)
    def task() -> str:
        import subprocess

        from hpc.torchrun import started

        os.environ.update(RANK="1", LOCAL_RANK="1", WORLD_SIZE="2", NODE_RANK="0", MASTER_ADDR="x", MASTER_PORT="1")
        say = "import os; from hpc.world import World; print(World.detect(os.environ).launcher, end='')"
        with started("timeit", ["-n1", "-r1", say], stdout=subprocess.PIPE, text=True) as process:
            return process.communicate()[0]

    assert ray.get(task.remote()).startswith("alone")
