"""The benchmark of representations ends with what it promises, of each of its parts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import probes

ROOT = Path(__file__).parents[2]


def test_the_last_line_is_json_with_what_is_promised():
    command = [sys.executable, "-m", "benchmarks.representations", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["cluster_ari"] >= 0.9 and row["probe_oracle_r2"] > 0.9999
    assert row["leace_kept_r2"] > 0.8 and row["inlp_kept_r2"] < 0.25
    assert 0.8 < row["phewas_null_lambda"] < 1.25 < row["phewas_naive_lambda"]
    assert row["phewas_hits_over_published"] > 0 and row["seconds_per_1000_codes"] > 0
    assert all(0.85 <= share <= 1 for share in row["probe_coverage"].values())


def test_the_factor_widens_intervals():
    covers = [one for seed in range(3) for one in probes.null_r2(seed)]
    assert all(with_factor or not without for with_factor, without in covers)
