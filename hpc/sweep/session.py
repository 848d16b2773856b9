"""A Ray of our own on this machine, or one that is there."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hpc.errors import ConfigError
from hpc.shelter import SAFE_PATH
from hpc.stopping import held_back
from hpc.sweep.guard import environment, guarded
from hpc.sweep.options import RayConfig
from hpc.sweep.stops import RUN
from hpc.world import cores

_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a configuration mean the same in a trial
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU sees none
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_AUTO_INIT": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # hpc.sweep.stops hears it
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
# The ports of a Ray are open to all who reach this machine. Ray reads these once, when it is imported.
_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
_STORE_BYTES = 100 << 20  # of Ray's objects: trials meet in files
_PATIENCE = 20.0  # seconds for a Ray that is there to answer
_LONGEST = 40  # characters of the folder of Ray's sockets: the system takes 107 with what Ray puts behind


def require_room(config: RayConfig, service: bool) -> None:
    """Before anything starts: one trial and the service must fit side by side. Raises ConfigError."""
    if config.trial_cpus < config.ranks:
        raise ConfigError(
            f"ray.cpus_per_trial={config.cpus_per_trial}: is less than one core for each of ray.ranks={config.ranks}; "
            "give at least as many, or fewer ranks"
        )
    if config.address is not None:
        return
    if config.nodes > 1:
        raise ConfigError(
            f"ray.nodes={config.nodes}: needs a Ray of several nodes; start one (launch/ray.sbatch), and give "
            "ray.address=auto"
        )
    have, kept = config.cpus or cores(), config.service_cpus if service else 0
    if config.trial_cpus + kept > have:
        kept_words = f" and {kept:g} for the service (ray.service_cpus)" if kept else ""
        raise ConfigError(
            f"ray.ranks={config.ranks}: a trial takes {config.trial_cpus} cores{kept_words}, and there are {have}; "
            "give fewer ranks, or ray.service_cpus=0: the service then works on the cores of trials that wait for it"
        )


@contextmanager
def connected(config: RayConfig) -> Iterator[str]:
    """Ray, in the block; the name of this run. A Ray of our own ends with the block, or with this process."""
    run = uuid.uuid4().hex[:12]
    path = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    token = _TOKEN if config.address is None and "RAY_AUTH_MODE" not in os.environ else {}
    with environment(_QUIET | SAFE_PATH | path | token):
        import ray

        for name in ("ray", "ray.tune", "ray.train", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if ray.is_initialized():
            yield run
        elif config.address is not None:
            with _joined(config.address):
                yield run
        else:
            with _own(config, run):
                yield run


@contextmanager
def _own(config: RayConfig, run: str) -> Iterator[None]:
    import ray

    folder = tempfile.mkdtemp(prefix="ray-")
    if len(folder) > _LONGEST:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    with guarded(RUN, run, folder):
        try:
            # Without its Ray a sweep cannot end in good order. Ray itself holds SIGINT back.
            with held_back(signal.SIGTERM):
                ray.init(
                    address="local",  # RAY_ADDRESS, or a Ray of somebody else on this machine, is not meant
                    job_config=_without_working_folder(),
                    num_cpus=config.cpus or cores(),
                    num_gpus=config.gpus,
                    namespace=run,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                    object_store_memory=_STORE_BYTES,
                    _temp_dir=folder,  # Ray has no public name for it
                )
            yield
        finally:
            ray.shutdown()


def _without_working_folder() -> Any:
    """Ray puts the folder in which it is started before all others in its workers, and a file hpc.py of the user would
    come before ours. They have PYTHONPATH."""
    from ray.job_config import JobConfig

    return JobConfig(_py_driver_sys_path=_Fixed())


class _Fixed(list[str]):
    """A list to which Ray adds nothing."""

    def extend(self, _: Any) -> None:
        """Nothing."""


@contextmanager
def _joined(address: str) -> Iterator[None]:
    import ray

    try:
        host, _, port = address.rpartition(":")
        if host:
            socket.create_connection((host, int(port)), timeout=_PATIENCE).close()  # Ray's own tries take minutes
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"ray.address={address}: no Ray answers there ({str(error).splitlines()[0]}); start one with ray start "
            "--head (launch/ray.sbatch does), or leave the key out for a Ray of this machine"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def require_nodes(config: RayConfig, service: bool) -> None:
    """Once connected: some node must hold a trial. Raises ConfigError."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fit = [
        node
        for node in nodes
        if node.get("CPU", 0) >= config.trial_cpus and node.get("GPU", 0) >= config.gpus_per_trial
    ]
    total = sum(node.get("CPU", 0) for node in nodes)
    needed = config.trial_cpus * config.nodes + (config.service_cpus if service else 0)
    if len(fit) < config.nodes or total < needed:
        have = ", ".join(f"{node.get('CPU', 0):g} cores and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise ConfigError(
            f"ray.ranks={config.ranks}: a trial takes {config.trial_cpus} cores and {config.gpus_per_trial:g} GPUs on "
            f"each of {config.nodes} nodes, and {needed:g} cores with the service; Ray has nodes of {have}"
        )
