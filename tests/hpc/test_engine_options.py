"""The configuration that DeepSpeed gets: ours, with the user's keys laid over it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from hpc import engine

BATCHES = engine.Batches(total=8, micro=2, accumulation=2)


def test_users_keys_are_merged_and_what_they_override_is_named(caplog):
    extra = {"zero_optimization": {"stage": 1, "offload_optimizer": {"device": "cpu"}}, "steps_per_print": 5}
    logging.getLogger("hpc").propagate = True
    with caplog.at_level(logging.WARNING):
        made = engine._configuration(engine.Options(BATCHES, zero=2, extra=extra), "cpu", 0)
    asked = {"stage": 1, "offload_optimizer": {"device": "cpu"}}
    assert made["zero_optimization"] == made["zero_optimization"] | asked
    assert made["steps_per_print"] == 5 and made["train_batch_size"] == 8
    assert "overrides steps_per_print, zero_optimization.stage" in caplog.text


def test_keys_that_only_add_are_no_override(caplog):
    extra = {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}
    logging.getLogger("hpc").propagate = True
    with caplog.at_level(logging.WARNING):
        made = engine._configuration(engine.Options(BATCHES, zero=2, extra=extra), "cpu", 0)
    assert made["zero_optimization"]["stage"] == 2
    assert not caplog.text


@pytest.mark.parametrize(
    ("zero", "offload", "expected"),
    [
        (0, "none", {}),
        (2, "cpu", {"offload_optimizer": {"device": "cpu", "pin_memory": True}}),
        (3, "cpu", {name: {"device": "cpu", "pin_memory": True} for name in ("offload_optimizer", "offload_param")}),
        (3, "nvme", {name: {"device": "nvme", "pin_memory": True, "nvme_path": "/scratch"} for name in
                     ("offload_optimizer", "offload_param")}),
    ],
)  # fmt: skip
def test_what_leaves_the_device(zero, offload, expected):
    options = engine.Options(BATCHES, zero=zero, offload=offload, nvme_path=Path("/scratch"))
    made = engine._configuration(options, "cuda", 10**7)
    made_of = {key: value for key, value in made["zero_optimization"].items() if not key.endswith("bucket_size")}
    assert made_of == {"stage": zero, **expected}
    assert made["zero_optimization"]["reduce_bucket_size"] == 1_250_000  # an eighth of the weights
    assert made["zero_force_ds_cpu_optimizer"] is False


def test_a_precision_that_is_slower_on_this_cpu_is_warned_of(caplog, monkeypatch):
    rates = {"fp32": 8e10, "bf16": 2e11, "fp16": 1e9}
    monkeypatch.setattr(engine, "matmul_flops", lambda device, name: rates[name])
    logging.getLogger("hpc").propagate = True
    with caplog.at_level(logging.WARNING):
        assert engine.precision("bf16", torch.device("cpu")) == "bf16"
        assert caplog.text == ""
        assert engine.precision("fp16", torch.device("cpu")) == "fp16"
    assert "engine.precision=fp16: in a matrix product this processor is 80 times slower than in fp32" in caplog.text
    assert engine.precision("auto", torch.device("cpu")) == "fp32"
