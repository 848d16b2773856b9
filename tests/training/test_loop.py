"""What a run shows of itself, how it ends when its loss is no number, and the average of the weights."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hpc.errors import ConfigError, Error
from udipdist.config import EmbedConfig, TrainConfig
from udipdist.models import base
from udipdist.models.layers.tokens import Patcher
from udipdist.training import embed as embedding
from udipdist.training import loop
from udipdist.training import verb as training
from udipdist.volumes.store import VolumeStore

KEYS = {
    "threads": 1,
    "epochs": 2,
    "global_batch": 8,
    "validation": 0.2,
    "seed": 3,
    "model": {"patch": 4, "width": 24, "depth": 2},
}


def run(store: Path, folder: Path, **keys) -> list[dict]:
    """Train, and return metrics.jsonl."""
    training.train(TrainConfig.parse(KEYS | keys | {"store": str(store), "run_dir": str(folder)}))
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_what_is_seen(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["split"] == "train"]
    for line in steps:
        assert line["volumes_per_s"] > 0 and line["tokens_per_s"] > line["volumes_per_s"]
        assert 0 < line["mfu"] < 1.5 and 0 <= line["data_wait"] < 1 and line["memory_gb"] > 0.05
    scored = [line for line in lines if line["split"] == "validation"]
    assert scored[-1]["mse"] == pytest.approx(scored[-1]["loss"])  # loss=brain is the masked squared error
    assert (trained / "pictures" / "epoch-0002.png").read_bytes().startswith(b"\x89PNG")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(trained / "tensorboard")).Reload()
    curve = [(event.step, event.value) for event in board.Scalars("train/loss")]
    assert curve == [(line["step"], pytest.approx(line["loss"])) for line in steps]
    assert board.Tags()["images"] == ["reconstructions"]


def test_where_it_came_from(trained):
    (start,) = json.loads((trained / "provenance.json").read_text())["starts"]
    assert start["seed"] == 3 and start["torch"] == importlib.metadata.version("torch") and start["deepspeed"]
    root = Path(__file__).parents[2]
    assert (start["git"] is not None) == ((root / ".git").exists() and shutil.which("git") is not None)


def test_a_rate_that_is_too_high_names_the_subjects(store, tmp_path):
    with pytest.raises(
        Error, match=r"step \d: the loss of 8 subjects is not finite: S0.* type optim.lr=\S+ overwrite=true"
    ):
        run(store, tmp_path / "run", optim={"lr": 1e38, "clip": 0})


def test_one_subject_without_a_loss_is_named(store, tmp_path, monkeypatch):
    volumes, name = VolumeStore.open(store), "S017"
    patcher = Patcher(volumes.mask, (4, 4, 4))
    (theirs,) = patcher(torch.from_numpy(volumes.normalised([volumes.subjects.index(name)])))
    true_loss, true_start, started = base.reconstruction_loss, loop.Run.start, []

    def loss(tokens, reconstruction, kind):
        is_theirs = torch.stack([torch.tensor(bool(started) and torch.equal(one, theirs)) for one in tokens])
        return torch.where(is_theirs, torch.nan, true_loss(tokens, reconstruction, kind))

    def start(self, meta):
        true_start(self, meta)
        started.append(True)

    monkeypatch.setattr(base, "reconstruction_loss", loss)
    monkeypatch.setattr(loop.Run, "start", start)
    with pytest.raises(Error, match=rf"the loss of 1 subjects is not finite: {name}\. .* subjects=\[{name}\]"):
        run(store, tmp_path / "run", global_batch=4, validation=0)


def test_an_average_of_the_weights_is_saved_and_validated(store, tmp_path):
    own = run(store, tmp_path / "own")
    averaged = run(store, tmp_path / "averaged", optim={"ema": 0.9})
    losses = [[line["loss"] for line in lines if line["split"] == "train"] for lines in (own, averaged)]
    assert losses[0] == losses[1]  # the training itself is the same
    name = "checkpoints/step-00000008/weights.safetensors"
    one, other = (load_file(tmp_path / folder / name) for folder in ("own", "averaged"))
    assert (one["embed.weight"] - other["embed.weight"]).abs().max() > 1e-5
    scores = [[line["loss"] for line in lines if line["split"] == "validation"] for lines in (own, averaged)]
    assert scores[0][-1] != scores[1][-1]


def test_a_kernel_of_attention_that_is_not_there(store, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("a GPU may have the kernel")
    with pytest.raises(ConfigError, match="engine.attention=cudnn: this kernel cannot run here"):
        run(store, tmp_path / "run", engine={"attention": "cudnn"})


@pytest.mark.parametrize(
    "model", [{"pool": "attention", "variational": 0.01}, {"pool": "cls", "covariance": 0.01, "masked": 0.5}]
)
def test_kinds_of_networks_learn(store, tmp_path, model):
    lines = run(store, tmp_path / "run", epochs=3, model=KEYS["model"] | model)
    losses = [line["loss"] for line in lines if line["split"] == "train"]
    assert losses[-1] < losses[0]


def test_the_published_network_learns_and_its_latents_come_with_a_warning(store, tmp_path, caplog):
    lines = run(store, tmp_path / "run", epochs=1, validation=0, loss="batch", model={"compat": "vit_udip", "patch": 4})
    losses = [line["loss"] for line in lines if line["split"] == "train"]
    assert losses[-1] < losses[0]
    with caplog.at_level("WARNING"):
        embedding.preview(EmbedConfig(run_dir=tmp_path / "run", store=store))
    assert "depend on the others of its batch (batch=32)" in caplog.text
