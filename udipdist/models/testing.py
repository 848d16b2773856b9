"""What any network must hold, as a class that the tests of a network inherit.

    class TestMyNetwork(NetworkTests):
        config = MyConfig(patch=4, latent=5)

pytest then runs everything below on it. `config` is small, for volumes of `shape`; a network that is made in another
way overrides `build` and `load`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from udipdist.config import NetworkConfig, TrainConfig
from udipdist.models import registry
from udipdist.models.base import Autoencoder, Encoder, Examples, Network, Pair, Registration, Regressor

SUBJECTS = 4
_EXACT = {"rtol": 1e-9, "atol": 1e-11}  # float64, batches of other sizes


class NetworkTests:
    """Inherit it under a name that begins with Test, and give `config`."""

    config: NetworkConfig
    shape: tuple[int, int, int] = (8, 12, 8)
    zooms = (2.0, 2.0, 2.0)
    targets = 2  # of a Regressor

    @property
    def resolved(self) -> Any:
        """The configuration that a run would keep."""
        return registry.resolve(self.config, self.zooms)

    def build(self) -> Network:
        """A new network, always with the same weights."""
        torch.manual_seed(0)
        return registry.build(self.resolved, np.ones(self.shape, bool))

    def load(self, path: Path) -> Network:
        """The network of a file of weights, in evaluation mode."""
        return registry.load(self.resolved, path)

    def network(self) -> Network:
        """A new network in float64, in evaluation mode, that starts from a mean where it uses one."""
        network = self.build().double().eval()
        if not network.modalities:
            network.set_mean(network.prepare(self.images(1, 7))[0])
        return network

    def images(self, subjects: int = SUBJECTS, seed: int = 1) -> Tensor:
        """Volumes [B, x, y, z]; of the second subject half is background."""
        volumes = torch.randn((subjects, *self.shape), dtype=torch.float64, generator=_random(seed))
        volumes[1:2, : self.shape[0] // 2] = 0
        return volumes

    def batch(self, network: Network, subjects: int = SUBJECTS) -> Any:
        """What the network learns from."""
        if network.learns_from == "pairs":
            return Pair(self.images(subjects, 1), self.images(subjects, 2))
        images: Any = self.images(subjects)
        if network.modalities:
            images = {modality: self.images(subjects, seed) for seed, modality in enumerate(network.modalities)}
        prepared = network.prepare(images)
        if network.learns_from == "volumes":
            return prepared
        targets = torch.randn((subjects, self.targets), dtype=torch.float64, generator=_random(3))
        targets[0, 0] = torch.nan
        return Examples(prepared, targets)

    def says(self, network: Network, batch: Any) -> Tensor:
        """What the network says of each subject, [B, ...]."""
        return network.encode(batch) if isinstance(network, Encoder) else network(batch)

    def test_its_configuration_is_kept_by_a_run(self):
        for config in (self.config, self.resolved):
            tree = {"store": "store", "run_dir": "run", "model": config.tree()}
            assert TrainConfig.parse(tree).model == config
        assert registry.resolve(self.resolved, self.zooms) == self.resolved

    def test_its_configuration_knows_what_it_can_do(self):
        network, kind = self.build(), type(self.config)
        assert kind.has_attention == (network.encoder_stack is not None)
        assert set(kind.penalties) <= set(kind.model_fields) and not set(kind.fixed) & set(kind.model_fields)
        of_kind = {"volumes": Network, "targets": Regressor, "pairs": Registration}
        assert isinstance(network, of_kind[network.learns_from])

    def test_prepared_volumes_come_back(self):
        network, images = self.network(), self.images()
        given: Any = dict.fromkeys(network.modalities, images) or images
        for there, back in _pairs(given, network.volumes(network.prepare(given))):
            assert torch.equal(there, back)

    def test_it_reads_the_voxels_that_it_names(self):
        network, images = self.network(), self.images()
        gather = network.gather()
        values = F.pad(images.flatten(1), (0, 1))[:, torch.from_numpy(gather.index)]  # the last, index -1, is padding
        given: Any = dict.fromkeys(network.modalities, images) or images
        for prepared, _ in _pairs(network.prepare(given), given):
            assert torch.equal(prepared, values.view(len(images), *gather.shape))

    def test_what_it_gives_has_its_shape(self):
        network = self.network()
        batch = self.batch(network)
        said, output = self.says(network, batch), network(batch)
        if isinstance(network, Encoder):
            assert said.shape == (SUBJECTS, network.latent)
        if isinstance(network, Autoencoder):
            assert torch.equal(output.latent, said) and output.penalty.shape == ()
            for made in (output.reconstruction, network.decode(said)):
                assert all(one.shape == other.shape for one, other in _pairs(batch, made))
        if isinstance(network, Regressor):
            assert output.shape == batch.targets.shape
        if isinstance(network, Registration):
            assert output.shape == (SUBJECTS, 3, *self.shape)

    def test_decoding_a_latent_is_what_a_pass_does(self):
        network = self.network()
        if isinstance(network, Autoencoder) and not network.batch_dependent:
            output = network(self.batch(network))
            for one, other in _pairs(output.reconstruction, network.decode(output.latent)):
                torch.testing.assert_close(one, other, **_EXACT)

    def test_its_loss_is_a_number_of_each_subject(self):
        network = self.network()
        batch = self.batch(network)
        output = network(batch)
        for kind in ("brain", "patch", "batch"):
            losses, penalty = network.loss(batch, output, kind)
            scores = network.scores(batch, output, kind)
            assert losses.shape == (SUBJECTS,) and penalty.shape == () and penalty.isfinite()
            assert all(score.shape == (SUBJECTS,) and score.isfinite().all() for score in scores.values())
            torch.testing.assert_close(scores["loss"].double(), losses.double(), rtol=1e-5, atol=1e-7)

    def test_background_does_not_count(self):
        network = self.network()
        if not isinstance(network, Autoencoder):
            return
        batch = self.batch(network)
        output = network(batch)
        made = [made.detach().requires_grad_() for _, made in _pairs(batch, output.reconstruction)]
        asked = dict(zip(network.modalities, made, strict=True)) if network.modalities else made[0]
        network.loss(batch, output._replace(reconstruction=asked), "brain").subjects.sum().backward()
        for (given, _), own in zip(_pairs(batch, batch), made, strict=True):
            assert (own.grad[given == 0] == 0).all() and (own.grad[given != 0] != 0).all()

    def test_companions_have_no_influence_unless_it_says_so(self):
        network = self.network()
        together = self.says(network, self.batch(network))
        apart = [self.says(network, _only(self.batch(network), b)) for b in range(SUBJECTS)]
        if network.batch_dependent:
            assert (torch.cat(apart) - together).abs().max() > 1e-6
        else:
            torch.testing.assert_close(torch.cat(apart), together, **_EXACT)

    def test_tokens_that_are_not_taken_have_no_influence(self):
        network = self.network()
        stack = network.encoder_stack
        if stack is None:
            return
        read = network.encoder_input(self.batch(network))
        if read.valid_BS is None:
            assert (read.front + read.taken_BT.sum(dim=1) == read.x_BSD.shape[1]).all()
            return
        assert torch.equal(read.valid_BS.sum(dim=1), read.front + read.taken_BT.sum(dim=1))
        assert not read.valid_BS.all()
        disturbed = read.x_BSD + 100 * ~read.valid_BS[..., None]
        one, other = (stack(x_BSD, read.valid_BS)[read.valid_BS] for x_BSD in (read.x_BSD, disturbed))
        torch.testing.assert_close(one, other, **_EXACT)

    def test_weights_stand_alone(self, tmp_path: Path):
        network = self.network().float()
        assert "patcher.mask" in network.state_dict()
        save_file(
            {name: value.contiguous() for name, value in network.state_dict().items()}, tmp_path / "weights.safetensors"
        )
        batch = _float(self.batch(self.network()))
        again = self.load(tmp_path / "weights.safetensors")
        assert not again.training and torch.equal(self.says(again, batch), self.says(network, batch))

    def test_gradients_reach_every_weight(self):
        network = self.network().train()
        batch = self.batch(network)
        losses, penalty = network.loss(batch, network(batch), "brain")
        (losses.mean() + penalty).backward()
        lost = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
        assert not lost, lost


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _pairs(one: Any, other: Any) -> list[tuple[Tensor, Tensor]]:
    """Two tensors, or those of each modality."""
    return [(one, other)] if isinstance(one, Tensor) else [(one[modality], other[modality]) for modality in one]


def _on_tensors(function: Any, batch: Any) -> Any:
    """The function of every tensor of a batch."""
    if isinstance(batch, dict):
        return {key: _on_tensors(function, value) for key, value in batch.items()}
    if isinstance(batch, tuple):
        return type(batch)(*(_on_tensors(function, value) for value in batch))
    return batch if batch is None else function(batch)


def _only(batch: Any, b: int) -> Any:
    return _on_tensors(lambda tensor: tensor[b : b + 1], batch)


def _float(batch: Any) -> Any:
    return _on_tensors(Tensor.float, batch)
