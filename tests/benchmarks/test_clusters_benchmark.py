"""The benchmark of clusters ends with what it promises, and its table has the effect that it is about."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import clusters

ROOT = Path(__file__).parents[2]


def test_the_last_line_is_json_with_what_is_promised():
    command = [sys.executable, "-m", "benchmarks.clusters", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["cluster_ari"] >= 0.95 and row["cluster_ari_untold"] >= 0.8 and row["cluster_ari_published"] < 0.5
    assert row["cluster_false"] <= 2
    assert row["cluster_ari_oracle"] is None and row["cluster_ari_latents"] is None and row["cluster_seconds"] > 0


def test_trees_agree_where_their_clusters_are_wrong():
    row = clusters.planted(1000.0, draws=2, trees=19)
    assert row["whitened"] == row["own clusters"] == 1.0 and row["signed raw"] < 0.5
    assert row["agreement, signed raw"] > 0.9
