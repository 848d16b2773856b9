"""PCA of the voxels against the covariance's eigenvectors."""

from __future__ import annotations

import numpy as np
import pytest

from hpc.errors import InputError
from udipdist.analysis.voxel_pca import voxel_pca
from udipdist.volumes.store import VolumeStore


def test_scores_equal_a_dense_decomposition(store):
    table = voxel_pca(store, store, components=5, seed=1)
    volumes = VolumeStore.open(store)
    rows = np.flatnonzero(volumes.valid)
    assert table["IID"].tolist() == [volumes.subjects[row] for row in rows]
    assert table.columns.tolist() == ["FID", "IID", "z000", "z001", "z002", "z003", "z004"]
    voxels = volumes.normalised(rows)[:, volumes.mask].astype(np.float64)
    left, values, _ = np.linalg.svd(voxels - voxels.mean(axis=0), full_matrices=False)
    expected, found = (left * values)[:, :5], table.filter(like="z").to_numpy()
    signs = np.sign((expected * found).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-2 * values[4])
    again = voxel_pca(store, store, components=5, seed=1)
    assert again.equals(table)


def test_too_many_components(store):
    with pytest.raises(InputError, match="44 subjects do not give 60 components"):
        voxel_pca(store, store, components=60)
