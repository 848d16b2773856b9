"""Latents: the same numbers for a subject whatever is embedded with it, and clear refusals."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from hpc.errors import ConfigError, InputError
from hpc.store import RowReader
from hpc.testing import launch
from tests.balls import SHAPE, ball
from udipdist.config import EmbedConfig, GalleryConfig, IngestConfig
from udipdist.interpret.network import open_network
from udipdist.models.layers.tokens import Patcher
from udipdist.training.embed import embed, preview
from udipdist.training.trained import open_trained
from udipdist.volumes.ingest import ingest
from udipdist.volumes.store import VolumeStore

HALF = "S003"  # the subject with half a brain


def latents(trained: Path, store: Path, out: Path, **keys) -> pd.DataFrame:
    embed(EmbedConfig(run_dir=trained, store=store, out=out, **keys))
    return pd.read_parquet(out).set_index("IID")


@pytest.fixture(scope="module")
def reference(trained, store, tmp_path_factory) -> pd.DataFrame:
    """Everybody's latents, 32 at a time."""
    return latents(trained, store, tmp_path_factory.mktemp("latents") / "latents.parquet")


def assert_same(found: pd.DataFrame, reference: pd.DataFrame) -> None:
    expected = reference.loc[found.index]
    np.testing.assert_allclose(found.filter(like="z"), expected.filter(like="z"), rtol=1e-5)


def test_the_table(trained, store, tmp_path):
    found = latents(trained, store, tmp_path / "latents.parquet")
    volumes = VolumeStore.open(store)
    assert found.index.tolist() == [s for s, valid in zip(volumes.subjects, volumes.valid, strict=True) if valid]
    assert found.columns.tolist() == ["FID", *[f"z{k:03d}" for k in range(128)]]
    assert (found.filter(like="z").dtypes == np.float32).all() and np.isfinite(found.filter(like="z")).all(axis=None)
    text = pd.read_csv(tmp_path / "latents.pheno", sep=r"\s+", dtype={"FID": str, "IID": str}).set_index("IID")
    np.testing.assert_array_equal(text.filter(like="z").astype(np.float32), found.filter(like="z"))
    manifest = json.loads((tmp_path / "latents.parquet.manifest.json").read_text())
    assert manifest["facts"]["subjects"] == 44 and manifest["facts"]["left_out"] == ["S999"]


def test_one_subject_does_have_empty_tokens(store):
    volumes = VolumeStore.open(store)
    tokens = Patcher(volumes.mask, (4, 4, 4))(_tensor(volumes, HALF))
    assert 0 < (tokens[0] != 0).any(dim=1).sum() < tokens.shape[1]


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_batch_size_does_not_matter(trained, store, reference, tmp_path, batch):
    assert_same(latents(trained, store, tmp_path / "latents.parquet", batch=batch), reference)


def test_companions_and_order_do_not_matter(trained, store, reference, tmp_path, monkeypatch):
    # Embed a few subjects in another order, among them the one with empty tokens.
    everyone = VolumeStore.open(store)
    order = [everyone.subjects.index(name) for name in ("S020", HALF, "S001", "S030")]
    along = ("subjects", "fids", "valid", "mean", "std", "slope", "inter", "background", "affines")
    taken = {name: [getattr(everyone, name)[i] for i in order] for name in along}
    taken = {name: values if name in ("subjects", "fids") else np.array(values) for name, values in taken.items()}
    chosen = replace(everyone, reader=_Chosen(everyone.reader, order), **taken)
    monkeypatch.setattr(VolumeStore, "open", lambda path, modality=None: chosen)
    found = latents(trained, store, tmp_path / "latents.parquet", batch=3)
    assert found.index.tolist() == ["S020", HALF, "S001", "S030"]
    assert_same(found, reference)


def test_ranks_do_not_matter(trained, store, reference, tmp_path):
    out = tmp_path / "latents.parquet"
    done = launch("udipdist", ["embed", f"run_dir={trained}", f"store={store}", f"out={out}"], ranks=2)
    assert done.returncode == 0, done.stderr
    found = pd.read_parquet(out).set_index("IID")
    assert found.index.tolist() == reference.index.tolist()
    assert_same(found, reference)


def test_checkpoints_differ(trained, store, reference, tmp_path):
    untrained = latents(trained, store, tmp_path / "0.parquet", checkpoint="0")
    best = latents(trained, store, tmp_path / "best.parquet", checkpoint="best")
    assert np.abs(untrained.filter(like="z") - reference.filter(like="z")).max(axis=None) > 0.01
    assert_same(best, reference)
    with pytest.raises(InputError, match="checkpoint=5: no such checkpoint .*steps 0, 4, 8"):
        latents(trained, store, tmp_path / "5.parquet", checkpoint="5")


