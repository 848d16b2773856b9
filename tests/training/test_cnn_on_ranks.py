"""The convolutional network in the trainer: its batch statistics depend on neither ranks nor ZeRO stage, and resume."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from hpc.testing import call
from udipdist.config import EmbedConfig
from udipdist.embed import embed

PROGRAM = Path(__file__)
spec = importlib.util.spec_from_file_location("ranked_cnn", PROGRAM.parent / "ranked.py")
ranked = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ranked)
KEYS = {"model": {"name": "cnn_ae", "patch": 4, "channels": 4, "levels": 2, "latent": 8}}


def on_two_ranks(store: str, folder: str) -> None:
    ranked._train(store, Path(folder) / "zero2", engine={"zero": 2}, **KEYS)
    ranked._train(store, Path(folder) / "recomputed", engine={"zero": 3, "activation_checkpointing": True}, **KEYS)
    ranked._stopped_at(5, store, Path(folder) / "stopped", engine={"zero": 3}, **KEYS)


def on_one_rank(store: str, folder: str) -> None:
    ranked._train(store, Path(folder) / "straight", **KEYS)
    ranked._train(store, Path(folder) / "stopped", engine={"zero": 3}, **KEYS)


@pytest.fixture(scope="module")
def runs(store, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cnn")
    call(PROGRAM, "on_two_ranks", str(store), str(folder), ranks=2)
    call(PROGRAM, "on_one_rank", str(store), str(folder))
    return folder


def state(run: Path, step: int = 8) -> dict[str, np.ndarray]:
    return load_file(run / "checkpoints" / f"step-{step:08d}" / "weights.safetensors")


@pytest.mark.parametrize("name", ["zero2", "recomputed", "stopped"])
def test_every_way_gives_one_curve(runs, name):
    curve = ranked.curve(runs / "straight")
    assert np.ptp(curve) > 0.1
    np.testing.assert_allclose(ranked.curve(runs / name), curve, rtol=1e-5)


@pytest.mark.parametrize("name", ["zero2", "recomputed", "stopped"])
def test_every_way_gives_the_same_running_statistics(runs, name):
    expected, found = state(runs / "straight"), state(runs / name)
    assert found.keys() == expected.keys()
    running = [key for key in expected if "running" in key]
    assert len(running) == 2 * 2 * 6
    for key in running:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-4, atol=1e-6)
        assert found[key.rpartition(".")[0] + ".num_batches_tracked"] == 8


def test_the_rehearsal_does_not_count(runs):
    untrained = state(runs / "straight", 0)
    assert not any(value.any() for key, value in untrained.items() if key.endswith(("running_mean", "batches_tracked")))


def test_embedding_depends_on_the_subject_alone(store, runs, tmp_path):
    tables = []
    for batch in (1, 7):
        out = tmp_path / f"{batch}.parquet"
        embed(EmbedConfig(run_dir=runs / "straight", store=store, out=out, batch=batch, threads=1))
        tables.append(pd.read_parquet(out).iloc[:, 2:])
    assert tables[0].shape == (44, 8) and (tables[0].std() > 1e-4).all()
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-6, atol=1e-7)
