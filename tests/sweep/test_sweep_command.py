"""`udipdist sweep` through Ray, killed and started again, with a configuration that fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml

from hpc.stage import read_manifest
from hpc.testing import HANGS
from udipdist.config import IngestConfig
from udipdist.volumes.ingest import ingest

sys.path.insert(0, str(Path(__file__).parent))
import small_study

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipe(tmp_path) -> Path:
    """A sweep of two good configurations and one that cannot train, over 60 volumes of the small study's people."""
    study = small_study.write(tmp_path / "study")
    (study / "nifti").mkdir()
    rng, rows = np.random.default_rng(0), []
    for fid, iid in small_study.IDS.iloc[:60].itertuples(index=False):
        volume = np.zeros((8, 8, 8), np.int16)
        volume[1:7, 1:7, 1:7] = rng.integers(50, 150, (6, 6, 6))
        nib.save(nib.Nifti1Image(volume, np.diag([16.0, 16, 16, 1])), study / "nifti" / f"{iid}.nii.gz")
        rows.append((fid, iid, f"nifti/{iid}.nii.gz"))
    pd.DataFrame(rows, columns=["FID", "EID", "T1"]).to_csv(study / "scans.csv", index=False)
    ingest(IngestConfig(volumes=study / "scans.csv", out=study / "store.zarr", workers=0))
    keys = {
        "train": {
            "epochs": 2, "global_batch": 8, "validation": 0.2, "tensorboard": False,
            "model": {"patch": 4, "width": 24, "depth": 1, "latent": 6},
        },
        "space": {"heads": {"grid": {f"heads{n}": {"model.heads": n} for n in (2, 4, 5)}}},
        "seeds": [1], "look_at": [0, 1], "ray": {"service_cpus": 0},
    }  # fmt: skip
    tree = small_study.config(study, tmp_path / "sweep", **keys).tree()
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "sweep.yaml"


def start(recipe: Path, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "udipdist", "sweep", str(recipe), *words]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def moved(recipe: Path) -> Path:
    """All of it in another folder, and named by its new path."""
    before = recipe.parent
    after = before.rename(before.with_name("moved"))
    text = (after / recipe.name).read_text()
    (after / recipe.name).write_text(text.replace(str(before), str(after)))
    return after / recipe.name


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped and moved"])
def test_ended_and_started_again(recipe, number):
    out = recipe.parent / "sweep"
    driver = start(recipe)
    limit = time.monotonic() + HANGS
    while not list(out.glob("trials/*/epochs/0001/scores.json")):
        assert driver.poll() is None and time.monotonic() < limit, driver.communicate()[0]
        time.sleep(0.2)
    os.killpg(driver.pid, number)
    said = driver.communicate()[0]
    time.sleep(5)  # for what it started to go
    if number == signal.SIGTERM:
        assert driver.returncode == 75 and "stopped before all trials had ended; the same command continues" in said
        recipe = moved(recipe)
        out = recipe.parent / "sweep"
    before = {path: path.stat().st_mtime_ns for path in out.glob("trials/*/epochs/*/*.*")}
    driver = start(recipe)
    said = driver.communicate()[0]
    assert driver.returncode == 3 and "1 of 3 trials failed: heads5-seed1" in said, said
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for name in ("heads2-seed1", "heads4-seed1"):
        assert len(list(out.glob(f"trials/{name}/epochs/*/scores.json"))) == 3
        assert read_manifest(out / "trials" / name / "train")["facts"]["steps"] == 10
    assert (out / "trials" / "heads5-seed1" / "failed.json").exists() and read_manifest(out) is None
    table = pd.read_csv(out / "table1.tsv", sep="\t").set_index("configuration")
    assert table.loc["heads5", "failed"] == 1 and {"heads2", "heads4", "untrained"} <= set(table.index)
    driver = start(recipe, "allow_failures=1")
    said = driver.communicate()[0]
    assert driver.returncode == 0 and read_manifest(out)["facts"]["failed"] == ["heads5-seed1"], said
