"""The benchmark of sweeps ends with what it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_last_line_is_json_with_what_is_promised():
    command = [sys.executable, "-m", "benchmarks.sweep", "--quick", "--people", "400", "--variants", "300"]
    done = subprocess.run([*command, "--families", "40"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])
    assert (row["people"], row["variants"], row["latents"]) == (400, 300, 128)
    assert [one["tables"] for one in row["rows"]] == [1, 12]
    assert row["gwas_12_over_1"] == pytest.approx(row["gwas_12_seconds"] / row["gwas_1_seconds"], rel=0.01)
    for key in ("gwas_12_over_1_cpu", "service_12_over_1", "service_12_over_1_cpu", "peak_gb"):
        assert row[key] > 0, key
    assert row["service_seconds_per_checkpoint"] == pytest.approx(row["rows"][1]["service_seconds"] / 12, rel=0.01)
