"""A training run of one rank, through the command line: what it writes and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file

from hpc.errors import ConfigError, InputError, OutputExists
from hpc.lock import held
from hpc.stage import read_manifest
from hpc.testing import launch
from udipdist.config import TrainConfig
from udipdist.models.layers.tokens import Patcher
from udipdist.training import run_folder
from udipdist.training import verb as training
from udipdist.training.feed import split
from udipdist.training.run_folder import Metrics
from udipdist.training.schedules import schedule
from udipdist.volumes.store import VolumeStore


def test_run_directory(trained, store):
    records = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    validation = [record for record in records if record["split"] == "validation"]
    assert [record["step"] for record in validation] == [0, 4, 8]
    assert validation[-1]["loss"] < validation[0]["loss"]
    assert validation[-1]["ssim"] > validation[0]["ssim"] and validation[-1]["psnr"] > validation[0]["psnr"]
    assert len([record for record in records if record["split"] == "train"]) == 8
    assert sorted(p.name for p in (trained / "checkpoints").glob("step-*")) == [
        "step-00000000", "step-00000004", "step-00000008",
    ]  # fmt: skip
    assert json.loads((trained / "checkpoints" / "best.json").read_text())["step"] == 8
    assert yaml.safe_load((trained / "config.yaml").read_text())["model"]["patch"] == 4
    assert json.loads((trained / "provenance.json").read_text())["starts"][0]["ranks"] == 1
    facts = read_manifest(trained)["facts"]
    volumes = VolumeStore.open(store)
    assert facts["subjects_train"] + facts["subjects_validation"] == 44 == volumes.valid.sum()
    assert facts["steps"] == 8 and facts["loss"] == validation[-1]["loss"]


def test_reconstructions_are_held_out_subjects(trained, store):
    with np.load(trained / "reconstructions.npz", allow_pickle=False) as shown:
        names, original, made = shown["subject"], shown["original"], shown["reconstruction"]
    volumes = VolumeStore.open(store)
    assert original.shape == made.shape == (4, 10, 12, 9) and made.dtype == np.float32
    rows = [volumes.subjects.index(name) for name in names]
    tokens = original != 0
    assert tokens.mean() > 0.2
    np.testing.assert_array_equal(original, np.where(tokens, volumes.normalised(rows), 0))
    error, variance = ((original - made)[tokens] ** 2).mean(), original[tokens].var()
    assert error < 0.9 * variance


def test_the_first_checkpoint_knows_the_mean_image_of_the_training_subjects(trained, store):
    state = load_file(trained / "checkpoints" / "step-00000000" / "weights.safetensors")
    volumes = VolumeStore.open(store)
    assert np.array_equal(state["patcher.mask"], volumes.mask)
    assert state["mean"].std() > 0.1 and np.abs(state["to_voxels.bias"]).max() == 0
    usable = np.flatnonzero(volumes.valid)
    held_out = split([volumes.subjects[row] for row in usable], 0.2)
    tokens = Patcher(volumes.mask, (4, 4, 4))(torch.from_numpy(volumes.normalised(usable)))
    np.testing.assert_allclose(state["mean"], tokens[~held_out].mean(dim=0), atol=1e-5)
    assert np.abs(state["mean"] - tokens.mean(dim=0).numpy()).max() > 1e-2


def unfinished(trained: Path, run: Path) -> TrainConfig:
    """A copy of the run as if it had been killed before its last line."""
    shutil.copytree(trained, run)
    (run / "manifest.json").unlink()
    return TrainConfig.load(run / "config.yaml", [f"run_dir={run}"])


def test_a_line_of_metrics_that_was_cut_off_is_dropped(tmp_path):
    metrics = Metrics(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        metrics.append({"step": step, "seconds": step / 2})
    with metrics.path.open("a") as file:
        file.write('{"step": 4, "sec')
    assert metrics.cut(2) == 1.0
    assert [json.loads(line)["step"] for line in metrics.path.read_text().splitlines()] == [1, 2]


def test_resume_false_does_not_touch_a_run(trained, tmp_path):
    config = unfinished(trained, tmp_path / "run").model_copy(update={"resume": False})
    with pytest.raises(ConfigError, match="resume=false, but .* holds checkpoints; type overwrite=true"):
        training.train(config)


def test_a_damaged_checkpoint_is_passed_over(trained, tmp_path):
    run = tmp_path / "run"
    unfinished(trained, run)
    weights = "checkpoints/step-00000008/weights.safetensors"
    (run / weights).write_bytes((run / weights).read_bytes()[:-8])
    done = launch("udipdist", ["train", str(run / "config.yaml"), f"run_dir={run}"])
    assert done.returncode == 0, done.stderr
    assert "so the checkpoint is damaged; it is renamed" in done.stderr
    assert "the run goes back to step 4" in done.stderr and "continuing from step 4 of 8" in done.stderr
    assert (run / weights).read_bytes() == (trained / weights).read_bytes()
    assert (run / "checkpoints" / "damaged-step-00000008").is_dir()


def config(store: Path, run_dir: Path, **keys) -> TrainConfig:
    return TrainConfig.parse({"store": str(store), "run_dir": str(run_dir), "model": {"patch": 4, "width": 24}} | keys)


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"global_batch": 64}, InputError, "subjects to train on are fewer than global_batch=64; type global_batch="),
        ({"global_batch": 10, "micro_batch": 4}, ConfigError, "type global_batch=8 or global_batch=12"),
        ({"validation": 1}, InputError, "of 44 readable subjects validation=1 leaves none to train on"),
    ],
)
def test_refused_before_anything_is_written(store, tmp_path, keys, error, message):
    with pytest.raises(error, match=message):
        training.train(config(store, tmp_path / "run", **keys))
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_overwritten(trained, store):
    with pytest.raises(OutputExists, match="already exists"):
        training.train(config(store, trained))


def test_an_unfinished_run_with_other_keys(trained, store, tmp_path):
    run = tmp_path / "run"
    step = "checkpoints/step-00000000"
    shutil.copytree(trained / step, run / step)
    shutil.copy(trained / "plan.json", run)
    with pytest.raises(OutputExists, match="unfinished work of another plan .*overwrite=true"):
        training.train(config(store, run, seed=77))


@pytest.mark.parametrize("finished", [True, False])
def test_a_training_is_extended(trained, store, tmp_path, caplog, finished):
    """From its last step, at the rates of a training of so many epochs."""
    resumed = unfinished(trained, tmp_path / "run")
    if finished:
        shutil.copy(trained / "manifest.json", resumed.run_dir)
    longer = TrainConfig.load(trained / "config.yaml", [f"run_dir={resumed.run_dir}", "epochs=3"])
    assert run_folder.extends(longer) == finished
    with caplog.at_level("WARNING"):
        training.train(longer)
    assert "epochs=3, and this run began with 2: from here its learning rate (cosine" in caplog.text
    facts, before = read_manifest(resumed.run_dir), read_manifest(trained)
    assert facts["facts"]["steps"] == 12 and facts["id"] != before["id"]
    records = [json.loads(line) for line in (resumed.run_dir / "metrics.jsonl").read_text().splitlines()]
    rates = {record["step"]: record["lr"] for record in records if record["split"] == "train"}
    rate = schedule(longer.schedule, 12, 3)
    assert [rates[step] for step in range(9, 13)] == pytest.approx(
        [longer.optim.lr * rate(step - 1) for step in range(9, 13)]
    )
    with pytest.raises(ConfigError, match=r"epochs=1: .*run has 3 epochs already; type epochs=3 or more, or overwrite"):
        training.train(longer.model_copy(update={"epochs": 1}))


def test_other_keys_do_not_extend_a_finished_training(trained, store):
    longer = TrainConfig.load(trained / "config.yaml", ["epochs=3", "seed=4"])
    assert not run_folder.extends(longer)
    with pytest.raises(OutputExists, match="already exists"):
        training.train(longer)
    assert read_manifest(trained)["facts"]["steps"] == 8


def test_a_run_goes_on_with_the_store_by_another_path(trained, store, tmp_path, monkeypatch):
    link = tmp_path / "link.zarr"
    link.symlink_to(store)
    monkeypatch.chdir(store.parent)
    for number, path in enumerate((link, Path(store.name), Path("..") / store.parent.name / store.name)):
        resumed = unfinished(trained, tmp_path / f"run{number}").model_copy(update={"store": path})
        training.train(resumed)
        assert read_manifest(resumed.run_dir)["facts"]["steps"] == 8


def test_a_run_of_another_store_is_refused_by_the_key_that_exists(trained, store, tmp_path):
    other = tmp_path / "other.zarr"
    shutil.copytree(store, other)
    resumed = unfinished(trained, tmp_path / "run").model_copy(update={"store": other})
    with pytest.raises(OutputExists, match=r"different: store.*give another run_dir="):
        training.train(resumed)


def test_a_mended_mistake_needs_no_overwrite(store, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match="model.heads=5: does not divide model.width=24"):
        training.train(config(store, run, model={"patch": 4, "width": 24, "heads": 5}))
    with pytest.raises(ConfigError, match="optim: Invalid beta .*less than 1"):
        training.train(config(store, run, optim={"betas": [2, 0.9]}))


def test_not_a_store(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        training.train(config(tmp_path / "nowhere.zarr", tmp_path / "run"))


def test_preview(store, tmp_path):
    lines = "\n".join(training.preview(config(store, tmp_path / "run", epochs=3, global_batch=8)))
    assert "40 train, 4 validation, volumes 10x12x9" in lines
    assert "one subject is (23, 64)" in lines
    assert "batch: 8 = 8 x 1 ranks x 1 accumulated" in lines
    assert "steps: 5 an epoch, 15 in all" in lines
    assert not (tmp_path / "run").exists()


def test_two_trainings_of_one_run_are_refused_and_the_first_is_as_if_alone(trained, store, tmp_path):
    run = tmp_path / "run"
    unfinished(trained, run)
    with held(run, "train"):
        second = launch("udipdist", ["train", str(run / "config.yaml"), f"run_dir={run}"])
        assert second.returncode == 2
        told = f"udipdist train: {run}: another train is at work on it (process {os.getpid()} on "
        assert second.stderr.splitlines()[-1].startswith(told) and "give another run_dir=" in second.stderr
        for path in trained.rglob("*"):
            if path.is_file() and path.name != "manifest.json":
                assert (run / path.relative_to(trained)).read_bytes() == path.read_bytes()
