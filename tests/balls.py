"""Tiny volumes in a store: lopsided balls of 10 x 12 x 9 voxels; one cannot be read, one lacks a side."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from udipdist.config import IngestConfig
from udipdist.volumes.ingest import ingest

SHAPE = (10, 12, 9)


def ball(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """A ball of random size and texture, background exactly 0."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    distance = np.linalg.norm(grid - 0.05 * rng.standard_normal((3, 1, 1, 1)), axis=0)
    tilt = np.tensordot(rng.standard_normal(3), grid, 1)
    texture = 100 + 40 * np.cos(4 * distance * (1 + 0.2 * rng.standard_normal())) + 20 * tilt
    return np.round((distance < 0.85 + 0.1 * rng.standard_normal()) * (texture + 3 * rng.standard_normal(shape)))


def make_store(folder: Path, n: int, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Path:
    """A store of `n` balls and one unreadable file."""
    volumes = folder / "nifti"
    volumes.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        volume = ball(rng, shape)
        if i == 3:
            volume[: shape[0] // 2] = 0  # half a brain: this subject has empty tokens
        image = nib.Nifti1Image(volume.astype(np.int16), np.diag([16.0, 16.0, 16.0, 1.0]))
        nib.save(image, volumes / f"S{i:03d}.nii.gz")
    (volumes / "S999.nii.gz").write_bytes(b"not a volume")
    ingest(IngestConfig(volumes=volumes, out=folder / "store.zarr", workers=0, allow_failures=1))
    return folder / "store.zarr"
