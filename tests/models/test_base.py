"""Kinds of networks beside the autoencoder of one modality: what they are given, what they give, what they are told."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import nn

from hpc.errors import ConfigError, InputError
from udipdist.config import EmbedConfig, NetworkConfig, PerturbConfig, TrainConfig
from udipdist.interpret.perturb import perturb
from udipdist.models.base import Autoencoder, Encoder, Examples, Loss, Pair, Pass, Registration, Regressor
from udipdist.models.layers.tokens import Patcher
from udipdist.models.layers.warp import warp
from udipdist.models.losses import reconstruction_loss
from udipdist.models.testing import NetworkTests
from udipdist.training.embed import embed
from udipdist.training.verb import preview, train


class ToyConfig(NetworkConfig):
    network: ClassVar[str] = f"{__name__}:Toy"
    name: Literal["toy"] = Field("toy", description="network: a toy")


class ToyOfAgeConfig(ToyConfig):
    network: ClassVar[str] = f"{__name__}:ToyOfAge"
    name: Literal["toy_of_age"] = Field("toy_of_age", description="network: a toy")


class ToyOfPairsConfig(ToyConfig):
    network: ClassVar[str] = f"{__name__}:ToyOfPairs"
    name: Literal["toy_of_pairs"] = Field("toy_of_pairs", description="network: a toy")


class ToyOfTwoConfig(ToyConfig):
    network: ClassVar[str] = f"{__name__}:ToyOfTwo"
    name: Literal["toy_of_two"] = Field("toy_of_two", description="network: a toy")


class _Toy:
    @classmethod
    def from_config(cls, config, mask, recompute=False):
        network = cls()
        network.patcher = Patcher(mask, config.edges)
        network.setup(network.patcher.tokens * network.patcher.voxels)
        return network


class Toy(_Toy, Encoder):
    """Learns from volumes alone, and reconstructs nothing: latents of two halves of the tokens are to be alike."""

    def setup(self, size):
        self.latent, self.down = 3, nn.Linear(size // 2, 3, bias=False)

    def forward(self, prepared):
        halves = prepared.flatten(1)[:, : 2 * self.down.in_features].unflatten(1, (2, -1))
        return self.down(halves)

    def encode(self, prepared):
        return self(prepared).mean(dim=1)

    def loss(self, batch, output, kind):
        return Loss(((output[:, 0] - output[:, 1]) ** 2).mean(dim=1), torch.zeros((), device=output.device))


class ToyOfAge(_Toy, Regressor):
    def setup(self, size):
        self.head = nn.Linear(size, 2)

    def forward(self, batch):
        return self.head(batch.prepared.flatten(1))


class ToyOfPairs(_Toy, Registration):
    def setup(self, size):
        self.convolution = nn.Conv3d(2, 3, 3, padding=1)

    def forward(self, batch):
        return self.convolution(torch.stack(batch, dim=1))


class ToyOfTwo(_Toy, Autoencoder):
    modalities = ("T1", "T2")

    def setup(self, size):
        self.form, self.latent = (self.patcher.tokens, self.patcher.voxels), 4
        self.down, self.up = nn.Linear(2 * size, 4), nn.Linear(4, 2 * size)

    def encode(self, prepared):
        return self.down(torch.cat([prepared[name].flatten(1) for name in self.modalities], dim=1))

    def decode(self, latent):
        both = self.up(latent).unflatten(1, (2, *self.form))
        return {name: both[:, i] for i, name in enumerate(self.modalities)}

    def forward(self, prepared):
        latent = self.encode(prepared)
        return Pass(self.decode(latent), latent, torch.zeros(()))


class TestToy(NetworkTests):
    config = ToyConfig(patch=4)


class TestToyOfAge(NetworkTests):
    config = ToyOfAgeConfig(patch=4)


class TestToyOfPairs(NetworkTests):
    config = ToyOfPairsConfig(patch=4)


class TestToyOfTwo(NetworkTests):
    config = ToyOfTwoConfig(patch=4)

    def test_its_loss_is_the_mean_of_its_modalities(self):
        network = self.network()
        batch = self.batch(network)
        output = network(batch)
        losses = [reconstruction_loss(batch[name], output.reconstruction[name], "brain") for name in ("T1", "T2")]
        assert not torch.equal(*losses)
        torch.testing.assert_close(network.loss(batch, output, "brain").subjects, (losses[0] + losses[1]) / 2)


def test_a_target_that_is_not_known_does_not_count():
    targets = torch.tensor([[1.0, torch.nan], [2.0, 4.0], [torch.nan, torch.nan]])
    predicted = torch.tensor([[3.0, 9.0], [2.0, 6.0], [1.0, 1.0]], requires_grad=True)
    losses, penalty = ToyOfAge().loss(Examples(torch.zeros(3, 1), targets), predicted, "brain")
    assert losses.tolist() == [4.0, 2.0, 0.0] and penalty == 0
    losses.sum().backward()
    assert predicted.grad.isfinite().all() and predicted.grad[0, 1] == 0


def test_a_displacement_takes_the_moving_volume_to_the_fixed_one():
    moving = torch.randn(2, 6, 7, 8, generator=torch.Generator().manual_seed(0))
    displacement = torch.zeros(2, 3, 6, 7, 8)
    assert torch.allclose(warp(moving, displacement), moving, atol=1e-6)
    for axis, step in ((0, 1), (1, -2), (2, 3)):
        displacement[:] = 0
        displacement[:, axis] = step  # it is looked at `step` voxels further on
        expected = torch.roll(moving, -step, dims=axis + 1)
        gone = [slice(None)] * 4
        gone[axis + 1] = slice(-step, None) if step > 0 else slice(0, -step)
        expected[tuple(gone)] = 0
        torch.testing.assert_close(warp(moving, displacement), expected, rtol=1e-5, atol=1e-5)
        fixed = warp(moving, displacement)
        found = ToyOfPairs().loss(Pair(moving, fixed), displacement, "brain").subjects
        unmoved = ToyOfPairs().loss(Pair(moving, fixed), 0 * displacement, "brain").subjects
        assert (found < 1e-9).all() and (unmoved > 0.1).all()


def keys(store, folder, name: str) -> TrainConfig:
    tree = {"store": str(store), "run_dir": str(folder), "epochs": 1, "global_batch": 8, "threads": 1}
    return TrainConfig.parse(tree | {"model": {"name": name, "patch": 4}})


def test_a_network_that_reconstructs_nothing_is_trained_and_embeds(store, tmp_path):
    train(keys(store, tmp_path / "run", "toy"))
    assert not (tmp_path / "run" / "reconstructions.npz").exists() and not (tmp_path / "run" / "pictures").exists()
    embed(EmbedConfig(run_dir=tmp_path / "run", store=store, out=tmp_path / "latents.parquet", threads=1))
    with pytest.raises(InputError, match="its network cannot decode latents; give run_dir= of an autoencoder"):
        perturb(PerturbConfig(run_dir=tmp_path / "run", store=store, out=tmp_path / "look", latents=[0], atlas="none"))


@pytest.mark.parametrize(
    ("name", "needs"),
    [("toy_of_age", "targets"), ("toy_of_pairs", "pairs"), ("toy_of_two", "images of T1, T2")],
)
def test_a_network_that_needs_more_than_volumes_is_refused(store, tmp_path, name, needs):
    for verb in (train, preview):
        with pytest.raises(ConfigError, match=f"model.name={name}: learns from {needs}, and train gives it volumes"):
            verb(keys(store, tmp_path / "run", name))


def test_latents_are_asked_only_of_networks_that_have_them(store, tmp_path):
    from safetensors.torch import save_file

    from hpc.checkpoint import Checkpoints
    from hpc.comm import Comm
    from hpc.world import World
    from udipdist.models import registry
    from udipdist.volumes.store import VolumeStore

    config = keys(store, tmp_path, "toy_of_age")
    state = registry.build(config.model, VolumeStore.open(store).mask).state_dict()
    save = lambda to: save_file(state, to / "weights.safetensors")  # noqa: E731
    Checkpoints(tmp_path / "checkpoints").save(Comm(World()), 0, save, {})
    (tmp_path / "config.yaml").write_text(config.yaml())
    with pytest.raises(InputError, match="its network, model.name=toy_of_age, gives no latents"):
        embed(EmbedConfig(run_dir=tmp_path, store=store, out=tmp_path / "latents.parquet"))
    assert not np.any([path.suffix == ".parquet" for path in tmp_path.iterdir()])
