"""A trial whose ranks lie on two nodes of Ray."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from hpc.sweep import RayConfig, SearchConfig, parse_space, run

pytestmark = pytest.mark.cluster


def test_ranks_on_two_nodes_are_one_world(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    toy = importlib.import_module("sweep_toy")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=2)
        config = RayConfig(address=cluster.address, nodes=2, ranks=2)
        program = toy.Spread(config)
        (outcome,) = run(tmp_path, program, parse_space({}), [1], SearchConfig(), config, metric="ranks", mode="max")
    finally:
        cluster.shutdown()
    assert outcome.state == "finished", outcome.error
    assert outcome.metrics == {"ranks": 4, "sum": 6}
    nodes = {path.read_text() for path in (tmp_path / "trials" / "base-seed1").glob("rank*.txt")}
    assert len(nodes) == 2
