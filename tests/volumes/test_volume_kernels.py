"""Foreground moments and z-scores against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from udipdist.volumes import kernels


def volume(dtype, seed=0, shape=(21, 30, 17)):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.4, rng.integers(1, 120, shape), 0).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
@pytest.mark.parametrize(("slope", "inter"), [(1.0, 0.0), (0.25, 0.0), (0.0731, -3.5), (2.0, -40.0)])
def test_moments_and_zscore(dtype, slope, inter):
    raw = volume(dtype)
    scaled = raw.astype(np.float64) * slope + inter
    foreground = scaled != 0
    counts = np.full(raw.shape, 7, np.uint16)
    n, mean, std = kernels.foreground_moments(raw, slope, inter, counts)
    assert n == foreground.sum()
    assert mean == pytest.approx(scaled[foreground].mean(), rel=1e-13)
    assert std == pytest.approx(scaled[foreground].std(), rel=1e-13)
    np.testing.assert_array_equal(counts, 7 + foreground)
    out = np.empty(raw.shape, np.float32)
    kernels.zscore(raw.reshape(-1), slope, inter, mean, std, out.reshape(-1))
    expected = np.where(foreground, (scaled - mean) / std, 0)
    np.testing.assert_allclose(out, expected, rtol=2e-7, atol=1e-9)
    assert (out[~foreground] == 0).all()


def test_a_large_offset_costs_no_precision():
    raw = np.where(volume("int16") > 0, volume("float64") + 1e9, 0)
    _, mean, std = kernels.foreground_moments(raw, 1.0, 0.0, np.zeros(raw.shape, np.int32))
    assert mean == pytest.approx(raw[raw != 0].mean(), rel=1e-14)
    assert std == pytest.approx(volume("float64")[raw != 0].std(), rel=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e200])
def test_values_that_are_not_finite_are_not_counted(wrong):
    counts = np.zeros((21, 30, 17), np.int32)
    raw = volume("float64")
    raw[3, 4, 5] = wrong
    assert not np.isfinite(kernels.foreground_moments(raw, 1.0, 0.0, counts)[2])
    assert not counts.any()


def test_empty_and_constant_volumes_are_not_counted():
    counts = np.zeros((21, 30, 17), np.int32)
    n, mean, std = kernels.foreground_moments(np.zeros(counts.shape), 1.0, 0.0, counts)
    assert n == 0 and np.isnan(mean) and np.isnan(std)
    constant = (volume("float64") > 0) * 0.1
    assert kernels.foreground_moments(constant, 1.0, 0.0, counts) == ((constant > 0).sum(), 0.1, 0.0)
    assert not counts.any()
