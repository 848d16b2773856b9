"""A checkpoint and a volume store to the latents table, in evaluation mode.

A subject's numbers depend on that subject and the checkpoint only. Floating-point sums depend on how a matrix product
is blocked, and so on the batch, in their last digits; in float64 that difference is far below a float32, in which
the table is written.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import ExitStack

import numpy as np
import torch

from hpc import stage
from hpc.checkpoint import META
from hpc.comm import Comm
from hpc.errors import ConfigError, InputError, some
from hpc.progress import Progress
from hpc.threads import share
from hpc.world import World
from udipdist.config import EmbedConfig
from udipdist.latents import latents_table, write_latents
from udipdist.models import base
from udipdist.training.feed import Subjects, require_brain
from udipdist.training.trained import Opened, open_trained
from udipdist.volumes.packed import Tokens
from udipdist.volumes.store import VolumeStore

log = logging.getLogger(__name__)


def embed(config: EmbedConfig) -> None:
    """Write latents.parquet (FID IID z000 .. float32) and a .pheno beside it. Call it on every rank.

    Raises InputError where the checkpoint is not there or the store's volumes are not those it was trained on.
    """
    if config.out.suffix not in (".parquet", ".pq"):
        raise ConfigError(f"out={config.out}: a latents table is named NAME.parquet")
    comm = Comm.join(World.detect(os.environ))
    opened = _open(config)
    store, rows = opened.store, opened.rows
    if comm.is_main:
        _warn_of_training(config, opened)
    left_out = [store.subjects[row] for row in np.flatnonzero(~store.valid)]
    if left_out:
        log.warning("%d subjects without a readable volume have no latents: %s", len(left_out), some(left_out))
    inputs = {"run_dir": config.run_dir, "store": config.store}
    with ExitStack() as stack:
        made: list[stage.Stage] = []
        begun = stage.stage("embed", config.out, config, inputs, config.overwrite)
        comm.on_main(lambda: made.append(stack.enter_context(begun)))
        parts = comm.gather(_latents(opened.network, opened.tokens, rows[comm.rank :: comm.size], config, comm))
        latents = np.empty((len(rows), parts[0].shape[1]), np.float32)
        for rank, part in enumerate(parts):
            latents[rank :: comm.size] = part
        people = [store.fids[row] for row in rows], [store.subjects[row] for row in rows]
        comm.on_main(lambda: write_latents(latents_table(*people, latents), config.out))
        if comm.is_main:
            made[0].note(subjects=len(rows), latents=latents.shape[1], left_out=left_out, checkpoint=config.checkpoint)


def preview(config: EmbedConfig) -> list[str]:
    """What would be embedded, with which checkpoint."""
    opened = _open(config)
    return [
        f"checkpoint: {opened.checkpoint}, {base.count_parameters(opened.network):,} parameters",
        f"subjects: {len(opened.rows):,} of {len(opened.store):,}",
        f"writes: {config.out} and {config.out.with_suffix('.pheno')}",
    ]


def _open(config: EmbedConfig) -> Opened:
    return open_trained(config.run_dir, config.checkpoint, config.store, config.modality, config.batch, config.allow)


def _warn_of_training(config: EmbedConfig, opened: Opened) -> None:
    """Say where a network has not been trained to its end, and where it is shown the people that it was trained on."""
    epoch = json.loads((opened.checkpoint / META).read_text(encoding="utf-8"))["epoch"]
    if stage.read_manifest(config.run_dir) is None:
        log.warning(
            "%s: its training is not finished: this checkpoint is of epoch %d of %d; give the same train command again "
            "to go on", config.run_dir, epoch, opened.recipe.epochs,
        )  # fmt: skip
    try:
        learnt = VolumeStore.open(opened.recipe.store, opened.recipe.modality)
    except InputError:  # it has moved: nothing can be said of its people
        return
    known = set(zip(learnt.fids, learnt.subjects, strict=True))
    both = sum((opened.store.fids[row], opened.store.subjects[row]) in known for row in opened.rows)
    if both:
        log.warning(
            "%d of the %d people embedded were in the training's store: a network may have memorised them, and its "
            "latents of them are not those of new people; train on others where you can (train_volumes=)",
            both, len(opened.rows),
        )  # fmt: skip


def _latents(network: base.Encoder, tokens: Tokens, rows: np.ndarray, config: EmbedConfig, comm: Comm) -> np.ndarray:
    """Latents [N, L] float32 of these rows of the store. Raises InputError that names a subject without brain."""
    device = comm.device()
    sharers = comm.sharers()
    torch.set_num_threads(share(sharers, config.threads, comm.is_main))
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
