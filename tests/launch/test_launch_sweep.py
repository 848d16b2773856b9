"""launch/ray.sbatch: a sweep of a toy on a Ray of two nodes under Slurm."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("launch_slurm", Path(__file__).with_name("test_launch_slurm.py"))
_module = importlib.util.module_from_spec(_spec)
sys.modules["launch_slurm"] = _module
_spec.loader.exec_module(_module)
slurm = _module.slurm


def test_a_sweep_on_two_nodes(slurm, tmp_path):
    """Four trials of two cores on two nodes of four, beside the service."""
    toy = ROOT / "tests" / "hpc" / "sweep_toy.py"
    place = tmp_path / "sweep"
    place.mkdir()
    keys = {"space": {"x": {"grid": [1, 2]}}, "seeds": [1, 2], "search": {}}
    words = [f"{key}={json.dumps(value)}" for key, value in keys.items()]
    variables = {"PROGRAM": str(toy), "PYTHONPATH": str(toy.parent)}
    options = ["--nodes=2", "--cpus-per-task=4", "--export=ALL"]
    job = slurm.submit(*options, ROOT / "launch" / "ray.sbatch", place, *words, "ray.ranks=2", **variables)
    job.wait_for(JobState="COMPLETED", seconds=280)
    assert "4 of 4 trials are over" in job.output
    hosts = {path.read_text().split()[0] for path in place.glob("trials/*/host.txt")}
    assert hosts == {node.name for node in slurm.nodes}
