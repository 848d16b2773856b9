"""Where parts run: here, in worker processes of this machine, on a running Dask scheduler, or in Slurm jobs.

The only importer of dask.distributed. Whatever happens to workers, a part is done when its record is there
(hpc.parts), so every error here ends with the same advice: the same command goes on.
"""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

import hpc
from hpc import parts, worker
from hpc.config import Config
from hpc.errors import ConfigError, Incomplete, InputError, some
from hpc.shelter import SAFE_PATH
from hpc.stopping import held_back
from hpc.threads import share

log = logging.getLogger(__name__)
_MUST_AGREE = ("python", "distributed", "dask", "numpy")
_LOOK_EVERY_SECONDS = 2.0
_SAY_EVERY_SECONDS = 30.0


class SlurmConfig(Config):
    """Workers that are Slurm jobs, submitted by dask-jobqueue (pip install 'udipdist[slurm]')."""

    jobs: Annotated[int, Field(ge=0)] = Field(0, description="Slurm jobs to submit, one worker each; 0: no Slurm")
    queue: str | None = Field(None, description="partition (sbatch -p)")
    account: str | None = Field(None, description="account (sbatch -A)")
    walltime: str = Field("01:00:00", description="time limit of a job; lost workers are submitted again")
    memory: str = Field("4GB", description="memory of a job")
    cores: Annotated[int, Field(gt=0)] = Field(1, description="cores of a job, the threads of a part")
    interface: str | None = Field(None, description="network interface of the nodes, such as ib0 or eth0")
    host: str | None = Field(None, description="address by which nodes reach this machine; default by interface")
    python: str | None = Field(None, description="Python of the workers; default the one that runs this")
    options: list[str] = Field([], description="more options for sbatch, as [--qos=long, --constraint=avx512]")
    prologue: list[str] = Field([], description="lines of the job script before the worker, as [module load gcc]")


class ClusterConfig(Config):
    """Where parts run, if not in `workers` processes of this machine."""

    address: str | None = Field(
        None, description="a running Dask scheduler: tcp://HOST:8786, or the path of its scheduler file"
    )
    wait: Annotated[float, Field(gt=0)] = Field(
        60.0, description="a run ends after this many seconds without a scheduler or any worker"
    )
    failures: Annotated[int, Field(ge=0)] = Field(3, description="workers that one part may kill before the run ends")
    slurm: SlurmConfig = SlurmConfig()

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.address is not None and self.slurm.jobs:
            raise ValueError("cluster.address and cluster.slurm.jobs: are two places to run parts; give only one")
        return self


def runner(workers: int, config: ClusterConfig | None = None) -> parts.Runner:
    """A runner for `parts.run`: the scheduler at `config.address`, Slurm jobs, `workers` local processes; or here."""
    config = config or ClusterConfig()
    if config.address is not None:
        return partial(_spread, config=config, connect=partial(_existing, config))
    if config.slurm.jobs:
        return partial(_spread, config=config, connect=partial(_slurm, config))
    if workers:
        return partial(_spread, config=config, connect=partial(_local, config, workers))
    return parts.here


def threads(workers: int, config: ClusterConfig | None = None) -> int:
    """Threads for one part: a Slurm job has its cores, workers of this machine share them, others have one."""
    config = config or ClusterConfig()
    if config.slurm.jobs:
        return config.slurm.cores
    if config.address is not None:
        return 1
    return share(max(1, workers))


# ---------------------------------------------------------------------------------------------- the caller's side

Watch = Callable[[int], None]  # called again and again with the parts done; Incomplete where no worker will come
Connect = Callable[[Path, int], AbstractContextManager[tuple[Any, Watch]]]


