"""One part of a scan: a run of variants tested against every trait, one shard of the output.

A part needs nothing but the plan's models (OUT/model) and the .bed: a local loop, Dask workers and the tasks of a job
array do the same work and write the same bytes.

Shapes: M variants of the part, B of a block, P traits of all tables, T tables, G groups of traits with the same people.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from udipdist.gwas import assoc, genotypes, outputs, product, sumstats, variants
from udipdist.gwas.joint import JointTest
from udipdist.gwas.model import Model
from udipdist.gwas.quality import Quality
from udipdist.gwas.variants import Limits

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
        plan = _load(self.place, self.planned)
        start = index * self.variants_per_part
        stop = start + self.size_of_part(index)
        out = outputs.Block.empty(stop - start, plan.n_traits, len(plan.tables))
        verdict_MT = np.zeros((stop - start, len(plan.tables)), np.uint8)
        block = min(self.block, -(-(stop - start) // self.threads), max(1, BLOCK_BYTES // plan.rows.row_bytes))
        lows = iter(range(start, stop, block))

        def work(_: int) -> int:
            torch.set_num_threads(1)
            tests = _Tests(plan, self.limits)
            for low in lows:
                high = min(low + block, stop)
                where = slice(low - start, high - start)
                verdict_MT[where] = tests.run(plan.rows.packed(low, high), low, where, out)
            return tests.masked

        # One block, one thread: no waiting for each other inside a product.
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(self.threads) as pool:
            masked = sum(pool.map(work, range(self.threads)))
        facts = {"start": start, "stop": stop, "masked": masked}
        facts |= outputs.write(self.place, plan.tables, start, out)
        return facts | {"tally_by_table": [variants.tally(verdict_M) for verdict_M in verdict_MT.T]}


def model_dir(out: Path) -> Path:
    """Where the plan keeps its models."""
    return out / "model"


def planned_path(out: Path) -> Path:
    """The plan's marker, written last."""
    return model_dir(out) / "planned.json"


def stamp_of(path: Path) -> str:
    """Changes when the plan is made anew, so that no worker keeps models of an older one."""
    return str(path.stat().st_mtime_ns)


class _Plan:
    """What the plan left for its parts; threads share it."""

    def __init__(self, place: Path):
        planned = json.loads(planned_path(place).read_text(encoding="utf-8"))
        self.rows = genotypes.PackedRows(**planned["rows"])
        self.tables = planned["tables"]
        self.models = [Model.load(model_dir(place) / f"group-{i:05d}") for i in range(planned["groups"])]
        self.people: list[np.ndarray] = []
        self.of_group = [self._number(model.fam_N) for model in self.models]
        of_table = [np.array(fam_N, np.int64) for fam_N in planned["people"]]
        self.of_table = [self._number(of_table[table["people"]]) for table in self.tables]
        self.quality = Quality(self.people, planned["sex"], planned["x_runs"])
        self.columns: dict[tuple[int, int], np.ndarray] = {}  # (group, table) -> columns of the group in the table
        self.joint: dict[tuple[int, int], JointTest] = {}
        for t, table in enumerate(self.tables):
            low, high = table["columns"]
            for g, model in enumerate(self.models):
                column_P = np.flatnonzero((model.trait_P >= low) & (model.trait_P < high))
                if len(column_P):
                    self.columns[g, t] = column_P
                if len(column_P) == high - low:
                    self.joint[g, t] = JointTest(model, column_P)

    @property
    def n_traits(self) -> int:
        return self.tables[-1]["columns"][1]

    def _number(self, fam_N: np.ndarray) -> int:
        """The number of these people among those whose genotypes are counted."""
        for i, known_N in enumerate(self.people):
            if np.array_equal(known_N, fam_N):
                return i
        self.people.append(fam_N)
        return len(self.people) - 1


def forget() -> None:
    """Let go of the files of a plan before they are removed."""
    _load.cache_clear()


@lru_cache(maxsize=1)
def _load(place: Path, stamp: str) -> _Plan:
    """The plan with this stamp. On one thread, so that a decomposition has the same bits in every process."""
    with threadpool_limits(1, user_api="blas"):
        return _Plan(place)


class _Tests:
    """All tests of a plan, for one thread."""

    def __init__(self, plan: _Plan, limits: Limits):
        self._plan, self._limits = plan, limits
        buffers: dict[str, np.ndarray] = {}
        self._testers = [assoc.Tester(model, product.fastest(), buffers) for model in plan.models]
        self.masked = 0  # heterozygous calls of males on X

    def run(self, packed_BQ: np.ndarray, start: int, where: slice, out: outputs.Block) -> np.ndarray:
        """Test the block of variants from `start` on with every group of traits, and put the results at the rows
        `where` of the part. Returns what came of each variant for each table (gwas.variants), uint8 [B, T]."""
        plan = self._plan
        packed_BQ, masked = plan.quality.mask(packed_BQ, start)
        self.masked += masked
        numbers = [plan.quality.numbers(packed_BQ, start, i) for i in range(len(plan.people))]
        verdict = [self._limits.verdict(each.n, each.called_B, each.af1_B, each.hwe_log10p_B) for each in numbers]
        best_BT = np.full((len(packed_BQ), len(plan.tables)), -np.inf)
        trait_BT = np.full(best_BT.shape, -1)
        for g, (tester, i) in enumerate(zip(self._testers, plan.of_group, strict=True)):
            result = tester.test(packed_BQ, numbers[i].count_B4, verdict[i] == variants.TESTED)
            out.beta_MP[where, tester.model.trait_P] = result.beta_BP
            out.se_MP[where, tester.model.trait_P] = result.se_BP
            for t, table in enumerate(plan.tables):
                if (g, t) not in plan.columns:
                    continue
                column_P = plan.columns[g, t]
                log10p_B, column_B = _smallest_p(tester.model, result.z_BP[:, column_P])
                better_B = log10p_B > best_BT[:, t]
                best_BT[better_B, t] = log10p_B[better_B]
                trait_BT[better_B, t] = tester.model.trait_P[column_P[column_B[better_B]]] - table["columns"][0]
                if (g, t) in plan.joint:
                    out.multivariate_log10p_MT[where, t] = plan.joint[g, t].log10p(result.z_BP)
        out.minp_log10p_MT[where] = np.where(trait_BT >= 0, best_BT, np.nan)
        out.minp_trait_MT[where] = trait_BT
        for t, i in enumerate(plan.of_table):
            out.n_MT[where, t] = numbers[i].called_B
            out.af1_MT[where, t] = numbers[i].af1_B
            out.hwe_log10p_MT[where, t] = numbers[i].hwe_log10p_B
        verdict_BT = np.full(trait_BT.shape, variants.COVARIATES, np.uint8)
        for g, t in plan.columns:  # the first reason of any of its groups, where none was tested
            of_group = verdict[plan.of_group[g]]
            verdict_BT[:, t] = np.minimum(
                verdict_BT[:, t], np.where(of_group == variants.TESTED, variants.COVARIATES, of_group)
            )
        verdict_BT[trait_BT >= 0] = variants.TESTED
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
    log10p_B = sumstats.log10p_from_z(largest_B) if model.chi2 else sumstats.log10p_from_t(largest_B, model.df)
    return np.where(size_B < 0, -np.inf, log10p_B), column_B
