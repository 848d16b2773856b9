"""Volumes as a cohort has them: 182 x 218 x 182 voxels of int16 in .nii.gz, 2.8 MB each, made from the MNI152 template.

Each is the brain-extracted template that nilearn ships with a contrast of its own that varies smoothly over the head,
and noise inside the brain; outside it is exactly 0. Axes run as in FSL's MNI152_T1_1mm (LAS), where registered scans
of UK Biobank come from, and gzip packs as it does when nobody asks for a level.
"""

from __future__ import annotations

import gzip
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (182, 218, 182)
AFFINE = np.array([[-1.0, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])
NOISE = 20.0  # of values up to about 1,000
_ORIGIN = (7, 8, 0)  # of FSL's grid in nilearn's template
_LEVEL = 6


def make(folder: Path, n: int, workers: int = 2) -> list[Path]:
    """`n` volumes in `folder`, by `workers` processes; those that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{1_000_000 + i}.nii.gz" for i in range(n)]
    missing = [(i, path) for i, path in enumerate(paths) if not path.exists()]
    if missing:
        template = folder / "template.npy"
        np.save(template, template_brain())
        with ProcessPoolExecutor(min(workers, len(missing)), multiprocessing.get_context("spawn")) as pool:
            for _ in pool.map(partial(_write, template), *zip(*missing, strict=True), chunksize=1):
                pass
        template.unlink()
    return paths


def template_brain() -> np.ndarray:
    """The template on FSL's grid, float32 [x, y, z] from 0 to 1, x from right to left."""
    from nilearn.datasets import load_mni152_template  # takes seconds, and only who writes volumes needs it

    whole = np.asarray(load_mni152_template(resolution=1).dataobj, np.float32)
    cut = whole[tuple(slice(start, start + length) for start, length in zip(_ORIGIN, SHAPE, strict=True))]
    return np.ascontiguousarray(cut[::-1]) / cut.max()


def volume(brain: np.ndarray, seed: int) -> np.ndarray:
    """One person: int16 [x, y, z], at least 1 inside the brain."""
    rng = np.random.default_rng(seed)
    inside = brain > 0
    contrast = brain[inside] ** np.float32(rng.uniform(0.8, 1.25))
    values = 900 * contrast * (1 + _smooth(brain.shape, rng)[inside])
    values += NOISE * rng.standard_normal(len(values), np.float32)
    raw = np.zeros(brain.shape, np.int16)
    raw[inside] = np.maximum(values, 1)
    return raw


def _smooth(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A sum of long waves, standard deviation about 0.1."""
    field = np.zeros(shape, np.float32)
    orders = [order for order in product(range(3), repeat=3) if 0 < sum(order) <= 3]
    for order in orders:
        x, y, z = (
            np.cos(np.pi * k * np.arange(length) / length).astype(np.float32)
            for k, length in zip(order, shape, strict=True)
        )
        field += rng.normal(0, 0.15 / len(orders) ** 0.5) * (x[:, None, None] * y[:, None] * z)
    return field


def _write(template: Path, seed: int, path: Path) -> None:
    image = nib.Nifti1Image(volume(np.load(template, mmap_mode="r"), seed), AFFINE)
    image.header.set_xyzt_units("mm")
    partial_file = path.with_suffix(f".{os.getpid()}")
    partial_file.write_bytes(gzip.compress(image.to_bytes(), _LEVEL, mtime=0))
    partial_file.rename(path)
