"""The ViT autoencoder: what is masked has no influence, and weights stand alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hpc.errors import ConfigError, InputError
from udipdist import models
from udipdist.config import ModelConfig

CONFIG = ModelConfig(patch=4, width=24, depth=2, heads=2, latent=10)


@pytest.fixture
def network() -> models.Autoencoder:
    """A small network with a latent that is not as wide as a token, in float64."""
    torch.manual_seed(0)
    network = models.build(CONFIG, np.ones((8, 12, 8), bool)).double().eval()
    network.set_mean(torch.randn(12, 64))
    return network


@pytest.fixture
def tokens() -> torch.Tensor:
    """Two subjects; the second has three empty tokens."""
    tokens = torch.randn(2, 12, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    tokens[1, [2, 3, 7]] = 0
    return tokens


def test_shapes(network, tokens):
    reconstruction, latent = network(tokens)
    assert reconstruction.shape == tokens.shape and latent.shape == (2, 10)


def test_empty_tokens_have_no_influence(network, tokens):
    # Dropping a subject's empty tokens from the network altogether must not change its latent.
    whole = network.encode(tokens[1:])
    kept = [i for i in range(12) if i not in (2, 3, 7)]
    network.positions = network.positions[kept]
    torch.testing.assert_close(network.encode(tokens[1:, kept]), whole, rtol=1e-12, atol=1e-12)


def test_places_matter(network, tokens):
    shuffled = tokens[:, torch.randperm(12, generator=torch.Generator().manual_seed(2))]
    assert (network.encode(shuffled) - network.encode(tokens)).abs().max() > 1e-3


def test_companions_have_no_influence(network, tokens):
    torch.testing.assert_close(network.encode(tokens)[1], network.encode(tokens[1:])[0], rtol=1e-12, atol=1e-12)


def test_recomputing_blocks_gives_the_same_gradients(tokens):
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = models.build(CONFIG, np.ones((8, 12, 8), bool), recompute).double()
        network(tokens)[0].pow(2).mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_gradients_reach_every_weight(tokens):
    network = models.build(CONFIG, np.ones((8, 12, 8), bool)).double()
    network(tokens)[0].pow(2).mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_weights_stand_alone(network, tokens, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(network.float().state_dict(), path)
    loaded = models.load(CONFIG, path)
    assert torch.equal(loaded.encode(tokens.float()), network.encode(tokens.float()))
    assert torch.equal(loaded(tokens.float())[0], network(tokens.float())[0])


def test_weights_that_do_not_fit(network, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), path)
    with pytest.raises(InputError, match="does not fit the model"):
        models.load(CONFIG.model_copy(update={"depth": 3}), path)
    save_file({"other": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="holds no patcher.mask"):
        models.load(CONFIG, path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        models.load(CONFIG, path)


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="model.heads=5: does not divide model.width=24"):
        models.build(CONFIG.model_copy(update={"heads": 5}), np.ones((8, 12, 8), bool))
