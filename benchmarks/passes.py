"""A pass over the genotypes, its floor, and both in turn.

Shapes: N people, M variants, P traits, B variants of a block.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import cohort
from benchmarks.clock import Cost, clock, cores, since_start, smallest
from hpc import cluster, parts
from udipdist.gwas.scan import verb as scan

FLOOR_BLOCK = 512


def warm_up(folder: Path) -> None:
    """Compile (or load) everything on a cohort of a moment, so that no clock counts it."""
    parts.run(scan.plan(cohort.write(folder, 300, 200, 4, 20)), "warm-up")


def one_pass(job: parts.Job, workers: int = 0, indices: Iterable[int] | None = None) -> Cost:
    """Read, decode, impute, multiply, test and write the parts `indices` (default all), also if they are done.

    A choice of parts can be run only after all are done.
    """
    for i in range(job.n_parts) if indices is None else indices:
        parts.marker(job.place, i).unlink(missing_ok=True)
    with clock() as cost:
        parts.run(job, "benchmark", cluster.runner(workers))
    return cost


class Floor:
    """The float32 product [M x N][N x P] with numpy's BLAS: what no scan of all variants and traits can do without.

    Each core multiplies blocks of its own, which is faster here than one product on all cores.
    """

    def __init__(self, n: int, p: int):
        rng = np.random.default_rng(0)
        self.x_TBN = [rng.standard_normal((FLOOR_BLOCK, n), np.float32) for _ in range(cores())]
        self.y_NP = rng.standard_normal((n, p), np.float32)
        self.out_TBP = [np.empty((FLOOR_BLOCK, p), np.float32) for _ in range(cores())]

    def cost(self, m: int) -> Cost:
        """Of M variants, rounded up to whole blocks for every core and scaled back."""
        rounds = -(-m // (FLOOR_BLOCK * cores()))

        def work(core: int) -> None:
            for _ in range(rounds):
                np.matmul(self.x_TBN[core], self.y_NP, out=self.out_TBP[core])

        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(cores()) as pool:
            list(pool.map(work, range(cores())))  # starts the threads
            with clock() as cost:
                list(pool.map(work, range(cores())))
        return cost * (m / (rounds * FLOOR_BLOCK * cores()))


@dataclass(frozen=True)
class Ratio:
    """The smallest cost of a pass over M variants and of its floor, among so many rounds."""

    work: Cost
    floor: Cost
    rounds: int
    variants: int

    def facts(self) -> dict[str, float]:
        """Numbers for the table and the JSON line."""
        return {
            "floor_ratio": self.work.seconds / self.floor.seconds,
            "floor_ratio_cpu": self.work.cpu / self.floor.cpu,
            "pass_seconds": self.work.seconds,
            "pass_cpu_seconds": self.work.cpu,
            "floor_seconds": self.floor.seconds,
            "floor_cpu_seconds": self.floor.cpu,
            "variants_per_s": self.variants / self.work.seconds,
            "rounds": self.rounds,
        }


def against_floor(job: parts.Job, n: int, p: int, most: int, deadline: float = np.inf) -> Ratio:
    """Pass and floor in turn, at least twice and at most `most` times, while the process is younger than `deadline`."""
    floor, m = Floor(n, p), sum(job.size_of_part(i) for i in range(job.n_parts))
    few = min(m, max(FLOOR_BLOCK * cores(), 8192 * 128 // p))  # about a second
    floors, passes = [floor.cost(few)], []
    while len(passes) < most and (len(passes) < 2 or since_start() + 1.2 * passes[-1].seconds < deadline):
        passes.append(one_pass(job))
        floors.append(floor.cost(few))
    return Ratio(smallest(passes), smallest(floors) * (m / few), len(passes), m)
