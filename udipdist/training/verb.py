"""Train an autoencoder on a volume store, through DeepSpeed, on one rank or many.

The run directory holds everything that is needed to repeat, resume or use the run: config, provenance, metrics,
checkpoints, a few reconstructions. With the same seed a resumed run gives the same bits as one never interrupted.
"""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from typing import Any

import numpy as np

from hpc import extras, memory, stage
from hpc.checkpoint import StopRequest
from hpc.comm import Comm
from hpc.engine import Batches
from hpc.errors import InputError
from hpc.progress import Progress
from hpc.world import World
from udipdist.config import TrainConfig
from udipdist.models import base, registry
from udipdist.training.feed import split
from udipdist.training.loop import Run, build
from udipdist.training.run_folder import last_checkpoint, open_run, reopen
from udipdist.volumes.packed import place_of
from udipdist.volumes.store import VolumeStore

log = logging.getLogger(__name__)


def train(config: TrainConfig) -> None:
    """Train, or go on from the last checkpoint of run_dir. Call it on every rank.

    Raises ConfigError, InputError or OutputExists before the first step; Preempted after SIGTERM or SIGUSR1 (saved).
    """
    _require_tensorboard(config)
    world = World.detect(os.environ)
    batches = Batches.split(config.global_batch, world.size, config.micro_batch)
    store, rows = _subjects(config, batches)
    resolved = _resolved(config, store)
    comm = Comm.join(world)
    with ExitStack() as stack:
        notes: list[stage.Stage] = []
        comm.on_main(lambda: reopen(config))
        comm.on_main(lambda: notes.append(stack.enter_context(_stage(config))))
        stop = stack.enter_context(StopRequest())
        comm.on_main(lambda: open_run(resolved, world, store))
        last = comm.on_main(lambda: last_checkpoint(resolved, world))
        run = Run(resolved, comm, batches, store, rows, stop)
        run.start(last)
        done, total = run.step * batches.total, run.total * batches.total
        progress = stack.enter_context(Progress("train", total if comm.is_main else 0, "subjects", done=done))
        while run.epoch < config.epochs:
            run.train_epoch(progress)
            run.close_epoch()
        run.write_reconstructions()
        if comm.is_main:
            notes[0].note(**run.facts())
        comm.barrier()


def preview(config: TrainConfig) -> list[str]:
    """What training would take: subjects, shapes, parameters, steps, memory."""
    _require_tensorboard(config)
    world = World.detect(os.environ)
    batches = Batches.split(config.global_batch, world.size, config.micro_batch)
    store, rows = _subjects(config, batches)
    network = build(_resolved(config, store), store.mask)
    gather = network.gather()
    parameters = base.count_parameters(network)
    steps = len(rows["train"]) // batches.total
    packed = len(gather.index) * store.reader.layout.dtype.itemsize * sum(map(len, rows.values()))
    shape = "x".join(map(str, store.shape))
    return [
        f"subjects: {len(rows['train']):,} train, {len(rows['validation']):,} validation, volumes {shape}",
        f"network: {config.model.name}, one subject is {gather.shape}, {parameters:,} parameters",
        f"batch: {batches.total} = {batches.micro} x {world.size} ranks x {batches.accumulation} accumulated",
        f"steps: {steps:,} an epoch, {steps * config.epochs:,} in all",
        f"packed voxels: {packed / 1e9:.2f} GB in {place_of(store, gather, config.data.packed)}",
        f"memory of a rank: {16 * parameters / 1e9:.2f} GB weights and optimiser (before ZeRO); subjects: "
        f"{packed / 1e9:.2f} GB for all ranks of a machine, which has {memory.available() / 1e9:.1f} GB left",
    ]


def _resolved(config: TrainConfig, store: VolumeStore) -> TrainConfig:
    return config.model_copy(update={"model": registry.resolve(config.model, store.zooms)})


def _require_tensorboard(config: TrainConfig) -> None:
    if config.tensorboard:
        extras.require("tensorboard=true", "tensorboard", extra="tensorboard", otherwise="tensorboard=false")


def _stage(config: TrainConfig) -> Any:
    return stage.stage("train", config.run_dir, config, {"store": config.store}, config.overwrite)


def _subjects(config: TrainConfig, batches: Batches) -> tuple[VolumeStore, dict[str, np.ndarray]]:
    """The store, and the rows to train on and to validate with. Raises InputError where there are too few."""
    store = VolumeStore.open(config.store, config.modality)
    usable = np.flatnonzero(store.valid)
    held_out = split([store.subjects[row] for row in usable], config.validation)
    rows = {"train": usable[~held_out], "validation": usable[held_out]}
    if not len(rows["train"]):
        raise InputError(
            f"{config.store}: of {len(usable)} readable subjects validation={config.validation:g} leaves none to train "
            "on; give a store with more subjects, or a smaller validation (0: nobody is held out)"
        )
    if len(rows["train"]) < batches.total:
        raise InputError(
            f"{config.store}: {len(rows['train'])} subjects to train on are fewer than global_batch={batches.total}; "
            f"type global_batch={len(rows['train'])} or less"
        )
    if config.validation > 0 and not len(rows["validation"]):
        log.warning("validation=%g selects none of the %d subjects", len(usable), config.validation)
    return store, rows
