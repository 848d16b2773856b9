"""Exponential moving average of the weights, sharded over the ranks in every ZeRO stage.

Each rank keeps its share of every weight, ceil(n / ranks) values in float32: 4 bytes a weight over all ranks, and one
multiply-add a weight and step, without communication. `weights` and `applied` gather one weight at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from hpc.engine import Engine
from hpc.errors import InputError


class Ema:
    """The average of an engine's weights. Every rank calls every method, in the same order.

    average(t) = d(t) average(t-1) + (1 - d(t)) weights(t), d(t) = min(decay, (1 + t) / (10 + t)): the first steps do
    not hang on the untrained weights (as tf.train.ExponentialMovingAverage with num_updates; Tan & Le 2019).
    """

    def __init__(self, engine: Engine, decay: float):
        """Starts from the weights as they are."""
        self.engine, self.decay, self.steps = engine, decay, 0
        self._average = [self._share(parameter).float().clone() for parameter in self._parameters.values()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights of the optimiser step just done."""
        self.steps += 1
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._average, [self._share(p).float() for p in self._parameters.values()], 1 - keep)

    @torch.no_grad()
    def weights(self) -> dict[str, torch.Tensor]:
        """`Engine.weights` with the averages in their place: on the CPU, whole on rank 0, empty on the others."""
        kept = self.engine.weights()
        for (name, parameter), average in zip(self._parameters.items(), self._average, strict=True):
            whole = self._whole(parameter, average)
            if kept:
                kept[name] = whole.cpu().clone()
        return kept

    @torch.no_grad()
    def load(self, state: Mapping[str, torch.Tensor], steps: int) -> None:
        """Go on from what `weights` returned after `steps` steps, saved by any number of ranks.

        Raises InputError where it lacks a weight or holds one of another shape.
        """
        self.steps = steps
        for (name, parameter), average in zip(self._parameters.items(), self._average, strict=True):
            shape = self._shape(parameter)
            if name not in state or state[name].shape != shape:
                found = f"is {tuple(state[name].shape)}" if name in state else "is missing"
                raise InputError(f"average of the weights: {name} {found}, not {tuple(shape)} as in this model")
            average.copy_(self._cut(state[name].flatten()))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the module computes with the averages: to validate them. No optimiser step in there."""
        own = [self._share(parameter).clone() for parameter in self._parameters.values()]
        self._put(self._average)
        try:
            yield
        finally:
            self._put(own)

    @property
    def _parameters(self) -> dict[str, Any]:
        return {name: p for name, p in self.engine.module.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def _put(self, shares: list[torch.Tensor]) -> None:
        for parameter, share in zip(self._parameters.values(), shares, strict=True):
            whole = self._whole(parameter, share)
            with self.engine.gathered(parameter, write=True):
                parameter.copy_(whole)

    def _share(self, parameter: Any) -> torch.Tensor:
        """This rank's values of a weight, 1-D: DeepSpeed's own share in stage 3, else the same cut of the whole."""
        if self.engine.stage == 3:
            own: torch.Tensor = parameter.ds_tensor
            return own.detach().flatten()
        return self._cut(parameter.detach().flatten())

    def _cut(self, flat: torch.Tensor) -> torch.Tensor:
        comm = self.engine.comm
        length = -(-flat.numel() // comm.size)
        cut = flat[comm.rank * length : (comm.rank + 1) * length]
        return cut if cut.numel() == length else torch.nn.functional.pad(cut, (0, length - cut.numel()))

    def _whole(self, parameter: Any, share: torch.Tensor) -> torch.Tensor:
        """The weight put together from the shares of all ranks."""
        shape, size = self._shape(parameter), self.engine.comm.size
        if size > 1:
            whole = share.new_empty(size * share.numel())
            torch.distributed.all_gather_into_tensor(whole, share.contiguous())
            share = whole
        return share[: shape.numel()].view(shape)

    def _shape(self, parameter: Any) -> torch.Size:
        shape: torch.Size = parameter.ds_shape if self.engine.stage == 3 else parameter.shape
        return shape
