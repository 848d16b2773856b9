"""What every look at a network shares: opening it, feeding it subjects, and giving maps back as NIfTI."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from hpc.comm import Comm
from hpc.errors import ConfigError, some
from hpc.files import publish
from hpc.world import World
from udipdist.config.interpret import OfNetwork
from udipdist.training.feed import Subjects, require_brain
from udipdist.training.trained import Opened, open_trained
from udipdist.volumes.store import VolumeStore


def open_network(config: OfNetwork) -> Opened:
    """The network of a run, float32 in evaluation mode, on this process's device, its weights fixed; and the store.

    Raises InputError where the checkpoint is not there or the store's volumes are not those it was trained on.
    """
    opened = open_trained(config.run_dir, config.checkpoint, config.store, config.modality)
    opened.network.float().requires_grad_(False).to(Comm(World.detect(os.environ)).device())
    return opened


def draw(opened: Opened, n: int, seed: int) -> np.ndarray:
    """Rows of the store of `n` readable subjects, drawn by `seed`, ascending; all where there are fewer."""
    rows = opened.rows
    if n >= len(rows):
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, n, replace=False))


def batches(opened: Opened, rows: np.ndarray, batch: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    """These rows of the store, `batch` at a time: the rows, and float32 [B, ...] in the network's form on its device.

    Raises InputError that names a subject without brain.
    """
    parts = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    device = next(opened.network.parameters()).device
    for part, prepared in zip(parts, Subjects(opened.tokens, rows, device).stream(parts), strict=True):
        require_brain(prepared, [opened.store.subjects[row] for row in part], opened.store.path)
        yield part, prepared


@torch.no_grad()
def mean_and_latents(opened: Opened, rows: np.ndarray, batch: int) -> tuple[Tensor, np.ndarray]:
    """The mean brain of these subjects in the network's form, each voxel over those who have it; and their latents
    [N, L] float64."""
    total = count = torch.zeros((), dtype=torch.float64)
    latents = []
    for _, prepared in batches(opened, rows, batch):
        total = total.to(prepared.device) + prepared.double().sum(dim=0)
        count = count.to(prepared.device) + (prepared != 0).sum(dim=0)
        latents.append(opened.network.encode(prepared).double().cpu().numpy())
    return (total / count.clamp(min=1)).float(), np.concatenate(latents)


def choose_latents(wanted: Sequence[int], top: int, sd_L: np.ndarray, key: str = "latents") -> list[int]:
    """The numbers `wanted`, or where there are none the `top` of the largest standard deviation, that first.

    Raises ConfigError for one that the network does not have, or that comes twice.
    """
    wrong = [str(k) for k in wanted if k >= len(sd_L)]
    if wrong:
        raise ConfigError(f"{key}: the network has no {some(wrong)}; its numbers are 0 to {len(sd_L) - 1}")
    if len(set(wanted)) < len(wanted):
        raise ConfigError(f"{key}={list(wanted)}: give each number once")
    return list(wanted) or np.argsort(-sd_L, kind="stable")[:top].tolist()


def to_nifti(volume_xyz: np.ndarray, store: VolumeStore, path: Path) -> None:
    """Write [x, y, z] as float32 NAME.nii.gz with the affine of the store's first readable subject, whole or not at
    all; the same volume is the same file."""
    image = nib.Nifti1Image(volume_xyz.astype(np.float32), store.affine(int(np.argmax(store.valid))))
    image.header.set_xyzt_units("mm")
    with publish(path) as partial:
        partial.write_bytes(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))
