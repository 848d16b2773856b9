"""What a device reaches in one large matrix product: the ceiling that a training step is compared with."""

from __future__ import annotations

import time
from typing import Any

_SIDE = {"cuda": 8192, "cpu": 1536}
_SECONDS = {"cuda": 0.1, "cpu": 0.3}
_HALVINGS = 3  # from the first side that is tried to the largest


def matmul_flops(device: Any, precision: str = "fp32") -> float:
    """Floating-point operations a second of a square product on this torch device, in fp32, bf16 or fp16.

    The best of repeated products in about a third of a second; on a CPU with the threads that torch has now.
    Where the device is so slow that one large product would take longer (bf16 on a CPU without instructions for it), a
    smaller one is measured.
    """
    import torch

    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    largest, seconds = _SIDE.get(device.type, 1536), _SECONDS.get(device.type, 0.3)
    end, rate = time.perf_counter() + seconds, 0.0
    for side in (largest >> halving for halving in range(_HALVINGS, -1, -1)):
        if rate and 2 * side**3 / rate > seconds:
            break
        with torch.no_grad():
            one, other = (torch.ones(side, side, device=device, dtype=kind) for _ in range(2))
            out = one @ other
            best = _seconds(one, other, out, device)
            while side == largest and time.perf_counter() < end:
                best = min(best, _seconds(one, other, out, device))
        rate = 2 * side**3 / best
    return rate


def _seconds(one: Any, other: Any, out: Any, device: Any) -> float:
    """How long one product takes."""
    import torch

    _wait(device)
    start = time.perf_counter()
    torch.mm(one, other, out=out)
    _wait(device)
    return time.perf_counter() - start


def _wait(device: Any) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
