"""The published training, written plainly in PyTorch, and MONAI's autoencoder of the same shape."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.volume_peers import published
from udipdist.models.base import count_parameters
from udipdist.models.layers.tokens import PAPER_PATCH, Patcher
from udipdist.models.zoo.vit_udip import PublishedVit

_SHAPE = (182, 218, 182)
_MONAI_SHAPE, _MONAI_PATCH = (176, 464, 48), 16  # 957 tokens, as many as the paper's figure 3 shows


class _Eager(nn.Module):
    """Attention as it was written before there were fused kernels: all scores in memory."""

    def __init__(self, of: Any):
        super().__init__()
        self.heads, self.qkv, self.out = of.heads, of.qkv, of.out

    def forward(self, x_BTD: Tensor, valid_BT: None) -> Tensor:
        batch, tokens, width = x_BTD.shape
        q, k, v = self.qkv(x_BTD).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, tokens, width))


class NetworkAlone:
    """The published network with eager attention, fp32, on volumes that are in memory already."""

    def __init__(self, paths: Sequence[Path], device: torch.device, batch: int):
        torch.manual_seed(0)
        whole_grid = Patcher(np.ones(_SHAPE, bool), PAPER_PATCH, -1.0)
        self.network, self.device, self.batch = PublishedVit(whole_grid).to(device), device, batch
        for stack in (self.network.encoder, self.network.decoder):
            for block in stack.blocks:
                block.attention = _Eager(block.attention)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), 1e-3, weight_decay=0.01)
        self._paths = itertools.cycle(paths)
        self._ready = self._read()

    def step(self) -> int:
        """One optimiser step; the number of its volumes."""
        return self._train(self._ready)

    def _read(self) -> Tensor:
        volumes = [published(next(self._paths))[:, 3:-3] for _ in range(self.batch)]  # our patcher pads it again
        return torch.from_numpy(np.stack(volumes))

    def _train(self, volumes: Tensor) -> int:
        patches_BTV = self.network.prepare(volumes.to(self.device))
        reconstruction_BTV, _, _ = self.network(patches_BTV)
        kept_T = (patches_BTV != 0).any(dim=2).any(dim=0)
        loss = nn.functional.mse_loss(reconstruction_BTV[:, kept_T], patches_BTV[:, kept_T])
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return len(volumes)


class EndToEnd(NetworkAlone):
    """The same with each volume read by nibabel as the published data set does, in the training process."""

    def step(self) -> int:
        return self._train(self._read())


class _Monai:
    def __init__(self, device: torch.device, batch: int):
        from monai.networks.nets import ViTAutoEnc

        torch.manual_seed(0)
        self.network = ViTAutoEnc(
            1, _MONAI_SHAPE, _MONAI_PATCH, hidden_size=128, mlp_dim=512, num_layers=12, num_heads=8, spatial_dims=3
        ).to(device)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), 1e-3, weight_decay=0.01)
        self.volumes = torch.randn(batch, 1, *_MONAI_SHAPE, device=device)

    def step(self) -> int:
        loss = nn.functional.mse_loss(self.network(self.volumes)[0], self.volumes)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return len(self.volumes)


def monai(device: torch.device, batch: int) -> dict[str, Any]:
    """MONAI's ViTAutoEnc of the same width and depth and as many tokens (its decoder is two transposed convolutions),
    on volumes in memory; nothing where MONAI is not installed."""
    if importlib.util.find_spec("monai") is None:
        print("MONAI is not installed: its row is left out (pip install monai)")
        return {}
    way = _Monai(device, batch)
    return {f"MONAI ViTAutoEnc, {count_parameters(way.network) / 1e6:.1f} M, network alone": way}
