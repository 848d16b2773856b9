"""Learning rates at chosen steps."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from udipdist.config import ScheduleConfig, TrainConfig
from udipdist.training.schedules import schedule


def rates(steps: int, epochs: int, **keys) -> list[float]:
    rate = schedule(ScheduleConfig(**keys), steps, epochs)
    return [rate(step) for step in range(steps)]


def test_cosine_rises_then_falls_to_the_floor():
    values = rates(100, 10, name="cosine", warmup=0.1, floor=0.02)
    assert values[:10] == pytest.approx([0.1 * (k + 1) for k in range(10)])
    assert values[10] == 1 and values[55] == pytest.approx(0.51) and values[99] == pytest.approx(0.02, abs=1e-3)
    assert all(a >= b for a, b in itertools.pairwise(values[10:]))


def test_step_drops_by_the_factor_every_few_epochs():
    values = rates(60, 6, name="step", warmup=0, floor=0, step_epochs=2, step_factor=0.5)
    assert values == [1.0] * 20 + [0.5] * 20 + [0.25] * 20


def test_warm_restarts_double_their_length():
    values = rates(70, 7, name="warm_restarts", warmup=0, floor=0, restart_epochs=1)
    assert [k for k, value in enumerate(values) if value == 1] == [0, 10, 30]
    assert values[5] == values[20] == values[50] == pytest.approx(0.5)


def test_constant():
    assert rates(10, 2, name="constant", warmup=0) == [1.0] * 10


def _of_torch(kind, epochs: int, floor: float = 0.0, **keys) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    scheduler = kind(optimizer, **keys)
    values = []
    for _ in range(epochs):
        values.append(max(optimizer.param_groups[0]["lr"], floor))
        optimizer.step()
        scheduler.step()
    return values


@pytest.mark.parametrize("name", ["paper_step", "paper_cosine", "paper_batch16"])
def test_shipped_configurations_are_the_schedules_of_the_paper(name):
    path = Path(__file__).parents[2] / "configs" / "train" / f"{name}.yaml"
    config = TrainConfig.load(path, ("store=s.zarr", "run_dir=r"))
    lr = torch.optim.lr_scheduler
    if name == "paper_step":
        expected = _of_torch(lr.StepLR, 300, 1e-5, step_size=3, gamma=0.5)
    else:
        expected = _of_torch(lr.CosineAnnealingWarmRestarts, 300, T_0=10, T_mult=2, eta_min=1e-6)
    rate = schedule(config.schedule, 300 * 7, config.epochs)  # 7 steps an epoch; torch's are asked once an epoch
    assert [config.optim.lr * rate(7 * epoch) for epoch in range(300)] == pytest.approx(expected, rel=1e-9)
