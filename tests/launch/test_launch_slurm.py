"""launch/train.sbatch and launch/task.sh on a Slurm of two nodes, which this file starts and ends."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster
LAUNCH = Path(__file__).parents[2] / "launch"
CONF = """
ClusterName=launch
SlurmctldHost={head.name}({head.address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,sched_min_interval=0
ReturnToService=2
KillWait=5
MinJobAge=600
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdParameters=config_overrides
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """The Slurm of two nodes, spoken to from the first."""

    def __init__(self, nodes, folder: Path):
        self.nodes, self.folder, self.conf = nodes, folder, folder / "slurm.conf"
        for name in ("state", *(f"spool.{node.name}" for node in nodes)):
            (folder / name).mkdir()
        lines = [f"NodeName={node.name} NodeAddr={node.address} CPUs=4 RealMemory=4000" for node in nodes]
        self.conf.write_text(CONF.format(head=nodes[0], folder=folder, nodes="\n".join(lines)))
        # slurmd asks for a kind of cgroup even where nothing uses one.
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        (folder / "munge.key").write_bytes(bytes(range(128)))
        (folder / "munge.key").chmod(0o600)
        files = {"socket": "socket", "key-file": "key", "log-file": "log", "pid-file": "pid", "seed-file": "seed"}
        words = [f"--{option}={folder}/munge.{file}" for option, file in files.items()]
        self.daemons = [nodes[0].start("munged", "--foreground", "--force", *words)]
        self.daemons.append(nodes[0].start("slurmctld", "-D", "-c", SLURM_CONF=str(self.conf)))
        self.daemons += [node.start("slurmd", "-D", "-N", node.name, SLURM_CONF=str(self.conf)) for node in nodes]

    def ask(self, *words: str | Path, **variables: str) -> str:
        """The output of a command of Slurm's."""
        return self.nodes[0].run(*words, SLURM_CONF=str(self.conf), **variables)

    def wait_until_idle(self) -> None:
        """Return once both nodes can run jobs."""
        limit = time.monotonic() + 30
        while True:
            found = self.nodes[0].start("sinfo", "-h", "-N", "-t", "idle", "-o", "%N", SLURM_CONF=str(self.conf))
            if found.code() == 0 and found.output.split() == [node.name for node in self.nodes]:
                return
            outputs = "\n".join(daemon.output for daemon in self.daemons)
            logs = "\n".join(path.read_text() for path in self.folder.glob("slurm*.log"))
            assert time.monotonic() < limit, f"{found.output}\n{outputs}\n{logs}"
            time.sleep(0.2)

    def submit(self, *words: str | Path, **variables: str) -> Job:
        """sbatch."""
        log = self.folder / f"job-{time.monotonic_ns()}.log"
        number = self.ask("sbatch", "--parsable", f"--output={log}", *words, **variables).split()[-1]
        return Job(self, number, log)


class Job:
    """A job, and what it has printed."""

    def __init__(self, slurm: Slurm, number: str, log: Path):
        self.slurm, self.number, self.log = slurm, number, log

    def facts(self) -> dict[str, str]:
        """What Slurm says of it."""
        words = self.slurm.ask("scontrol", "show", "job", self.number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_for(self, seconds: float = 150.0, **facts: str) -> None:
        """Return once `facts` hold."""
        limit = time.monotonic() + seconds
        while not facts.items() <= (found := self.facts()).items():
            assert time.monotonic() < limit, f"{found}\n{self.output}"
            time.sleep(0.3)

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""


@pytest.fixture(scope="module")
def slurm(nodes, tmp_path_factory) -> Iterator[Slurm]:
    """Slurm on the two nodes; ends with this module."""
    for tool in ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} here; on Debian and Ubuntu: apt-get install slurm-wlm munge")
    cluster = Slurm(nodes, tmp_path_factory.mktemp("slurm"))
    try:
        cluster.wait_until_idle()
        yield cluster
    finally:
        for daemon in cluster.daemons:
            daemon.process.kill()


@pytest.mark.parametrize(("tasks", "launcher"), [(1, "torchrun"), (2, "srun")])
def test_a_job_on_two_nodes(slurm, trains, tasks, launcher):
    """One task a node starts torchrun; with several, each task is a rank."""
    job = slurm.submit("--nodes=2", f"--ntasks-per-node={tasks}", LAUNCH / "train.sbatch", *trains.words(), RANKS="1")
    job.wait_for(JobState="COMPLETED")
    trains.check(launcher, ranks=2 * tasks)
    assert job.facts()["Restarts"] == "0"


def test_srun_by_hand_on_one_node(slurm, trains):
    slurm.ask("srun", "--nodes=1", "--ntasks-per-node=2", LAUNCH / "task.sh", *trains.words())
    trains.check("srun")


@pytest.mark.parametrize("tasks", [1, 2])
def test_a_job_stopped_by_a_signal_is_queued_again(slurm, trains, tasks):
    """The first start is signalled, once by its time limit; the second goes on from what it saved, and is cancelled."""
    words = ["--nodes=2", f"--ntasks-per-node={tasks}", LAUNCH / "train.sbatch", *trains.words("epochs=1000000")]
    if tasks == 1:
        job = slurm.submit("--time=2", "--signal=USR1@75", *words, RANKS="1")  # 45 s after it began
    else:
        job = slurm.submit(*words)
        trains.wait_for_steps()
        slurm.ask("scancel", "--signal=USR1", job.number)
    job.wait_for(Restarts="1", JobState="PENDING")
    saved = trains.last()["step"]
    assert saved > 0 and f"step {saved} of" in job.output and "queued again" in job.output
    limit = time.monotonic() + 60
    while f"continuing from step {saved} of" not in job.output:
        assert time.monotonic() < limit, job.output
        if job.facts()["JobState"] == "PENDING":  # Slurm has it wait for two minutes, once all of it has ended
            slurm.ask("scontrol", "update", f"JobId={job.number}", "StartTime=now")
        time.sleep(0.5)
    slurm.ask("scancel", job.number)
    job.wait_for(JobState="CANCELLED")


def test_a_mistake_fails_the_job(slurm, trains):
    words = trains.words("global_batch=7")
    job = slurm.submit("--nodes=2", LAUNCH / "train.sbatch", *words, RANKS="1")
    job.wait_for(JobState="FAILED", ExitCode="2:0", Restarts="0")
    assert "global_batch=7: cannot be shared by 2 ranks" in job.output


def test_a_program_in_the_batch_script_itself_is_alone(slurm, tmp_path):
    """Only srun makes ranks: what a job of two tasks runs by itself, or by srun -n1, is a world of one."""
    say = "-c 'import os; from hpc.world import World; print(World.detect(os.environ))'"
    script = tmp_path / "alone.sbatch"
    script.write_text(f'#!/usr/bin/env bash\n"$UDIPDIST_PYTHON" {say}\nsrun -n1 -N1 "$UDIPDIST_PYTHON" {say}\n')
    job = slurm.submit("--ntasks=2", script)
    job.wait_for(JobState="COMPLETED")
    assert [line.split("launcher=")[1] for line in job.output.splitlines()] == ["'alone')", "'srun')"]
    assert job.output.count("size=1") == 2
