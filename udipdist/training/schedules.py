"""Learning rates over optimiser steps, as multiples of the peak."""

from __future__ import annotations

import math
from collections.abc import Callable

from udipdist.config import ScheduleConfig


def schedule(config: ScheduleConfig, steps: int, epochs: int) -> Callable[[int], float]:
    """The factor of the peak rate at step 0 .. steps - 1: a linear rise, then the named shape, never below the floor.

    step: falls by a factor every few epochs, down to the floor. cosine, warm_restarts: from the peak to the floor, the
    second in cycles of doubling length (Loshchilov & Hutter 2017, equation 5).
    """
    warmup = round(config.warmup * steps)
    per_epoch = steps / max(1, epochs)
    shape = {
        "constant": lambda step: 1.0,
        "cosine": lambda step: _cosine((step - warmup) / max(1, steps - warmup)),
        "step": lambda step: config.step_factor ** (int(step / per_epoch) // config.step_epochs),
        "warm_restarts": lambda step: _cosine(_cycle_position(step / per_epoch, config.restart_epochs)),
    }[config.name]

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if config.name == "step":
            return max(config.floor, shape(step))
        return config.floor + (1 - config.floor) * shape(step)

    return rate


def _cosine(position: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, position)))


def _cycle_position(epoch: float, first: int) -> float:
    """Where `epoch` stands in its cycle, 0 .. 1, for cycles of first, 2 first, 4 first ... epochs."""
    cycle = int(math.log2(epoch / first + 1))
    return (epoch - first * (2**cycle - 1)) / (first * 2**cycle)
