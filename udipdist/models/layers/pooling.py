"""How the encoded tokens of a subject become one vector. Shapes: B subjects, T tokens, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MeanPool(nn.Module):
    """The mean over a subject's own tokens."""

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        weight_BT1 = valid_BT.to(x_BTD.dtype)[:, :, None]
        return (x_BTD * weight_BT1).sum(dim=1) / weight_BT1.sum(dim=1)


class AttentionPool(nn.Module):
    """A weighted mean for each head, with weights learned from the token itself; at first the plain mean."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.score = nn.Linear(width, heads)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        batch, tokens, width = x_BTD.shape
        score_BTH = self.score(x_BTD).masked_fill(~valid_BT[:, :, None], float("-inf"))
        values_BTHd = x_BTD.view(batch, tokens, self.heads, width // self.heads)
        return (score_BTH.softmax(dim=1)[..., None] * values_BTHd).sum(dim=1).reshape(batch, width)


class ClassToken(nn.Module):
    """One more token, learned, that the encoder sees beside a subject's own; `forward` takes it out again."""

    def __init__(self, width: int):
        super().__init__()
        self.token = nn.Parameter(torch.randn(width) * 0.02)

    def join(self, x_BTD: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens with the learned one in front."""
        front_B1D = self.token.to(x_BTD.dtype).expand(len(x_BTD), 1, -1)
        return torch.cat([front_B1D, x_BTD], dim=1), torch.cat([valid_BT.new_ones(len(x_BTD), 1), valid_BT], dim=1)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        return x_BTD[:, 0]
