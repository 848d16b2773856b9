"""Parts on Dask workers of this machine, on a scheduler that is there, and in Slurm jobs; and who dies on the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpc import cluster, parts
from hpc.cluster import ClusterConfig
from hpc.errors import ConfigError, Incomplete, InputError
from hpc.files import publish_text
from hpc.testing import HANGS

ROOT = Path(__file__).parents[2]


@dataclass
class Squares:
    """Writes i * i; the part `deadly` kills its worker: once, or `always`; each part lasts `seconds`."""

    place: Path
    n_parts: int = 6
    unit: str = "numbers"
    deadly: int = -1
    always: bool = False
    seconds: float = 0.0

    def part(self, index: int) -> dict:
        time.sleep(self.seconds)
        if index == self.deadly and (self.always or not (self.place / "died").exists()):
            (self.place / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        publish_text(self.place / f"{index}.txt", str(index**2))
        return {"value": index**2}

    def size_of_part(self, index: int) -> int:
        return 1

    def files_of_part(self, index: int) -> list[Path]:
        return [self.place / f"{index}.txt"]


class Broken(Squares):
    def part(self, index: int) -> dict:
        raise RuntimeError(f"part {index} is broken")


def config(**keys) -> ClusterConfig:
    return ClusterConfig.parse(keys)


def values(found: list[dict]) -> list[int]:
    return [fact["value"] for fact in found]


@contextmanager
def scheduler(file: Path, workers: int = 1, port: int = 0):
    """A Dask scheduler in a process of its own, with workers; yields the processes, the scheduler's first."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": ROOT}
    words = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--scheduler-file", str(file)]
    file.unlink(missing_ok=True)
    started = [subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", *words], **quiet)]
    words = ["--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", "--death-timeout", "30"]
    try:
        for _ in range(workers):
            command = [sys.executable, "-m", "distributed.cli.dask_worker", *words]
            started.append(subprocess.Popen(command, **quiet))
        limit = time.monotonic() + HANGS
        while not file.exists() and time.monotonic() < limit:
            time.sleep(0.05)
        yield started
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A scheduler with one worker that stay for this module."""
    file = tmp_path_factory.mktemp("dask") / "scheduler.json"
    with scheduler(file):
        yield str(file)


def test_parts_on_a_scheduler_that_is_there(address, tmp_path):
    found = parts.run(Squares(tmp_path), "squares", cluster.runner(2, config(address=address)))
    assert values(found) == [0, 1, 4, 9, 16, 25]
    assert not list((tmp_path / "parts").glob("*.log")) and not list(tmp_path.glob(".seen*"))


def test_an_error_on_a_worker_reaches_the_caller(address, tmp_path):
    with pytest.raises(RuntimeError, match=r"part . is broken"):
        parts.run(Broken(tmp_path), "squares", cluster.runner(0, config(address=address)))


def test_a_worker_that_does_not_see_the_folder(address, tmp_path, monkeypatch):
    @contextmanager
    def elsewhere(job: Squares):
        module = type(job).__module__
        path = tmp_path / "not_mounted" / ".seen"
        yield cluster.worker.Probe(path, "1", module, cluster.worker.software(module))

    monkeypatch.setattr(cluster.worker, "probing", elsewhere)
    with pytest.raises(InputError, match=r"worker tcp://\S+ does not see the folder \S+not_mounted; .* same path"):
        parts.run(Squares(tmp_path), "squares", cluster.runner(0, config(address=address)))
    assert parts.pending(Squares(tmp_path)) == [*range(6)]


def test_a_scheduler_with_another_version(address, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.worker, "software", lambda module: "9.9 (0123abcd)")
    with pytest.raises(
        InputError, match=r"scheduler has udipdist 0\S+ \(\w{8}\), and this is 9.9 \(0123abcd\); install"
    ):
        parts.run(Squares(tmp_path), "squares", cluster.runner(0, config(address=address)))


def test_the_same_version_with_other_sources(tmp_path, monkeypatch):
    folder = tmp_path / "package_of_a_job"
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    (folder / "__init__.py").write_text("A = 1\n")
    first = cluster.worker.software("package_of_a_job.module")
    assert cluster.worker.software("package_of_a_job.module") == first
    (folder / "__init__.py").write_text("A = 2\n")
    cluster.worker.software.cache_clear()
    assert cluster.worker.software("package_of_a_job.module") != first


def test_a_worker_with_other_software(address, tmp_path, monkeypatch):
    from distributed import Client

    asked = Client.get_versions

    def other_numpy_here(client: Client) -> dict:
        found = asked(client)
        return found | {"client": {"packages": found["client"]["packages"] | {"numpy": "1.0"}}}

    monkeypatch.setattr(Client, "get_versions", other_numpy_here)
    with pytest.raises(
        InputError, match=r"worker tcp://\S+ has other software \(numpy 2\S+, here 1.0\); start it with"
    ):
        parts.run(Squares(tmp_path), "squares", cluster.runner(0, config(address=address)))


def test_a_worker_that_lacks_the_package(address, tmp_path, monkeypatch):
    package = tmp_path / "here" / "a_package_of_ours"
    publish_text(package / "__init__.py", "")
    monkeypatch.syspath_prepend(package.parent)

    class Elsewhere(Squares):
        pass

    Elsewhere.__module__ = "a_package_of_ours"
    with pytest.raises(
        InputError, match=r"scheduler cannot import what it needs \(No module named 'a_package_of_ours'"
    ):
        parts.run(Elsewhere(tmp_path), "squares", cluster.runner(0, config(address=address)))


@pytest.mark.parametrize(
    ("keys", "error", "told"),
    [
        (
            {"address": "tcp://127.0.0.1:9", "wait": 1},
            InputError,
            r"tcp://127.0.0.1:9: no Dask scheduler answers there",
        ),
        ({"address": "nowhere.json"}, ConfigError, "nowhere.json: is neither tcp://HOST:PORT nor an existing"),
        ({"address": "smoke://signals:1", "wait": 1}, InputError, "smoke://signals:1: no Dask scheduler answers there"),
    ],
)
def test_no_scheduler(tmp_path, keys, error, told):
    with pytest.raises(error, match=told):
        parts.run(Squares(tmp_path), "squares", cluster.runner(0, config(**keys)))


def test_a_scheduler_without_workers(tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, dashboard_address=":0") as empty:
        keys = config(address=empty.scheduler_address, wait=1)
        with pytest.raises(Incomplete, match=r"has had no worker for \d+ s; start some"):
            parts.run(Squares(tmp_path), "squares", cluster.runner(0, keys))


def test_two_places_at_once():
    with pytest.raises(ConfigError, match="are two places to run parts; give only one"):
        config(address="tcp://a:1", slurm={"jobs": 2})


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_killed_once_is_replaced(tmp_path, workers):
    found = parts.run(Squares(tmp_path, deadly=3), "squares", cluster.runner(workers))
    assert (tmp_path / "died").exists() and values(found) == [0, 1, 4, 9, 16, 25]


class Answer:
    """A future whose answer is lost `times` times, and then is `value`, or an error of its own."""

    def __init__(self, times: int, value: object):
        self.times, self.value, self.status = times, value, "finished"

    def result(self, timeout: float) -> object:
        self.times -= 1
        if self.times >= 0:
            self.status = "pending"
            raise TimeoutError
        if isinstance(self.value, Exception):
            self.status = "error"
            raise self.value
        return self.value


def test_an_answer_that_was_lost_is_waited_for_while_there_are_workers(tmp_path):
    looks = []
    assert cluster._result(Squares(tmp_path), 0, Answer(3, {"value": 0}), lambda: looks.append(1)) == {"value": 0}
    assert len(looks) == 3
    with pytest.raises(TimeoutError, match="of the part itself"):
        cluster._result(Squares(tmp_path), 0, Answer(1, TimeoutError("of the part itself")), lambda: looks.append(1))
    patience = cluster._LocalPatience(None, config(wait=5))
    patience.judge(n_workers=0, seconds=4, done=0)
    with pytest.raises(Incomplete, match="none has come back for 6 s.*the same command goes on"):
        patience.judge(n_workers=0, seconds=6, done=0)


def test_a_part_that_kills_every_worker_is_named_with_its_log(tmp_path):
    job = Squares(tmp_path, deadly=3, always=True)
    told = r"part 3 killed 2 workers .* tcp://\S+, most likely .*\n  .* part 3 begins: .*\n  .* part 3 begins: .* free$"
    with pytest.raises(Incomplete, match=told):
        parts.run(job, "squares", cluster.runner(1, config(failures=1)))
    assert 3 in parts.pending(job)
    job.deadly = -1
    assert values(parts.run(job, "squares", cluster.runner(0))) == [0, 1, 4, 9, 16, 25]


def test_a_scheduler_killed_in_the_middle_and_started_again(tmp_path):
    out, file = tmp_path / "out", tmp_path / "scheduler.json"
    job = Squares(out, seconds=0.3, n_parts=12)
    with scheduler(file) as started:
        kill = threading.Thread(target=lambda: (_wait_for_parts(out, 2), started[0].kill()))
        kill.start()
        with pytest.raises(Incomplete, match=r"went away \(.*\); start it again, and run the same command"):
            parts.run(job, "squares", cluster.runner(0, config(address=str(file), wait=30)))
        kill.join()
    assert 2 <= 12 - len(parts.pending(job)) < 12
    before = {path: path.stat().st_mtime_ns for path in (out / "parts").glob("*.json")}
    with scheduler(file):
        found = parts.run(Squares(out, n_parts=12), "squares", cluster.runner(0, config(address=str(file))))
    assert values(found) == [i**2 for i in range(12)]
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())


def _wait_for_parts(place: Path, n: int) -> None:
    limit = time.monotonic() + HANGS
    while len(list(place.glob("parts/*.json"))) < n and time.monotonic() < limit:
        time.sleep(0.02)


# ---------------------------------------------------------------------------------------------------------- Slurm


def test_slurm_without_slurm(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"cluster.slurm.jobs=2: this machine has no sbatch; .* login node"):
        parts.run(Squares(tmp_path), "squares", cluster.runner(0, config(slurm={"jobs": 2})))


def test_slurm_without_dask_jobqueue(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.shutil, "which", lambda name: "/bin/true")
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(ConfigError, match=r"needs the package dask-jobqueue; type pip install 'udipdist\[slurm\]'"):
        parts.run(Squares(tmp_path), "squares", cluster.runner(0, config(slurm={"jobs": 2})))


def test_what_slurm_refuses(tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed (pip install 'udipdist[slurm]')")
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: nowhere' >&2\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:{os.environ['PATH']}")
    with pytest.raises(ConfigError, match="Slurm refuses the job of a worker: sbatch: error: invalid partition"):
        parts.run(Squares(tmp_path), "squares", cluster.runner(0, config(slurm={"jobs": 2, "queue": "nowhere"})))


@pytest.fixture
def slurm() -> None:
    """Skips where no Slurm answers."""
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed (pip install 'udipdist[slurm]')")
    if shutil.which("sbatch") is None:
        pytest.skip("there is no sbatch here")
    words = ["timeout", "20", "sinfo", "--noheader", "--states=idle,mixed"]
    asked = subprocess.run(words, capture_output=True, text=True)
    if asked.returncode or not asked.stdout.strip():
        pytest.skip(f"Slurm has no idle node here ({[*asked.stderr.splitlines(), 'sinfo lists none'][0]})")


def test_parts_in_slurm_jobs(slurm, tmp_path):
    keys = config(slurm={"jobs": 2, "walltime": "00:05:00", "memory": "500MB", "prologue": [f"cd {ROOT}"]})
    found = parts.run(Squares(tmp_path, deadly=3), "squares", cluster.runner(0, keys))
    assert (tmp_path / "died").exists() and values(found) == [0, 1, 4, 9, 16, 25]
    assert list((tmp_path / "parts" / "slurm").glob("*.err"))
