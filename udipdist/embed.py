"""A checkpoint and a volume store to the latents table, in evaluation mode.

A subject's numbers depend on that subject and the checkpoint only. Floating-point sums depend on how a matrix product
is blocked, and so on the batch, in their last digits; in float64 that difference is far below a float32, in which
the table is written.
"""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hpc import stage
from hpc.checkpoint import Checkpoints
from hpc.comm import Comm
from hpc.errors import ConfigError, InputError, some
from hpc.files import publish
from hpc.progress import Progress
from hpc.world import World
from udipdist import models
from udipdist.config import EmbedConfig, TrainConfig
from udipdist.training.feed import Subjects, require_brain
from udipdist.volumes.packed import Tokens, Unpacked, find
from udipdist.volumes.store import VolumeStore

log = logging.getLogger(__name__)


def embed(config: EmbedConfig) -> None:
    """Write latents.parquet (FID IID z000 .. float32) and a .pheno beside it. Call it on every rank.

    Raises InputError where the checkpoint is not there or the store's volumes are not those it was trained on.
    """
    if config.out.suffix not in (".parquet", ".pq"):
        raise ConfigError(f"out={config.out}: a latents table is named NAME.parquet")
    comm = Comm.join(World.detect(os.environ))
    network, store, tokens = _open(config)
    rows = np.flatnonzero(store.valid)
    left_out = [store.subjects[row] for row in np.flatnonzero(~store.valid)]
    if left_out:
        log.warning("%d subjects without a readable volume have no latents: %s", len(left_out), some(left_out))
    inputs = {"run_dir": config.run_dir, "store": config.store}
    with ExitStack() as stack:
        made: list[stage.Stage] = []
        opened = stage.stage("embed", config.out, config, inputs, config.overwrite)
        comm.on_main(lambda: made.append(stack.enter_context(opened)))
        parts = comm.gather(_latents(network, tokens, rows[comm.rank :: comm.size], config, comm))
        if comm.is_main:
            latents = np.empty((len(rows), parts[0].shape[1]), np.float32)
            for rank, part in enumerate(parts):
                latents[rank :: comm.size] = part
            _write(_table(latents, store, rows), config.out)
            made[0].note(subjects=len(rows), latents=latents.shape[1], left_out=left_out, checkpoint=config.checkpoint)


def preview(config: EmbedConfig) -> list[str]:
    """What would be embedded, with which checkpoint."""
    network, store, _ = _open(config)
    return [
        f"checkpoint: {_folder(config)}, {models.count_parameters(network):,} parameters",
        f"subjects: {int(np.sum(store.valid)):,} of {len(store):,}",
        f"writes: {config.out} and {config.out.with_suffix('.pheno')}",
    ]


def _folder(config: EmbedConfig) -> Path:
    return Checkpoints(config.run_dir / "checkpoints").find(config.checkpoint)


def _open(config: EmbedConfig) -> tuple[models.Autoencoder, VolumeStore, Tokens]:
    """The network in evaluation mode and the store, checked against each other, and what the one reads of the other:
    packed where a training has left it so; for reading each subject once, packing does not pay."""
    recipe = config.run_dir / "config.yaml"
    if not recipe.exists():
        raise InputError(f"{recipe}: is missing, so {config.run_dir} is no training run; give run_dir=FOLDER_OF_TRAIN")
    trained = TrainConfig.load(recipe)
    network = models.load(trained.model, _folder(config) / models.WEIGHTS)
    if trained.model.compat:
        log.warning(
            "%s is the published network: the latents of a subject depend on the others of its batch (batch=%d) and on "
            "the number of ranks",
            config.run_dir,
            config.batch,
        )
    store = VolumeStore.open(config.store, config.modality)
    expected = tuple(network.patcher.mask.shape)
    if tuple(store.shape) != expected:
        raise InputError(
            f"{config.store}: its volumes are {_by(store.shape)}, but the network of {config.run_dir} was trained on "
            f"{_by(expected)}; ingest volumes of that shape, or train on this store"
        )
    gather = network.gather()
    return network, store, find(store, gather, trained.data.packed) or Unpacked(store, gather)


def _latents(
    network: models.Autoencoder, tokens: Tokens, rows: np.ndarray, config: EmbedConfig, comm: Comm
) -> np.ndarray:
    """Latents [N, L] float32 of these rows of the store. Raises InputError that names a subject without brain."""
    device = comm.device()
    sharers = comm.sharers()
    torch.set_num_threads(config.threads or max(1, len(os.sched_getaffinity(0)) // sharers))
    network = network.double().to(device)
    latents = np.empty((len(rows), network.latent), np.float32)
    parts = [rows[start : start + config.batch] for start in range(0, len(rows), config.batch)]
    stream = Subjects(tokens, rows, device, sharers=sharers).stream(parts)
    done = 0
    with torch.no_grad(), Progress("embed", len(rows) if comm.is_main else 0, "subjects") as progress:
        for part, prepared in zip(parts, stream, strict=True):
            require_brain(prepared, [tokens.subjects[row] for row in part], config.store)
            latents[done : done + len(part)] = network.encode(prepared.double()).float().cpu().numpy()
            done += len(part)
            if comm.is_main:
                progress.advance(len(part))
    return latents


def _table(latents: np.ndarray, store: VolumeStore, rows: np.ndarray) -> pd.DataFrame:
    table = pd.DataFrame(latents, columns=[f"z{k:03d}" for k in range(latents.shape[1])])
    table.insert(0, "FID", [store.fids[row] for row in rows])
    table.insert(1, "IID", [store.subjects[row] for row in rows])
    return table


def _write(table: pd.DataFrame, out: Path) -> None:
    with publish(out.with_suffix(".pheno")) as partial:
        table.to_csv(partial, sep=" ", index=False, float_format="%.9g")
    with publish(out) as partial:
        table.to_parquet(partial, index=False)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
