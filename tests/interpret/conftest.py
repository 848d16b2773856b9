"""A store of 9 lopsided balls, one of which cannot be read, and a run whose network has random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hpc.checkpoint import Checkpoints
from hpc.comm import Comm
from hpc.world import World
from udipdist.config import IngestConfig, TrainConfig, VitAeConfig
from udipdist.models import base, registry
from udipdist.volumes.ingest import ingest
from udipdist.volumes.store import VolumeStore

BALL_AFFINE = np.array([[4.0, 0, 0, -22], [0, 4, 0, -30], [0, 0, 5, -9], [0, 0, 0, 1]])
BALL_MODEL = VitAeConfig(patch=4, width=12, depth=1, heads=2, latent=6)


@dataclass(frozen=True)
class Tiny:
    """A training run of an untrained network, its store, and a folder to write into."""

    run_dir: Path
    store: Path
    out: Path

    @property
    def keys(self) -> dict[str, Path]:
        """What every verb needs."""
        return {"run_dir": self.run_dir, "store": self.store, "out": self.out}


@pytest.fixture(scope="session")
def ball_run(tmp_path_factory) -> Path:
    """A folder with store.zarr and run; do not write to it."""
    place = tmp_path_factory.mktemp("balls")
    rng, shape = np.random.default_rng(5), (10, 12, 9)
    distance = np.linalg.norm(np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")), axis=0)
    (place / "nifti").mkdir()
    for i in range(9):
        values = np.where(distance < 0.8 + 0.03 * i, 100 + 20 * rng.standard_normal(shape), 0).astype(np.int16)
        nib.save(nib.Nifti1Image(values, BALL_AFFINE), place / "nifti" / f"S{i}.nii.gz")
    (place / "nifti" / "S2.nii.gz").write_bytes(b"not a scan")
    ingest(IngestConfig(volumes=place / "nifti", out=place / "store.zarr", workers=0, allow_failures=1))
    torch.manual_seed(1)
    network = registry.build(BALL_MODEL, VolumeStore.open(place / "store.zarr").mask)
    torch.nn.init.normal_(network.to_latent.weight)
    comm = Comm(World())
    checkpoints = Checkpoints(place / "run" / "checkpoints")
    checkpoints.save(comm, 7, lambda folder: save_file(network.state_dict(), folder / base.WEIGHTS), {})
    config = TrainConfig(store=place / "store.zarr", run_dir=place / "run", model=BALL_MODEL)
    (place / "run" / "config.yaml").write_text(config.yaml())
    return place


@pytest.fixture
def tiny(ball_run, tmp_path) -> Tiny:
    """The same, with a place of its own to write to."""
    return Tiny(ball_run / "run", ball_run / "store.zarr", tmp_path / "look")
