"""The ViT autoencoder of ViT-UDIP, without the faults of its published code.

Differences from the paper: the token set is fixed by the cohort's mask, each token carries the code of its own place,
a subject's empty tokens are left out of attention, pooling and loss, the bottleneck need not be as wide as a token, and
the cohort's mean image is the decoder's starting point, so that only differences between people have to be learned.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from udipdist.models import Autoencoder
from udipdist.models.blocks import Stack
from udipdist.models.tokens import Patcher, foreground, sincos_positions


class VitAutoencoder(Autoencoder):
    """Tokens [B, T, V] -> latent [B, L] -> tokens [B, T, V]."""

    def __init__(
        self,
        patcher: Patcher,
        width: int = 128,
        depth: int = 4,
        decoder_depth: int = 1,
        heads: int = 4,
        mlp_ratio: float = 3.0,
        latent: int = 128,
        dropout: float = 0.0,
        recompute: bool = False,
    ):
        super().__init__()
        self.patcher, self.latent = patcher, latent
        tokens, voxels = patcher.tokens, patcher.voxels
        self.embed = nn.Linear(voxels, width)
        self.encoder = Stack(depth, width, heads, mlp_ratio, dropout, recompute)
        self.to_latent = nn.Linear(width, latent)
        self.from_latent = nn.Linear(latent, width)
        self.place = nn.Linear(width, width, bias=False)
        self.decoder = Stack(decoder_depth, width, heads, mlp_ratio, dropout, recompute)
        self.to_voxels = nn.Linear(width, voxels)
        nn.init.zeros_(self.to_voxels.bias)
        positions = sincos_positions(patcher.coordinates, width, patcher.grid)
        self.register_buffer("positions", positions, persistent=False)
        self.register_buffer("mean", torch.zeros(tokens, voxels))

    def prepare(self, volumes: Tensor) -> Tensor:
        """[B, x, y, z] -> the brain tokens [B, T, V], all that the network reads."""
        return self.patcher(volumes)

    def volumes(self, prepared: Tensor) -> Tensor:
        """[B, T, V] -> [B, x, y, z]."""
        return self.patcher.volumes(prepared)

    def set_mean(self, mean: Tensor) -> None:
        """Take the cohort's mean, in the prepared form [T, V], as the decoder's starting point."""
        self.mean.copy_(mean)

    def encode(self, prepared: Tensor) -> Tensor:
        """[B, T, V] -> latent [B, L]: the mean of the encoded brain tokens, projected."""
        valid_BT = foreground(prepared).any(dim=2)
        x_BTD = self.encoder(self.embed(prepared) + self.positions, valid_BT)
        weight_BT1 = valid_BT.to(x_BTD.dtype)[:, :, None]
        return self.to_latent((x_BTD * weight_BT1).sum(dim=1) / weight_BT1.sum(dim=1))

    def decode(self, latent: Tensor) -> Tensor:
        """[B, L] -> [B, T, V]. Every token of the cohort is decoded; the loss knows which a subject has."""
        code_B1D = self.from_latent(latent)[:, None]
        x_BTD = torch.cat([code_B1D, code_B1D + self.place(self.positions)], dim=1)
        return self.to_voxels(self.decoder(x_BTD, None)[:, 1:]) + self.mean

    def forward(self, prepared: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, V] -> (reconstruction [B, T, V], latent [B, L])."""
        latent = self.encode(prepared)
        return self.decode(latent), latent
