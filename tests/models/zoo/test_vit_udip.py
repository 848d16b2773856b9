"""The published network: its figures, and its faults."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nilearn.datasets import load_mni152_template

from hpc.errors import ConfigError
from udipdist.config import TrainConfig, VitUdipConfig
from udipdist.models import base, registry
from udipdist.models.flops import forward_flops
from udipdist.models.layers.tokens import PAPER_PATCH, Patcher
from udipdist.models.losses import reconstruction_loss
from udipdist.models.testing import NetworkTests
from udipdist.models.zoo.vit_udip import PublishedVit, scrambled

WHOLE_GRID = -1.0


@pytest.fixture(scope="module")
def published() -> PublishedVit:
    torch.manual_seed(0)
    return PublishedVit(Patcher(np.ones((182, 218, 182), bool), PAPER_PATCH, WHOLE_GRID)).eval()


@pytest.fixture
def small() -> PublishedVit:
    torch.manual_seed(0)
    patcher = Patcher(np.ones((8, 12, 8), bool), (4, 4, 4), WHOLE_GRID)
    return PublishedVit(patcher, 24, 2, 12, 2, 2).double().eval()


def test_the_figures_of_the_paper(published):
    assert published.patcher.tokens == 2366 and published.patcher.voxels == 3136
    assert round(base.count_parameters(published) / 1e6, 2) == 3.59
    batch = torch.zeros(1, 2366, 3136)
    batch[:, :957] = 1  # the tokens of the paper's figure 3
    assert round(forward_flops(published, batch) / 1e9, 1) == 16.4


def test_tokens_of_a_brain(published):
    template = np.asarray(load_mni152_template(resolution=1).dataobj)[7:189, 8:226, :182]
    tokens = published.prepare(torch.as_tensor(template, dtype=torch.float32)[None])
    # 904 in FSL's template, 941 to 1,087 in batches of people
    assert 850 < int((tokens != 0).any(dim=2).sum()) < 1000


def test_positions_are_those_of_other_tokens(published):
    wrong = (scrambled(published.patcher) != published.patcher.coordinates).any(dim=1)
    assert round(100 * float(wrong.double().mean()), 1) == 98.9
    rows = sorted(map(tuple, scrambled(published.patcher).tolist()))
    assert rows == sorted(map(tuple, published.patcher.coordinates.tolist()))  # a permutation


def test_a_latent_depends_on_the_batch(small):
    one, other = torch.randn(2, 1, 12, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one[:, :6] = 0
    alone, together = small.encode(one), small.encode(torch.cat([one, other]))[:1]
    assert (alone - together).abs().max() > 1e-3
    other[:, :6] = 0  # the same tokens: then it does not
    torch.testing.assert_close(small.encode(torch.cat([one, other]))[:1], alone, rtol=1e-12, atol=1e-12)


def test_what_is_left_out_is_zero(small):
    tokens = torch.randn(2, 12, 64, dtype=torch.float64)
    tokens[:, 3] = 0
    reconstruction, latent, penalty = small(tokens)
    assert latent.shape == (2, 24) and penalty == 0
    assert (reconstruction[:, 3] == 0).all() and (reconstruction[:, 4] != 0).all()


def test_the_configuration_is_one_network():
    resolved = registry.resolve(VitUdipConfig(), (1.0, 1.0, 1.0))
    assert registry.resolve(resolved, (1.0, 1.0, 1.0)) == resolved  # as it stands in the run's own config.yaml
    network = registry.build(resolved, np.ones((182, 218, 182), bool))
    assert base.count_parameters(network) == 3_593_088
    for wrong in ({"depth": 4}, {"masked": 0.5}, {"latent": 64}):
        with pytest.raises(ConfigError, match=f"leave out model.{next(iter(wrong))}="):
            TrainConfig.parse({"store": "s", "run_dir": "r", "model": {"compat": "vit_udip", **wrong}})


def test_the_loss_of_the_published_code():
    tokens = torch.zeros(2, 3, 4)
    tokens[0, 0, :2], tokens[1, 1] = 1, 2
    loss = reconstruction_loss(tokens, torch.zeros_like(tokens), "batch")
    torch.testing.assert_close(loss, torch.tensor([2 / 8, 16 / 8]))


class TestVitUdip(NetworkTests):
    config = VitUdipConfig(patch=4)
