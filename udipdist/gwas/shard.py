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

from udipdist.gwas import assoc, genotypes, kernels, outputs, product, sumstats
from udipdist.gwas.assoc import HET, HOM1, MISSING
from udipdist.gwas.joint import JointTest
from udipdist.gwas.model import Model


@dataclass(frozen=True)
class Scan:
    """The parts of one GWAS. Small: the models are read from `place` by whoever runs a part."""

    place: Path
    n_variants: int
    variants_per_part: int
    block: int
    threads: int
    min_maf: float
    max_missing: float
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
        lows = range(start, stop, self.block)

        def work(thread: int) -> None:
            torch.set_num_threads(1)
            tests = _Tests(plan, self.min_maf, self.max_missing)
            for low in lows[thread :: self.threads]:
                high = min(low + self.block, stop)
                tests.run(plan.rows.packed(low, high), slice(low - start, high - start), out)

        # One block, one thread: no waiting for each other inside a product.
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(work, range(self.threads)))
        return {"start": start, "stop": stop} | outputs.write(self.place, plan.tables, start, out)


def model_dir(out: Path) -> Path:
    """Where the plan keeps its models."""
    return out / "model"


def planned_path(out: Path) -> Path:
    """The plan's marker, written last."""
    return model_dir(out) / "planned.json"


def stamp_of(path: Path) -> str:
    """Changes when the plan is made anew, so that no worker keeps models of an older one."""
    return str(path.stat().st_mtime_ns)


@dataclass(frozen=True)
class _Plan:
    rows: genotypes.PackedRows
    models: list[Model]
    tables: list[dict[str, Any]]
    people: list[np.ndarray]

    @property
    def n_traits(self) -> int:
        return self.tables[-1]["columns"][1]


@lru_cache(maxsize=1)
def _load(place: Path, stamp: str) -> _Plan:
    """What the plan with this stamp left for its parts."""
    planned = json.loads(planned_path(place).read_text(encoding="utf-8"))
    models = [Model.load(model_dir(place) / f"group-{i:05d}") for i in range(planned["groups"])]
    people = [np.array(fam_N, np.int64) for fam_N in planned["people"]]
    return _Plan(genotypes.PackedRows(**planned["rows"]), models, planned["tables"], people)


class _Tests:
    """All tests of a plan, for one thread."""

    def __init__(self, plan: _Plan, min_maf: float, max_missing: float):
        self._plan = plan
        kind = product.fastest()
        self._testers = [assoc.Tester(model, min_maf, max_missing, kind) for model in plan.models]
        self._keep = [kernels.keep_bytes(fam_N) for fam_N in plan.people]
        self._columns: dict[tuple[int, int], np.ndarray] = {}  # (group, table) -> columns of the group in the table
        self._joint: dict[tuple[int, int], JointTest] = {}
        for t, table in enumerate(plan.tables):
            low, high = table["columns"]
            for g, model in enumerate(plan.models):
                column_P = np.flatnonzero((model.trait_P >= low) & (model.trait_P < high))
                if len(column_P):
                    self._columns[g, t] = column_P
                if len(column_P) == high - low:
                    self._joint[g, t] = JointTest(model, column_P)

    def run(self, packed_BQ: np.ndarray, where: slice, out: outputs.Block) -> None:
        """Test one block with every group of traits, and put the results at the rows `where` of the part."""
        self._count(packed_BQ, where, out)
        best_BT = np.full((len(packed_BQ), len(self._plan.tables)), -np.inf)
        trait_BT = np.full(best_BT.shape, -1)
        for g, tester in enumerate(self._testers):
            result = tester.test(packed_BQ)
            out.beta_MP[where, tester.model.trait_P] = result.beta_BP
            out.se_MP[where, tester.model.trait_P] = result.se_BP
            for t, table in enumerate(self._plan.tables):
                if (g, t) not in self._columns:
                    continue
                column_P = self._columns[g, t]
                log10p_B, column_B = _smallest_p(tester.model, result.z_BP[:, column_P])
                better_B = log10p_B > best_BT[:, t]
                best_BT[better_B, t] = log10p_B[better_B]
                trait_BT[better_B, t] = tester.model.trait_P[column_P[column_B[better_B]]] - table["columns"][0]
                if (g, t) in self._joint:
                    out.multivariate_log10p_MT[where, t] = self._joint[g, t].log10p(result.z_BP)
        out.minp_log10p_MT[where] = np.where(trait_BT >= 0, best_BT, np.nan)
        out.minp_trait_MT[where] = trait_BT

    def _count(self, packed_BQ: np.ndarray, where: slice, out: outputs.Block) -> None:
        """Calls and frequency of A1 among the people of each table."""
        count_pB4 = np.empty((len(self._plan.people), len(packed_BQ), 4), np.int64)
        for fam_N, keep_Q, count_B4 in zip(self._plan.people, self._keep, count_pB4, strict=True):
            kernels.count_codes(packed_BQ, keep_Q, len(fam_N), count_B4)
        for t, table in enumerate(self._plan.tables):
            count_B4 = count_pB4[table["people"]]
            called_B = len(self._plan.people[table["people"]]) - count_B4[:, MISSING]
            copies_B = 2 * count_B4[:, HOM1] + count_B4[:, HET]
            out.n_MT[where, t] = called_B
            out.af1_MT[where, t] = np.divide(
                copies_B, 2 * called_B, out=np.full(len(called_B), np.nan), where=called_B > 0
            )


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
