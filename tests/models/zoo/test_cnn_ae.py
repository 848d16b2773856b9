"""The convolutional autoencoder: the published figures, any size of volume, and what must not change its numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from hpc.errors import ConfigError
from udipdist.config import CnnAeConfig, TrainConfig
from udipdist.models import base, registry
from udipdist.models.flops import forward_flops
from udipdist.models.layers.convolution import shifted
from udipdist.models.layers.tokens import Patcher
from udipdist.models.testing import NetworkTests
from udipdist.models.zoo.cnn_ae import CnnAutoencoder

MNI = (182, 218, 182)
SMALL = CnnAeConfig(patch=4, channels=2, levels=2, latent=5)


def seeded(shape: tuple[int, ...], seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def network() -> CnnAutoencoder:
    """A small network for 9 x 12 x 7 voxels, in float64, that has seen a few batches."""
    torch.manual_seed(0)
    network = registry.build(SMALL, np.ones((9, 12, 7), bool)).double()
    network.set_mean(seeded((network.patcher.tokens, 64), 2))
    for seed in range(3):
        network(network.prepare(seeded((4, 9, 12, 7), seed)))
    return network.eval()


@pytest.fixture
def tokens(network) -> torch.Tensor:
    return network.prepare(seeded((3, 9, 12, 7)))


def test_the_figures_of_the_published_network():
    with torch.device("meta"):
        config = registry.resolve(CnnAeConfig(compat="udip"), (1.0, 1.0, 1.0))
        network = registry.build(config, np.ones(MNI, bool))
        batch = torch.zeros(1, network.patcher.tokens, network.patcher.voxels)
        flops = forward_flops(network, batch)
    assert network.deepest == (256, 12, 14, 12) and network.latent == 128
    assert base.count_parameters(network) == 138_124_497
    linear = sum(p.numel() for layer in (network.to_latent, network.from_latent) for p in layer.parameters())
    assert round(100 * linear / base.count_parameters(network)) == 96
    assert round(flops / 1e9) == 537


def test_activations_kept_at_1_mm_fit_when_they_are_computed_again():
    kept = {}
    for recompute in (False, True):
        with torch.device("meta"):
            network = CnnAutoencoder(Patcher(np.ones(MNI, bool), (14, 16, 14)), recompute=recompute)
            seen: dict[int, int] = {}

            def keep(saved: torch.Tensor, seen: dict[int, int] = seen) -> torch.Tensor:
                storage = saved.untyped_storage()
                seen[storage._cdata] = storage.nbytes()
                return saved

            batch = torch.zeros(1, network.patcher.tokens, network.patcher.voxels)
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
                network(batch)
        kept[recompute] = sum(seen.values()) / 1e9 - 4e-9 * base.count_parameters(network)
    assert kept[True] < 2 and kept[True] < kept[False] / 3, kept


@pytest.mark.parametrize("shape", [MNI, (9, 12, 7), (31, 37, 31), (16, 16, 16), (13, 22, 5)])
@pytest.mark.parametrize("levels", [1, 4])
def test_any_size_comes_back_as_it_was(shape, levels):
    with torch.device("meta"):
        network = CnnAutoencoder(Patcher(np.ones(shape, bool), (4, 4, 4)), channels=2, levels=levels, latent=3).eval()
        volumes = network.decoder[-1](torch.zeros(1, 2, *shape))
        deep = torch.zeros(2, *network.deepest)
        for stage in network.decoder:
            deep = stage(deep)
    assert volumes.shape[2:] == shape and deep.shape == (2, 1, *shape)


def test_shapes(network, tokens):
    reconstruction, latent, _ = network(tokens)
    assert reconstruction.shape == tokens.shape and latent.shape == (3, 5)
    torch.testing.assert_close(network.decode(latent), reconstruction)


def test_the_decoder_starts_from_the_mean_unless_published(network, tokens):
    with torch.no_grad():
        for parameter in network.decoder[-1][-1].parameters():
            parameter.zero_()
    assert torch.equal(network.decode(torch.zeros(1, 5, dtype=torch.float64))[0], network.mean)
    published = registry.build(SMALL.model_copy(update={"compat": "udip"}), np.ones((9, 12, 7), bool))
    published.set_mean(torch.ones(published.mean.shape))
    assert not published.mean.any() and published.patcher.tokens == 3 * 3 * 2


def test_companions_have_no_influence(network, tokens):
    torch.testing.assert_close(network.encode(tokens)[1], network.encode(tokens[1:2])[0], rtol=1e-10, atol=1e-12)


def test_every_voxel_reaches_the_latent(network, tokens):
    tokens = tokens.clone().requires_grad_()
    network.encode(tokens).square().sum().backward()
    within = network.prepare(torch.ones(1, 9, 12, 7, dtype=torch.float64))[0] > 0
    assert (tokens.grad[:, within].abs().amax(dim=0) > 0).double().mean() > 0.99


@pytest.mark.parametrize(("channels", "outputs", "shape"), [(1, 3, (5, 4, 6)), (4, 2, (1, 2, 1)), (3, 5, (30, 31, 29))])
def test_shifted_products_are_the_convolution(channels, outputs, shape):
    x, weight, bias = seeded((2, channels, *shape)), seeded((outputs, channels, 3, 3, 3), 2), seeded((outputs,), 3)
    for given in (bias, None):
        exact = F.conv3d(x, weight, given, padding=1)
        torch.testing.assert_close(shifted(x, weight, given), exact, rtol=1e-12, atol=1e-12)


def test_embedding_in_float64_takes_that_way(network, tokens):
    with torch.no_grad():
        fast = network.encode(tokens)
    torch.testing.assert_close(fast, network.encode(tokens).detach(), rtol=1e-10, atol=1e-12)


def test_computing_activations_again_gives_the_same_gradients_and_statistics():
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = registry.build(SMALL, np.ones((9, 12, 7), bool), recompute).double()
        prepared = network.prepare(seeded((4, 9, 12, 7)))
        network(prepared).reconstruction.square().mean().backward()
        state = {name: value for name, value in network.state_dict().items() if "running" in name or "num" in name}
        found.append(({name: p.grad for name, p in network.named_parameters()}, state))
    for one, other in zip(*found, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=1e-9, atol=1e-12)


def test_weights_stand_alone(network, tokens, tmp_path: Path):
    network = network.float()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    again = registry.load(SMALL, tmp_path / "weights.safetensors")
    assert torch.equal(again.encode(tokens.float()), network.encode(tokens.float()))


def test_a_batch_that_cannot_be_normalised_is_refused():
    network = registry.build(SMALL.model_copy(update={"levels": 4}), np.ones((9, 12, 7), bool))
    with pytest.raises(ConfigError, match="micro_batch=1: .* type micro_batch=2"):
        network(network.prepare(torch.randn(1, 9, 12, 7)))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "cnn_ae", "width": 64}, r"model.name=cnn_ae: has no model.width=64; leave it out"),
        ({"name": "cnn_ae", "size": "B"}, r"has no model.size=B"),
        ({"channels": 8}, r"model.name=vit_ae: has no model.channels=8"),
        ({"compat": "udip"}, r"compat=udip: is the published form of cnn_ae, not of vit_ae; type model.name=cnn_ae"),
        ({"name": "cnn_ae", "compat": "vit_udip"}, r"is the published form of vit_ae"),
    ],
)
def test_keys_of_the_other_network_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig.parse({"store": "s", "run_dir": "r", "model": keys})


class TestCnnAe(NetworkTests):
    config = SMALL


class TestPublishedCnnAe(NetworkTests):
    config = SMALL.model_copy(update={"compat": "udip", "covariance": 0.1})
