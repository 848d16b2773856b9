"""The ViT autoencoder of ViT-UDIP, without the faults of its published code.

Differences from the paper: the token set is fixed by the cohort's mask, each token carries the code of its own place,
a subject's empty tokens are left out of attention, pooling and loss, the bottleneck need not be as wide as a token, and
the cohort's mean image is the decoder's starting point, so that only differences between people have to be learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from hpc.errors import ConfigError
from udipdist.config import VitAeConfig
from udipdist.models.base import Autoencoder, EncoderInput, Pass
from udipdist.models.layers.blocks import Stack
from udipdist.models.layers.pooling import AttentionPool, ClassToken, MeanPool
from udipdist.models.layers.tokens import Patcher, foreground, sincos_positions
from udipdist.models.penalties import covariance_penalty, gaussian_divergence


class VitAutoencoder(Autoencoder):
    """Tokens [B, T, V] -> latent [B, L] -> tokens [B, T, V].

    pool: mean, attention or cls. variational, covariance: weights of the penalties on the latents; with the first the
    latent is a mean, and training adds noise to it. masked: share of a subject's tokens that the encoder does not see
    in training (He et al. 2022); all of them are decoded.
    """

    def __init__(
        self,
        patcher: Patcher,
        width: int = 128,
        depth: int = 4,
        decoder_width: int | None = None,
        decoder_depth: int = 1,
        heads: int = 4,
        decoder_heads: int | None = None,
        mlp_ratio: float = 3.0,
        latent: int = 128,
        dropout: float = 0.0,
        pool: str = "mean",
        variational: float = 0.0,
        covariance: float = 0.0,
        masked: float = 0.0,
        recompute: bool = False,
    ):
        super().__init__()
        self.patcher, self.latent = patcher, latent
        self.variational, self.covariance, self.masked = variational, covariance, masked
        tokens, voxels = patcher.tokens, patcher.voxels
        inner = decoder_width or width
        self.embed = nn.Linear(voxels, width)
        self.encoder = Stack(depth, width, heads, mlp_ratio, dropout, recompute)
        self.to_latent = nn.Linear(width, latent)
        self.from_latent = nn.Linear(latent, inner)
        self.place = nn.Linear(width, inner, bias=False)
        self.decoder = Stack(decoder_depth, inner, decoder_heads or heads, mlp_ratio, dropout, recompute)
        self.to_voxels = nn.Linear(inner, voxels)
        nn.init.zeros_(self.to_voxels.bias)
        self.pool = {
            "mean": MeanPool,
            "attention": lambda: AttentionPool(width, heads),
            "cls": lambda: ClassToken(width),
        }[pool]()
        if variational:
            self.to_log_variance = nn.Linear(width, latent)
            nn.init.zeros_(self.to_log_variance.weight)
            nn.init.constant_(self.to_log_variance.bias, -4.0)  # little noise at first
        positions = sincos_positions(patcher.coordinates, width, patcher.grid)
        self.register_buffer("positions", positions, persistent=False)
        self.register_buffer("mean", torch.zeros(tokens, voxels))

    @classmethod
    def resolve(cls, config: VitAeConfig, zooms: Sequence[float]) -> VitAeConfig:
        """The configuration with the patch and what a named size says filled in."""
        return super().resolve(config.sized(), zooms)

    @classmethod
    def from_config(cls, config: VitAeConfig, mask: np.ndarray, recompute: bool = False) -> Self:
        """The network of a resolved configuration for volumes with this mask [x, y, z]. Raises ConfigError."""
        inner, inner_heads = config.decoder_width or config.width, config.decoder_heads or config.heads
        for end, heads, width in (("", config.heads, config.width), ("decoder_", inner_heads, inner)):
            if width % heads:
                raise ConfigError(
                    f"model.{end}heads={heads}: does not divide model.{end}width={width}; type model.{end}heads="
                    f"{max(n for n in range(1, heads) if width % n == 0)}, or another divisor"
                )
        keys = config.model_dump(exclude={"name", "patch", "size"})
        return cls(Patcher(mask, config.edges), **keys, recompute=recompute)

    @property
    def encoder_stack(self) -> Stack:
        """The transformer that encodes."""
        return self.encoder

    def encoder_input(self, prepared: Tensor) -> EncoderInput:
        """What the transformer reads of prepared subjects [B, T, V]: a subject's own tokens."""
        patch_BTD, taken_BT = self.embed(prepared), foreground(prepared).any(dim=2)
        x_BSD, valid_BS = self._joined(patch_BTD + self.positions, taken_BT)
        return EncoderInput(patch_BTD, x_BSD, valid_BS, taken_BT, int(isinstance(self.pool, ClassToken)), self.pool)

    def set_mean(self, mean: Tensor) -> None:
        """Take the cohort's mean, in the prepared form [T, V], as the decoder's starting point."""
        self.mean.copy_(mean)

    def encode(self, prepared: Tensor) -> Tensor:
        """[B, T, V] -> latent [B, L]: the pooled brain tokens, projected."""
        return self.to_latent(self._pooled(prepared, 0.0))

    def decode(self, latent: Tensor) -> Tensor:
        """[B, L] -> [B, T, V]. Every token of the cohort is decoded; the loss knows which a subject has."""
        code_B1D = self.from_latent(latent)[:, None]
        x_BTD = torch.cat([code_B1D, code_B1D + self.place(self.positions)], dim=1)
        return self.to_voxels(self.decoder(x_BTD, None)[:, 1:]) + self.mean

    def forward(self, prepared: Tensor) -> Pass:
        """[B, T, V] -> (reconstruction [B, T, V], latent [B, L], penalty)."""
        pooled_BD = self._pooled(prepared, self.masked if self.training else 0.0)
        latent = code = self.to_latent(pooled_BD)
        penalty = torch.zeros((), device=latent.device)
        if self.variational:
            log_variance = self.to_log_variance(pooled_BD).clamp(-20, 10)
            penalty = penalty + self.variational * gaussian_divergence(latent.float(), log_variance.float())
            if self.training:
                code = latent + torch.randn_like(latent) * (0.5 * log_variance).exp()
        if self.covariance and self.training:
            penalty = penalty + self.covariance * covariance_penalty(latent)
        return Pass(self.decode(code), latent, penalty)

    def _pooled(self, prepared: Tensor, masked: float) -> Tensor:
        """One vector a subject [B, D] of its encoded tokens, without a share `masked` of them."""
        valid_BT = foreground(prepared).any(dim=2)
        x_BTD = self.embed(prepared) + self.positions
        if masked:
            x_BTD, valid_BT = _hide(x_BTD, valid_BT, masked)
        x_BTD, valid_BT = self._joined(x_BTD, valid_BT)
        return self.pool(self.encoder(x_BTD, valid_BT), valid_BT)

    def _joined(self, x_BTD: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens, with the learned one in front where there is one."""
        return self.pool.join(x_BTD, valid_BT) if isinstance(self.pool, ClassToken) else (x_BTD, valid_BT)


def _hide(x_BTD: Tensor, valid_BT: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """A random (1 - share) of the tokens, drawn for each subject, its own before its empty ones."""
    kept = max(1, round(x_BTD.shape[1] * (1 - share)))
    rank_BT = torch.rand(valid_BT.shape, device=x_BTD.device) + (~valid_BT).float()
    index_BK = rank_BT.argsort(dim=1)[:, :kept]
    return x_BTD.gather(1, index_BK[..., None].expand(-1, -1, x_BTD.shape[2])), valid_BT.gather(1, index_BK)
