"""Our training, as `train` runs it, one optimiser step at a time; and the memory that ZeRO leaves a rank with."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hpc.ceiling import matmul_flops
from hpc.comm import Comm
from hpc.engine import Batches, Engine, Options, precision
from hpc.stage import own_peak
from hpc.testing import call
from hpc.world import World
from udipdist.config import IngestConfig, VitAeConfig
from udipdist.models import base, registry
from udipdist.models.flops import TRAINING_PASSES, forward_flops
from udipdist.models.losses import reconstruction_loss
from udipdist.training.feed import Subjects
from udipdist.training.meter import Meter
from udipdist.volumes.ingest import ingest
from udipdist.volumes.packed import pack
from udipdist.volumes.store import VolumeStore


def ingest_and_pack(scans: Path, out: Path) -> Path:
    """A store of these scans."""
    ingest(IngestConfig(volumes=str(scans), out=out, workers=0, overwrite=True))
    return out


class EndToEnd:
    """Packed voxels to optimiser step through our feed, network and engine, volumes read as they come."""

    def __init__(self, store: Path, device: torch.device, batch: int, size: str = "seed"):
        torch.manual_seed(0)
        volumes = VolumeStore.open(store)
        config = registry.resolve(VitAeConfig(size=size), volumes.zooms)
        network = registry.build(config, volumes.mask)
        packed = pack(volumes, network.gather())
        rows = np.flatnonzero(volumes.valid)
        self.parameters = base.count_parameters(network)
        self.subjects = Subjects(packed, rows, device, "host" if device.type == "cpu" else "device")
        network.to(device)
        self.batch, self.device, self.precision = batch, device, precision("auto", device)
        self.flops = TRAINING_PASSES * forward_flops(network, self.subjects.batch(rows[:1]))
        optimiser = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.01, fused=True)
        options = Options(Batches(batch, batch, 1), 0, self.precision, 1.0)
        self.engine = Engine(network, optimiser, lambda step: 1.0, options, Comm(World()))
        self.meter = Meter(device, 1, 1, self.flops, 1.0)
        self._order = np.random.default_rng(0).choice(rows, (1000, batch))
        self._stream = self.subjects.stream(list(self._order))
        self._taken: list[float] = []

    def step(self) -> int:
        """One optimiser step; the number of its volumes."""
        self.meter.skip()
        self.engine.step(self._losses())
        self.meter.count(self.batch)
        self._taken.append(self.meter.take()["data_wait"])
        return self.batch

    @property
    def waited(self) -> float:
        """Share of the time that was waiting for data, of the step that waited least."""
        return min(self._taken)

    def ceiling(self) -> float:
        """What the device reaches in a matrix product now."""
        return matmul_flops(self.device, self.precision)

    def _losses(self) -> Iterator[Tensor]:
        with self.meter.waiting():
            tokens = next(self._stream)
        found = self.engine(tokens)
        yield reconstruction_loss(tokens, found.reconstruction, "brain").mean() + found.penalty


@dataclass(frozen=True)
class OfRank:
    """Bytes that the largest rank holds."""

    parameters: int
    states: int  # weights, gradients, optimiser
    peak: int  # resident, or allocated on the GPU


def memory_of_stages(stages: tuple[int, ...], quick: bool) -> dict[int, OfRank]:
    """Each ZeRO stage in a training step on two ranks of a network of real size on tiny volumes."""
    width, depth = (512, 8) if quick else (768, 12)

    def run(stage: int) -> OfRank:
        ranks = call(__file__, "on_two_ranks", stage, width, depth, ranks=2, timeout=600)
        return OfRank(**{key: max(rank[key] for rank in ranks) for key in ranks[0]})

    with ThreadPoolExecutor(len(stages)) as threads:
        return dict(zip(stages, threads.map(run, stages), strict=True))


def on_two_ranks(stage: int, width: int, depth: int) -> dict[str, int]:
    """What each rank runs: two steps; what it holds after them."""
    comm = Comm.join(World.detect(os.environ))
    device = comm.device()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = VitAeConfig(patch=4, width=width, depth=depth, heads=8)
    network = registry.build(config, np.ones((8, 12, 8), bool)).to(device)
    parameters, tokens = base.count_parameters(network), torch.randn(1, *network.gather().shape, device=device)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
    engine = Engine(network, optimiser, lambda step: 1.0, Options(Batches(2, 1, 1), stage), comm)

    def losses() -> Iterator[Tensor]:
        yield reconstruction_loss(tokens, engine(tokens).reconstruction, "brain").mean()

    for _ in range(2):
        engine.step(losses())
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else own_peak()
    return {"parameters": parameters, "states": _living_bytes(), "peak": peak}


def _living_bytes() -> int:
    """Bytes of all tensors that are alive: between two steps that is weights, gradients and optimiser."""
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        storages = {
            s.data_ptr(): s.nbytes() for o in gc.get_objects() if torch.is_tensor(o) and (s := o.untyped_storage())
        }
    return sum(storages.values())
