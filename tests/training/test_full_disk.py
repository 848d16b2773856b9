"""A training, or an embedding, whose disk is full: one message, what was saved stays, and the same command goes on."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hpc.stage import read_manifest
from hpc.testing import call, launch
from hpc.world import World
from udipdist.config import TrainConfig
from udipdist.training.verb import train

KEYS = ["epochs=2", "global_batch=8", "validation=0.2", "seed=3", "model.patch=4", "model.width=24", "model.depth=2"]
TOLD = "the disk is full, or a file size limit is reached"
# The command line where rank 0 meets a full disk in the middle of an epoch, and the others do not.
RANK_0_FAILS = """
import errno, os, sys
from udipdist import cli
from udipdist.training.run_folder import Metrics
append = Metrics.append
def full(self, record):
    if record["step"] == 2:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
    append(self, record)
Metrics.append = full
cli.program()
"""


def written(run: Path) -> dict[str, bytes]:
    """What a training is worth: its weights and its losses."""
    found = {p.parent.name: p.read_bytes() for p in run.glob("checkpoints/step-*/weights.safetensors")}
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [[record[key] for key in ("step", "split", "loss")] for record in records]
    return found | {"metrics": json.dumps(kept).encode()}


def limited(words: list[str], limit: int) -> subprocess.CompletedProcess[str]:
    """`udipdist words...` where no file may be larger than `limit` bytes."""
    return subprocess.run(
        [sys.executable, "-m", "udipdist", *words], capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip


def test_a_checkpoint_that_does_not_fit(trained, store, tmp_path):
    run = tmp_path / "run"
    state = "state/mp_rank_00_model_states.pt"
    first, later = ((trained / f"checkpoints/step-0000000{step}" / state).stat().st_size for step in (0, 4))
    assert first + 10_000 < later  # with the optimiser's moments
    words = ["train", f"store={store}", f"run_dir={run}", *KEYS]
    done = limited(words, (first + later) // 2)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"udipdist train: {run}/checkpoints/step-00000004: {TOLD} (" in done.stderr.splitlines()[-1]
    assert [path.name for path in run.glob("checkpoints/*step*")] == ["step-00000000"]
    assert launch("udipdist", words).returncode == 0
    assert written(run) == written(trained) and read_manifest(run) is not None


def test_latents_that_do_not_fit(trained, store, tmp_path):
    words = ["embed", f"run_dir={trained}", f"store={store}", f"out={tmp_path / 'z.parquet'}"]
    done = limited(words, 3000)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{tmp_path}/z.pheno: {TOLD} (File too large); free some space" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())
    assert launch("udipdist", words).returncode == 0


@pytest.mark.parametrize("zero", [0, 2])
def test_one_of_two_ranks_cannot_write(store, tmp_path, zero):
    told = call(Path(__file__), "rank_1_fails", str(store), str(tmp_path), zero, ranks=2)
    assert len(told) == 2 and told[0] == told[1]
    assert told[0].startswith("2 ") and f"step-00000004: {TOLD} (No space left on device)" in told[0]


def rank_1_fails(store: str, folder: str, zero: int) -> str:
    """Run on each rank: a training whose second checkpoint one rank cannot write; then it goes on. The message."""
    from hpc.errors import Error

    keys = {"epochs": 2, "global_batch": 8, "validation": 0.2, "seed": 3, "engine": {"zero": zero}, "threads": 1}
    model = {"patch": 4, "width": 24, "depth": 2}
    config = TrainConfig.parse({"store": store, "run_dir": f"{folder}/run", "model": model, **keys})
    save, rank = torch.save, World.detect(os.environ).rank
    calls = []
    failing = 1 if zero else 0  # in stage 0 rank 0 writes alone

    def full(value, path, **words):
        calls.append(path)
        if rank == failing and "step-00000004" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(value, path, **words)

    torch.save = full
    try:
        train(config)
    except Error as error:
        message = f"{error.exit_code} {error}"
    torch.save = save
    assert rank != failing or calls
    train(config)
    return message


def test_a_full_disk_of_one_rank_in_mid_epoch_is_its_message_alone(store, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(RANK_0_FAILS)
    words = ["train", f"store={store}", f"run_dir={tmp_path / 'run'}", *KEYS]
    done = launch("hpc.torchrun", ["--standalone", "--nproc-per-node=2", str(program), *words])
    assert done.returncode == 2 and "Traceback" not in done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("udipdist")]
    assert len(told) == 1 and told[0].startswith(f"udipdist train (rank 0): {tmp_path}/run/metrics.jsonl: {TOLD}")
