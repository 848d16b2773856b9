"""A network that joins from outside: this file is all there is of it, and the trainer and embedding take it."""

from __future__ import annotations

import json
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import Field
from torch import nn

from hpc.errors import ConfigError, InputError
from udipdist.config import AttentionConfig, EmbedConfig, NetworkConfig, TrainConfig
from udipdist.interpret.attention import attention
from udipdist.models.base import Autoencoder, Pass
from udipdist.models.layers.tokens import Patcher
from udipdist.models.testing import NetworkTests
from udipdist.training.embed import embed
from udipdist.training.verb import train
from udipdist.volumes.store import VolumeStore


# The network: a configuration and a class.
class LinearConfig(NetworkConfig):
    """A linear autoencoder."""

    network: ClassVar[str] = f"{__name__}:Linear"
    name: Literal["linear"] = Field("linear", description="network: linear")
    latent: int = Field(8, description="numbers in the bottleneck", gt=0)


class Linear(Autoencoder):
    """Tokens [B, T, V] -> latent [B, L] -> tokens, by one matrix each way."""

    def __init__(self, patcher: Patcher, latent: int):
        super().__init__()
        self.patcher, self.latent, self.form = patcher, latent, (patcher.tokens, patcher.voxels)
        self.down = nn.Linear(patcher.tokens * patcher.voxels, latent)
        self.up = nn.Linear(latent, patcher.tokens * patcher.voxels)

    @classmethod
    def from_config(cls, config, mask, recompute=False):
        return cls(Patcher(mask, config.edges), config.latent)

    def encode(self, prepared):
        return self.down(prepared.flatten(1))

    def decode(self, latent):
        return self.up(latent).unflatten(1, self.form)

    def forward(self, prepared):
        latent = self.encode(prepared)
        return Pass(self.decode(latent), latent, torch.zeros((), device=latent.device))


# Its tests: what any network must hold.
class TestLinear(NetworkTests):
    config = LinearConfig(patch=4, latent=5)


def test_it_is_trained_and_embeds(store, tmp_path):
    keys = {"store": str(store), "run_dir": str(tmp_path / "run"), "epochs": 1, "global_batch": 8, "validation": 0.2}
    train(TrainConfig.parse({**keys, "threads": 1, "seed": 3, "model": {"name": "linear", "patch": 4}}))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["split"] == "validation"]
    assert losses[-1] < losses[0] and {"mse", "ssim", "psnr"} <= lines[-1].keys()
    embed(EmbedConfig(run_dir=tmp_path / "run", store=store, out=tmp_path / "latents.parquet", threads=1))
    table = pd.read_parquet(tmp_path / "latents.parquet")
    assert len(table) == VolumeStore.open(store).valid.sum() and len(table.columns) == 2 + 8
    assert np.ptp(table["z000"]) > 0
    with pytest.raises(InputError, match="has no attention to look at"):
        attention(AttentionConfig(run_dir=tmp_path / "run", store=store, out=tmp_path / "look"))


def test_a_key_that_it_lacks_is_refused():
    with pytest.raises(ConfigError, match=r"model.name=linear: has no model.width=64; .*has patch, latent\)"):
        TrainConfig.parse({"store": "s", "run_dir": "r", "model": {"name": "linear", "width": 64}})
