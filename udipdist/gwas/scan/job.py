"""One part of a scan: a run of variants tested against every trait, one shard of the output.

A part needs nothing but the plan's models (OUT/model) and the .bed: a local loop, Dask workers and the tasks of a job
array do the same work and write the same bytes.

Shapes: M variants of the part, B of a block, P traits of all tables, T tables, G groups of traits with the same people.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from threadpoolctl import threadpool_limits

from hpc import int8
from udipdist.gwas import outputs
from udipdist.gwas.engine import cpu, joint
from udipdist.gwas.engine.limits import COVARIATES, TESTED, Limits, tally
from udipdist.gwas.engine.prepared import Model
from udipdist.gwas.scan.plan import LoadedPlan, load
from udipdist.sumstats import pvalues
from udipdist.sumstats.store import COLUMNS, SCORES, STORE

BLOCK_BYTES = 64_000_000  # of packed rows


@dataclass(frozen=True)
class Scan:
    """The parts of one GWAS. Small: the models are read from `place` by whoever runs a part."""

    place: Path
    n_variants: int
    variants_per_part: int
    block: int
    threads: int
    limits: Limits
    facts: dict[str, Any]
    planned: str
    unit: str = "variants"

    @property
    def n_parts(self) -> int:
        """Number of shards of the output."""
        return -(-self.n_variants // self.variants_per_part)

    def size_of_part(self, index: int) -> int:
        """Variants of a part."""
        return min(self.variants_per_part, self.n_variants - index * self.variants_per_part)

    def part(self, index: int) -> dict[str, Any]:
        """Test the variants of one part and write their shards."""
        plan = load(self.place, self.planned)
        start = index * self.variants_per_part
        stop = start + self.size_of_part(index)
        out = outputs.Block.empty(stop - start, plan.n_traits, len(plan.tables))
        verdict_MT = np.zeros((stop - start, len(plan.tables)), np.uint8)
        block = min(self.block, -(-(stop - start) // self.threads), max(1, BLOCK_BYTES // plan.rows.row_bytes))
        blocks = range(start, stop, block)
        lows, threads = iter(blocks), min(self.threads, len(blocks))

        def work(_: int) -> int:
            int8.use_one_thread()
            tests = _Tests(plan, self.limits)
            for low in lows:
                high = min(low + block, stop)
                where = slice(low - start, high - start)
                verdict_MT[where] = tests.run(plan.rows.packed(low, high), low, where, out)
            return tests.masked

        # One block, one thread: no waiting for each other inside a product.
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
            try:
                masked = sum(pool.map(work, range(threads)))
            finally:
                deque(lows, maxlen=0)  # where it was interrupted no thread begins another block
        facts = {"start": start, "stop": stop, "masked": masked}
        facts |= outputs.write(self.place, plan.tables, start, out)
        return facts | {"tally_by_table": [tally(verdict_M) for verdict_M in verdict_MT.T]}

    def files_of_part(self, index: int) -> Iterator[Path]:
        """Its shards."""
        for store in self._stores():
            for name, rank in _results(store, self.planned):
                yield store.joinpath(name, "c", str(index), *["0"] * (rank - 1))

    def files_of_plan(self) -> Iterator[Path]:
        """Tables, and of the stores all metadata and the columns of the .bim."""
        for store in self._stores():
            yield from (store.parent / name for name in ("null.tsv", "samples.tsv", "dropped.tsv"))
            yield from store.rglob("zarr.json")
            for name in (*COLUMNS, "trait", *SCORES):
                yield from (path for path in (store / name / "c").rglob("*") if path.is_file())

    def _stores(self) -> list[Path]:
        return sorted([*self.place.glob(STORE), *self.place.glob(f"*/{STORE}")])


@lru_cache(maxsize=64)
def _results(store: Path, stamp: str) -> list[tuple[str, int]]:
    """The arrays of results in the store of the plan with this stamp, and how many dimensions each has."""
    arrays = zarr.open_group(store=str(store), mode="r").arrays()
    results = [(name, array) for name, array in arrays if name not in COLUMNS]
    # Arrays of Zarr v2 have no names of dimensions; ours are v3.
    return [(name, a.ndim) for name, a in results if "variant" in (a.metadata.dimension_names or ())]  # type: ignore[union-attr]


class _Tests:
    """All tests of a plan, for one thread."""

    def __init__(self, plan: LoadedPlan, limits: Limits):
        self._plan, self._limits = plan, limits
        buffers: dict[str, np.ndarray] = {}
        self._testers = [cpu.Tester(model, int8.fastest(), buffers) for model in plan.models]
        self.masked = 0  # heterozygous calls of males on X

    def run(self, packed_BQ: np.ndarray, start: int, where: slice, out: outputs.Block) -> np.ndarray:
        """Test the block of variants from `start` on with every group of traits, and put the results at the rows
        `where` of the part. Returns what came of each variant for each table (gwas.engine.limits), uint8 [B, T]."""
        plan = self._plan
        packed_BQ, masked = plan.quality.mask(packed_BQ, start)
        self.masked += masked
        numbers = [plan.quality.numbers(packed_BQ, start, i) for i in range(len(plan.people))]
        verdict = [self._limits.verdict(each) for each in numbers]
        best_BT = np.full((len(packed_BQ), len(plan.tables)), -np.inf)
        trait_BT = np.full(best_BT.shape, -1)
        score_BP = np.full((len(packed_BQ), plan.n_traits), np.nan)
        for g, (tester, i) in enumerate(zip(self._testers, plan.of_group, strict=True)):
            result = tester.test(packed_BQ, numbers[i].count_B4, verdict[i] == TESTED)
            out.beta_MP[where, tester.model.trait_P] = result.beta_BP
            out.se_MP[where, tester.model.trait_P] = result.se_BP
            score_BP[:, tester.model.trait_P] = joint.scores(tester.model.traits, result.z_BP)
            for t, table in enumerate(plan.tables):
                if (g, t) not in plan.columns:
                    continue
                column_P = plan.columns[g, t]
                log10p_B, column_B = _smallest_p(tester.model, result.z_BP[:, column_P])
                better_B = log10p_B > best_BT[:, t]
                best_BT[better_B, t] = log10p_B[better_B]
                trait_BT[better_B, t] = tester.model.trait_P[column_P[column_B[better_B]]] - table.start
        out.minp_log10p_MT[where] = np.where(trait_BT >= 0, best_BT, np.nan)
        out.minp_trait_MT[where] = trait_BT
        for t, table in enumerate(plan.tables):
            out.multivariate_log10p_MT[where, t] = plan.joint[t].log10p(score_BP[:, table.start : table.stop])
        for t, i in enumerate(plan.of_table):
            out.n_MT[where, t] = numbers[i].called_B
            out.af1_MT[where, t] = numbers[i].af1_B
            out.hwe_log10p_MT[where, t] = numbers[i].hwe_log10p_B
        verdict_BT = np.full(trait_BT.shape, COVARIATES, np.uint8)
        for g, t in plan.columns:  # the first reason of any of its groups, where none was tested
            of_group = verdict[plan.of_group[g]]
            verdict_BT[:, t] = np.minimum(verdict_BT[:, t], np.where(of_group == TESTED, COVARIATES, of_group))
        verdict_BT[trait_BT >= 0] = TESTED
        return verdict_BT


def _smallest_p(model: Model, z_BP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-log10 of the smallest p over traits of a group [B] (-inf where none was tested), and its column.

    The traits of a group share their degrees of freedom, so the smallest p has the largest |z|.
    """
    size_BP = np.abs(z_BP)
    size_BP[np.isnan(size_BP)] = -1.0
    column_B = size_BP.argmax(axis=1)
    size_B = size_BP[np.arange(len(size_BP)), column_B]
    largest_B = np.maximum(size_B, 0.0)
    log10p_B = pvalues.log10p_from_z(largest_B) if model.chi2 else pvalues.log10p_from_t(largest_B, model.df)
    return np.where(size_B < 0, -np.inf, log10p_B), column_B
