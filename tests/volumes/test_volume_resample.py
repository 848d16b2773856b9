"""Resampling to MNI152: FLIRT's convention against FSL's own numbers, values against scipy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt2axcodes
from scipy import ndimage

from udipdist.volumes.nifti import Header, Unreadable
from udipdist.volumes.resample import MNI_AFFINE, MNI_SHAPE, source_to_mni, to_mni

GOLDEN = Path(__file__).parents[1] / "golden" / "flirt" / "voxel_to_voxel.json"
MNI_LAS = np.array([[-1.0, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])  # of MNI152_T1_1mm.nii.gz


def header_of(affine, shape, dtype=np.float32, slope=1.0, inter=0.0):
    """The header of a file with these voxels, as it is stored."""
    moves = io_orientation(affine)
    in_ras = np.empty(3, int)
    in_ras[moves[:, 0].astype(int)] = shape
    ras = affine @ inv_ornt_aff(moves, shape)
    return Header(tuple(in_ras), np.dtype(dtype), ras, "".join(ornt2axcodes(moves)), moves, slope, inter)


def stored_as(codes, zooms=(1.0, 1.0, 1.0)):
    """A voxel-to-mm affine of a file whose axes run to `codes`."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for i, (axis, sign) in enumerate(axcodes2ornt(codes)):
        affine[int(axis), i] = sign * zooms[i]
    return affine


def resampled(stored, affine, matrix, slope=1.0, inter=0.0):
    """`to_mni` of the array of a file."""
    header = header_of(affine, stored.shape, stored.dtype, slope, inter)
    out, mni = to_mni(apply_orientation(stored, header.moves), header, np.asarray(matrix, float))
    assert out.shape == MNI_SHAPE and out.dtype == np.float32
    assert (mni == MNI_AFFINE).all()
    return out


def file_voxels(affine, shape, matrix):
    """FLIRT's convention, written down again in the order of the file: RAS voxels of MNI -> voxels of the file."""
    scaled = np.diag([*np.linalg.norm(affine[:3, :3], axis=0), 1])
    if np.linalg.det(affine[:3, :3]) > 0:
        flip = np.diag([-1.0, 1, 1, 1])
        flip[0, 3] = shape[0] - 1
        scaled = scaled @ flip
    las = np.diag([-1.0, 1, 1, 1])
    las[0, 3] = 181
    return np.linalg.inv(scaled) @ np.linalg.inv(matrix) @ las


def shift(x, y, z):
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


@pytest.mark.parametrize("case", json.loads(GOLDEN.read_text()), ids=lambda case: case["codes"])
def test_matrix_agrees_with_fsl(case):
    affine, shape = np.array(case["affine"]), tuple(case["shape"])
    header = header_of(affine, shape)
    ours = source_to_mni(header, np.array(case["matrix"]))
    las = np.array(case["voxel_to_voxel"]) @ inv_ornt_aff(header.moves, shape)  # RAS voxels -> LAS voxels of MNI
    np.testing.assert_allclose(ours, np.linalg.inv(MNI_AFFINE) @ MNI_LAS @ las, atol=1e-9)


def test_identity():
    rng = np.random.default_rng(0)
    stored = rng.normal(size=MNI_SHAPE).astype(np.float32)
    stored[rng.random(MNI_SHAPE) < 0.3] = 0
    out = resampled(stored, MNI_LAS, np.eye(4))
    np.testing.assert_array_equal(out, stored[::-1])  # the file is LAS, the result RAS
    assert (resampled(stored[::-1], MNI_AFFINE, np.eye(4)) == out).all()  # the same image, stored from the left


def test_one_voxel_and_a_shift():
    stored = np.zeros((10, 11, 12), np.int16)
    stored[2, 3, 4] = 7
    out = resampled(stored, stored_as("LAS"), shift(20, 30, 40))
    assert out[181 - 22, 33, 44] == 7 and np.count_nonzero(out) == 1
    out = resampled(stored, stored_as("RAS"), shift(20, 30, 40))  # x counts from the other end: 9 - 2
    assert out[181 - 27, 33, 44] == 7 and np.count_nonzero(out) == 1
    out = resampled(stored, stored_as("LAS", (2, 1, 1)), shift(20, 30, 40))  # mm of scaled voxels: x = 4 + 20
    np.testing.assert_allclose(out[181 - np.array([22, 23, 24, 25, 26]), 33, 44], [0, 3.5, 7, 3.5, 0])
    out = resampled(stored, stored_as("LAS"), shift(20.25, 30, 40))
    np.testing.assert_allclose(out[181 - np.array([22, 23]), 33, 44], [0.75 * 7, 0.25 * 7])


def test_scale_factors_and_zero_outside():
    stored = np.full((4, 4, 4), 3, np.uint8)
    stored[1, 1, 1] = 5
    out = resampled(stored, stored_as("LAS"), shift(50.5, 50, 50), slope=2, inter=-6)
    assert np.count_nonzero(out) == 2  # stored 3 is scaled 0: background
    np.testing.assert_allclose(out[181 - np.array([51, 52]), 51, 51], [2, 2])
    out = resampled(stored, stored_as("LAS"), shift(50.5, 50, 50))
    np.testing.assert_allclose(out[181 - np.array([50, 51, 54, 55]), 50, 50], [1.5, 3, 1.5, 0])  # between edge and 0