def _spread(
    job: parts.Job, indices: list[int], config: ClusterConfig, connect: Connect
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run parts on Dask workers, in the order in which they end."""
    if not indices:
        return
    import dask
    from distributed import as_completed
    from distributed.comm import CommClosedError

    logging.getLogger("distributed").setLevel(logging.ERROR)
    logging.getLogger("distributed.nanny.memory").setLevel(logging.WARNING)  # says which worker it ends, and why
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # says at length what is one message here
    settings = {
        "distributed.scheduler.allowed-failures": config.failures,
        "distributed.scheduler.worker-saturation": 1.0,  # a worker holds the part it runs and no other: it is to blame
        "distributed.comm.timeouts.connect": f"{config.wait}s",
    }
    try:
        with (
            dask.config.set(settings),
            connect(job.place, len(indices)) as (client, watch),
            worker.probing(job) as probe,
        ):
            _require_same_software(client, probe)
            shared = client.submit(
                worker.same, job, pure=False
            )  # a task, not scattered data: made again where a worker dies
            futures = {client.submit(worker.do_part, shared, i, probe, pure=False): i for i in indices}
            completed, done = as_completed(futures, loop=client.loop), 0
            try:
                while not completed.is_empty():
                    batch = completed.next_batch(block=False)
                    if not batch:
                        time.sleep(0.02)
                        watch(done)
                    for future in batch:
                        index = futures.pop(future)
                        yield index, _result(job, index, future, partial(watch, done))
                        done += 1
            finally:
                if futures and client.status == "running":
                    client.cancel(list(futures), force=True)
    except (CancelledError, CommClosedError) as error:
        where = f" at {config.address}" if config.address else ""
        raise Incomplete(
            f"{job.place}: the Dask scheduler{where} went away ({getattr(error, 'reason', error)}); start it again, "
            "and run the same command: it continues"
        ) from None


def _result(job: parts.Job, index: int, future: Any, watch: Callable[[], None]) -> dict[str, Any]:
    """What a part returned. Raises its error, or Incomplete where it killed its workers, or where none is left.

    A worker that dies before its answer is fetched takes the answer along: the part is done again elsewhere, and
    `watch` looks meanwhile whether there is an elsewhere.
    """
    from distributed import KilledWorker

    try:
        while True:
            try:
                facts: dict[str, Any] = future.result(timeout=_LOOK_EVERY_SECONDS)
                break
            except TimeoutError:
                if future.status == "error":  # it is the part's own
                    raise
                watch()
    except KilledWorker as error:
        raise Incomplete(_of_killed(job, index, error)) from None
    except ImportError as error:
        raise InputError(_of_import(f"worker of part {index}", str(error))) from None
    return facts


def _of_killed(job: parts.Job, index: int, error: Any) -> str:
    path = parts.log_of_part(job.place, index)
    said = path.read_text(encoding="utf-8", errors="replace").strip().splitlines() if path.exists() else []
    lines = "".join(f"\n  {line}" for line in said[-12:])
    return (
        f"{job.place}: part {index} killed {error.allowed_failures + 1} workers in a row, the last at "
        f"{error.last_worker.address}, most likely out of memory; the same command continues with the parts that "
        f"are left: give fewer workers= or more memory"
        + (f". What the part said last ({path}):{lines}" if said else "")
    )


def _of_import(who: str, reason: str) -> str:
    return (
        f"the Dask {who} cannot import what it needs ({reason}); install udipdist {hpc.__version__} for its Python, or "
        "start it where that is installed"
    )


def _require_same_software(client: Any, probe: worker.Probe) -> None:
    """Ask the scheduler and the workers that are there before they get work. Raises InputError."""
    found = client.get_versions()
    ours = _versions(found["client"])
    others = {"scheduler": found["scheduler"], **{f"worker {name}": w for name, w in found["workers"].items()}}
    for who, theirs in others.items():
        theirs = _versions(theirs)
        names = _MUST_AGREE if who != "scheduler" else _MUST_AGREE[:3]
        differ = [f"{name} {theirs[name]}, here {ours[name]}" for name in names if theirs[name] != ours[name]]
        if differ:
            raise InputError(f"the Dask {who} has other software ({some(differ)}); start it with the same Python")
    look = worker.eyes(probe)
    kind, seen, _ = client.run_on_scheduler(look)  # it reads tasks before it hands them out
    if kind == "import":
        raise InputError(_of_import("scheduler", seen))
    probe.judge_software("scheduler", seen)
    for name, answer in client.run(look, on_error="return").items():
        if isinstance(answer, BaseException):
            raise InputError(f"the Dask worker {name} cannot be asked what it sees ({answer!r})")
        kind, seen, text = answer
        if kind == "import":
            raise InputError(_of_import(f"worker {name}", seen))
        probe.judge(name, seen, text)


def _versions(answer: dict[str, Any]) -> dict[str, Any]:
    """The versions that must agree, from what Dask says of a process; of Python the first two numbers."""
    packages = dict(answer["packages"])
    packages["python"] = ".".join(str(packages["python"]).split(".")[:2])
    return {name: packages.get(name) for name in _MUST_AGREE}


# ----------------------------------------------------------------------------------------------- the three places

# Dask lets its workers give memory back at 64 KiB; each large buffer is then faulted in anew, which nearly doubled the
# processor time of ingest.
_KEEP_MEMORY = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 256 * 2**20,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 32 * 2**20,
}


@contextmanager
def _local(config: ClusterConfig, workers: int, place: Path, n_parts: int) -> Iterator[tuple[Any, Watch]]:
    import dask
    from distributed import Client, LocalCluster

    resource_tracker.ensure_running()  # before the block: where it starts, it lets the signals through again
    with dask.config.set(_KEEP_MEMORY), held_back(signal.SIGINT):
        started = LocalCluster(
            n_workers=min(workers, n_parts), threads_per_worker=1, processes=True, dashboard_address=":0"
        )
    with (
        dask.config.set(_KEEP_MEMORY),
        started as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client, _LocalPatience(client, config).look


@contextmanager
def _existing(config: ClusterConfig, place: Path, n_parts: int) -> Iterator[tuple[Any, Watch]]:
    from distributed import Client

    address = str(config.address)
    if "://" in address:
        where = {"address": address}
    elif Path(address).is_file():
        where = {"scheduler_file": address}
    else:
        raise ConfigError(
            f"cluster.address={address}: is neither tcp://HOST:PORT nor an existing scheduler file; start one with "
            "`dask scheduler --scheduler-file FILE`"
        )
    try:
        client = Client(**where, timeout=config.wait, set_as_default=False)
    except (OSError, ValueError, KeyError, TimeoutError) as error:
        raise InputError(
            f"cluster.address={address}: no Dask scheduler answers there within {config.wait:g} s "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); start one with `dask scheduler`, "
            "or give its address"
        ) from None
    with client:
        log.info("%d workers of %s; %s", len(_workers(client)), address, client.dashboard_link)
        yield client, _Patience(client, config).look


@contextmanager
def _slurm(config: ClusterConfig, place: Path, n_parts: int) -> Iterator[tuple[Any, Watch]]:
    slurm = config.slurm
    if shutil.which("sbatch") is None:
        raise ConfigError(
            f"cluster.slurm.jobs={slurm.jobs}: this machine has no sbatch; type this on a login node of a Slurm "
            "cluster, or give workers= or cluster.address="
        )
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise ConfigError(
            f"cluster.slurm.jobs={slurm.jobs}: needs the package dask-jobqueue; type pip install 'udipdist[slurm]'"
        ) from None
    from distributed import Client

    logs = Path(place).absolute() / "parts" / "slurm"
    scheduler = {"dashboard_address": ":0"} | ({"host": slurm.host} if slurm.host else {})
    jobs = min(slurm.jobs, n_parts)
    try:
        cluster = SLURMCluster(
            cores=1,  # one part at a time
            processes=1,
            job_cpu=slurm.cores,
            memory=slurm.memory,
            queue=slurm.queue,
            account=slurm.account,
            walltime=slurm.walltime,
            interface=slurm.interface,
            python=slurm.python or sys.executable,
            scheduler_options=scheduler,
            log_directory=str(logs),
            job_extra_directives=list(slurm.options),
            job_script_prologue=[*(f"export {name}={value}" for name, value in SAFE_PATH.items()), *slurm.prologue],
        )
    except (ValueError, RuntimeError, OSError) as error:
        raise ConfigError(f"cluster.slurm: dask-jobqueue refuses these keys: {error}") from None
    with cluster:
        _require_accepted(cluster.job_script())
        cluster.scale(jobs=jobs)
        with Client(cluster, set_as_default=False) as client:
            log.info("%d Slurm jobs are submitted; their output: %s; %s", jobs, logs, client.dashboard_link)
            yield client, _SlurmPatience(client, config, cluster, jobs, logs).look


def _require_accepted(script: str) -> None:
    """Ask Slurm whether it would take the job. Raises ConfigError with its words."""
    asked = subprocess.run(["sbatch", "--test-only"], input=script, text=True, capture_output=True, check=False)
    if asked.returncode:
        raise ConfigError(f"cluster.slurm: Slurm refuses the job of a worker: {asked.stderr.strip()}")


def _workers(client: Any) -> list[str]:
    return list(client.scheduler_info()["workers"])


class _Patience:
    """Ends a run that has had no worker for `config.wait` seconds."""

    def __init__(self, client: Any, config: ClusterConfig):
        self.client, self.config = client, config
        self.looked = self.seen = time.monotonic()

    def look(self, done: int) -> None:
        """Look now and then; `done` parts are done. Raises Incomplete."""
        now = time.monotonic()
        if now - self.looked < _LOOK_EVERY_SECONDS:
            return
        self.looked = now
        n_workers = len(_workers(self.client))
        if n_workers:
            self.seen = now
        self.judge(n_workers, now - self.seen, done)

    def judge(self, n_workers: int, seconds: float, done: int) -> None:
        """What to do with `n_workers`, none for `seconds`. Raises Incomplete."""
        if seconds > self.config.wait:
            raise Incomplete(
                f"cluster.address={self.config.address}: has had no worker for {seconds:.0f} s; start some with "
                "`dask worker ADDRESS`, and run the same command: it continues"
            )


class _LocalPatience(_Patience):
    """A worker of this machine that has died is started again by Dask, which may fail where memory or time is short."""

    def judge(self, n_workers: int, seconds: float, done: int) -> None:
        """Raises Incomplete where none has come back."""
        if seconds > self.config.wait:
            raise Incomplete(
                f"all worker processes of this machine have died, and none has come back for {seconds:.0f} s, most "
                "likely for want of memory; give fewer workers= or more memory, and the same command goes on"
            )


class _SlurmPatience(_Patience):
    """Waits as long as Slurm has a job of ours; submits lost ones again as long as parts get done."""

    def __init__(self, client: Any, config: ClusterConfig, cluster: Any, jobs: int, logs: Path):
        super().__init__(client, config)
        self.cluster, self.jobs, self.logs = cluster, jobs, logs
        self.done, self.said = 0, self.looked

    def judge(self, n_workers: int, seconds: float, done: int) -> None:
        """Raises Incomplete where all jobs have ended and none did a part."""
        now = self.looked
        if n_workers < len(self.cluster.worker_spec) > len(self.cluster.workers) and done > self.done:
            self.done = done  # Dask has given a job up
            log.info("%d of %d Slurm jobs have ended; as many are submitted again", self.jobs - n_workers, self.jobs)
            self.cluster.scale(jobs=self.jobs)
        if n_workers:
            return
        states = self._states()
        if states and now - self.said > _SAY_EVERY_SECONDS:
            self.said = now
            log.info("waiting for Slurm: %d jobs, %s", len(states), ", ".join(sorted(set(states))).lower())
        if not states and seconds > self.config.wait:
            said = [line for path in sorted(self.logs.glob("*.err")) for line in path.read_text().splitlines()[-3:]]
            raise Incomplete(
                f"cluster.slurm: all {self.jobs} Slurm jobs have ended, and no worker is left; run the same "
                f"command again. Their logs: {self.logs}" + "".join(f"\n  {line}" for line in said[-6:])
            )

    def _states(self) -> list[str]:
        """What Slurm says of our jobs that it still has: pending, running ..."""
        ids = [str(worker.job_id) for worker in self.cluster.workers.values() if worker.job_id is not None]
        asked = subprocess.run(
            ["squeue", "--noheader", "--format=%T", f"--jobs={','.join(ids)}"],
            text=True, capture_output=True, check=False,
        )  # fmt: skip
        return asked.stdout.split()
