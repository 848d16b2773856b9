"""What a pass through a network costs, counted from the operations that it runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from udipdist.models.base import Network


def _attention(query: Any, key: Any, value: Any, *args: Any, scale: float | None = None, **keys: Any) -> int:
    """Of the channels that a head has; the scale tells them from those that only fill a register."""
    shapes = [list(shape) for shape in (query, key, value)]
    if scale is not None:
        for shape in shapes:
            shape[-1] = round(scale**-2)
    return sdpa_flop_count(*shapes)


# The fused kernel of the CPU, which torch's counter does not know.
_KERNELS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
TRAINING_PASSES = 3  # operations of a training step over those of a forward pass: forward, and twice that backward


def counting() -> FlopCounterMode:
    """While it is on, it counts floating-point operations (two a multiply-add) of products, attention included."""
    return FlopCounterMode(display=False, custom_mapping=_KERNELS)


def forward_flops(network: Network, prepared: Tensor) -> int:
    """Floating-point operations of one forward pass, as `counting` counts them."""
    with counting() as counter, torch.no_grad():
        network(prepared)
    return counter.get_total_flops()
