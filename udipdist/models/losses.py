"""What a reconstruction is judged by: the loss in the prepared form, SSIM and PSNR in the volume.

Every function returns one number a subject [B], so a mean over subjects does not depend on how they are batched.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from udipdist.models.layers.tokens import foreground

_WINDOW = 7  # voxels, and the constants below: Wang et al. 2004 with a uniform window, as scikit-image's default
_K1, _K2 = 0.01, 0.03


def reconstruction_loss(tokens: Tensor, reconstruction: Tensor, kind: Literal["brain", "patch", "batch"]) -> Tensor:
    """Mean squared error of tokens [B, T, V], a subject each [B].

    brain: over the subject's brain voxels. patch: over all voxels of its patches that are not empty. batch:
    over all voxels of the patches that are not empty in any subject of the batch, as the published code does.
    """
    counted = foreground(tokens)
    if kind == "patch":
        counted = counted.any(dim=2, keepdim=True).expand_as(tokens)
    elif kind == "batch":
        counted = counted.any(dim=2).any(dim=0)[None, :, None].expand_as(tokens)
    weight = counted.to(reconstruction.dtype)
    error = F.mse_loss(reconstruction.float(), tokens, reduction="none") * weight
    return error.sum(dim=(1, 2)) / weight.sum(dim=(1, 2))


def psnr(volumes: Tensor, reconstruction: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB over brain voxels [B]; the peak is the range of the subject's brain voxels."""
    brain = foreground(volumes)
    error = ((reconstruction - volumes) ** 2 * brain).sum(dim=(1, 2, 3)) / brain.sum(dim=(1, 2, 3))
    return 10 * (_range(volumes, brain) ** 2 / error).log10()


def ssim(volumes: Tensor, reconstruction: Tensor) -> Tensor:
    """Structural similarity in 3-D [B], averaged over the subject's brain voxels.

    Uniform window of 7 voxels with sample covariances; windows are cut off at the edge of the volume. Outside the
    brain both images are 0; the range is that of the subject's brain voxels. Wang et al. 2004, equation 13.
    """
    brain = foreground(volumes)
    x, y = volumes, reconstruction * brain
    span = _range(volumes, brain)[:, None, None, None]
    c1, c2 = (_K1 * span) ** 2, (_K2 * span) ** 2
    count = _window_sum(torch.ones_like(x[:1]))
    mean_x, mean_y = _window_sum(x) / count, _window_sum(y) / count
    spread = count / (count - 1)
    var_x = spread * (_window_sum(x * x) / count - mean_x**2)
    var_y = spread * (_window_sum(y * y) / count - mean_y**2)
    cov = spread * (_window_sum(x * y) / count - mean_x * mean_y)
    similarity = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return (similarity * brain).sum(dim=(1, 2, 3)) / brain.sum(dim=(1, 2, 3))


def _range(volumes: Tensor, brain: Tensor) -> Tensor:
    highest = volumes.masked_fill(~brain, float("-inf")).amax(dim=(1, 2, 3))
    lowest = volumes.masked_fill(~brain, float("inf")).amin(dim=(1, 2, 3))
    return highest - lowest


def _window_sum(volumes: Tensor) -> Tensor:
    """Sums over a cube around each voxel, one axis after the other; beyond the edge there is nothing."""
    for axis in (1, 2, 3):
        size, half = volumes.shape[axis], _WINDOW // 2
        padded = F.pad(volumes, [half if a == axis else 0 for a in (3, 3, 2, 2, 1, 1)])
        volumes = padded.narrow(axis, 0, size).clone()
        for shift in range(1, _WINDOW):
            volumes += padded.narrow(axis, shift, size)
    return volumes
