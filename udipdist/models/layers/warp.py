"""Volumes moved by a displacement. Shapes: B volumes of x, y, z voxels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def warp(volumes: Tensor, displacement: Tensor) -> Tensor:
    """Volumes [B, x, y, z] looked at, trilinearly, from each voxel moved by a displacement [B, 3, x, y, z] in voxels.

    Beyond the edge there is background, 0.
    """
    axes = [torch.arange(n, dtype=displacement.dtype, device=displacement.device) for n in volumes.shape[1:]]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij")) + displacement
    edges = torch.tensor(volumes.shape[1:], dtype=places.dtype, device=places.device)
    # grid_sample counts from -1 to 1 between the outer faces of the volume, and names its axes last first.
    unit = (2 * places + 1) / edges[:, None, None, None] - 1
    grid = unit.flip(1).permute(0, 2, 3, 4, 1)
    return F.grid_sample(volumes[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[:, 0]
