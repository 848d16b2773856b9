"""The configuration that DeepSpeed gets: ours, with the user's keys laid over it."""

from __future__ import annotations

import logging

from hpc import engine

BATCHES = engine.Batches(total=8, micro=2, accumulation=2)


def test_users_keys_are_merged_and_what_they_override_is_named(caplog):
    extra = {"zero_optimization": {"stage": 1, "offload_optimizer": {"device": "cpu"}}, "steps_per_print": 5}
    logging.getLogger("hpc").propagate = True
    with caplog.at_level(logging.WARNING):
        made = engine._configuration(engine.Options(BATCHES, zero=2, extra=extra))
    assert made["zero_optimization"] == {"stage": 1, "offload_optimizer": {"device": "cpu"}}
    assert made["steps_per_print"] == 5 and made["train_batch_size"] == 8
    assert "overrides steps_per_print, zero_optimization.stage" in caplog.text


def test_keys_that_only_add_are_no_override(caplog):
    extra = {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}
    logging.getLogger("hpc").propagate = True
    with caplog.at_level(logging.WARNING):
        made = engine._configuration(engine.Options(BATCHES, zero=2, extra=extra))
    assert made["zero_optimization"]["stage"] == 2
    assert not caplog.text
