"""A pre-norm transformer block with masked, fused attention. Shapes: B subjects, T tokens, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class Attention(nn.Module):
    """Multi-head self-attention (torch's fused kernels); keys that are False in `valid_BT` are not looked at.

    None stands for all keys: then no mask is made, and every fused kernel can serve.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None) -> Tensor:
        batch, tokens, width = x_BTD.shape
        q, k, v = self.qkv(x_BTD).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mask = None if valid_BT is None else valid_BT[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.dropout(self.out(mixed.transpose(1, 2).reshape(batch, tokens, width)))


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
