"""What the meter says of a training whose pace is known."""

from __future__ import annotations

import time

import pytest
import torch

from hpc.ceiling import matmul_flops
from udipdist.training.meter import Meter, in_words

CPU = torch.device("cpu")


def test_rates_waiting_and_utilisation():
    meter = Meter(CPU, ranks=2, tokens=10, flops=5e6, ceiling=1e9)
    with meter.waiting():
        time.sleep(0.05)
    time.sleep(0.05)
    meter.count(4)
    taken = meter.take()
    seconds = 4 * 2 / taken["volumes_per_s"]
    assert 0.1 <= seconds < 1
    assert taken["tokens_per_s"] == pytest.approx(10 * taken["volumes_per_s"])
    assert taken["mfu"] == pytest.approx(4 / seconds * 5e6 / 1e9)
    assert taken["data_wait"] == pytest.approx(0.05 / seconds, rel=0.5)
    assert "waiting for data" in in_words(taken)
    assert meter.take()["volumes_per_s"] == 0  # begun anew


def test_the_ceiling_is_that_of_this_machine():
    flops = matmul_flops(CPU)
    side = 1536
    start = time.perf_counter()
    one = torch.ones(side, side)
    one @ one
    assert 2 * side**3 / (time.perf_counter() - start) < 3 * flops
    assert flops > 1e9
