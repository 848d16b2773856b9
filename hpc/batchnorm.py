"""Batch normalisation over the batches of all ranks together, with any backend (torch's own wants a GPU).

So that the number of ranks does not change what a network learns: statistics and gradients are those of one rank that
holds all the samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class BatchNorm3d(nn.BatchNorm3d):
    """torch.nn.BatchNorm3d with the same parameters and buffers, whose batch in training is that of all ranks.

    Every rank holds equally many samples, and calls it equally often in training. In evaluation ranks do not meet.
    """

    counting = True  # whether batches enter the running statistics; see `uncounted`
    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, features: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__(features, eps, momentum)  # weights and running statistics are always there

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or (self.counting and _ranks() == 1):
            return super().forward(x)
        if _ranks() == 1:
            aside = self.running_mean.clone(), self.running_var.clone()
            return nn.functional.batch_norm(x, *aside, self.weight, self.bias, True, 0.0, self.eps)
        found: tuple[Tensor, Tensor, Tensor] = _OverRanks.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, self.eps
        )
        normalised, mean_C, var_C = found
        if self.counting:
            n = x.numel() // x.shape[1] * _ranks()
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_((var_C * (n / (n - 1))).to(self.running_var.dtype), self.momentum)
        return normalised


@contextmanager
def uncounted(module: nn.Module) -> Iterator[None]:
    """Within it batches do not enter the running statistics of a module: they are counted already, or not to count."""
    layers = [layer for layer in module.modules() if isinstance(layer, BatchNorm3d)]
    before = [layer.counting for layer in layers]
    for layer in layers:
        layer.counting = False
    try:
        yield
    finally:
        for layer, counting in zip(layers, before, strict=True):
            layer.counting = counting


class _OverRanks(torch.autograd.Function):
    """Ioffe & Szegedy 2015, algorithm 1 and the gradients of its section 3, with sums over the samples of all ranks.

    The gradient is that of the sum of all ranks' losses, as an average over ranks of the weights' gradients wants it.
    Statistics are float32, or float64 where the input is.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        wide = _wide(x)
        axes = _axes(x)
        own_var_C, own_mean_C = torch.var_mean(wide, axes, correction=0)
        mean_C = _mean_over_ranks(own_mean_C)
        var_C = _mean_over_ranks(own_var_C + (own_mean_C - mean_C) ** 2)
        inverse_C = (var_C + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean_C, inverse_C)
        ctx.mark_non_differentiable(mean_C, var_C)
        scale_C = inverse_C * weight
        out = wide * _spread(scale_C, x) + _spread(bias - mean_C * scale_C, x)
        return out.to(x.dtype), mean_C, var_C

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean_C, inverse_C = ctx.saved_tensors
        axes = _axes(x)
        wide = _wide(grad)
        unit = (_wide(x) - _spread(mean_C, x)) * _spread(inverse_C, x)
        grad_bias, grad_weight = wide.sum(axes), (wide * unit).sum(axes)
        n = x.numel() // x.shape[1]
        means_2C = _mean_over_ranks(torch.stack([grad_bias, grad_weight]) / n)
        inner = wide - _spread(means_2C[0], x) - unit * _spread(means_2C[1], x)
        grad_x = inner * _spread(inverse_C * weight, x)
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), None


def _ranks() -> int:
    dist = torch.distributed
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _mean_over_ranks(values: Tensor) -> Tensor:
    summed = values.clone()
    torch.distributed.all_reduce(summed)
    return summed / _ranks()


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _axes(x: Tensor) -> list[int]:
    return [axis for axis in range(x.dim()) if axis != 1]


def _spread(values_C: Tensor, x: Tensor) -> Tensor:
    return values_C.view(1, -1, *(1 for _ in x.shape[2:]))