@pytest.mark.parametrize("codes", ["LAS", "RAS", "PIR"])
def test_against_scipy_on_a_whole_brain(codes):
    rng = np.random.default_rng(5)
    shape = (60, 72, 64)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    stored = np.where(sum(axis**2 for axis in grid) < 0.8, rng.integers(1, 2000, shape), 0).astype(np.uint16)
    affine = stored_as(codes, (2.0, 2.5, 2.2))
    matrix = np.eye(4)
    matrix[:3, :3] += rng.normal(size=(3, 3)) * 0.15
    centre = np.array([90, 108, 90]) - matrix[:3, :3] @ (np.array(shape) * (2.0, 2.5, 2.2) / 2)
    matrix[:3, 3] = centre
    index = file_voxels(affine, shape, matrix)
    # scipy's mode=constant cuts off what lies outside the outermost voxels, where this image is 0.
    expected = ndimage.affine_transform(
        stored.astype(float), index[:3, :3], index[:3, 3], MNI_SHAPE, order=1, mode="constant"
    )
    out = resampled(stored, affine, matrix)
    assert np.count_nonzero(expected) > 1_000_000
    assert np.abs(out - expected).max() < 1e-6 * expected.max()
    assert (out[expected == 0] < 1e-6 * expected.max()).all()


@settings(max_examples=25, deadline=None)
@given(
    codes=st.sampled_from(["LAS", "RAS", "LPI", "PIR", "ASL", "SRA"]),
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    dtype=st.sampled_from(["int16", "uint8", "float32", "float64", ">i2"]),
    scale=st.sampled_from([(1.0, 0.0), (0.5, -3.0)]),
    seed=st.integers(0, 10_000),
)
def test_against_scipy_on_any_image(codes, shape, dtype, scale, seed):
    rng = np.random.default_rng(seed)
    stored = (rng.integers(0, 100, shape) * (rng.random(shape) < 0.5)).astype(dtype)
    scaled = stored * scale[0] + scale[1]
    affine = stored_as(codes, rng.uniform(0.5, 3, 3))
    affine[:3, :3] = np.linalg.qr(np.eye(3) + 0.2 * rng.normal(size=(3, 3)))[0] @ affine[:3, :3]
    matrix = np.eye(4)
    matrix[:3, :3] += rng.normal(size=(3, 3)) * 0.4
    matrix[:3, 3] = rng.uniform(-5, 185, 3)
    index = file_voxels(affine, shape, matrix)
    try:
        out = resampled(stored, affine, matrix, *scale)
    except Unreadable:
        out = np.zeros(MNI_SHAPE, np.float32)
    centre = np.linalg.solve(index, [*(np.array(shape) / 2 - 0.5), 1])[:3]
    near = np.clip(np.rint(centre + rng.normal(size=(20_000, 3)) * 8), 0, np.array(MNI_SHAPE) - 1)
    voxels = np.concatenate([near, rng.integers(0, MNI_SHAPE, (5_000, 3))]).astype(int)
    places = voxels @ index[:3, :3].T + index[:3, 3]
    expected = ndimage.map_coordinates(scaled.astype(float), places.T, order=1, mode="grid-constant")
    # Where a place is on the last voxel but for rounding, either side may be taken: the values are continuous there.
    np.testing.assert_allclose(out[tuple(voxels.T)], expected, atol=1e-6 * max(np.abs(scaled).max(), 1))


def test_memory_order_does_not_matter():
    stored = np.random.default_rng(1).normal(size=(30, 31, 32)).astype(np.float32)
    header = header_of(stored_as("RAS"), stored.shape)
    matrix = shift(60, 70, 50)
    matrix[0, 1] = matrix[2, 0] = 0.2
    expected, _ = to_mni(stored, header, matrix)
    turned = np.asfortranarray(stored[::-1, :, ::-1])
    for same in (np.asfortranarray(stored), stored.astype(">f4")):
        assert (to_mni(same, header, matrix)[0] == expected).all()
    np.testing.assert_allclose(to_mni(turned[::-1, :, ::-1], header, matrix)[0], expected, atol=1e-6)
    assert expected.T.flags.c_contiguous  # x fastest in memory


def test_what_is_not_an_image_of_a_brain():
    stored = np.zeros((5, 5, 5), np.float32)
    assert not resampled(stored, stored_as("LAS"), np.eye(4)).any()  # empty, which the ingest tells
    stored[2, 2, 2] = np.nan
    assert np.isnan(resampled(stored, stored_as("LAS"), shift(9.5, 9, 9))[:, 11, 11]).sum() == 2
    stored[2, 2, 2] = 1
    for away in (shift(-50, 0, 0), shift(0, 0, 400), shift(1e9, 0, 0)):
        with pytest.raises(Unreadable, match="wholly outside MNI152"):
            resampled(stored, stored_as("LAS"), away)
