"""How fast a training goes, and what it waits for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hpc.stage import own_peak


class Meter:
    """Volumes, seconds and seconds of waiting since the last `take`, on one rank.

    flops: floating-point operations of training on one volume. ceiling: what the device reaches in a matrix product,
    operations a second. tokens: of one volume.
    """

    def __init__(self, device: torch.device, ranks: int, tokens: int, flops: float, ceiling: float):
        self.device, self.ranks, self.tokens, self.flops, self.ceiling = device, ranks, tokens, flops, ceiling
        self._restart()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent here is waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def count(self, volumes: int) -> None:
        """So many volumes of this rank were trained on."""
        self._volumes += volumes

    def take(self) -> dict[str, float]:
        """volumes_per_s and tokens_per_s of all ranks, mfu (share of the ceiling, on this rank), data_wait (share of
        the time), memory_gb (peak of this rank); and begin anew."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds = max(time.perf_counter() - self._start, 1e-9)
        rate = self._volumes / seconds
        memory = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else own_peak()
        taken = {
            "volumes_per_s": rate * self.ranks,
            "tokens_per_s": rate * self.ranks * self.tokens,
            "mfu": rate * self.flops / self.ceiling,
            "data_wait": self._waited / seconds,
            "memory_gb": memory / 1e9,
        }
        self._restart()
        return taken

    def skip(self) -> None:
        """Forget the time since the last `take`: it was no training."""
        self._restart()

    def _restart(self) -> None:
        self._start, self._waited, self._volumes = time.perf_counter(), 0.0, 0


def in_words(taken: dict[str, float]) -> str:
    """'12.1 volumes/s, 11,000 tokens/s, MFU 41 %, data 0.3 %, 2.1 GB'."""
    return (
        f"{taken['volumes_per_s']:.3g} volumes/s, {taken['tokens_per_s']:,.0f} tokens/s, MFU {taken['mfu']:.0%}, "
        f"waiting for data {taken['data_wait']:.1%}, {taken['memory_gb']:.2f} GB"
    )
