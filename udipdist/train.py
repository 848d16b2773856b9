"""Train an autoencoder on a volume store, through DeepSpeed, on one rank or many.

The run directory holds everything that is needed to repeat, resume or use the run: config, provenance, metrics,
checkpoints, a few reconstructions. With the same seed a resumed run gives the same bits as one never interrupted.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from hpc import memory, stage
from hpc.checkpoint import Checkpoints, StopRequest
from hpc.comm import Comm
from hpc.engine import Batches, Engine, Options, precision
from hpc.errors import ConfigError, Error, InputError, Preempted
from hpc.files import publish
from hpc.progress import Progress
from hpc.world import World
from udipdist import models
from udipdist.config import TrainConfig
from udipdist.feed import Sampler, Subjects, split
from udipdist.models.losses import psnr, reconstruction_loss, ssim
from udipdist.run_folder import Metrics, last_checkpoint, open_run
from udipdist.schedules import schedule
from udipdist.volumes.packed import pack, place_of
from udipdist.volumes.store import VolumeStore

log = logging.getLogger(__name__)
_MEAN_SUBJECTS = 512  # subjects whose mean image the decoder starts from
_SHOWN = 4  # subjects in reconstructions.npz
_LINES_PER_EPOCH = 10  # training lines in metrics.jsonl


def train(config: TrainConfig) -> None:
    """Train, or go on from the last checkpoint of run_dir. Call it on every rank.

    Raises ConfigError, InputError or OutputExists before the first step; Preempted after SIGTERM or SIGUSR1 (saved).
    """
    world = World.detect(os.environ)
    batches = Batches.split(config.global_batch, world.size, config.micro_batch)
    store, rows = _subjects(config, batches)
    resolved = config.model_copy(update={"model": models.resolve(config.model, store.zooms)})
    comm = Comm.join(world)
    with ExitStack() as stack:
        notes: list[stage.Stage] = []
        comm.on_main(lambda: notes.append(stack.enter_context(_stage(config))))
        stop = stack.enter_context(StopRequest())
        comm.on_main(lambda: open_run(resolved, world))
        last = comm.on_main(lambda: last_checkpoint(resolved, world))
        run = _Run(resolved, comm, batches, store, rows, stop)
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
    world = World.detect(os.environ)
    batches = Batches.split(config.global_batch, world.size, config.micro_batch)
    store, rows = _subjects(config, batches)
    network = models.build(models.resolve(config.model, store.zooms), store.mask)
    gather = network.gather()
    parameters = models.count_parameters(network)
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


class _Run:
    """One training run: the state that changes (step, metrics, best score) and what is done to it."""

    def __init__(
        self,
        config: TrainConfig,
        comm: Comm,
        batches: Batches,
        store: VolumeStore,
        rows: dict[str, np.ndarray],
        stop: StopRequest,
    ):
        self.config, self.comm, self.batches, self.rows, self.stop = config, comm, batches, rows, stop
        self.store = store
        device = comm.device()
        sharers = comm.gather(socket.gethostname()).count(socket.gethostname())
        cores = len(os.sched_getaffinity(0))
        torch.set_num_threads(config.threads or max(1, cores // sharers))
        torch.manual_seed(config.seed)
        network = models.build(config.model, store.mask, config.engine.activation_checkpointing)
        everyone = np.sort(np.concatenate(list(rows.values())))
        about = {"network": config.model.name, "patch": config.model.patch}
        packed = comm.on_each_node(
            lambda: pack(store, network.gather(), config.data.packed, about, config.threads or cores, self._go_on)
        )
        packed.require_brain(everyone)
        local_rank = comm.world.local_rank % sharers
        self.subjects = Subjects(packed, everyone, device, config.data.resident, local_rank, sharers)
        network.set_mean(self._mean())
        network.to(device)
        self._rehearse(network, device)
        self.parameters = models.count_parameters(network)
        self.sampler = Sampler(rows["train"], batches, config.seed)
        self.total = self.sampler.steps * config.epochs
        left_out = len(self.sampler.left_out(0))
        if left_out:
            log.info(
                "each epoch leaves out %d of %d subjects, others each time: they do not fill a last batch of %d",
                left_out,
                len(rows["train"]),
                batches.total,
            )
        optim = config.optim
        try:
            optimiser = torch.optim.AdamW(
                network.parameters(), optim.lr, optim.betas, weight_decay=optim.weight_decay, fused=True
            )
        except ValueError as error:
            raise ConfigError(f"optim: {error}; the betas are 0 or more and less than 1") from None
        self.engine = Engine(
            network,
            optimiser,
            schedule(config.schedule, self.total, config.epochs),
            Options(
                batches,
                config.engine.zero,
                precision(config.engine.precision, device),
                optim.clip,
                config.engine.deepspeed,
            ),
            comm,
        )
        self.device = device
        self.checkpoints = Checkpoints(config.run_dir / "checkpoints", config.keep)
        self.metrics = Metrics(config.run_dir / "metrics.jsonl")
        self.step = 0
        self.best: float | None = None
        self.scores: dict[str, float] = {}
        self._summed, self._counted = torch.zeros((), device=device), 0  # training losses of this rank not yet recorded
        self._clock = time.monotonic()

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.step // self.sampler.steps

    def start(self, meta: dict[str, Any] | None) -> None:
        """Go on from the checkpoint that `meta` describes, or save the untrained network as step 0."""
        torch.manual_seed(self.config.seed * 1_000_003 + self.comm.rank + 1)
        if meta is None:
            self.comm.on_main(lambda: self.metrics.cut(-1))  # of a start that was killed before its first checkpoint
            self.close_epoch()
            return
        self.engine.load(self.checkpoints.folder(meta["step"]))
        self.step, self.best, self.scores = meta["step"], meta["best"], meta["scores"]
        losses, self._counted = meta["running"]["losses"], meta["running"]["steps"]
        own = losses[self.comm.rank] if len(losses) == self.comm.size else sum(losses) / len(losses)
        self._summed += own
        self._clock -= self.comm.on_main(lambda: self.metrics.cut(self.step))
        log.info("going on from step %d of %d", self.step, self.total)

    def train_epoch(self, progress: Progress) -> None:
        """The optimiser steps that are left of the current epoch. Raises Preempted once a signal has come."""
        first = self.step % self.sampler.steps
        micros = self.sampler.epoch(self.epoch, self.comm.rank, self.comm.size, first * self.batches.total)
        stream = self.subjects.stream(micros)
        interval = max(1, self.sampler.steps // _LINES_PER_EPOCH)
        self.engine.train()
        for index in range(first, self.sampler.steps):
            rate = self.engine.rate
            self._summed += self.engine.step(self._loss(next(stream)) for _ in range(self.batches.accumulation))
            self._counted += 1
            self.step += 1
            if (index + 1) % interval == 0 or index + 1 == self.sampler.steps:
                loss = self._mean_loss(self._summed / self._counted)
                self._record("train", loss=loss, lr=rate)
                self._summed, self._counted = torch.zeros_like(self._summed), 0
                self.scores = self.scores | {"train_loss": loss}
            if self.comm.is_main:
                progress.advance(self.batches.total, _note(self.scores))
            if self.comm.any(bool(self.stop)):
                self._preempt()

    def close_epoch(self, leaving: bool = False) -> None:
        """Validate, and save a checkpoint where one is due or the run is `leaving`."""
        self.scores = self.scores | self.validate()
        log.info("epoch %d of %d: %s", self.epoch, self.config.epochs, _note(self.scores))
        due, best = self.epoch % self.config.checkpoint_epochs == 0 or self.step == self.total, False
        if due:
            score = self.scores.get("loss", self.scores.get("train_loss"))
            best = self.best is None or (score is not None and score < self.best)
            self.best = score if best else self.best
        if due or leaving:
            self._save(best)

    def validate(self) -> dict[str, float]:
        """Mean loss, SSIM and PSNR over the validation subjects; recorded. Empty where there are none."""
        rows = self.rows["validation"]
        if not len(rows):
            return {}
        size, ranks, rank = self.batches.micro, self.comm.size, self.comm.rank
        padded = np.resize(rows, -(-len(rows) // (size * ranks)) * size * ranks)
        counts = (np.arange(len(padded)) < len(rows)).reshape(-1, ranks, size)[:, rank]
        sums = np.zeros(4)
        self.engine.train(False)
        stream = self.subjects.stream(list(padded.reshape(-1, ranks, size)[:, rank]))
        with torch.no_grad():
            for counted, tokens in zip(counts, stream, strict=True):
                tokens = tokens.to(self.device)
                reconstruction = self.engine(tokens)[0].float()
                loss = reconstruction_loss(tokens, reconstruction, self.config.loss)
                pair = self.engine.module.volumes(tokens), self.engine.module.volumes(reconstruction)
                values = torch.stack([loss, ssim(*pair), psnr(*pair), torch.ones_like(loss)])
                sums += values.double().cpu().numpy()[:, counted].sum(axis=1)
        loss, similarity, ratio, count = self.comm.sum(sums)
        scores = {"loss": loss / count, "ssim": similarity / count, "psnr": ratio / count}
        self._record("validation", lr=self.engine.rate, **scores)
        return scores

    def write_reconstructions(self) -> None:
        """reconstructions.npz: a few held-out subjects beside what the network makes of them."""
        rows = (self.rows["validation"] if len(self.rows["validation"]) else self.rows["train"])[:_SHOWN]
        tokens = self.subjects.batch(rows).to(self.device)
        self.engine.train(False)
        with torch.no_grad():
            reconstruction = self.engine(tokens)[0].float() * (tokens != 0)
        module = self.engine.module
        arrays = {
            "subject": np.array([self.store.subjects[row] for row in rows]),
            "original": module.volumes(tokens).cpu().numpy(),
            "reconstruction": module.volumes(reconstruction).cpu().numpy(),
        }
        if self.comm.is_main:
            with publish(self.config.run_dir / "reconstructions.npz") as partial, partial.open("wb") as file:
                np.savez_compressed(file, **arrays)

    def facts(self) -> dict[str, Any]:
        """What the manifest records."""
        return {
            "subjects_train": len(self.rows["train"]),
            "subjects_validation": len(self.rows["validation"]),
            "parameters": self.parameters,
            "steps": self.step,
            "ranks": self.comm.size,
            "resident": self.subjects.kind,
            "best_step": self.checkpoints.best_step(),
            **self.scores,
        }

    def _loss(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens.to(self.device, non_blocking=True)
        reconstruction, _, penalty = self.engine(tokens)
        return reconstruction_loss(tokens, reconstruction, self.config.loss).mean() + penalty

    def _mean_loss(self, local: torch.Tensor) -> float:
        """The mean over ranks; raises Error on every rank where it is no number."""
        loss = float(self.comm.sum([local.item()])[0]) / self.comm.size
        if not np.isfinite(loss):
            raise Error(
                f"step {self.step}: the loss is {loss}; lower the rate (optim.lr={self.config.optim.lr / 3:.1g}) and "
                "type overwrite=true"
            )
        return loss

    def _mean(self) -> torch.Tensor:
        """The mean prepared volume of up to 512 training subjects, evenly spaced, whatever the number of ranks."""
        rows = self.rows["train"]
        chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MEAN_SUBJECTS)).astype(int))]
        total = 0.0
        for part in self.subjects.stream(np.array_split(chosen, -(-len(chosen) // 16))):
            total = total + part.double().sum(dim=0)
        return (total / len(chosen)).float()

    def _rehearse(self, network: models.Autoencoder, device: torch.device) -> None:
        """One forward and backward pass on real subjects before anything is set up: errors come in the first minute."""
        rows = self.rows["train"][: self.batches.micro]
        tokens = self.subjects.batch(rows).to(device)
        reconstruction_loss(tokens, network(tokens)[0], self.config.loss).mean().backward()
        network.zero_grad(set_to_none=True)

    def _save(self, best: bool) -> None:
        weights = self.engine.weights()

        def write(folder: Path) -> None:
            self.engine.save(folder)
            if self.comm.is_main:
                save_file(weights, folder / models.WEIGHTS)

        meta = {
            "epoch": self.epoch,
            "ranks": self.comm.size,
            "zero": self.config.engine.zero,
            "best": self.best,
            "scores": self.scores,
            "running": {"losses": self.comm.gather(float(self._summed)), "steps": self._counted},
        }
        self.checkpoints.save(self.comm, self.step, write, meta, best)

    def _go_on(self) -> None:
        if self.stop:
            raise Preempted("stopped by a signal while the voxels were packed; the same command goes on from there")

    def _preempt(self) -> None:
        if self.step % self.sampler.steps:
            self._save(best=False)
        else:
            self.close_epoch(leaving=True)
        raise Preempted(
            f"stopped by a signal; step {self.step} of {self.total} is saved, and the same command goes on from there"
        )

    def _record(self, part: str, **values: float) -> None:
        if self.comm.is_main:
            seconds = round(time.monotonic() - self._clock, 3)
            self.metrics.append({"step": self.step, "epoch": self.epoch, "split": part, "seconds": seconds, **values})


def _stage(config: TrainConfig) -> Any:
    return stage.stage("train", config.run_dir, config, {"store": config.store}, config.overwrite)


def _subjects(config: TrainConfig, batches: Batches) -> tuple[VolumeStore, dict[str, np.ndarray]]:
    """The store, and the rows to train on and to validate with. Raises InputError where there are too few."""
    store = VolumeStore.open(config.store)
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
        log.warning("none of the %d subjects falls into validation=%g", len(usable), config.validation)
    return store, rows


def _note(scores: dict[str, float]) -> str:
    """'loss 0.31, validation 0.33, SSIM 0.80' from what is known."""
    known = (("train_loss", "loss"), ("loss", "validation"), ("ssim", "SSIM"))
    return ", ".join(f"{name} {scores[key]:.4f}" for key, name in known if key in scores)
