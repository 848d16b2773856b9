"""The survey of a volume, and z-scores, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from udipdist.volumes import kernels, quality

SHAPE = (21, 30, 17)  # z, y, x


def volume(dtype, seed=0, shape=SHAPE):
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(shape) < 0.4, rng.integers(1, 120, shape), 0)
    values[:, 3] = 0  # rows without foreground
    return values.astype(dtype)


def blocks(shape=SHAPE, edge=4):
    z, y, x = quality.thumbnail_offset(shape[::-1], edge)[::-1]
    return kernels.Blocks(edge, (z, y, x), quality.thumbnail_shape(shape[::-1], edge)[::-1])


def survey(raw, slope=1.0, inter=0.0, flips=(False, False, False), counts=None, mask=None, edge=4):
    counts = np.zeros(raw.shape, np.uint16) if counts is None else counts
    return kernels.survey(raw, flips, slope, inter, counts, mask, blocks(raw.shape, edge))


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "uint64", "float32", "float64"])
@pytest.mark.parametrize("scale", [(1.0, 0.0), (0.25, 0.0), (0.0731, -3.5), (2.0, -40.0), (-0.5, 7.0), (1.0, 1024.0)])
@pytest.mark.parametrize("flips", [(False, False, False), (True, False, True), (False, True, False)])
def test_survey(dtype, scale, flips):
    stored, mask = volume(dtype), volume("bool", 1)
    expected = stored[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    scaled = expected.astype(np.float64) * scale[0] + scale[1]
    foreground = np.abs(scaled) >= abs(scale[0]) / 2 if stored.dtype.kind in "iu" else scaled != 0
    counts = np.full(stored.shape, 7, np.uint16)
    raw, found = survey(stored, *scale, flips, counts, mask)
    np.testing.assert_array_equal(raw, expected)
    assert found.n == foreground.sum() and found.inside == (foreground & mask).sum()
    assert found.mean == pytest.approx(scaled[foreground].mean(), rel=1e-13, abs=1e-13)
    assert found.std == pytest.approx(scaled[foreground].std(), rel=1e-13)
    np.testing.assert_array_equal(counts, 7 + foreground)
    z = np.where(foreground, (scaled - found.mean) / found.std, 0)
    np.testing.assert_allclose(found.thumbnail, quality.thumbnail(z.T, 4), rtol=1e-5, atol=1e-7)
    assert found.thumbnail.flags.c_contiguous and found.thumbnail.dtype == np.float32


@pytest.mark.parametrize("edge", [1, 5, 40])
def test_blocks_of_other_sizes(edge):
    raw, found = survey(volume("int16"), edge=edge)
    z = np.where(raw != 0, (raw - found.mean) / found.std, 0)
    np.testing.assert_allclose(found.thumbnail, quality.thumbnail(z.T, edge), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint8", "int8"])
def test_integers_are_summed_exactly(dtype):
    """The largest values there are, over more voxels than 32 bits hold the sum of."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    raw = np.random.default_rng(2).choice(np.array([low, high, high - 1], dtype), (64, 64, 64))
    _, found = survey(raw, edge=8)
    values = [int(v) for v in raw.reshape(-1) if v]
    mean = sum(values) / len(values)
    assert found.mean == pytest.approx(mean, rel=1e-15)
    exact = (len(values) * sum(v * v for v in values) - sum(values) ** 2) / len(values) ** 2
    assert found.std == pytest.approx(exact**0.5, rel=1e-15)


def test_a_large_offset_costs_no_precision():
    raw = np.where(volume("int16") > 0, volume("float64") + 1e9, 0)
    _, found = survey(raw)
    assert found.mean == pytest.approx(raw[raw != 0].mean(), rel=1e-14)
    assert found.std == pytest.approx(volume("float64")[raw != 0].std(), rel=1e-6)


@pytest.mark.parametrize("offset", [1e6, -3e7])
def test_a_guess_of_the_mean_that_is_far_off(offset):
    """Only rows that the guess does not look at hold the brain."""
    raw = volume("float64")
    raw[1::2] += np.where(raw[1::2] != 0, offset, 0)
    raw[::2] *= raw[::2] == 1
    raw[0, 2, 0] = 1.0
    counts = np.zeros(raw.shape, np.uint16)
    _, found = survey(raw, counts=counts)
    values = raw[raw != 0]
    assert found.mean == pytest.approx(values.mean(), rel=1e-13)
    assert found.std == pytest.approx(values.std(), rel=1e-12)
    np.testing.assert_array_equal(counts, raw != 0)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e200])
@pytest.mark.parametrize("place", [(3, 4, 5), (0, 0, 0)])  # beside and among what the mean is guessed from
def test_values_that_are_not_finite_are_not_counted(wrong, place):
    counts = np.zeros(SHAPE, np.int32)
    raw = volume("float64")
    raw[place] = wrong
    _, found = survey(raw, counts=counts)
    assert not np.isfinite(found.std) and found.thumbnail is None
    assert not counts.any()


def test_empty_and_constant_volumes_are_not_counted():
    counts = np.zeros(SHAPE, np.int32)
    for dtype in ("int16", "float64"):
        _, found = survey(np.zeros(SHAPE, dtype), counts=counts)
        assert found.n == 0 and np.isnan(found.mean) and np.isnan(found.std) and found.thumbnail is None
    for constant in ((volume("float64") > 0) * 0.1, (volume("int16") > 0).astype("int16")):
        _, found = survey(constant, counts=counts)
        assert (found.n, found.mean, found.std) == ((constant > 0).sum(), constant.max(), 0)
        assert found.thumbnail is None
    _, found = survey(volume("int16"), 1e-20, 1.0, counts=counts)  # different only before they are scaled
    assert (found.mean, found.std, found.thumbnail) == (1, 0, None)
    assert not counts.any()


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_zscore(dtype):
    raw = volume(dtype)
    out = np.empty(raw.size, np.float32)
    kernels.zscore(raw.reshape(-1), 0.5, -3.0, 20.0, 7.0, 0.0, out)
    scaled = raw.reshape(-1) * 0.5 - 3.0
    expected = np.where(scaled != 0, (scaled - 20.0) / 7.0, 0)
    np.testing.assert_allclose(out, expected, rtol=2e-7, atol=1e-9)
    assert (out[scaled == 0] == 0).all()


def test_other_shapes_are_refused():
    for counts, mask in ((np.zeros((2, 2, 2), np.uint8), None), (np.zeros(SHAPE, np.uint8), np.ones((2, 2, 2), bool))):
        with pytest.raises(ValueError, match="a volume of"):
            survey(volume("int16"), counts=counts, mask=mask)
