"""Attributions of latents to the voxels that a network reads, by captum; each is a tensor [B, K, ...] for K latents.

The reference against which a voxel counts is the mean brain of the subjects looked at, inside the subject's own brain:
latents serve as traits that tell people apart, and a network that reads brains need not have seen an empty image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from udipdist.models.base import Encoder


@dataclass(frozen=True)
class Attributor:
    """How maps are made. mean: the reference [...] in the network's form. cubes: for each shifted grid of cubes, which
    cube each place of the network's form belongs to."""

    latents: Sequence[int]
    mean: Tensor
    cubes: Sequence[Tensor]
    steps: int
    batch: int

    def __call__(self, method: str, network: Encoder, prepared: Tensor) -> Tensor:
        """Attributions [B, K, ...] of prepared subjects [B, ...]. `method` is a name of SaliencyConfig.methods."""
        return getattr(self, f"_{method}")(network, prepared)

    def reference(self, prepared: Tensor) -> Tensor:
        """The mean brain inside the brain of each subject [B, ...]."""
        return self.mean * (prepared != 0)

    def _integrated_gradients(self, network: Encoder, prepared: Tensor) -> Tensor:
        """The mean gradient along the straight path from the reference, times the difference: sums to the difference of
        the latents (Sundararajan et al. 2017), up to the quadrature, which is Gauss-Legendre."""
        from captum.attr import IntegratedGradients

        explain, reference = IntegratedGradients(network.encode), self.reference(prepared)
        maps = [
            explain.attribute(prepared, reference, target=k, n_steps=self.steps, internal_batch_size=self.batch)
            for k in self.latents
        ]
        return torch.stack(maps, dim=1).float()

    def _gradient_x_input(self, network: Encoder, prepared: Tensor) -> Tensor:
        """Value times gradient, without a reference (Shrikumar et al. 2016)."""
        from captum.attr import InputXGradient

        explain, leaf = InputXGradient(network.encode), prepared.detach().requires_grad_()
        return torch.stack([explain.attribute(leaf, target=k).detach() for k in self.latents], dim=1)

    def _occlusion(self, network: Encoder, prepared: Tensor) -> Tensor:
        """By how much a latent falls when a cube becomes the mean brain's, at each of its voxels (Zeiler & Fergus 2014,
        whose patch is grey); over several grids of cubes the mean."""
        from captum.attr import FeatureAblation

        reference, maps = self.reference(prepared), 0
        for cubes in self.cubes:

            def with_cubes(there_BC: Tensor, cubes: Tensor = cubes) -> Tensor:
                return network.encode(torch.where(there_BC[:, cubes] != 0, prepared, reference))[:, self.latents]

            there_BC = prepared.new_ones(len(prepared), int(cubes.max()) + 1)
            # Without a target captum takes every number of the output as one of its own: all K latents in one pass.
            fall = FeatureAblation(with_cubes).attribute(there_BC, feature_mask=_each(there_BC))
            maps = maps + fall.view(len(prepared), len(self.latents), -1)[:, :, cubes]
        return maps / len(self.cubes)


def _each(switches_BC: Tensor) -> Tensor:
    """Every switch is a feature, the same of all subjects."""
    return torch.arange(switches_BC.shape[1], device=switches_BC.device)[None]


def cubes_of(network: Encoder, mask: np.ndarray, edges: Sequence[int], shifts: int) -> list[Tensor]:
    """The grids of cubes of `edges` voxels, for an `Attributor`: shifts^3 of them, shifted by equal parts of an edge.

    Cubes without a voxel of the cohort's mask [x, y, z] are one, number 0, so that they cost one pass.
    """
    gather = network.gather()
    device = next(network.parameters()).device
    grids = []
    for shift in np.ndindex(shifts, shifts, shifts):
        along = [
            (np.arange(n) + s * edge // shifts) // edge for n, s, edge in zip(mask.shape, shift, edges, strict=True)
        ]
        counts = [int(a[-1]) + 1 for a in along]
        label = np.ravel_multi_index(np.meshgrid(*along, indexing="ij"), counts)
        with_brain = np.zeros(label.max() + 1, bool)
        with_brain[label[mask]] = True
        number = (with_brain * with_brain.cumsum())[label].reshape(-1)
        placed = np.where(gather.index < 0, 0, number[gather.index]).reshape(gather.shape)
        grids.append(torch.from_numpy(placed).to(device))
    return grids
