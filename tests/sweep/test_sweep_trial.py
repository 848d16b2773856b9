"""The program of a trial: what it trains, asks and reports, what it does not do twice, what it says of a failure."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from hpc import torchrun
from hpc.files import publish_json
from hpc.sweep import Trial
from udipdist.config import IngestConfig
from udipdist.sweep import configs
from udipdist.sweep import trial as trial_module
from udipdist.sweep.association import Request
from udipdist.sweep.trial import StageFailed, TrialProgram
from udipdist.training.embed import embed
from udipdist.volumes.ingest import ingest

sys.path.insert(0, str(Path(__file__).parent))
import small_study

TRAIN = {
    "epochs": 2, "global_batch": 8, "validation": 0.2, "keep": 1, "tensorboard": False, "picture_epochs": 9,
    "schedule": {"name": "constant", "warmup": 0}, "model": {"patch": 4, "width": 24, "depth": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """The small study, and a store of 24 volumes of noise in a box."""
    folder = small_study.write(tmp_path_factory.mktemp("study") / "study")
    (folder / "nifti").mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        volume = np.zeros((8, 8, 8), np.int16)
        volume[1:7, 1:7, 1:7] = rng.integers(50, 150, (6, 6, 6))
        nib.save(nib.Nifti1Image(volume, np.diag([16.0, 16, 16, 1])), folder / "nifti" / f"S{i:02d}.nii.gz")
    ingest(IngestConfig(volumes=folder / "nifti", out=folder / "store.zarr", workers=0))
    return folder


def answer(asked: list[Request]) -> Callable[[Request], dict[str, Any]]:
    """An association that finds as many loci as the step has, and writes that down."""

    def ask(request: Request) -> dict[str, Any]:
        asked.append(request)
        found = {"loci": request.known["step"], "multivariate_loci": 1, "panel_hits": 0}
        scores = {**request.known, **found, "variants": 40, "screening": False}
        publish_json(Path(request.out) / "scores.json", scores)
        return scores

    return ask


def trial_in(folder: Path, values: dict[str, Any], **keys) -> Trial:
    folder.mkdir(parents=True)
    return Trial(folder.name, 0, folder.name, values, folder, **{"seed": 3} | keys)


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module", autouse=True)
def in_this_process():
    """Stages that run to their end before the trial goes on need no process of their own here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial_module, "run_stage", lambda verb, config, folder: {"embed": embed}[verb](config))
        yield


@pytest.fixture(scope="module")
def done(study, tmp_path_factory):
    """A trial that has run: its configuration, itself, its reports, and what it asked. Do not change it."""
    out = tmp_path_factory.mktemp("done")
    config = small_study.config(study, out, train=TRAIN, look_at=[0, 1, 9])
    trial = trial_in(out / "trials" / "one", {"optim.lr": 2e-3})
    reports, asked = [], []
    TrialProgram(config, Path.cwd())(trial, reports.append, answer(asked))
    return config, trial, reports, asked


def test_a_trial_trains_and_looks_at_its_epochs(done):
    config, trial, reports, asked = done
    assert [one.known["epoch"] for one in asked] == [0, 1, 2] and len({one.name for one in asked}) == 3
    steps = [one.known["step"] for one in asked]
    assert steps == [0, 2, 4]
    assert [one["epoch"] for one in reports] == [1, 2] and [one["objective"] for one in reports] == [2.0, 4.0]
    validation = {line["step"]: line for line in lines(trial.folder / "train") if line["split"] == "validation"}
    for one, step in zip(asked, steps, strict=True):
        assert (one.known["val_loss"], one.known["ssim"]) == (validation[step]["loss"], validation[step]["ssim"])
        table = pd.read_parquet(one.latents)
        assert table.shape == (24, 2 + 128) and str(Path(one.out) / "latents.parquet") == one.latents
    first, last = (pd.read_parquet(asked[i].latents).iloc[:, 2:].to_numpy() for i in (0, 2))
    assert np.abs(first - last).max() > 1e-3
    made = configs.train_config(config, trial)
    assert (made.optim.lr, made.seed, made.threads, made.keep_epochs) == (2e-3, 3, 1, (0, 1, 2))
    assert sorted(path.name for path in (trial.folder / "train" / "checkpoints").glob("step-*")) == [
        "step-00000000", "step-00000002", "step-00000004",
    ]  # though keep=1  # fmt: skip


def test_what_was_done_is_only_reported_again(done, monkeypatch):
    config, trial, reports, _ = done
    monkeypatch.setattr(torchrun, "started", None)
    again = []
    TrialProgram(config, Path.cwd())(trial, again.append, None)
    assert again == reports


def test_a_trial_goes_on_from_another_with_other_values(done, study):
    config, parent, _, _ = done
    child = trial_in(
        parent.folder.with_name("two"), {"optim.lr": 5e-3, "optim.weight_decay": 0.2}, parent=parent.folder,
        parent_metrics={"epoch": 1.0}, seed=4,
    )  # fmt: skip
    reports, asked = [], []
    TrialProgram(config, Path.cwd())(child, reports.append, answer(asked))
    assert [one.known["epoch"] for one in asked] == [2] and [one["epoch"] for one in reports] == [2]
    rates = {line["step"]: line["lr"] for line in lines(child.folder / "train") if line["split"] == "train"}
    assert rates == {1: 2e-3, 2: 2e-3, 3: 5e-3, 4: 5e-3}
    theirs, own = lines(parent.folder / "train"), lines(child.folder / "train")
    assert theirs[:4] == own[:4] and theirs[-1]["loss"] != own[-1]["loss"]


def test_a_stage_that_fails_says_what_it_said(done, study, tmp_path):
    config, _, _, _ = done
    trial = trial_in(tmp_path / "trials" / "three", {"model.heads": 5})
    with pytest.raises(StageFailed, match="(?s)train ended with exit code 2 .*heads=5: does not divide"):
        TrialProgram(config, Path.cwd())(trial, None, None)


def test_an_answer_that_is_an_error_ends_the_trial(done):
    config, trial, _, _ = done
    (trial.folder / "epochs" / "0002" / "scores.json").rename(trial.folder / "aside.json")

    def ask(request: Request) -> dict[str, Any]:
        raise ValueError("no such thing")

    try:
        with pytest.raises(ValueError, match="no such thing"):
            TrialProgram(config, Path.cwd())(trial, lambda metrics: None, ask)
    finally:
        (trial.folder / "aside.json").rename(trial.folder / "epochs" / "0002" / "scores.json")


def test_epochs_to_look_at():
    config = small_study.config(Path("s"), Path("o"), look_at=[5, 0, 20, 5])
    assert configs.look_epochs(config, 10) == (0, 5, 10) and configs.look_epochs(config, 5) == (0, 5)
