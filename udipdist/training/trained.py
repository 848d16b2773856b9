"""A finished training opened again: its network, a store of volumes, and what the one reads of the other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpc.checkpoint import Checkpoints
from hpc.errors import InputError
from udipdist.config import TrainConfig
from udipdist.models import base, registry
from udipdist.training.run_folder import IMAGES
from udipdist.volumes.description import Description
from udipdist.volumes.packed import Tokens, Unpacked, find
from udipdist.volumes.store import VolumeStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Opened:
    """A network in evaluation mode, and the store it is to look at; `rows` [N] are those of its readable subjects."""

    network: base.Encoder
    store: VolumeStore
    tokens: Tokens
    rows: np.ndarray
    recipe: TrainConfig
    checkpoint: Path


def open_trained(
    run_dir: Path,
    checkpoint: str,
    store: Path,
    modality: str | None = None,
    batch: int | None = None,
    allow: Sequence[str] = (),
) -> Opened:
    """The network of a checkpoint and a store, checked against each other.

    The tokens are packed where a training has left them so; for reading each subject once, packing does not pay.
    `batch`, subjects at once, is for the warning about the published network. `allow`: in what the images may differ
    from those of the training (Description.differences). Raises InputError where the checkpoint is not there, its
    network gives no latents, or the store's volumes are not like those it was trained on.
    """
    path = run_dir / "config.yaml"
    if not path.exists():
        raise InputError(f"{path}: is missing, so {run_dir} is not a training run; give run_dir=FOLDER_OF_TRAIN")
    recipe = TrainConfig.load(path)
    folder = Checkpoints(run_dir / "checkpoints").find(checkpoint)
    network = registry.load(recipe.model, folder / base.WEIGHTS)
    if not isinstance(network, base.Encoder):
        raise InputError(
            f"{run_dir}: its network, model.name={recipe.model.name}, gives no latents; give another run_dir="
        )
    if network.batch_dependent:
        log.warning(
            "%s is the published network: the latents of a subject depend on the others of its batch%s and on "
            "the number of ranks",
            run_dir,
            "" if batch is None else f" (batch={batch})",
        )
    volumes = VolumeStore.open(store, modality)
    expected = tuple(network.patcher.mask.shape)
    if tuple(volumes.shape) != expected:
        raise InputError(
            f"{store}: its volumes are {_by(volumes.shape)}, but the network of {run_dir} was trained on "
            f"{_by(expected)}; ingest volumes of that shape, or train on this store"
        )
    _require_alike(run_dir, recipe, volumes, store, allow)
    gather = network.gather()
    tokens = find(volumes, gather, recipe.data.packed) or Unpacked(volumes, gather)
    return Opened(network, volumes, tokens, np.flatnonzero(volumes.valid), recipe, folder)


def _require_alike(run_dir: Path, recipe: TrainConfig, volumes: VolumeStore, store: Path, allow: Sequence[str]) -> None:
    """Raises InputError where a store's images differ from those of a training in more than `allow`."""
    learnt = _learnt(run_dir, recipe)
    if learnt is None or not volumes.valid.any():
        return
    found = learnt.differences(Description.of(volumes))
    if not set(found) <= set(allow):
        raise InputError(
            f"{store}: its images are not like those that the network of {run_dir} was trained on. They have "
            f"{' and '.join(found.values())}. Give a store of images that are made as those of the training, or type "
            f"allow=[{', '.join(found)}] to go on all the same"
        )
    if found:
        words = " and ".join(found.values())
        log.warning("%s: its images are not like those of the training, as allowed: they have %s", store, words)


def _learnt(run_dir: Path, recipe: TrainConfig) -> Description | None:
    """What the images of a training were like. An older run does not say it: then its store does, if it is there."""
    if (run_dir / IMAGES).exists():
        return Description.load(run_dir / IMAGES)
    try:
        return Description.of(VolumeStore.open(recipe.store, recipe.modality))
    except InputError:  # it has moved
        pass
    log.warning(
        "%s: does not say what its images were like, as older runs, and its store %s cannot be opened: only the shape "
        "of the images is compared",
        run_dir,
        recipe.store,
    )
    return None


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
