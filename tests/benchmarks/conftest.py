"""The benchmarks run in the process of their tests."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True, scope="module")
def levels():
    """A benchmark silences the loggers of its process; other tests want to hear them."""
    loggers = [logging.getLogger(name) for name in ("udipdist", "hpc")]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)
