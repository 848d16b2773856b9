"""Pre-norm transformer blocks. Shapes: B subjects, T tokens, D width; valid_BT None stands for all tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from udipdist.models.layers.attention import Attention


class Block(nn.Module):
    """Attention and MLP, each after a LayerNorm and added to its input."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float):
        super().__init__()
        hidden = round(width * mlp_ratio)
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width), nn.Dropout(dropout))

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None) -> Tensor:
        x_BTD = x_BTD + self.attention(self.norm_attention(x_BTD), valid_BT)
        return x_BTD + self.mlp(self.norm_mlp(x_BTD))


class Stack(nn.Module):
    """Blocks in a row and a last LayerNorm; `recompute` trades time for memory in training."""

    def __init__(self, depth: int, width: int, heads: int, mlp_ratio: float, dropout: float, recompute: bool = False):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.recompute = recompute

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None) -> Tensor:
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                x_BTD = checkpoint(block, x_BTD, valid_BT, use_reentrant=False)
            else:
                x_BTD = block(x_BTD, valid_BT)
        return self.norm(x_BTD)
