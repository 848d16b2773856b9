"""Principal components of the voxels: the baseline that any autoencoder has to beat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from sklearn.decomposition import PCA

from hpc.errors import InputError
from udipdist.latents import latents_table
from udipdist.volumes.store import VolumeStore

_BLOCK = 64  # subjects read at once


def voxel_pca(train_store: str | Path, embed_store: str | Path, components: int = 128, seed: int = 0) -> pd.DataFrame:
    """Scores (FID IID z000 ..) of the subjects of one store on the components of another's brain voxels.

    Randomised SVD (Halko et al. 2011, as scikit-learn's PCA) of the normalised voxels inside the training store's
    mask. Raises InputError where the stores' shapes differ, the components are too many, or memory is too small.
    """
    train, embed = VolumeStore.open(train_store), VolumeStore.open(embed_store)
    if train.shape != embed.shape:
        raise InputError(f"{embed_store}: volumes are {embed.shape}, but those of {train_store} are {train.shape}")
    subjects = np.flatnonzero(train.valid)
    mask = np.asarray(train.mask)
    needed = 3 * 4 * len(subjects) * int(mask.sum())
    if len(subjects) < components:
        raise InputError(f"{train_store}: {len(subjects)} subjects do not give {components} components; ask for fewer")
    if needed > psutil.virtual_memory().available:
        raise InputError(
            f"{train_store}: PCA of {len(subjects):,} x {int(mask.sum()):,} voxels needs about {needed / 1e9:.1f} GB "
            "of memory; use a store of coarser volumes"
        )
    fitted = PCA(components, svd_solver="randomized", random_state=seed).fit(_voxels(train, subjects, mask))
    kept = np.flatnonzero(embed.valid)
    scores = [fitted.transform(_voxels(embed, part, mask)) for part in _parts(kept)]
    return latents_table([embed.fids[i] for i in kept], [embed.subjects[i] for i in kept], np.concatenate(scores))


def _voxels(store: VolumeStore, subjects: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Brain voxels [N, mask voxels] float32."""
    voxels = np.empty((len(subjects), int(mask.sum())), dtype=np.float32)
    filled = 0
    for part in _parts(subjects):
        voxels[filled : filled + len(part)] = store.normalised(part)[:, mask]
        filled += len(part)
    return voxels


def _parts(subjects: np.ndarray) -> list[np.ndarray]:
    return [subjects[i : i + _BLOCK] for i in range(0, len(subjects), _BLOCK)]
