"""The published ViT-UDIP network, faults included, for those who must compare with it (model.compat=vit_udip).

Islam et al., "Vision Transformer Autoencoders for Unsupervised Representation Learning". What it does that `vit_ae`
does not: every patch of the grid is embedded; the tokens kept are those with brain in any subject of the *batch*, and a
subject's empty ones among them take part in attention and pooling, so that a latent depends on the batch-mates; and a
token carries the position code of another place. The paper does not say how the sine-cosine codes share the width among
axes and frequencies; those of `vit_ae` are used. The initial weights are torch's.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from udipdist.config import VitUdipConfig
from udipdist.models.base import Autoencoder, EncoderInput, Pass
from udipdist.models.layers.blocks import Stack
from udipdist.models.layers.tokens import WHOLE_GRID, Patcher, foreground, sincos_positions


def scrambled(patcher: Patcher) -> Tensor:
    """The coordinates [T, 3] that the published code gives to the tokens of a whole grid.

    The tokens run over (x, y, z) with z fastest; the published codes run over (y, x, z), because numpy's `meshgrid`
    swaps the first two axes unless it is told not to. On the paper's grid of 13 x 14 x 13, 98.9 % of the tokens get the
    code of another token.
    """
    a, b, c = (torch.arange(n) for n in patcher.grid)
    y, x, z = torch.meshgrid(b, a, c, indexing="ij")
    return torch.stack([x, y, z], dim=-1).reshape(-1, 3)


class PublishedVit(Autoencoder):
    """Patches [B, T, V] of the whole grid -> latent [B, D], the mean of the tokens -> patches [B, T, V].

    The decoder starts from nothing, so the cohort's mean is not used.
    """

    batch_dependent = True

    def __init__(
        self,
        patcher: Patcher,
        width: int = 128,
        depth: int = 12,
        decoder_width: int = 64,
        decoder_depth: int = 12,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        recompute: bool = False,
    ):
        super().__init__()
        self.patcher, self.latent = patcher, width
        self.embed = nn.Linear(patcher.voxels, width)
        self.encoder = Stack(depth, width, heads, mlp_ratio, dropout, recompute)
        self.from_latent = nn.Linear(width, decoder_width)
        self.decoder = Stack(decoder_depth, decoder_width, heads, mlp_ratio, dropout, recompute)
        self.to_voxels = nn.Linear(decoder_width, patcher.voxels)
        places = scrambled(patcher)
        self.register_buffer("positions", sincos_positions(places, width, patcher.grid), persistent=False)
        self.register_buffer("places", sincos_positions(places, decoder_width, patcher.grid), persistent=False)

    @classmethod
    def from_config(cls, config: VitUdipConfig, mask: np.ndarray, recompute: bool = False) -> Self:
        """The network of the paper, for volumes with this mask [x, y, z]."""
        return cls(Patcher(mask, config.edges, WHOLE_GRID), dropout=config.dropout, recompute=recompute)

    @property
    def encoder_stack(self) -> Stack:
        """The transformer that encodes."""
        return self.encoder

    def encoder_input(self, prepared: Tensor) -> EncoderInput:
        """What the transformer reads of prepared subjects [B, T, V]: the tokens of the whole batch, without a mask."""
        patch_BTD, kept_T = self.embed(prepared), _in_batch(prepared)
        x_BSD = (patch_BTD + self.positions)[:, kept_T]
        return EncoderInput(patch_BTD, x_BSD, None, kept_T.expand(len(prepared), -1), 0, None)

    def encode(self, prepared: Tensor) -> Tensor:
        """[B, T, V] -> latent [B, D], which depends on who else is in the batch."""
        return self.encoder(self.encoder_input(prepared).x_BSD, None).mean(dim=1)

    def decode(self, latent: Tensor, kept_T: Tensor | None = None) -> Tensor:
        """[B, D] -> [B, T, V]: the patches `kept_T`, or those with a voxel of the cohort's mask; the others are 0."""
        if kept_T is None:
            kept_T = self.patcher(self.patcher.mask[None].float())[0].any(dim=1)
        code_B1D = self.from_latent(latent)[:, None]
        places_BKD = self.places[kept_T].expand(len(latent), -1, -1)
        decoded_BKD = self.decoder(torch.cat([code_B1D, places_BKD], dim=1), None)[:, 1:]
        patches_BKV = self.to_voxels(decoded_BKD)
        whole_BTV = patches_BKV.new_zeros(len(latent), len(kept_T), self.patcher.voxels)
        whole_BTV[:, kept_T] = patches_BKV
        return whole_BTV

    def forward(self, prepared: Tensor) -> Pass:
        """[B, T, V] -> (reconstruction [B, T, V], latent [B, D], no penalty)."""
        latent = self.encode(prepared)
        return Pass(self.decode(latent, _in_batch(prepared)), latent, torch.zeros((), device=latent.device))


def _in_batch(prepared: Tensor) -> Tensor:
    """True for the tokens [T] with brain in any subject of the batch."""
    return foreground(prepared).any(dim=2).any(dim=0)
