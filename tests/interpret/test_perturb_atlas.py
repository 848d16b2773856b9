"""Regions by a running sum: against the slow way, with p-values that keep their level on smooth maps."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from hpc.errors import InputError
from udipdist.interpret import atlas as atlases
from udipdist.interpret.atlas import Atlas, load, rank
from udipdist.interpret.surrogates import surrogates

SHAPE, ZOOMS = (16, 18, 16), (12.0, 12.0, 12.0)
AFFINE = np.array([[12.0, 0, 0, -90], [0, 12, 0, -120], [0, 0, 12, -82], [0, 0, 0, 1]])


def ball() -> np.ndarray:
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    return np.linalg.norm(grid, axis=0) < 0.8


def octants(mask: np.ndarray) -> Atlas:
    x, y, z = np.indices(SHAPE)
    number = 1 + (x >= 8) + 2 * (y >= 9) + 4 * (z >= 8)
    return Atlas(np.where(mask, number, 0).astype(np.int32), [f"octant {i}" for i in range(1, 9)])


def smooth_map(seed: int, sd: float) -> np.ndarray:
    return ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), sd, mode="constant")


def slow_score(values: np.ndarray, member: np.ndarray) -> float:
    """The running sum, one voxel after the other."""
    total, largest = 0.0, 0.0
    for hit in member[np.argsort(-values, kind="stable")]:
        total += 1 / member.sum() if hit else -1 / (~member).sum()
        largest = max(largest, total, key=abs)
    return largest


def test_the_score_is_the_largest_excursion_of_the_running_sum():
    mask, values = ball(), smooth_map(1, 1.5)
    atlas = octants(mask)
    atlas.labels[:, :5] = 0  # voxels of no region count as others
    rows = {row["region"]: row for row in rank([values], mask, ZOOMS, atlas, permutations=1)[0]}
    for number, name in enumerate(atlas.names, 1):
        member = atlas.labels[mask] == number
        if member.sum() >= 3:
            assert rows[name]["score"] == pytest.approx(slow_score(values[mask], member), abs=1e-12)
            assert rows[name]["voxels"] == member.sum()
    assert [row["score"] for row in rows.values()] == sorted((row["score"] for row in rows.values()), reverse=True)


def test_a_region_that_is_all_of_the_top_scores_one_and_is_significant():
    mask = ball()
    atlas = octants(mask)
    values = smooth_map(2, 1.0) + 10 * (atlas.labels == 3)
    ((first, *rest),) = rank([values], mask, ZOOMS, atlas, permutations=199)
    assert (first["region"], first["score"]) == ("octant 3", 1.0)
    assert first["p"] == 1 / 200 and first["q"] <= 0.05
    assert all(row["p"] > 0.05 for row in rest)


def test_a_map_gets_the_same_beside_others_and_alone():
    mask = ball()
    maps, atlas = [smooth_map(seed, 1.0) for seed in range(3)], octants(mask)
    assert rank(maps, mask, ZOOMS, atlas, 29, seed=4) == [
        rank([one], mask, ZOOMS, atlas, 29, seed=4)[0] for one in maps
    ]
    assert rank([], mask, ZOOMS, atlas, 29) == []


@pytest.mark.parametrize("sd", [0.0, 0.8, 1.5])
def test_regions_that_have_nothing_to_do_with_a_smooth_map_keep_the_level(sd):
    """Shuffled voxels would call nearly every octant of a smooth map significant."""
    mask, p, shuffled = ball(), [], []
    atlas = octants(mask)
    for seed in range(25):
        values = smooth_map(seed, sd) if sd else np.random.default_rng(seed).standard_normal(SHAPE)
        p += [row["p"] for row in rank([values], mask, ZOOMS, atlas, permutations=39, seed=seed)[0]]
        n = mask.sum() / 8
        shuffled += [abs(row["score"]) > 1.36 / np.sqrt(n * 7 / 8) for row in rank([values], mask, ZOOMS, atlas, 1)[0]]
    assert (
        np.mean(np.array(p) <= 0.05) < 0.11
    )  # 200 regions, 25 maps: an error of 0.02 and more, as those of a map go together
    assert 0.3 < np.mean(p) < 0.7
    assert np.mean(shuffled) > 0.5 or sd == 0


def test_surrogates_vary_over_distance_as_the_map_does():
    mask = ball()
    values = smooth_map(5, 1.0)
    draw = surrogates(values, mask, ZOOMS, seed=0)

    def neighbours(volume: np.ndarray) -> float:
        both = mask[1:] & mask[:-1]
        return float(np.corrcoef(volume[1:][both], volume[:-1][both])[0, 1])

    likeness = []
    for _ in range(20):
        volume = np.zeros(SHAPE)
        volume[mask] = draw()
        likeness.append(neighbours(volume))
    assert np.mean(likeness) == pytest.approx(neighbours(values), abs=0.04)
    assert abs(np.corrcoef(draw(), draw())[0, 1]) < 0.5


def test_ranks_alone_count():
    mask, values = ball(), smooth_map(7, 1.0)
    plain, bent = rank([values, np.exp(5 * values)], mask, ZOOMS, octants(mask), 19)
    assert plain == bent


def test_a_thinned_grid_gives_p_and_all_voxels_the_score():
    mask = ball()
    atlas, values = octants(mask), smooth_map(9, 1.5) + 0.4 * (octants(mask).labels == 1)
    fine, coarse = ({row["region"]: row for row in rank([values], mask, ZOOMS, atlas, 199, step)[0]} for step in (1, 2))
    for name, row in fine.items():
        assert coarse[name]["score"] == row["score"]
    assert fine["octant 1"]["p"] == coarse["octant 1"]["p"] == 1 / 200


@pytest.mark.parametrize(
    ("name", "place", "region"),
    [
        ("seitzman_2018", (-11, -18, 8), "left thalamus"),
        ("seitzman_2018", (27, -14, -18), "right hippocampus"),
        ("seitzman_2018", (-20, -60, -45), "left cerebellum"),
        ("seitzman_2018", (-24, 3, 0), "left basal ganglia"),
        ("dosenbach_2010", (11, -12, 6), "right thalamus"),
        ("dosenbach_2010", (-6, -79, -33), "left inf cerebellum"),
    ],
)
def test_atlases_that_nilearn_ships_have_regions_in_their_places(name, place, region):
    here = np.eye(4)
    here[:3, 3] = place
    atlas = load(name, None, (1, 1, 1), here)
    assert atlas.names[atlas.labels[0, 0, 0] - 1] == region


def test_a_voxel_far_from_every_centre_is_in_no_region():
    assert load("seitzman_2018", None, (2, 1, 1), np.diag([200.0, 1, 1, 1])).labels[1, 0, 0] == 0


@pytest.fixture
def image(tmp_path):
    """Labels 7 (left half) and 20 (right half) on a finer, flipped grid."""
    finer = AFFINE @ np.diag([-0.5, 0.5, 0.5, 1])
    finer[:3, 3] = AFFINE[:3, 3] + [12.0 * 15.5, -3, -3]
    labels = np.where(np.indices((32, 36, 32))[0] >= 16, 7, 20)  # its first axis runs to the left
    nib.save(nib.Nifti1Image(labels.astype(np.int16), finer), tmp_path / "labels.nii.gz")
    return tmp_path / "labels.nii.gz"


def test_a_label_image_is_brought_to_the_grid_by_its_affine(image, tmp_path):
    atlas = load(str(image), None, SHAPE, AFFINE)
    assert atlas.names == ["region 7", "region 20"]
    assert (atlas.labels[1:8, 1:-1, 1:-1] == 1).all() and (atlas.labels[8:-1, 1:-1, 1:-1] == 2).all()
    (tmp_path / "names.tsv").write_text("index\tname\n7\tsinister\n20\tdexter\n3\tnowhere\n")
    assert load(str(image), tmp_path / "names.tsv", SHAPE, AFFINE).names == ["sinister", "dexter"]


def test_atlases_that_cannot_be_used_are_refused(image, tmp_path):
    with pytest.raises(InputError, match="does not exist; give atlas="):
        load("aal", None, SHAPE, AFFINE)
    (tmp_path / "text.nii").write_text("no image")
    with pytest.raises(InputError, match=r"text\.nii: cannot be read as an image"):
        load(str(tmp_path / "text.nii"), None, SHAPE, AFFINE)
    nib.save(nib.Nifti1Image(np.full(SHAPE, 0.5, np.float32), AFFINE), tmp_path / "half.nii.gz")
    with pytest.raises(InputError, match="not a label image"):
        load(str(tmp_path / "half.nii.gz"), None, SHAPE, AFFINE)
    for text, message in (
        ("index\tname\n7\tleft\n", "no name for the labels 20"),
        ("number\tname\n7\tleft\n", "needs index and name"),
        ("index\tname\nseven\tleft\n", "index 'seven' is not a number"),
        ("index\tname\n7\tleft\n7\tright\n", "index 7 comes twice"),
        ("index\tname\n7\tleft\n20\t\n", "index 20 has no name"),
        ("", "is empty"),
    ):
        (tmp_path / "names.tsv").write_text(text)
        with pytest.raises(InputError, match=message):
            load(str(image), tmp_path / "names.tsv", SHAPE, AFFINE)


def test_an_atlas_beside_the_brain_is_refused():
    elsewhere = Atlas(np.where(ball(), 0, 1).astype(np.int32), ["background"])
    with pytest.raises(InputError, match="no region of the atlas has 3 voxels in the brain"):
        rank([smooth_map(0, 1.0)], ball(), ZOOMS, elsewhere)


def test_every_shipped_atlas_can_be_named():
    assert set(atlases.SHIPPED) == set(atlases._SHIPPED_CENTRES)
