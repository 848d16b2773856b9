"""Which process am I, of how many, and who started me? A pure function of the environment. And on how many cores?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpc.errors import ConfigError

# Launcher name -> the variables that hold rank, local rank, size and node.
# The order matters: torchrun and deepspeed may run inside Slurm or MPI, and then the inner launcher counts.
_LAUNCHERS = (
    ("torchrun", "TORCHELASTIC_RUN_ID", ("RANK", "LOCAL_RANK", "WORLD_SIZE", "GROUP_RANK")),
    ("env", "RANK", ("RANK", "LOCAL_RANK", "WORLD_SIZE", "CROSS_RANK")),
    ("srun", "SLURM_STEP_ID", ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS", "SLURM_NODEID")),
    ("mpirun", "OMPI_COMM_WORLD_RANK",
     ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_NODE_RANK")),
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """One process among `size`: its rank, its rank on this node, its node, and the launcher that made it."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    node: int = 0
    launcher: str = "alone"

    @property
    def is_main(self) -> bool:
        """True on the one process that prints, writes tables and publishes."""
        return self.rank == 0

    @classmethod
    def detect(cls, environ: Mapping[str, str]) -> World:
        """The world described by the environment. Raises ConfigError where a launcher's variables disagree."""
        for launcher, marker, names in _LAUNCHERS:
            if marker not in environ:
                continue
            rank, local_rank, size, node = (_integer(environ, name) for name in names)
            if size is None and launcher == "env":
                continue  # a lone RANK variable is no launcher
            if rank is None or size is None or not 0 <= rank < size:
                raise ConfigError(
                    f"{launcher}: {names[0]}={environ.get(names[0])!r} and {names[2]}={environ.get(names[2])!r} do not "
                    f"describe a rank of a world; start with torchrun, deepspeed or srun, or unset {marker}"
                )
            return cls(rank, rank if local_rank is None else local_rank, size, node or 0, launcher)
        return cls()


def outside(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what makes a process a rank: for a program that starts ranks of its own."""
    inside = {name for _, marker, names in _LAUNCHERS for name in (marker, *names)} | {"MASTER_ADDR", "MASTER_PORT"}
    return {name: value for name, value in environ.items() if name not in inside}


def cores() -> int:
    """Cores that this process may use: those of its affinity mask, within the quota of its control groups."""
    mask = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return mask if quota is None else max(1, min(mask, int(quota)))


def cpu_quota(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores' worth of time that the control groups of this process leave it (Linux, versions 1 and 2); None: no limit.

    Containers, systemd and Kubernetes limit a process so. A thread more than this is stopped for part of each period.
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    groups_of_lines = (line.split(":", 2) for line in lines)
    found = [quota for _, controllers, path in groups_of_lines for quota in _quotas(controllers, path, root)]
    return min(found, default=None)


def _quotas(controllers: str, path: str, root: Path) -> Iterator[float]:
    """The quotas of a control group and of all above it."""
    if controllers and "cpu" not in controllers.split(","):
        return
    top = root / "cpu" if controllers else root
    place = top / path.strip("/")
    for folder in (place, *place.parents):
        if not folder.is_relative_to(top):
            return
        try:
            if controllers:
                quota, period = (float((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            else:
                quota, period = map(float, (folder / "cpu.max").read_text().split())  # "max" is no number
        except (OSError, ValueError):
            continue
        if quota > 0 and period > 0:
            yield quota / period


def _integer(environ: Mapping[str, str], name: str) -> int | None:
    value = environ.get(name, "")
    return int(value) if value.lstrip("-").isdigit() else None
