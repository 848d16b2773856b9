"""Volumes to tokens and back: patches of a fixed grid, only those that hold brain in the cohort's mask.

The token set comes from the store's mask, never from a batch, so a subject's tokens do not depend on its
batch-mates (the published code took the union over the batch). Shapes: B subjects, T tokens, V voxels of a patch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hpc.errors import InputError
from udipdist.volumes.packed import Gather

PAPER_PATCH = (14, 16, 14)  # of 182 x 224 x 182 voxels of 1 mm (ViT-UDIP)
BRAIN_SHARE = 0.02  # a patch with less of the cohort's mask than this is left out
WHOLE_GRID = -1.0  # the share that every patch exceeds: all patches are tokens
_DEFAULT_EDGE_MM = 32.0


def default_patch(zooms: Sequence[float]) -> tuple[int, int, int]:
    """The patch edges for voxels of `zooms` mm: the paper's at 1 mm, else the power of two that spans >= 32 mm."""
    if max(zooms) <= 1.25:
        return PAPER_PATCH
    edges = [2 ** max(1, math.ceil(math.log2(_DEFAULT_EDGE_MM / zoom) - 1e-6)) for zoom in zooms]
    return edges[0], edges[1], edges[2]


class Patcher(nn.Module):
    """Cuts [B, x, y, z] into the brain tokens [B, T, V] of a cohort mask, and puts them back.

    Volumes are padded with zeros symmetrically to multiples of the patch. `coordinates` [T, 3] are the true grid
    coordinates (in patches) of the kept tokens. Raises InputError where the mask holds no brain, or a patch is larger
    than a volume.
    """

    def __init__(self, mask: np.ndarray | Tensor, patch: tuple[int, int, int], brain_share: float = BRAIN_SHARE):
        super().__init__()
        mask = torch.as_tensor(mask, dtype=torch.bool, device="cpu")  # also where the weights are on "meta"
        self.shape: tuple[int, int, int] = tuple(mask.shape)  # type: ignore[assignment]
        if any(edge > n for edge, n in zip(patch, self.shape, strict=True)):
            raise InputError(
                f"model.patch={_by(patch)}: is larger than the volumes, which have {_by(self.shape)} voxels; type "
                f"model.patch= of at most {min(self.shape)}, or three numbers that fit"
            )
        self.patch = patch
        self.grid = tuple(-(-n // p) for n, p in zip(self.shape, patch, strict=True))
        extra = [g * p - n for n, p, g in zip(self.shape, patch, self.grid, strict=True)]
        self.before = tuple(e // 2 for e in extra)
        # F.pad wants the last axis first: (before z, after z, before y, after y, before x, after x)
        self._padding = [side for e in reversed(extra) for side in (e // 2, e - e // 2)]
        share = self._cut(mask[None].float())[0].mean(dim=1)
        index = torch.nonzero(share > brain_share)[:, 0]
        if len(index) == 0:
            raise InputError("the store's mask holds no brain; look at the volumes: is their background exactly 0?")
        self.register_buffer("mask", mask)
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("coordinates", self._coordinates(index), persistent=False)

    @property
    def tokens(self) -> int:
        """T, the number of tokens."""
        return len(self.index)

    @property
    def voxels(self) -> int:
        """V, the voxels of one patch."""
        return math.prod(self.patch)

    def forward(self, volumes: Tensor) -> Tensor:
        """[B, x, y, z] -> [B, T, V]."""
        return self._cut(volumes).index_select(1, self.index)

    def gather(self) -> Gather:
        """Which voxel of a volume each voxel of the tokens [T, V] is."""
        numbers = torch.arange(1, math.prod(self.shape) + 1).view(1, *self.shape)  # 0 stands for padding
        index = self._cut(numbers).index_select(1, self.index.cpu())[0] - 1
        return Gather(tuple(index.shape), index.flatten().numpy())

    def volumes(self, tokens: Tensor) -> Tensor:
        """[B, T, V] -> [B, x, y, z]; zero where there is no token."""
        batch = len(tokens)
        whole = tokens.new_zeros(batch, math.prod(self.grid), self.voxels)
        whole[:, self.index] = tokens
        (a, b, c), (p, q, r) = self.grid, self.patch
        padded = whole.view(batch, a, b, c, p, q, r).permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, a * p, b * q, c * r)
        starts = zip(self.before, self.shape, strict=True)
        return padded[(slice(None), *(slice(start, start + n) for start, n in starts))]

    def _cut(self, volumes: Tensor) -> Tensor:
        (a, b, c), (p, q, r) = self.grid, self.patch
        padded = F.pad(volumes, self._padding)
        cut = padded.view(len(volumes), a, p, b, q, c, r).permute(0, 1, 3, 5, 2, 4, 6)
        return cut.reshape(len(volumes), a * b * c, p * q * r)

    def _coordinates(self, index: Tensor) -> Tensor:
        _, b, c = self.grid
        return torch.stack([index // (b * c), index // c % b, index % c], dim=1)


def _by(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))


def sincos_positions(coordinates: Tensor, width: int, grid: Sequence[int]) -> Tensor:
    """Fixed sine-cosine codes [T, width] of grid coordinates [T, 3], a third of the width for each axis.

    Wavelengths go geometrically from 4 patches to 4 times the grid's longest edge, so every coordinate is told apart
    and none wraps. What the width leaves after three equal even parts is zero.
    """
    per_axis = width // 6
    if per_axis == 0:
        raise InputError(f"model.width={width}: is too small for 3-D positions; type model.width=6 or more")
    steps = torch.arange(per_axis, dtype=torch.float64, device=coordinates.device) / max(1, per_axis - 1)
    wavelengths = 4.0 * float(max(2, *grid)) ** steps
    angles = 2 * math.pi * coordinates.double()[:, :, None] / wavelengths
    codes = torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1)
    return F.pad(codes, (0, width - codes.shape[1])).float()


def foreground(tokens: Tensor) -> Tensor:
    """True for brain voxels: the background of a normalised volume is exactly 0."""
    return tokens != 0
