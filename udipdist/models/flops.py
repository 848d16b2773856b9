"""What a pass through a network costs, counted from the operations that it runs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from udipdist.models import Autoencoder


def forward_flops(network: Autoencoder, prepared: Tensor) -> int:
    """Floating-point operations (two a multiply-add) of the matrix products of one forward pass, attention included.

    Attention runs as plain products while it is counted: torch's counter does not know all fused kernels.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        network(prepared)
    return counter.get_total_flops()
