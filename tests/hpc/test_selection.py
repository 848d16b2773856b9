"""The list of slow files names files that there are."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_every_slow_file_is_there(slow_files):
    there = {path.name for path in TESTS.rglob("test_*.py")}
    assert [name for name in slow_files if name not in there] == []
