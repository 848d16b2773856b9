"""Masked, fused self-attention, and which of torch's kernels it runs on.

Shapes: B subjects, H heads, T tokens, D width. No kernel but `math` ever holds a T x T matrix. On a GPU the flash one
takes no mask, so there, when it is asked for by name, the mask travels in one more channel of queries and keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from hpc.errors import ConfigError

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
_OPERATIONS = {  # in the name of the operation that torch's dispatcher chose
    "flash_attention": "flash",
    "efficient_attention": "efficient",
    "cudnn_attention": "cudnn",
    "fused_attention_overrideable": "overrideable",
}
_HIDDEN = -1_000.0  # added to the score of a masked key: exp() of it is 0 in float32, and fp16 holds its multiples
_CHANNELS = 8  # head widths of the flash kernel of a GPU are multiples of this
_LANES = 16  # float32 numbers in a vector register: that of a CPU is slower with fewer channels than with these
_attend = F.scaled_dot_product_attention


class Attention(nn.Module):
    """Multi-head self-attention; keys that are False in `valid_BT` are not looked at.

    None stands for all keys: then no mask is made, and every fused kernel can serve.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.backend: str | None = None  # None: torch chooses
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None) -> Tensor:
        batch, tokens, width = x_BTD.shape
        q, k, v = self.qkv(x_BTD).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        with nullcontext() if self.backend is None else sdpa_kernel(BACKENDS[self.backend]):
            if self.backend == "flash" and valid_BT is not None and x_BTD.is_cuda:
                mixed = masked_by_channel(q, k, v, valid_BT)
            else:
                mask = None if valid_BT is None else valid_BT[:, None, None, :]
                mixed = narrow(q, k, v, mask) if x_BTD.device.type == "cpu" else _attend(q, k, v, attn_mask=mask)
        return self.dropout(self.out(mixed.transpose(1, 2).reshape(batch, tokens, width)))


def masked_by_channel(q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, valid_BT: Tensor) -> Tensor:
    """Attention [B, H, T, d] over the valid keys, by a kernel that takes no mask.

    Queries get one more channel that is 1, keys one that is 0 or very negative, and all are padded to the next multiple
    of 8 channels. Equal to the masked form to rounding.
    """
    width = q_BHTd.shape[-1]
    padding = -(width + 1) % _CHANNELS
    bias_BHT1 = torch.where(valid_BT, 0.0, _HIDDEN * width**0.5).to(k_BHTd.dtype)[:, None, :, None]
    bias_BHT1 = bias_BHT1.expand(*k_BHTd.shape[:-1], 1)
    q = F.pad(torch.cat([q_BHTd, torch.ones_like(bias_BHT1)], dim=-1), (0, padding))
    k = F.pad(torch.cat([k_BHTd, bias_BHT1], dim=-1), (0, padding))
    v = F.pad(v_BHTd, (0, padding + 1))
    return _attend(q, k, v, scale=width**-0.5)[..., :width]


def narrow(q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor, mask_B11T: Tensor | None) -> Tensor:
    """Attention [B, H, T, d] for heads of any width on a CPU: those of fewer than 16 channels get zeros beside them.

    8 channels took 1.5 times as long as 16. Zeros change no score and no result.
    """
    width = q_BHTd.shape[-1]
    if width >= _LANES:  # padding by nothing would still copy
        return _attend(q_BHTd, k_BHTd, v_BHTd, attn_mask=mask_B11T)
    q, k, v = (F.pad(x, (0, _LANES - width)) for x in (q_BHTd, k_BHTd, v_BHTd))
    return _attend(q, k, v, attn_mask=mask_B11T, scale=width**-0.5)[..., :width]


def use_backend(network: nn.Module, name: str) -> None:
    """Make every attention of a network run on one kernel ('auto': torch chooses). `watched` says whether it can."""
    for module in network.modules():
        if isinstance(module, Attention):
            module.backend = None if name == "auto" else name


class Watch(TorchDispatchMode):
    """Which attention kernels ran while it was on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for part, name in _OPERATIONS.items():
            if part in func.__name__ and "backward" not in func.__name__:
                self.seen.add(name)
        return func(*args, **(kwargs or {}))

    def names(self) -> str:
        """The kernels in words."""
        return ", ".join(sorted(self.seen)) or "math"


@contextmanager
def watched(name: str) -> Iterator[Watch]:
    """Watch a first pass. Raises ConfigError where the kernel `name` that is asked for cannot run here."""
    try:
        with Watch() as watch:
            yield watch
    except RuntimeError as error:
        if name == "auto" or "kernel" not in str(error):
            raise
        raise ConfigError(
            f"engine.attention={name}: this kernel cannot run here (this device, precision and head width); type "
            "engine.attention=auto"
        ) from error
