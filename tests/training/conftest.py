"""A run on the tiny cohort."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def trained(store, tmp_path_factory) -> Path:
    """A finished training run of one rank on the tiny cohort; do not write to it."""
    from hpc.testing import launch

    run = tmp_path_factory.mktemp("trained") / "run"
    words = [f"store={store}", f"run_dir={run}", "epochs=2", "global_batch=8", "validation=0.2", "seed=3"]
    done = launch("udipdist", ["train", *words, "model.patch=4", "model.width=24", "model.depth=2"])
    assert done.returncode == 0, done.stderr
    return run