def test_subjects_left_out_are_named(trained, store, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="udipdist"):
        latents(trained, store, tmp_path / "latents.parquet")
    assert "1 subjects without a readable volume have no latents: S999" in caplog.text


def test_a_store_of_another_shape(trained, other_shape, tmp_path):
    with pytest.raises(InputError, match="volumes are 8 x 8 x 8, but the network .* was trained on 10 x 12 x 9"):
        latents(trained, other_shape, tmp_path / "latents.parquet")


def test_images_unlike_those_of_the_training(trained, tmp_path, caplog):
    (tmp_path / "in").mkdir()
    rng, affine = np.random.default_rng(1), np.diag([16.0, 16.0, 16.0, 1.0])
    affine[:3, 3] = 0, 8, 0
    for i in range(3):  # dark where those of the training are bright
        other = ball(rng, SHAPE)
        image = nib.Nifti1Image(np.where(other, 400 - other, 0).astype(np.int16), affine)
        nib.save(image, tmp_path / "in" / f"{i}.nii")
    ingest(IngestConfig(volumes=tmp_path / "in", out=tmp_path / "s.zarr", workers=0))
    with pytest.raises(InputError, match=r"up to 8 mm away and a mean image .* allow=\[origin, kind\]"):
        latents(trained, tmp_path / "s.zarr", tmp_path / "latents.parquet")
    with pytest.raises(InputError, match=r"allow=\[origin, kind\]"):
        open_network(GalleryConfig(run_dir=trained, store=tmp_path / "s.zarr", out=tmp_path / "out", allow="kind"))
    found = latents(trained, tmp_path / "s.zarr", tmp_path / "latents.parquet", allow=["kind", "origin"])
    assert len(found) == 3 and "not like those of the training, as allowed" in caplog.text


def test_an_older_run_asks_its_store(trained, store, tmp_path, caplog):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "images.npz").unlink()
    open_trained(run, "last", store)
    assert not caplog.messages
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace(str(store), str(tmp_path / "moved.zarr")))
    open_trained(run, "last", store)
    assert "does not say what its images were like" in caplog.text


def test_not_a_run(store, tmp_path):
    with pytest.raises(InputError, match="config.yaml: is missing, so .* is not a training run"):
        latents(tmp_path, store, tmp_path / "latents.parquet")


def test_a_table_of_another_name_is_refused(trained, store, tmp_path):
    """The .pheno stands beside the table under the same name, and other verbs tell Parquet by its name."""
    with pytest.raises(ConfigError, match="named NAME.parquet"):
        latents(trained, store, tmp_path / "latents.pheno")
    assert not list(tmp_path.iterdir())


def test_preview(trained, store):
    text = "\n".join(preview(EmbedConfig(run_dir=trained, store=store)))
    assert "step-00000008" in text and "subjects: 44 of 45" in text


@pytest.fixture
def other_shape(tmp_path) -> Path:
    """A store of smaller volumes."""
    (tmp_path / "small").mkdir()
    volume = np.random.default_rng(0).integers(0, 9, (8, 8, 8)).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, np.diag([16.0, 16.0, 16.0, 1.0])), tmp_path / "small" / "A.nii.gz")
    ingest(IngestConfig(volumes=tmp_path / "small", out=tmp_path / "small.zarr", workers=0, allow="background"))
    return tmp_path / "small.zarr"


class _Chosen:
    """The rows of a store in an order of choice."""

    def __init__(self, reader: RowReader, order: list[int]):
        self.layout, self._reader, self._order = reader.layout, reader, order

    def row(self, i: int, out: np.ndarray) -> np.ndarray:
        """As the reader's."""
        return self._reader.row(self._order[i], out)

    def fingerprint(self) -> str:
        """Of no other store."""
        return f"in the order {self._order}"


def _tensor(volumes: VolumeStore, name: str):
    import torch

    return torch.from_numpy(volumes.normalised([volumes.subjects.index(name)]))


def test_people_of_the_training_and_unfinished_trainings_are_told(trained, store, tmp_path, caplog):
    latents(trained, store, tmp_path / "a.parquet")
    assert "44 of the 44 people embedded were in the training's store" in caplog.text
    assert "not finished" not in caplog.text
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "manifest.json").unlink()
    latents(tmp_path / "run", store, tmp_path / "b.parquet")
    assert "its training is not finished: this checkpoint is of epoch" in caplog.text
