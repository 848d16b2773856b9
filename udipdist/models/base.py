"""What a network is to those who train it, embed with it, and look into it.

A network reads volumes in a *prepared* form that holds all it needs and nothing else (for the ViT the brain tokens), so
that a whole cohort may stay in memory. Its first axis is the subject; background voxels are exactly 0 in it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from udipdist.models.layers.tokens import Patcher
from udipdist.volumes.packed import Gather

WEIGHTS = "weights.safetensors"  # in a checkpoint: all that embedding needs


class Pass(NamedTuple):
    """What a pass through a network gives. `penalty` is added to the loss; 0 where the network has none."""

    reconstruction: Tensor  # in the prepared form
    latent: Tensor  # [B, L]
    penalty: Tensor  # one number


class Autoencoder(nn.Module):
    """What training and embedding ask of a network. Its saved buffers hold `patcher.mask`, so weights stand alone."""

    patcher: Patcher
    latent: int  # numbers in the bottleneck

    @abstractmethod
    def prepare(self, volumes: Tensor) -> Tensor:
        """Normalised volumes [B, x, y, z] -> the prepared form [B, ...]."""

    def gather(self) -> Gather:
        """The voxels that `prepare` takes, in its order, for those who read them without the rest of the volume."""
        return self.patcher.gather()

    @abstractmethod
    def volumes(self, prepared: Tensor) -> Tensor:
        """The prepared form -> volumes [B, x, y, z]; what was left out is 0."""

    @abstractmethod
    def set_mean(self, mean: Tensor) -> None:
        """Take the cohort's mean, prepared and without the subject axis, as the decoder's starting point."""

    @abstractmethod
    def encode(self, prepared: Tensor) -> Tensor:
        """The latent [B, L]."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Latents [B, L], also ones that no subject has, to the prepared form [B, ...]."""

    @abstractmethod
    def forward(self, prepared: Tensor) -> Pass:
        """Reconstruction, latent and penalty of prepared volumes [B, ...]."""


def count_parameters(network: nn.Module) -> int:
    """Trained numbers of a network."""
    return sum(p.numel() for p in network.parameters())
