"""The training loop of one rank: steps, validation, checkpoints, and what is seen of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from hpc.batchnorm import uncounted
from hpc.ceiling import matmul_flops
from hpc.checkpoint import Checkpoints, StopRequest
from hpc.comm import Comm, Watch
from hpc.ema import Ema
from hpc.engine import Batches, Engine, Options, precision
from hpc.errors import ConfigError, Error, Preempted, some
from hpc.files import publish
from hpc.progress import Progress
from hpc.threads import share, share_work
from hpc.world import cores
from udipdist.config import TrainConfig
from udipdist.models import base, registry
from udipdist.models.flops import TRAINING_PASSES, counting
from udipdist.models.layers.attention import Attention, use_backend, watched
from udipdist.training.feed import Sampler, Subjects
from udipdist.training.meter import Meter, in_words
from udipdist.training.run_folder import Metrics
from udipdist.training.schedules import schedule
from udipdist.volumes.packed import pack
from udipdist.volumes.store import VolumeStore

if TYPE_CHECKING:
    from udipdist.training.board import Board

log = logging.getLogger(__name__)
_MEAN_SUBJECTS = 512  # subjects whose mean image the decoder starts from
_SHOWN = 4  # subjects in reconstructions.npz
_LINES_PER_EPOCH = 10  # training lines in metrics.jsonl
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def build(config: TrainConfig, mask: np.ndarray) -> base.Network:
    """The network of a resolved configuration. Raises ConfigError where it needs more than volumes to learn from."""
    network = registry.build(config.model, mask, config.engine.activation_checkpointing)
    if network.learns_from != "volumes" or network.modalities:
        needs = network.learns_from if network.learns_from != "volumes" else f"images of {some(network.modalities)}"
        raise ConfigError(
            f"model.name={config.model.name}: learns from {needs}, and train gives it volumes of one modality only; "
            "type another model.name"
        )
    return network


class Run:
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
        sharers = comm.sharers()
        torch.set_num_threads(share(sharers, config.threads, comm.is_main))
        torch.manual_seed(config.seed)
        network = build(config, store.mask)
        self.network = network  # asked for its loss, which touches no weights
        everyone = np.sort(np.concatenate(list(rows.values())))
        about = {"network": config.model.name, "patch": config.model.patch}
        packed = comm.on_each_node(
            lambda: pack(store, network.gather(), config.data.packed, about, config.threads or cores(), self._go_on)
        )
        packed.require_brain(everyone)
        local_rank = comm.world.local_rank % sharers
        self.subjects = Subjects(packed, everyone, device, config.data.resident, local_rank, sharers)
        network.set_mean(self._mean())
        network.to(device)
        use_backend(network, config.engine.attention)
        self.precision = precision(config.engine.precision, device)
        self.meter = self._rehearse(network, device)
        self.parameters = base.count_parameters(network)
        self.sampler = Sampler(rows["train"], batches, config.seed)
        self.total = self.sampler.steps * config.epochs
        left_out = len(self.sampler.left_out(0))
        if left_out:
            log.info(
                "each epoch leaves out %d of %d subjects, different ones each time: they do not fill a batch of %d",
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
                self.precision,
                optim.clip,
                config.engine.deepspeed,
                config.engine.offload,
                config.engine.nvme_path,
                "inductor" if config.engine.compile else None,
            ),
            comm,
        )
        self.ema = Ema(self.engine, optim.ema) if optim.ema else None
        self.device = device
        self.watch = Watch(comm)
        self.checkpoints = Checkpoints(
            config.run_dir / "checkpoints", config.keep, [self.sampler.steps * epoch for epoch in config.keep_epochs]
        )
        self.metrics = Metrics(config.run_dir / "metrics.jsonl")
        self.board: Board | None = None
        self.step = 0
        self.best: float | None = None
        self.scores: dict[str, float] = {}
        self._summed, self._counted = torch.zeros((), device=device), 0  # training losses of this rank not yet recorded
        self._recent: list[tuple[int, np.ndarray, torch.Tensor]] = []  # step, rows, losses of these
        self._clock = time.monotonic()

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.step // self.sampler.steps

    def start(self, meta: dict[str, Any] | None) -> None:
        """Go on from the checkpoint that `meta` describes, or save the untrained network as step 0."""
        torch.manual_seed(self.config.seed * 1_000_003 + self.comm.rank + 1)
        if self.comm.is_main and self.config.tensorboard:
            from udipdist.training.board import Board

            self.board = Board(self.config.run_dir / "tensorboard", meta["step"] if meta else 0)
        if meta is None:
            self.comm.on_main(lambda: self.metrics.cut(-1))  # of a start that was killed before its first checkpoint
            self.close_epoch()
            return
        folder = self.checkpoints.folder(meta["step"])
        self.engine.load(folder)
        if self.ema:
            self.ema.load(load_file(folder / base.WEIGHTS), meta["step"])
        self.step, self.best, self.scores = meta["step"], meta["best"], meta["scores"]
        losses, self._counted = meta["running"]["losses"], meta["running"]["steps"]
        own = losses[self.comm.rank] if len(losses) == self.comm.size else sum(losses) / len(losses)
        self._summed += own
        self._clock -= self.comm.on_main(lambda: self.metrics.cut(self.step))
        log.info("continuing from step %d of %d", self.step, self.total)

    def train_epoch(self, progress: Progress) -> None:
        """The optimiser steps that are left of the current epoch. Raises Preempted once a signal has come."""
        first = self.step % self.sampler.steps
        micros = self.sampler.epoch(self.epoch, self.comm.rank, self.comm.size, first * self.batches.total)
        feed = zip(micros, self.subjects.stream(micros), strict=True)
        interval = max(1, self.sampler.steps // _LINES_PER_EPOCH)
        note = _note(self.scores)
        self.engine.train()
        self.meter.skip()
        for index in range(first, self.sampler.steps):
            rate = self.engine.rate
            self._summed += self.engine.step(self._losses(feed))
            if self.ema:
                self.ema.update()
            self._counted += 1
            self.step += 1
            self.meter.count(self.batches.micro * self.batches.accumulation)
            if (index + 1) % interval == 0 or index + 1 == self.sampler.steps:
                loss = self._mean_loss()
                pace = self.meter.take()
                self._record("train", loss=loss, lr=rate, **pace)
                self.scores = self.scores | {"train_loss": loss}
                note = f"{_note(self.scores)}, rate {rate:.2e}, {in_words(pace)}"
            if self.comm.is_main:
                progress.advance(self.batches.total, note)
            if self.watch.any(bool(self.stop)):
                self._preempt()

    def close_epoch(self, leaving: bool = False) -> None:
        """Validate, and save a checkpoint where one is due or the run is `leaving`."""
        self.scores = self.scores | self.validate()
        log.info("epoch %d of %d: %s", self.epoch, self.config.epochs, _note(self.scores))
        regular = self.epoch % self.config.checkpoint_epochs == 0 or self.epoch in self.config.keep_epochs
        due, best = regular or self.step == self.total, False
        if due:
            score = self.scores.get("loss", self.scores.get("train_loss"))
            best = self.best is None or (score is not None and score < self.best)
            self.best = score if best else self.best
        if due or leaving:
            self._save(best)
        if self.epoch and self.epoch % self.config.picture_epochs == 0 and self.step < self.total:
            self._draw(self._reconstruct())  # the last picture is that of `write_reconstructions`

    def validate(self) -> dict[str, float]:
        """The means of the network's scores (of an autoencoder loss, masked squared error, SSIM and PSNR) over the
        validation subjects; recorded. Empty where there are none. With an average of the weights (optim.ema), of that.
        """
        rows = self.rows["validation"]
        if not len(rows):
            return {}
        size, ranks, rank = self.batches.micro, self.comm.size, self.comm.rank
        padded = np.resize(rows, -(-len(rows) // (size * ranks)) * size * ranks)
        counts = (np.arange(len(padded)) < len(rows)).reshape(-1, ranks, size)[:, rank]
        names, sums = [], np.zeros(1)
        self.engine.train(False)
        stream = self.subjects.stream(list(padded.reshape(-1, ranks, size)[:, rank]))
        with torch.no_grad(), self._averaged():
            for counted, tokens in zip(counts, stream, strict=True):
                scores = self.network.scores(tokens, self.engine(tokens), self.config.loss)
                names = list(scores)
                values = torch.stack([*scores.values(), torch.ones_like(scores["loss"])])
                sums = sums + values.double().cpu().numpy()[:, counted].sum(axis=1)
        *summed, count = self.comm.sum(sums)
        means = {name: value / count for name, value in zip(names, summed, strict=True)}
        self._record("validation", lr=self.engine.rate, **means)
        return means

    def write_reconstructions(self) -> None:
        """reconstructions.npz: a few held-out subjects beside what the network makes of them in the end; and a picture
        of them. Of a network that reconstructs nothing there is neither."""
        arrays = self._reconstruct()
        if self.epoch:
            self._draw(arrays)
        if self.comm.is_main and arrays:
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

    def _reconstruct(self) -> dict[str, np.ndarray]:
        """subject [S], original and reconstruction [S, x, y, z] of a few subjects, the same all along the run; empty
        where the network reconstructs nothing."""
        if not isinstance(self.network, base.Autoencoder):
            return {}
        rows = (self.rows["validation"] if len(self.rows["validation"]) else self.rows["train"])[:_SHOWN]
        tokens = self.subjects.batch(rows)
        self.engine.train(False)
        with torch.no_grad(), self._averaged():
            reconstruction = self.engine(tokens).reconstruction.float() * (tokens != 0)
        return {
            "subject": np.array([self.store.subjects[row] for row in rows]),
            "original": self.network.volumes(tokens).cpu().numpy(),
            "reconstruction": self.network.volumes(reconstruction).cpu().numpy(),
        }

    def _draw(self, arrays: dict[str, np.ndarray]) -> None:
        """pictures/epoch-0010.png: what `_reconstruct` gave."""
        if self.comm.is_main and arrays:
            from udipdist.figures.brains import reconstructions  # matplotlib takes half a second to import

            figure = reconstructions(
                arrays["original"], arrays["reconstruction"], arrays["subject"].tolist(), self.store.zooms
            )
            path = self.config.run_dir / "pictures" / f"epoch-{self.epoch:04d}.png"
            with publish(path) as partial:
                figure.savefig(partial, format="png", dpi=120)
            if self.board:
                self.board.picture(path, self.step)

    def _averaged(self) -> Any:
        return self.ema.applied() if self.ema else nullcontext()

    def _losses(self, feed: Iterator[tuple[np.ndarray, torch.Tensor]]) -> Iterator[torch.Tensor]:
        """The loss of each micro-batch of one optimiser step, computed as it is asked for."""
        for _ in range(self.batches.accumulation):
            with self.meter.waiting():
                rows, tokens = next(feed)
            losses, penalty = self.network.loss(tokens, self.engine(tokens), self.config.loss)
            self._recent.append((self.step, rows, losses.detach()))
            yield losses.mean() + penalty

    def _mean_loss(self) -> float:
        """The mean over ranks and over the steps not yet recorded. Raises Error, on every rank, where it is no number:
        then it names the subjects with which that began."""
        loss = float(self.comm.sum([float(self._summed / self._counted)])[0]) / self.comm.size
        if not np.isfinite(loss):
            raise Error(self._blame())
        self._summed, self._counted, self._recent = torch.zeros_like(self._summed), 0, []
        return loss

    def _blame(self) -> str:
        """Which step and which subjects first had a loss that is no number."""
        found = [(s, rows, bad) for s, rows, losses in self._recent if (bad := ~losses.isfinite().cpu().numpy()).any()]
        told = [(step, [self.store.subjects[row] for row in rows[bad]]) for step, rows, bad in found[:1]]
        everywhere = [item for rank in self.comm.gather(told) for item in rank]
        if not everywhere:
            keys = " or ".join(f"model.{key}" for key in self.config.model.penalties)
            return (
                f"step {self.step}: the loss is not finite, though that of every subject is: the penalties on the "
                f"latents are too strong; lower {keys or 'them'}, and type overwrite=true"
            )
        first = min(step for step, _ in everywhere)
        names = [name for step, listed in everywhere if step == first for name in listed]
        return (
            f"step {first + 1}: the loss of {len(names)} subjects is not finite: {some(names)}. If these are all of "
            f"a batch, the rate is too high: type optim.lr={self.config.optim.lr / 3:.1g} overwrite=true; else look "
            f"at their volumes: udipdist volumes store={self.config.store} subjects=[{names[0]}] out=look"
        )

    def _mean(self) -> torch.Tensor:
        """The mean prepared volume of up to 512 training subjects, evenly spaced, whatever the number of ranks."""
        rows = self.rows["train"]
        chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MEAN_SUBJECTS)).astype(int))]
        total = 0.0
        for part in self.subjects.stream(np.array_split(chosen, -(-len(chosen) // 16))):
            total = total + part.double().sum(dim=0)
        return (total / len(chosen)).float()

    def _rehearse(self, network: base.Network, device: torch.device) -> Meter:
        """One forward and backward pass on real subjects before anything is set up: errors come in the first minute.

        Says which attention kernel ran, and returns a meter that knows what a pass costs. Raises ConfigError where the
        kernel that is asked for cannot run.
        """
        tokens = self.subjects.batch(self.rows["train"][: self.batches.micro])
        name, kind = self.config.engine.attention, _AUTOCAST.get(self.precision)
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(device.type, kind) if kind else nullcontext())
            counter = stack.enter_context(counting())
            watch = stack.enter_context(watched(name))
            stack.enter_context(uncounted(network))
            found = network(tokens)
        losses, penalty = network.loss(tokens, found, self.config.loss)
        (losses.mean() + penalty).backward()
        network.zero_grad(set_to_none=True)
        total = counter.get_total_flops()
        flops = total / len(tokens)
        if device.type == "cpu":
            torch.set_num_threads(self.config.threads or share_work(torch.get_num_threads(), total, _layers(network)))
        ceiling = matmul_flops(device, self.precision)
        log.info(
            "attention: %s; %.3g GFLOP a volume forward; a matrix product reaches %.3g TFLOP/s on this %s in %s",
            watch.names() if any(isinstance(module, Attention) for module in network.modules()) else "none",
            flops / 1e9,
            ceiling / 1e12,
            device.type.upper(),
            self.precision,
        )
        n_tokens = int((tokens != 0).any(dim=2).sum()) // len(tokens) if tokens.dim() == 3 else 1
        return Meter(device, self.comm.size, n_tokens, TRAINING_PASSES * flops, ceiling)

    def _save(self, best: bool) -> None:
        """Publish a checkpoint; its weights are the average where one is kept (the state holds the others)."""
        weights = self.ema.weights() if self.ema else self.engine.weights()

        def write(folder: Path) -> None:
            self.engine.save(folder)
            if self.comm.is_main:
                save_file(weights, folder / base.WEIGHTS)

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
            raise Preempted("stopped by a signal while the voxels were packed; the same command continues from there")

    def _preempt(self) -> None:
        if self.step % self.sampler.steps:
            self._save(best=False)
        else:
            self.close_epoch(leaving=True)
        raise Preempted(
            f"stopped by a signal; step {self.step} of {self.total} is saved, and the same command continues from there"
        )

    def _record(self, part: str, **values: float) -> None:
        if self.comm.is_main:
            seconds = round(time.monotonic() - self._clock, 3)
            self.metrics.append({"step": self.step, "epoch": self.epoch, "split": part, "seconds": seconds, **values})
            if self.board:
                self.board.numbers(part, values, self.step)


def _layers(network: torch.nn.Module) -> int:
    """Layers with weights, each a product or more in a pass."""
    return sum(any(p.dim() > 1 for p in module.parameters(recurse=False)) for module in network.modules())


def _note(scores: dict[str, float]) -> str:
    """'loss 0.31, validation 0.33, SSIM 0.80' from what is known."""
    known = (("train_loss", "loss"), ("loss", "validation"), ("ssim", "SSIM"))
    return ", ".join(f"{name} {scores[key]:.4f}" for key, name in known if key in scores)
