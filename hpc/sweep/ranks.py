"""The ranks of a trial: on its own node by hpc.torchrun, or on all nodes that Ray keeps for it."""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hpc import torchrun
from hpc.sweep.guard import guarded
from hpc.sweep.options import RayConfig


@contextmanager
def started(
    config: RayConfig, module: str, words: Sequence[str], env: Mapping[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """`python -m module words...` on the ranks of the trial that calls this; the process to wait for.

    On several nodes it is the launcher of this one, which ends as the ranks do, wherever they run. When the block ends,
    so do all ranks. `options` are of Popen.
    """
    if config.nodes == 1:
        with torchrun.started(module, words, config.ranks, env, **options) as process:
            yield process
        return
    import ray

    address = ray.util.get_node_ip_address()
    meet = ["--nnodes", str(config.nodes), "--nproc-per-node", str(config.ranks), "--rdzv-backend", "c10d"]
    meet += ["--rdzv-endpoint", f"{address}:{_free_port(address)}", "--rdzv-id", uuid.uuid4().hex]
    program = ["-m", module, *words]
    others = [_elsewhere(config, index, meet, program, dict(env or {})) for index in range(1, config.nodes)]
    here = [*meet, "--rdzv-conf", "is_host=1", "--local-addr", address, *program]
    try:
        with torchrun.started("hpc.torchrun", here, env=env, **options) as process:
            yield process
    finally:
        for other in others:
            ray.kill(other)


def _elsewhere(config: RayConfig, index: int, meet: list[str], program: list[str], env: dict[str, str]) -> Any:
    """An actor that runs torchrun on the node of bundle `index` of this trial."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = ray.util.get_current_placement_group()
    if group is None:
        raise RuntimeError(f"ray.nodes={config.nodes}: only a trial of a sweep has several nodes")
    place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
    options = {"num_cpus": config.trial_cpus, "num_gpus": config.gpus_per_trial, "scheduling_strategy": place}
    actor: Any = ray.remote(_Node).options(**options).remote()
    actor.run.remote(meet, program, env, os.getcwd())
    return actor


class _Node:
    """Runs torchrun on a node that is not the trial's first."""

    def run(self, meet: list[str], program: list[str], env: dict[str, str], folder: str) -> int:
        """Wait for the ranks here; their exit code. They end with this process, too."""
        import ray

        mine = ["--rdzv-conf", "is_host=0", "--local-addr", ray.util.get_node_ip_address()]
        with guarded("HPC_SWEEP_TRIAL", uuid.uuid4().hex):
            return torchrun.run("hpc.torchrun", [*meet, *mine, *program], env=env, cwd=folder)


def _free_port(address: str) -> int:
    with socket.socket() as found:
        found.bind((address, 0))
        port: int = found.getsockname()[1]
        return port
