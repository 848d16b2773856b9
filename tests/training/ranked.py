"""What the tests in this folder run on several ranks.

`python -m tests.training.ranked`, in the root of the repository, writes the golden curve anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from hpc.comm import Watch, leave
from hpc.engine import Engine
from hpc.errors import Preempted
from udipdist.config import TrainConfig
from udipdist.training import loop
from udipdist.training import verb as training

GOLDEN = Path(__file__).parents[1] / "golden" / "training" / "curve.json"
_OF_THE_MACHINE = {"seconds", "volumes_per_s", "tokens_per_s", "mfu", "data_wait", "memory_gb"}
KEYS: dict[str, Any] = {
    "epochs": 2,
    "global_batch": 8,
    "validation": 0.2,
    "schedule": {"warmup": 0.0},
    "model": {"patch": 4, "width": 24, "depth": 2},
}
CNN: dict[str, Any] = {"model": {"name": "cnn_ae", "patch": 4, "channels": 4, "levels": 2, "latent": 8}}


def zero_stages(store: str, folder: str) -> None:
    """The same training in every ZeRO stage, in turn; then with blocks recomputed, and in bf16; and the CNN's."""
    for zero in range(4):
        _train(store, Path(folder) / f"zero{zero}", engine={"zero": zero})
    _train(store, Path(folder) / "recomputed", engine={"zero": 3, "activation_checkpointing": True})
    for zero in (0, 2):
        _train(store, Path(folder) / f"bf16_zero{zero}", engine={"zero": zero, "precision": "bf16"})
    _train(store, Path(folder) / "cnn_zero2", engine={"zero": 2, "activation_checkpointing": True}, **CNN)


def on_other_ranks(store: str, folder: str, stopped: str) -> None:
    """The training of `zero_stages`, straight, accumulated, and going on from what 2 ranks left."""
    _train(store, Path(folder) / "straight")
    _train(store, Path(folder) / "accumulated", micro_batch=2)
    _train(store, Path(folder) / "worse", epochs=1, optim={"lr": 0.3})
    for zero in (0, 2, 3):
        _train(store, Path(stopped) / f"unfinished_zero{zero}", engine={"zero": zero})
    _train(store, Path(folder) / "cnn", **CNN)
    _train(store, Path(stopped) / "cnn_zero3", engine={"zero": 3}, **CNN)


def cnn_recomputed_in_zero_3(store: str, folder: str) -> None:
    """The convolutional network with its activations computed again, while its weights are shared out."""
    _train(store, Path(folder), engine={"zero": 3, "activation_checkpointing": True}, **CNN)


def killed(store: str, folder: str) -> None:
    """The training with dropout of `interrupted`, in ZeRO 2; the first time, rank 1 is killed in mid-epoch."""
    mark = Path(folder) / "killed"

    def dies(step: int, engine: Engine) -> None:
        if step == 6 and engine.comm.rank == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    with patch.object(loop, "_LINES_PER_EPOCH", 2), _after_each_step(dies):
        _train(store, Path(folder) / "run", engine={"zero": 2}, model=KEYS["model"] | {"dropout": 0.1})


def interrupted(store: str, folder: str) -> list[str]:
    """Trainings with dropout: never interrupted, and stopped by a signal on rank 0 in mid-epoch, then resumed."""
    messages = []
    dropout = KEYS["model"] | {"dropout": 0.1}
    with patch.object(loop, "_LINES_PER_EPOCH", 2):  # of two steps each: step 5 is in the middle of one
        for zero in (0, 2, 3):
            keys = {"engine": {"zero": zero}, "model": dropout}
            place = Path(folder) / f"zero{zero}"
            _train(store, place / "straight", **keys)
            messages += _stopped_at(5, store, place / "stopped", **keys)
            _train(store, place / "stopped", **keys)
        keys = {"checkpoint_epochs": 2, "model": dropout}
        messages += _stopped_at(4, store, Path(folder) / "between", **keys)  # at the end of an epoch without checkpoint
        _train(store, Path(folder) / "between", **keys)
    for zero in (0, 2, 3):
        messages += _stopped_at(6, store, Path(folder) / f"unfinished_zero{zero}", engine={"zero": zero})
    _stopped_at(5, store, Path(folder) / "cnn_zero3", engine={"zero": 3}, **CNN)
    return messages


def _train(store: str, run_dir: Path, **keys: Any) -> None:
    training.train(TrainConfig.parse(KEYS | keys | {"store": store, "run_dir": str(run_dir)}))


def _stopped_at(step: int, store: str, run_dir: Path, **keys: Any) -> list[str]:
    """Train until rank 0 gets SIGUSR1 at optimiser step `step`; the message of Preempted."""

    def signals(taken: int, engine: Engine) -> None:
        if taken == step and engine.comm.is_main:
            os.kill(os.getpid(), signal.SIGUSR1)

    with _after_each_step(signals), patch.object(loop, "Watch", partial(Watch, seconds=0)):
        try:
            _train(store, run_dir, **keys)
        except Preempted as error:
            return [f"{error.exit_code} {error}"]
    return []


@contextmanager
def _after_each_step(act: Callable[[int, Engine], None]) -> Iterator[None]:
    """Call `act` after each optimiser step with the number of steps that this process has taken."""
    take, taken = Engine.step, 0

    def step_and_act(self: Engine, losses: Iterable[Tensor]) -> Tensor:
        nonlocal taken
        loss = take(self, losses)
        taken += 1
        act(taken, self)
        return loss

    with patch.object(Engine, "step", step_and_act):
        yield


def metrics(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock and the machine say."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in _OF_THE_MACHINE} for record in records]


def weights_hash(run: Path) -> str:
    """The hash of the last checkpoint's weights."""
    last = json.loads((run / "checkpoints" / "last.json").read_text())["folder"]
    return hashlib.sha256((run / "checkpoints" / last / "weights.safetensors").read_bytes()).hexdigest()


def curve(run: Path) -> list[float]:
    """All losses of metrics.jsonl, of training and validation."""
    return [record["loss"] for record in metrics(run)]


def write_golden() -> None:
    """The curve of 1 rank without accumulation, as it is on this machine."""
    from tests.balls import make_store

    with TemporaryDirectory() as folder:
        store, run = make_store(Path(folder) / "cohort", 44), Path(folder) / "run"
        _train(str(store), run)
        about = {"command": "python -m tests.training.ranked", "torch": torch.__version__, "keys": KEYS}
        GOLDEN.parent.mkdir(parents=True, exist_ok=True)
        GOLDEN.write_text(json.dumps({**about, "losses": curve(run)}, indent=1) + "\n")


if __name__ == "__main__":
    write_golden()
    leave()
