"""What the meter says of a training whose pace is known."""

from __future__ import annotations

import pytest
import torch

from hpc import ceiling
from hpc.ceiling import matmul_flops
from udipdist.training import meter as module
from udipdist.training.meter import Meter, in_words

CPU = torch.device("cpu")


class Clock:
    """A clock that goes on when it is told to."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


def test_rates_waiting_and_utilisation(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    meter = Meter(CPU, ranks=2, tokens=10, flops=5e6, ceiling=1e9)
    with meter.waiting():
        clock.now += 0.05
    clock.now += 0.15
    meter.count(4)
    taken = meter.take()
    assert taken["volumes_per_s"] == pytest.approx(4 * 2 / 0.2)
    assert taken["tokens_per_s"] == pytest.approx(10 * 4 * 2 / 0.2)
    assert taken["mfu"] == pytest.approx(4 / 0.2 * 5e6 / 1e9)
    assert taken["data_wait"] == pytest.approx(0.05 / 0.2)
    assert "waiting for data" in in_words(taken)
    assert meter.take()["volumes_per_s"] == 0  # begun anew


@pytest.mark.parametrize(("rate", "side"), [(1e12, 1536), (2.5e10, 1536), (2.4e10, 768), (2e9, 384), (1e7, 192)])
def test_the_ceiling_is_of_the_largest_product_that_takes_little_time(monkeypatch, rate, side):
    clock, sides = Clock(), []

    def seconds(one, other, out, device):
        sides.append(len(one))
        assert one.shape == other.shape == out.shape == (sides[-1], sides[-1])
        disturbed = sides[-1] == 1536 and sides.count(1536) % 2  # every other one takes twice the time
        took = 2 * sides[-1] ** 3 / rate * (2 if disturbed else 1)
        clock.now += took
        return took

    monkeypatch.setattr(ceiling, "time", clock)
    monkeypatch.setattr(ceiling, "_seconds", seconds)
    found = matmul_flops(CPU)
    assert sides == sorted(sides) and sides[-1] == side
    assert found == pytest.approx(rate if sides.count(side) > 1 or side < 1536 else rate / 2)


def test_the_ceiling_of_this_machine_is_measured():
    assert matmul_flops(CPU) > 1e9
