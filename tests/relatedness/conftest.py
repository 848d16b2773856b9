"""Tests of small matrices."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def small_matrices(one_thread):
    """See `one_thread`."""
