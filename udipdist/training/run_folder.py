"""The folder of a training run: its plan, provenance, metrics, and the checkpoint to go on from."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import platform
import shutil
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hpc
from hpc import stage
from hpc.checkpoint import META, Checkpoints
from hpc.errors import ConfigError
from hpc.files import publish_json, publish_text
from hpc.parts import drop_plan, fix_plan
from hpc.world import World
from udipdist.config import TrainConfig
from udipdist.volumes.description import Description
from udipdist.volumes.store import VolumeStore

log = logging.getLogger(__name__)
IMAGES = "images.npz"  # what the images of a run are like


def open_run(config: TrainConfig, world: World, volumes: VolumeStore) -> None:
    """Fix what the run is, describe its images, and add this start to its provenance.

    Raises OutputExists for a run of another plan.
    """
    if not Checkpoints(config.run_dir / "checkpoints").steps():
        drop_plan(config.run_dir)
    seen = {key: value for key, value in stage.fingerprint(config.store).items() if key != "path"}
    _tell_of_epochs(config)
    fix_plan(config.run_dir, {"train": config.semantics(), "store": seen}, _counts, key="run_dir")
    publish_text(config.run_dir / "config.yaml", config.yaml())
    Description.of(volumes).save(config.run_dir / IMAGES)
    path = config.run_dir / "provenance.json"
    starts = json.loads(path.read_text(encoding="utf-8"))["starts"] if path.exists() else []
    starts.append(
        {
            "time": datetime.now(UTC).isoformat(),
            "command": sys.argv,
            "host": socket.gethostname(),
            "ranks": world.size,
            "launcher": world.launcher,
            "seed": config.seed,
            "python": platform.python_version(),
            "udipdist": hpc.__version__,
            "git": _git_state(),
            **{name: importlib.metadata.version(name) for name in ("torch", "deepspeed", "numpy", "numba", "zarr")},
        }
    )
    publish_json(path, {"store": stage.fingerprint(config.store), "starts": starts})


def _tell_of_epochs(config: TrainConfig) -> None:
    """Say what another number of epochs means to a run that has begun."""
    path = config.run_dir / "plan.json"
    before = json.loads(path.read_text(encoding="utf-8"))["train"]["epochs"] if path.exists() else config.epochs
    if before != config.epochs:
        log.warning(
            "epochs=%d, and this run began with %d: from here its learning rate (%s, with its warm-up) is that of a "
            "run of %d epochs, which is not the rate that it had until now",
            config.epochs, before, config.schedule.name, config.epochs,
        )  # fmt: skip


def _counts(plan: dict[str, Any]) -> dict[str, Any]:
    """What of a run's plan makes it another run: not where its store lies, nor for how long it is to go on."""
    return plan | {"train": _but_epochs(plan["train"])}


def _but_epochs(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in TrainConfig.identity_of(tree).items() if key != "epochs"}


def reopen(config: TrainConfig) -> None:
    """Make a finished run unfinished where `config` differs from it by more epochs only, and says the same store.

    Raises ConfigError where it asks for fewer epochs than are done, of a finished run or of another.
    """
    if config.overwrite or not (config.run_dir / "plan.json").exists():
        return
    done = last_epoch(config.run_dir)
    if config.epochs < done:
        raise ConfigError(
            f"epochs={config.epochs}: {config.run_dir} has {done} epochs already; type epochs={done} or more, or "
            "overwrite=true to start again"
        )
    if extends(config):
        stage.manifest_path(config.run_dir).unlink()


def extends(config: TrainConfig) -> bool:
    """True where a finished run of this configuration and store, but of fewer epochs, is there to go on with."""
    manifest = stage.read_manifest(config.run_dir)
    return (
        manifest is not None
        and manifest["config"]["epochs"] < config.epochs
        and _but_epochs(manifest["config"]) == json.loads(json.dumps(_but_epochs(config.tree())))
        and stage.unchanged(manifest["inputs"]["store"], config.store)
    )


def last_epoch(run_dir: Path) -> int:
    """How many epochs the newest checkpoint has; 0 where there is none that can be read."""
    checkpoints = Checkpoints(run_dir / "checkpoints")
    for step in reversed(checkpoints.steps()):
        try:
            return int(json.loads((checkpoints.folder(step) / META).read_text(encoding="utf-8"))["epoch"])
        except (OSError, ValueError, KeyError, TypeError):  # damaged: last_whole says so
            continue
    return 0


def _git_state() -> str | None:
    """The commit of the source tree that runs, with '-dirty' where files differ from it; None where it is installed."""
    root = Path(hpc.__file__).parents[1]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def last_checkpoint(config: TrainConfig, world: World) -> dict[str, Any] | None:
    """The meta.json of the checkpoint to go on from, the newest whole one; None at a fresh start.

    The number of ranks may have changed. Raises ConfigError, and InputError where every checkpoint is damaged.
    """
    checkpoints = Checkpoints(config.run_dir / "checkpoints")
    if not config.resume and checkpoints.steps():
        raise ConfigError(
            f"resume=false, but {config.run_dir} holds checkpoints; type overwrite=true to start again, or "
            "resume=true to continue"
        )
    meta = checkpoints.last_whole()
    if meta is not None and meta["ranks"] != world.size:
        log.info("step %d was saved by %d ranks; this start has %d", meta["step"], meta["ranks"], world.size)
    return meta


class Metrics:
    """metrics.jsonl: one JSON object a line, in the order of steps."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, record: dict[str, Any]) -> None:
        """Add one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def cut(self, step: int) -> float:
        """Drop the lines after `step`, which will be written again, and one cut off when the run was killed; returns
        the seconds of the last one kept."""
        if not self.path.exists():
            return 0.0
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        kept = [record for record in records if record["step"] <= step]
        publish_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        return kept[-1]["seconds"] if kept else 0.0
