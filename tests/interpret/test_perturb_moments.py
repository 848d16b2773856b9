"""Streamed moments against scipy on all differences at once; memory constant in the subjects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from udipdist.interpret.moments import PairedMoments

SHAPE = (3, 4)


def pairs(n: int = 57, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    plain = rng.standard_normal((n, *SHAPE)) * 3
    return plain, plain + offset + rng.standard_normal((n, *SHAPE)) * rng.uniform(0.01, 2, SHAPE)


def streamed(differences: np.ndarray, batch: int) -> PairedMoments:
    moments = PairedMoments(SHAPE, torch.device("cpu"))
    for start in range(0, len(differences), batch):
        moments.add(torch.from_numpy(differences[start : start + batch]))
    return moments


@pytest.mark.parametrize("batch", [1, 2, 16, 57, 100])
@pytest.mark.parametrize("offset", [0.3, 1e5])
def test_t_is_that_of_all_subjects_at_once(batch, offset):
    plain, shifted = pairs(offset=offset)
    moments = streamed(shifted - plain, batch)
    assert moments.n == 57
    expected = stats.ttest_1samp(shifted - plain, 0.0).statistic
    np.testing.assert_allclose(moments.t(0.0).numpy(), expected, rtol=1e-10)
    np.testing.assert_allclose(moments.sd().numpy(), (shifted - plain).std(axis=0, ddof=1), rtol=1e-10)
    np.testing.assert_allclose(streamed(shifted - plain, 57).t(0.0).numpy(), stats.ttest_rel(shifted, plain).statistic)


def test_differences_of_float32_are_summed_in_float64():
    differences = (1.0 + 1e-4 * np.random.default_rng(0).standard_normal((400, *SHAPE))).astype(np.float32)
    moments = streamed(differences, 7)
    np.testing.assert_allclose(moments.sd().numpy(), differences.astype(np.float64).std(axis=0, ddof=1), rtol=1e-9)


def test_a_change_without_spread_has_a_finite_t():
    differences = np.zeros((20, *SHAPE))
    differences[:, 0] = 0.5
    t = streamed(differences, 6).t(1e-3).numpy()
    np.testing.assert_allclose(t[0], 0.5 * np.sqrt(20) / 1e-3)
    np.testing.assert_array_equal(t[1:], 0)


def test_a_batch_that_was_taken_is_left_as_it_was():
    batch = torch.arange(12.0, dtype=torch.float64).reshape(1, *SHAPE)
    moments = PairedMoments(SHAPE, torch.device("cpu"))
    moments.add(batch)
    np.testing.assert_array_equal(batch.numpy().ravel(), np.arange(12.0))


def test_nothing_grows_with_the_subjects():
    few, many = streamed(pairs(10)[0], 5), streamed(pairs(57)[0], 5)

    def held(moments: PairedMoments) -> int:
        return sum(v.numel() for v in vars(moments).values() if isinstance(v, torch.Tensor))

    assert held(few) == held(many) == 2 * np.prod(SHAPE)
