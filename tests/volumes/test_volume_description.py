"""What a network remembers of its images, and how others are found to differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hpc.errors import InputError
from tests.balls import make_store
from udipdist.volumes.description import Description
from udipdist.volumes.store import VolumeStore

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> VolumeStore:
    return VolumeStore.open(make_store(tmp_path_factory.mktemp("store"), 8))


@pytest.fixture
def seen(store) -> Description:
    return Description.of(store)


def test_other_people_are_no_difference(seen, tmp_path):
    others = Description.of(VolumeStore.open(make_store(tmp_path, 4, seed=9)))
    assert seen.differences(others) == {} == seen.differences(seen)


def test_what_is_written_is_read(seen, tmp_path):
    seen.save(tmp_path / "images.npz")
    again = Description.load(tmp_path / "images.npz")
    assert (again.modality, again.shape, again.zooms) == (seen.modality, seen.shape, seen.zooms)
    np.testing.assert_array_equal(again.affine, seen.affine)
    np.testing.assert_array_equal(again.thumbnail, seen.thumbnail)
    nowhere = replace(seen, affine=None, thumbnail=None)
    nowhere.save(tmp_path / "images.npz")
    assert Description.load(tmp_path / "images.npz").affine is None
    (tmp_path / "images.npz").write_bytes(b"PK no")
    with pytest.raises(InputError, match="is damaged"):
        Description.load(tmp_path / "images.npz")


def test_the_mean_is_that_of_the_thumbnails(store, seen):
    small = np.stack([store.normalised([i])[0] for i in np.flatnonzero(store.valid)])  # blocks of one voxel
    np.testing.assert_allclose(seen.thumbnail, small.mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({"zooms": (2.0, 2.0, 2.1)}, "voxels", "voxels of 2 x 2 x 2.1 mm, not 2 x 2 x 2"),
        ({"affine": AFFINE + np.array([[0, 0, 0, 0.5]] + [[0] * 4] * 3)}, "origin", "0.5 mm away"),
        ({"affine": np.diag([-2.0, 2.0, 2.0, 1.0])}, "origin", "mm away"),
        ({"affine": None}, "origin", "no place in space"),
        ({"modality": "T2_FLAIR"}, "modality", "modality T2_FLAIR, not T1"),
        ({"thumbnail": -1.0}, "kind", "correlation -1.00, limit 0.5"),
    ],
)
def test_each_difference_has_a_name(seen, change, name, words):
    seen = replace(seen, zooms=(2.0, 2.0, 2.0), affine=AFFINE, modality="T1")
    change = {key: value * seen.thumbnail if key == "thumbnail" else value for key, value in change.items()}
    found = seen.differences(replace(seen, **change))
    assert list(found) == [name] and words in found[name]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("T1", "T1w", True), ("T1w", "space-MNI_desc-preproc_T1w", True), ("FLAIR", "T2_FLAIR", True),
        ("image", "T2w", True), ("scan_path", "T1", True), ("T1_unbiased_linear", "T1w", True),
        ("jacobian", "T1", False),
        ("T1w", "T2w", False), ("T1", "T2_FLAIR", False), ("bold", "T1", False),
    ],
)  # fmt: skip
def test_names_of_modalities(seen, one, other, same):
    assert (seen.__class__.differences(replace(seen, modality=one), replace(seen, modality=other)) == {}) == same


def test_a_tenth_of_a_voxel_is_the_same_place(seen):
    seen = replace(seen, zooms=(2.0, 2.0, 2.0), affine=AFFINE)
    assert seen.differences(replace(seen, affine=AFFINE + np.array([[0, 0, 0, 0.15]] + [[0] * 4] * 3))) == {}
