"""The ViT autoencoder: what is masked has no influence, and weights stand alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hpc.errors import ConfigError, InputError
from udipdist.config import VitAeConfig
from udipdist.models import base, registry
from udipdist.models.penalties import covariance_penalty
from udipdist.models.testing import NetworkTests

CONFIG = VitAeConfig(patch=4, width=24, depth=2, heads=2, latent=10)


@pytest.fixture
def network() -> base.Autoencoder:
    """A small network with a latent that is not as wide as a token, in float64."""
    torch.manual_seed(0)
    network = registry.build(CONFIG, np.ones((8, 12, 8), bool)).double().eval()
    network.set_mean(torch.randn(12, 64))
    return network


@pytest.fixture
def tokens() -> torch.Tensor:
    """Two subjects; the second has three empty tokens."""
    tokens = torch.randn(2, 12, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    tokens[1, [2, 3, 7]] = 0
    return tokens


def test_shapes(network, tokens):
    reconstruction, latent, _ = network(tokens)
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
        network = registry.build(CONFIG, np.ones((8, 12, 8), bool), recompute).double()
        network(tokens)[0].pow(2).mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_gradients_reach_every_weight(tokens):
    network = registry.build(CONFIG, np.ones((8, 12, 8), bool)).double()
    network(tokens)[0].pow(2).mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_weights_stand_alone(network, tokens, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(network.float().state_dict(), path)
    loaded = registry.load(CONFIG, path)
    assert torch.equal(loaded.encode(tokens.float()), network.encode(tokens.float()))
    assert torch.equal(loaded(tokens.float())[0], network(tokens.float())[0])


def test_weights_that_do_not_fit(network, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), path)
    with pytest.raises(InputError, match="does not fit the model"):
        registry.load(CONFIG.model_copy(update={"depth": 3}), path)
    save_file({"other": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="holds no patcher.mask"):
        registry.load(CONFIG, path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        registry.load(CONFIG, path)


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="model.heads=5: does not divide model.width=24"):
        registry.build(CONFIG.model_copy(update={"heads": 5}), np.ones((8, 12, 8), bool))


@pytest.mark.parametrize(("size", "millions"), [("seed", 3.62), ("S", 25), ("B", 98), ("L", 336), ("H", 663)])
def test_named_sizes(size, millions):
    config = registry.resolve(VitAeConfig(size=size), (1.0, 1.0, 1.0))
    assert registry.resolve(config, (1.0, 1.0, 1.0)) == config
    with torch.device("meta"):
        network = registry.build(config, np.ones((182, 218, 182), bool))
    assert base.count_parameters(network) / 1e6 == pytest.approx(millions, rel=0.02)


def test_a_size_gives_way_to_what_is_given():
    config = registry.resolve(VitAeConfig(size="S", depth=3), (1.0, 1.0, 1.0))
    assert (config.width, config.depth, config.heads) == (384, 3, 6)


@pytest.mark.parametrize("pool", ["attention", "cls"])
def test_pooling_does_not_see_empty_tokens_or_companions(pool, tokens):
    torch.manual_seed(0)
    network = registry.build(CONFIG.model_copy(update={"pool": pool}), np.ones((8, 12, 8), bool)).double().eval()
    for parameter in network.pool.parameters():
        torch.nn.init.normal_(parameter)
    whole = network.encode(tokens)
    kept = [i for i in range(12) if i not in (2, 3, 7)]
    network.positions = network.positions[kept]
    torch.testing.assert_close(network.encode(tokens[1:, kept])[0], whole[1], rtol=1e-12, atol=1e-12)


def test_attention_pooling_begins_as_the_mean(tokens):
    torch.manual_seed(0)
    mean = registry.build(CONFIG, np.ones((8, 12, 8), bool)).double().eval()
    attention = (
        registry.build(CONFIG.model_copy(update={"pool": "attention"}), np.ones((8, 12, 8), bool)).double().eval()
    )
    attention.load_state_dict(mean.state_dict(), strict=False)
    torch.testing.assert_close(attention.encode(tokens), mean.encode(tokens), rtol=1e-12, atol=1e-12)


def test_hidden_tokens_are_not_seen_in_training_only(tokens):
    torch.manual_seed(0)
    network = registry.build(CONFIG.model_copy(update={"masked": 0.75}), np.ones((8, 12, 8), bool)).double()
    one, other = network(tokens)[1], network(tokens)[1]
    assert (one - other).abs().max() > 1e-6  # another draw
    network.eval()
    torch.testing.assert_close(network(tokens)[1], network.encode(tokens), rtol=0, atol=0)


def test_a_subject_with_few_tokens_keeps_its_own_when_tokens_are_hidden():
    torch.manual_seed(0)
    network = registry.build(CONFIG.model_copy(update={"masked": 0.9}), np.ones((8, 12, 8), bool)).double()
    tokens = torch.zeros(1, 12, 64, dtype=torch.float64)
    tokens[0, 5] = 1
    assert all(network(tokens)[1].isfinite().all() for _ in range(20))


def test_variational(tokens):
    torch.manual_seed(0)
    network = registry.build(CONFIG.model_copy(update={"variational": 0.1}), np.ones((8, 12, 8), bool)).double()
    network.set_mean(torch.zeros(12, 64))
    one, other = network(tokens), network(tokens)
    assert torch.equal(one.latent, other.latent) and not torch.equal(one.reconstruction, other.reconstruction)
    mean, variance = one.latent, torch.full_like(one.latent, -4.0).exp()
    reference = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, variance.sqrt()), torch.distributions.Normal(0.0, 1.0)
    ).mean()
    torch.testing.assert_close(one.penalty.double(), 0.1 * reference, rtol=1e-5, atol=0)
    network.eval()
    assert torch.equal(network(tokens).reconstruction, network(tokens).reconstruction)


def test_covariance_penalty():
    random = torch.Generator().manual_seed(0)
    apart = torch.linalg.qr(torch.randn(64, 8, generator=random) - 0.0)[0]
    apart = (apart - apart.mean(dim=0)) * 20
    alike = apart[:, :1].expand(-1, 8)
    collapsed = torch.zeros(64, 8)
    assert covariance_penalty(apart) < 0.5 < covariance_penalty(alike)
    assert covariance_penalty(collapsed) == pytest.approx(1.0, abs=0.011)


class TestVitAe(NetworkTests):
    config = CONFIG


class TestVitAeOfAttentionPool(NetworkTests):
    config = VitAeConfig(patch=4, width=24, depth=1, heads=2, latent=6, pool="attention", variational=0.1, masked=0.5)


class TestVitAeOfClassToken(NetworkTests):
    config = VitAeConfig(patch=4, width=24, depth=1, heads=2, latent=6, pool="cls", covariance=0.1, decoder_width=12)
