"""The benchmark of calibration ends with what it promises, and its families are families."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import calibration

ROOT = Path(__file__).parents[2]


def test_the_last_line_is_json_with_what_is_promised(tmp_path):
    command = [sys.executable, "-m", "benchmarks.calibration", "--variants", "300", "--demo", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["variants"] == 300 and row["joint_lambda_demo"] is None
    assert 0.6 < row["joint_fpr_05"] < 1.4 and 0.9 < row["uni_lambda"] < 1.1
    assert 0 <= row["joint_fpr_001"] < 5


def test_sibs_and_children_share_half_of_their_alleles():
    rng = np.random.default_rng(1)
    setting = calibration.Setting(60, 1.0, 2, "zero")
    families = list(calibration.draw_families(rng, setting))
    assert {size for _, size in families} == {2, 3, 4, 5}
    alleles = rng.random((20_000, 60, 2)) < 0.5
    for start, size in families:
        calibration.drop(rng, alleles[:, start : start + size])
    correlation = np.corrcoef(alleles.sum(axis=2), rowvar=False)
    related = {pair for start, size in families for pair in calibration.relatives(start, size)}
    for a in range(60):
        for b in range(a + 1, 60):
            assert correlation[a, b] == pytest.approx(0.5 if (a, b) in related else 0, abs=0.05)
