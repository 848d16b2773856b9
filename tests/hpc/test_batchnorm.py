"""Batch normalisation over 2 ranks is that of torch on 1 rank with all the samples."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hpc.batchnorm import BatchNorm3d, uncounted
from hpc.comm import Comm
from hpc.testing import call
from hpc.world import World

PROGRAM = Path(__file__)
STEPS = 3


def passes(layer: nn.Module, rank: int, ranks: int, dtype: torch.dtype) -> dict[str, list]:
    """Some steps on this rank's share of samples with means far from 0, in training; then one in evaluation."""
    samples = 50 + torch.randn(STEPS + 1, 4, 3, 2, 5, 2, generator=torch.Generator().manual_seed(1)).double()
    share = slice(rank * 4 // ranks, (rank + 1) * 4 // ranks)
    weights = torch.linspace(-1, 2, 4 * 3 * 2 * 5 * 2, dtype=torch.float64).view(4, 3, 2, 5, 2)[share].to(dtype)
    found: dict[str, list] = {"out": [], "gradient": [], "weight": [], "bias": []}
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, 0.5]))
    for step in range(STEPS):
        x = samples[step, share].to(dtype).requires_grad_()
        layer.zero_grad()
        out = layer(x)
        (out.sin() * weights).sum().backward()
        found["out"].append(out.tolist())
        found["gradient"].append(x.grad.tolist())
        found["weight"].append(layer.weight.grad.tolist())
        found["bias"].append(layer.bias.grad.tolist())
    with uncounted(layer):
        if isinstance(layer, BatchNorm3d):
            layer(samples[0, share].to(dtype))
    layer.eval()
    found["out"].append(layer(samples[STEPS, share].to(dtype)).tolist())
    found["running"] = [value.tolist() for value in (layer.running_mean, layer.running_var, layer.num_batches_tracked)]
    return found


def on_ranks() -> dict[str, dict[str, list]]:
    world = World.detect(os.environ)
    comm = Comm.join(world)
    return {
        str(dtype): passes(BatchNorm3d(3).to(dtype), comm.rank, comm.size, dtype)
        for dtype in (torch.float64, torch.float32)
    }


@pytest.fixture(scope="module")
def two() -> list[dict[str, dict[str, list]]]:
    return call(PROGRAM, "on_ranks", ranks=2)


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, 2e-3)]
)  # means are 50 times the spread
def test_two_ranks_are_one_with_all_samples(two, dtype, rtol):
    exact = passes(nn.BatchNorm3d(3).double(), 0, 1, torch.float64)
    one, other = (found[str(dtype)] for found in two)
    for key in ("out", "gradient"):
        together = np.concatenate([one[key], other[key]], axis=1)
        np.testing.assert_allclose(together, exact[key], rtol=rtol, atol=rtol * np.abs(exact[key]).max())
    for key in ("weight", "bias"):  # a rank has its samples' part
        summed = np.array(one[key]) + np.array(other[key])
        np.testing.assert_allclose(summed, exact[key], rtol=rtol, atol=rtol * np.abs(exact[key]).max())
    assert one["running"] == other["running"] and one["running"][2] == STEPS
    for ours, theirs in zip(one["running"][:2], exact["running"][:2], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol)


def test_alone_it_is_that_of_torch():
    ours, theirs = (passes(kind(3).double(), 0, 1, torch.float64) for kind in (BatchNorm3d, nn.BatchNorm3d))
    assert ours == theirs and ours["running"][2] == STEPS
