"""Volumes as a cohort has them: 182 x 218 x 182 voxels of int16 in .nii.gz, 2.8 MB each, made from the MNI152 template.

Each is the brain-extracted template that nilearn ships with a contrast of its own that varies smoothly over the head,
and noise inside the brain; outside it is exactly 0. Axes run as in FSL's MNI152_T1_1mm (LAS), where registered scans
of UK Biobank come from, and gzip packs as it does when nobody asks for a level.
"""

from __future__ import annotations

import gzip
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (182, 218, 182)
AFFINE = np.array([[-1.0, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])
NOISE = 20.0  # of values up to about 1,000
_ORIGIN = (7, 8, 0)  # of FSL's grid in nilearn's template
_LEVEL = 6
_WAVES = 3  # along each axis, of at most one period over the grid


def make(folder: Path, n: int, threads: int = 2) -> list[Path]:
    """`n` volumes in `folder`; those that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{1_000_000 + i}.nii.gz" for i in range(n)]
    missing = [(seed, path) for seed, path in enumerate(paths) if not path.exists()]
    if missing:
        brain = template_brain()
        with ThreadPoolExecutor(threads) as pool:  # numpy and zlib leave the interpreter free
            for _ in pool.map(lambda one: _write(volume(brain, one[0]), one[1]), missing):
                pass
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
    """A sum of long waves, standard deviation about 0.09."""
    x, y, z = (np.cos(np.pi * np.outer(np.arange(length), range(_WAVES)) / length) for length in shape)
    size = rng.normal(0, 0.15 / _WAVES, (_WAVES, _WAVES, _WAVES))
    size[0, 0, 0] = 0
    return np.einsum("xi,yj,zk,ijk->xyz", x, y, z, size, optimize=True, dtype=np.float32, casting="same_kind")


def _write(raw: np.ndarray, path: Path) -> None:
    image = nib.Nifti1Image(raw, AFFINE)
    image.header.set_xyzt_units("mm")
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(gzip.compress(image.to_bytes(), _LEVEL, mtime=0))
    unfinished.rename(path)
