"""Loss, SSIM and PSNR against slow and obvious versions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from udipdist.models.losses import psnr, reconstruction_loss, ssim


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Volumes [2, 9, 11, 8] with background, and noisy copies with junk in the background."""
    rng = np.random.default_rng(0)
    volumes = rng.standard_normal((2, 9, 11, 8))
    volumes[0, :2] = 0
    volumes[1, :, :, 5:] = 0
    noisy = volumes + 0.5 * rng.standard_normal(volumes.shape)
    return torch.from_numpy(volumes), torch.from_numpy(noisy)


def slow_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, voxel by voxel."""
    brain = x != 0
    y = np.where(brain, y, 0)
    span = x[brain].max() - x[brain].min()
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    values = []
    for i, j, k in np.argwhere(brain):
        window = tuple(slice(max(0, c - 3), c + 4) for c in (i, j, k))
        a, b = x[window].ravel(), y[window].ravel()
        cov = np.cov(a, b)
        values.append(
            (2 * a.mean() * b.mean() + c1) * (2 * cov[0, 1] + c2)
            / ((a.mean() ** 2 + b.mean() ** 2 + c1) * (cov[0, 0] + cov[1, 1] + c2))
        )  # fmt: skip
    return float(np.mean(values))


def test_ssim_equals_the_definition(pair):
    expected = [slow_ssim(x.numpy(), y.numpy()) for x, y in zip(*pair, strict=True)]
    np.testing.assert_allclose(ssim(*pair).numpy(), expected, rtol=1e-10)
    single = ssim(pair[0].float(), pair[1].float())
    np.testing.assert_allclose(single.numpy(), expected, rtol=1e-4)


def test_a_perfect_reconstruction():
    volumes = torch.randn(2, 8, 8, 8)
    np.testing.assert_allclose(ssim(volumes, volumes).numpy(), 1, rtol=1e-6)
    assert torch.isinf(psnr(volumes, volumes)).all()


def test_psnr_equals_the_definition(pair):
    for x, y, value in zip(*pair, psnr(*pair), strict=True):
        brain = x != 0
        expected = 10 * torch.log10((x[brain].max() - x[brain].min()) ** 2 / ((x - y)[brain] ** 2).mean())
        torch.testing.assert_close(value, expected)


def test_loss_counts_brain_voxels_or_whole_patches():
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [2.0, 3.0]]])  # one brain voxel, an empty patch, two
    reconstruction = tokens + torch.tensor([[[1.0, 2.0], [9.0, 9.0], [3.0, 4.0]]])
    assert reconstruction_loss(tokens, reconstruction, "brain").tolist() == pytest.approx([(1 + 9 + 16) / 3])
    assert reconstruction_loss(tokens, reconstruction, "patch").tolist() == [(1 + 4 + 9 + 16) / 4]


def test_a_subjects_loss_does_not_depend_on_the_batch():
    tokens, reconstruction = torch.randn(5, 6, 7), torch.randn(5, 6, 7)
    tokens[1, :4] = 0
    for kind in ("brain", "patch"):
        together = reconstruction_loss(tokens, reconstruction, kind)
        apart = [reconstruction_loss(tokens[i : i + 1], reconstruction[i : i + 1], kind)[0] for i in range(5)]
        torch.testing.assert_close(together, torch.stack(apart))
