"""The benchmark of the sparse GRM ends with what it promises, on a cohort whose pedigree is what it claims."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks import grm

ROOT = Path(__file__).parents[2]


def test_the_last_line_is_json_with_what_is_promised():
    command = [sys.executable, "-m", "benchmarks.grm", "--quick", "--people", "300", "--variants", "4000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["people"] == 300 and row["variants"] == 4000
    for key in ("floor_ratio", "pairs_variants_per_s", "peak_gb"):
        assert row[key] > 0, key
    assert row["floor_ratio"] == pytest.approx(row["seconds"] / row["floor_seconds"], rel=0.05)
    assert row["pairs_variants_per_s"] == pytest.approx(300 * 299 / 2 * 4000 / row["seconds"], rel=0.05)
    assert row["recall_second_degree"] > 0.98 and row["recall"] > 0.8 and row["precision"] > 0.8
    assert row["gcta_false_pairs"] == "refused" or row["gcta_false_pairs"] > 1000


def test_the_pedigree_has_the_relatives_it_claims():
    """Members of a family: two sibs (0, 1), the children of the first (2, 3), that of the second (4), 2's twin (5)."""
    truth = grm._truth(1, np.array([0, 1, 2, 3, 4, 5]))
    assert truth[0, 1] == truth[0, 2] == truth[2, 3] == truth[1, 4] == 0.5
    assert truth[2, 5] == 1.0 and truth[0, 4] == truth[1, 2] == 0.25 and truth[2, 4] == 0.125
    assert Counter(truth.values()) == {0.5: 7, 0.25: 4, 0.125: 3, 1.0: 1}
