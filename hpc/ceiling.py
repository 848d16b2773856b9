"""What a device reaches in one large matrix product: the ceiling that a training step is held against."""

from __future__ import annotations

import time
from typing import Any

_SIDE = {"cuda": 8192, "cpu": 1536}
_SECONDS = {"cuda": 0.1, "cpu": 0.3}


def matmul_flops(device: Any, precision: str = "fp32") -> float:
    """Floating-point operations a second of a square product on this torch device, in fp32, bf16 or fp16.

    The best of repeated products in about a third of a second; on a CPU with the threads that torch has now.
    """
    import torch

    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    side = _SIDE.get(device.type, 1536)
    with torch.no_grad():
        one, other = (torch.ones(side, side, device=device, dtype=kind) for _ in range(2))
        out = one @ other
        end, best = time.perf_counter() + _SECONDS.get(device.type, 0.3), float("inf")
        while time.perf_counter() < end:
            _wait(device)
            start = time.perf_counter()
            torch.mm(one, other, out=out)
            _wait(device)
            best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def _wait(device: Any) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
