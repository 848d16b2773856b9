"""The convolutional autoencoder of UDIP, for volumes of any size.

Xie et al., "Unsupervised representation learning of brain MRI as phenotypes for genetic association studies": pairs of
3 x 3 x 3 convolutions with batch normalisation, halved four times by pooling, a linear bottleneck, and the same upwards
with transposed convolutions. At 182 x 218 x 182 it is the published network: 138 million parameters, 96 % of them in
the two linear layers.

Differences, without model.compat=udip: it is given the cohort's brain tokens, as the ViT is, and 0 elsewhere, so that
both read one packed array and are judged by one loss; the cohort's mean image is added to what it decodes; and the
convolutions have no biases, which batch normalisation takes away again (their gradients are rounding errors, of which
Adam makes steps of full length). In both forms batch normalisation sees the batches of all ranks.

Shapes: B subjects, T tokens, V voxels of a patch, L latents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hpc.batchnorm import BatchNorm3d, uncounted
from hpc.errors import ConfigError
from udipdist.config import CnnAeConfig
from udipdist.models.base import Autoencoder, Pass
from udipdist.models.layers.convolution import Conv3d
from udipdist.models.layers.tokens import BRAIN_SHARE, WHOLE_GRID, Patcher
from udipdist.models.penalties import covariance_penalty


class CnnAutoencoder(Autoencoder):
    """Tokens [B, T, V], put back into their volume -> latent [B, L] -> volume -> tokens [B, T, V].

    channels: of the first level; each of the `levels` halvings doubles them. covariance: weight of the penalty on the
    latents. published: without the cohort's mean, and with biases of the convolutions. recompute: a level's
    activations are computed again in the backward pass instead of being kept.
    """

    def __init__(
        self,
        patcher: Patcher,
        channels: int = 16,
        levels: int = 4,
        latent: int = 128,
        covariance: float = 0.0,
        published: bool = False,
        recompute: bool = False,
    ):
        super().__init__()
        self.patcher, self.latent = patcher, latent
        self.covariance, self.published, self.recompute = covariance, published, recompute
        widths = [channels * 2**level for level in range(levels + 1)]
        halvings, shape = _halvings(patcher.shape, levels)
        self.deepest = (widths[-1], *shape)
        encoder: list[nn.Module] = [_pair(1, channels, published)]
        decoder: list[nn.Module] = []
        for narrow, wide, (padding, surplus) in zip(widths, widths[1:], halvings, strict=False):
            encoder.append(nn.Sequential(nn.MaxPool3d(2, padding=padding), *_pair(narrow, wide, published)))
            up = nn.ConvTranspose3d(narrow, narrow, 2, stride=2, padding=padding, output_padding=surplus)
            decoder.append(nn.Sequential(*_pair(wide, narrow, published), up))
        last = nn.Sequential(*_pair(channels, channels, published), nn.Conv3d(channels, 1, 1))
        self.encoder = nn.ModuleList(encoder)
        self.to_latent = nn.Linear(math.prod(self.deepest), latent)
        self.from_latent = nn.Linear(latent, math.prod(self.deepest))
        self.decoder = nn.ModuleList([*reversed(decoder), last])
        self.register_buffer("mean", torch.zeros(patcher.tokens, patcher.voxels))

    @classmethod
    def from_config(cls, config: CnnAeConfig, mask: np.ndarray, recompute: bool = False) -> Self:
        """The network of a resolved configuration for volumes with this mask [x, y, z]."""
        published = config.compat == "udip"
        patcher = Patcher(mask, config.edges, WHOLE_GRID if published else BRAIN_SHARE)
        keys = config.model_dump(exclude={"name", "patch", "compat"})
        return cls(patcher, **keys, published=published, recompute=recompute)

    def set_mean(self, mean: Tensor) -> None:
        """Take the cohort's mean [T, V], to which the decoder adds; the published network has none."""
        if not self.published:
            self.mean.copy_(mean)

    def encode(self, prepared: Tensor) -> Tensor:
        """[B, T, V] -> latent [B, L]."""
        return self.to_latent(self._through(self.encoder, self.patcher.volumes(prepared)[:, None]).flatten(1))

    def decode(self, latent: Tensor) -> Tensor:
        """[B, L] -> [B, T, V]."""
        deepest = self.from_latent(latent).view(-1, *self.deepest)
        return self.patcher(self._through(self.decoder, deepest)[:, 0]) + self.mean

    def forward(self, prepared: Tensor) -> Pass:
        """[B, T, V] -> (reconstruction [B, T, V], latent [B, L], penalty). Raises ConfigError for a batch of which
        nothing can be normalised."""
        if self.training and len(prepared) == 1 and math.prod(self.deepest[1:]) == 1:
            raise ConfigError(
                "micro_batch=1: batch normalisation needs more than one number a channel, and these volumes are one "
                "voxel at the deepest level; type micro_batch=2 or more, or a smaller model.levels"
            )
        latent = self.encode(prepared)
        penalty = torch.zeros((), device=latent.device)
        if self.covariance and self.training:
            penalty = penalty + self.covariance * covariance_penalty(latent)
        return Pass(self.decode(latent), latent, penalty)

    def _through(self, stages: nn.ModuleList, x: Tensor) -> Tensor:
        """The stages in turn; with `recompute` only what passes between them is kept for the backward pass."""
        for stage in stages:
            if self.recompute and torch.is_grad_enabled():
                # The second time a batch is not counted again in the running statistics.
                x = checkpoint(
                    stage, x, use_reentrant=False, context_fn=lambda stage=stage: (nullcontext(), uncounted(stage))
                )
            else:
                x = stage(x)
        return x


def _pair(channels: int, outputs: int, bias: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for given in (channels, outputs):
        layers += [Conv3d(given, outputs, bias), BatchNorm3d(outputs), nn.LeakyReLU(inplace=True)]
    return nn.Sequential(*layers)


def _halvings(shape: Sequence[int], levels: int) -> tuple[list[tuple[tuple[int, ...], tuple[int, ...]]], list[int]]:
    """For each level the padding of its pooling (of the way back, too) and what that way then lacks at the end of each
    axis; and the shape at the deepest level.

    A length is padded by a voxel on both sides where it is odd, and where its half would be odd with another halving to
    come: 182 -> 92 -> 46 -> 24 -> 12 and 218 -> 110 -> 56 -> 28 -> 14, the published network's lengths.
    """
    halvings, lengths = [], list(shape)
    for level in range(levels):
        odd = [n % 2 for n in lengths]
        padding = [int(n % 2 == 1 or (n // 2 % 2 == 1 and level < levels - 1)) for n in lengths]
        lengths = [n // 2 + pad for n, pad in zip(lengths, padding, strict=True)]
        halvings.append((tuple(padding), tuple(odd)))
    return halvings, lengths
