"""Volumes: valid NIfTI, the same person at every resolution and in every company, factors that do what they say."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from udipdist.cohort import calibrate, factors, seeds, template
from udipdist.cohort.brains import BrainModel, Scan, draw_scan, spread
from udipdist.config import BrainConfig

STILL = Scan(np.zeros(3), np.zeros(3), contrast=0.0, gain=1.0, noise=0.0, bias=0.0, warp=0.0)
K = len(factors.NAMES)
PLAIN = BrainConfig()


@pytest.fixture(scope="module")
def models():
    return {resolution: BrainModel(resolution) for resolution in (8, 4)}


def person(model: BrainModel, name: str, config: BrainConfig = PLAIN) -> np.ndarray:
    rng = seeds.stream(1, "scan", name)
    values = seeds.stream(1, "factors", name).standard_normal(K)
    return model.render(values, draw_scan(config, 0, 0.0, rng), rng)


def one(model: BrainModel, name: str, value: float) -> np.ndarray:
    return model.render(value * np.eye(K)[factors.NAMES.index(name)], STILL, np.random.default_rng(0))


@pytest.mark.parametrize("resolution", template.SHAPES)
def test_grids_cover_the_same_box(resolution):
    shape, affine = template.SHAPES[resolution], template.affine(resolution)
    assert np.linalg.det(affine) > 0
    assert (np.diag(affine)[:3] == resolution).all()
    centre = affine @ [*((np.array(shape) - 1) / 2), 1]
    np.testing.assert_allclose(centre[:3], template.BOX_ORIGIN + (np.array(template.BOX_SHAPE) - 1) / 2)
    assert (np.array(shape) * resolution >= np.array(template.BOX_SHAPE) - 1).all()


def test_a_file_is_a_valid_nifti(models, tmp_path):
    for resolution, model in models.items():
        volume = person(model, "a")
        model.save(volume, tmp_path / "a.nii.gz")
        image = nib.load(tmp_path / "a.nii.gz")
        assert image.shape == template.SHAPES[resolution]
        assert image.get_data_dtype() == np.int16
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        assert image.header["sform_code"] == image.header["qform_code"] == 4
        np.testing.assert_array_equal(image.affine, template.affine(resolution))
        stored = np.asarray(image.dataobj)
        np.testing.assert_allclose(stored, volume * 1000, atol=0.5)
        assert 0.1 < (stored != 0).mean() < 0.4
        assert not stored[[0, -1]].any() and not stored[:, :, -1].any()
        np.testing.assert_array_equal(stored != 0, volume != 0)
        first = (tmp_path / "a.nii.gz").read_bytes()
        model.save(volume, tmp_path / "b.nii.gz")
        assert (tmp_path / "b.nii.gz").read_bytes() == first


def test_a_person_does_not_depend_on_the_company(models):
    alone = person(models[8], "a")
    person(models[8], "b")
    np.testing.assert_array_equal(person(models[8], "a"), alone)
    assert np.abs(person(models[8], "b") - alone).max() > 0.1


def test_anatomy_is_the_same_at_every_resolution(models):
    """Two people, averaged 4 mm -> 8 mm: each looks like their own 8 mm scan, not like the other's. The grids are
    concentric and the coarse one is as large, so its voxels are whole 2 x 2 x 2 blocks of the fine one."""
    config = BrainConfig(noise=0.0)
    fine = {name: person(models[4], name, config) for name in "abc"}
    coarse = {name: person(models[8], name, config) for name in "abc"}
    sums = {name: v.reshape(24, 2, 28, 2, 24, 2).mean((1, 3, 5)) for name, v in fine.items()}
    both = np.all([v > 0 for v in (*sums.values(), *coarse.values())], axis=0)
    fine_mean, coarse_mean = (np.mean(list(group.values()), 0)[both] for group in (sums, coarse))
    for name in "abc":
        alike = {
            other: np.corrcoef(sums[name][both] - fine_mean, coarse[other][both] - coarse_mean)[0, 1] for other in "abc"
        }
        assert alike.pop(name) > 0.8 > max(alike.values())


def test_factors_do_what_their_names_say(models):
    model = models[4]
    brain = {sign: (one(model, "size", sign) > 0).sum() for sign in (-2, 0, 2)}
    assert brain[-2] < brain[0] < brain[2]
    dark = {sign: (lambda v: ((v > 0) & (v < 0.4)).sum())(one(model, "ventricles", sign)) for sign in (-2, 2)}
    assert dark[-2] < dark[2]
    grown = one(model, "int_gm", 2) - one(model, "int_gm", -2)
    assert grown.min() > -1e-3 and grown.max() > 0.1
    assert one(model, "thick_global", 2).mean() > one(model, "thick_global", -2).mean()


def test_pose_moves_the_head_by_what_it_says(models):
    model = models[4]
    moved = Scan(np.zeros(3), np.array([0.0, 4.0, 0.0]), 0.0, 1.0, 0.0, 0.0, 0.0)
    at, away = (model.render(np.zeros(K), scan, np.random.default_rng(0)) for scan in (STILL, moved))
    np.testing.assert_allclose(away[:, :-1], at[:, 1:], atol=1e-4)  # one voxel: the place shows what stood 4 mm on


def test_every_factor_has_a_map_and_an_amplitude():
    assert tuple(factors.AMPLITUDES) == factors.NAMES
    maps = factors.FactorMaps.build(template.Template.load(), factors.AMPLITUDES)
    moves = np.stack([value.any(1) for value in vars(maps).values()])
    assert (moves.sum(0) == 1).all()


def test_amplitudes_give_the_shares_they_were_calibrated_to():
    """An eighth of the people of `calibrate`, so a quarter of tolerance; a wrong table is off by factors."""
    reached = calibrate.shares(factors.AMPLITUDES, people=24)
    ratio = np.array([reached[name] / factors.SHARES[name] * 100 for name in factors.NAMES])
    assert ratio.min() > 0.75 and ratio.max() < 1.25, dict(zip(factors.NAMES, ratio.round(2), strict=True))


def test_bspline_matrices_reproduce_lines():
    matrix = template.bspline_matrix(np.linspace(20, 60, 9), 0.0, 8.0, 12)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(matrix @ (8.0 * np.arange(12)), np.linspace(20, 60, 9), rtol=1e-5)


def test_spread_is_the_separable_product():
    rng = np.random.default_rng(0)
    low, (mx, my, mz) = rng.random((2, 3, 4, 5)), (rng.random((6, 3)), rng.random((7, 4)), rng.random((8, 5)))
    np.testing.assert_allclose(spread(low, [mx, my, mz]), np.einsum("cijk,xi,yj,zk->cxyz", low, mx, my, mz))
