"""Arrows point down; files stay readable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_import_contracts():
    command = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_sources_are_ascii_and_of_readable_size():
    for folder in ("hpc", "udipdist"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert text.isascii(), f"{path}: not ASCII"
            assert text.count("\n") <= 600, f"{path}: {text.count(chr(10))} lines; split it"


def test_who_compiles_says_so():
    """A loop that is compiled by numba itself keeps people waiting without a word; hpc.compiled has the word."""
    for path in (ROOT / "udipdist").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import numba" not in text and "from numba import njit" not in text, f"{path}: njit is in hpc.compiled"
