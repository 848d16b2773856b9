"""What every look at a network shares: opening it, feeding it subjects, and giving maps back as NIfTI."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from hpc.comm import Comm
from hpc.errors import ConfigError, InputError, some
from hpc.files import publish
from hpc.world import World
from udipdist.config.interpret import OfNetwork
from udipdist.models.base import Autoencoder
from udipdist.models.layers.tokens import foreground
from udipdist.training.feed import Subjects, require_brain
from udipdist.training.trained import Opened, open_trained
from udipdist.volumes.store import VolumeStore

BRAIN_SHARE = 0.5  # where fewer of the subjects have brain, no loss has taught a decoder what to draw


def open_network(config: OfNetwork) -> Opened:
    """The network of a run, float32 in evaluation mode, on this process's device, its weights fixed; and the store.

    Raises InputError where the checkpoint is not there, the store's volumes are not those it was trained on, or none of
    them can be read.
    """
    opened = open_trained(config.run_dir, config.checkpoint, config.store, config.modality, None, config.allow)
    if not len(opened.rows):
        raise InputError(f"{config.store}: has no readable volume; ingest the scans again")
    opened.network.float().requires_grad_(False).to(Comm(World.detect(os.environ)).device())
    return opened


def decoder(opened: Opened, run_dir: object) -> Autoencoder:
    """The network, which can decode latents. Raises InputError where it cannot."""
    if isinstance(opened.network, Autoencoder):
        return opened.network
    raise InputError(f"{run_dir}: its network cannot decode latents; give run_dir= of an autoencoder")


def draw(opened: Opened, n: int, seed: int, least: int = 1) -> np.ndarray:
    """Rows of the store of `n` readable subjects, drawn by `seed`, ascending; all where there are fewer.

    Raises InputError where there are not even `least`.
    """
    rows = opened.rows
    if len(rows) < least:
        raise InputError(f"{opened.store.path}: has {len(rows)} readable subject; this needs {least} or more")
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


@dataclass(frozen=True, eq=False)
class Survey:
    """What some subjects are like. In the network's form: their mean brain, each voxel over those who have it, and the
    share of them who do, float64; and their latents float32 [N, L]. All on the network's device."""

    mean: Tensor
    share: Tensor
    latents_NL: Tensor


@torch.no_grad()
def survey(opened: Opened, rows: np.ndarray, batch: int) -> Survey:
    """Read and encode these rows of the store, one or more."""
    total = count = torch.zeros((), dtype=torch.float64)
    latents = []
    for _, prepared in batches(opened, rows, batch):
        total = total.to(prepared.device) + prepared.double().sum(dim=0)
        count = count.to(prepared.device) + foreground(prepared).double().sum(dim=0)
        latents.append(opened.network.encode(prepared))
    return Survey(total / count.clamp(min=1), count / len(rows), torch.cat(latents))


def require_latents(wanted: Sequence[int], count: int, key: str = "latents") -> None:
    """Raises ConfigError for a number that the network, which has `count` latents, does not have, or that comes
    twice."""
    wrong = [str(k) for k in wanted if k >= count]
    if wrong:
        raise ConfigError(f"{key}: the network has no {some(wrong)}; its numbers are 0 to {count - 1}")
    if len(set(wanted)) < len(wanted):
        raise ConfigError(f"{key}={list(wanted)}: give each number once")


def choose_latents(wanted: Sequence[int], top: int, sd_L: np.ndarray, key: str = "latents") -> list[int]:
    """The numbers `wanted`, or where there are none the `top` of the largest standard deviation, that first.

    Raises ConfigError as `require_latents`.
    """
    require_latents(wanted, len(sd_L), key)
    return list(wanted) or np.argsort(-sd_L, kind="stable")[:top].tolist()


def to_nifti(volume_xyz: np.ndarray, store: VolumeStore, path: Path) -> None:
    """Write [x, y, z] as float32 NAME.nii.gz with the affine of the store's first readable subject, whole or not at
    all; the same volume is the same file."""
    image = nib.Nifti1Image(volume_xyz.astype(np.float32), store.affine(int(np.argmax(store.valid))))
    image.header.set_xyzt_units("mm")
    with publish(path) as partial:
        partial.write_bytes(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))
