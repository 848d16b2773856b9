"""One part of a scan: a run of variants tested against every trait, one shard of the output.

A part needs nothing but the plan's models (OUT/model) and the .bed: a local loop, Dask workers and the tasks of a job
array do the same work and write the same bytes.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from udipdist.gwas import assoc, genotypes, kernels, sumstats


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
        rows, fam_N, models = _load(self.place, self.planned)
        start = index * self.variants_per_part
        stop = start + self.size_of_part(index)
        out = _empty_block(stop - start, sum(len(model.trait_P) for model in models))
        lows = range(start, stop, self.block)

        def work(thread: int) -> None:
            one = len(models) == 1
            testers = [assoc.Tester(model, self.min_maf, self.max_missing, multivariate=one) for model in models]
            workspace = np.empty(min(self.block, stop - start) * len(fam_N), np.float32)
            for low in lows[thread :: self.threads]:
                high = min(low + self.block, stop)
                _test_block(testers, rows.packed(low, high), fam_N, workspace, slice(low - start, high - start), out)

        # One block, one thread: no waiting for each other inside a product, and the same bits for any number of them.
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(work, range(self.threads)))
        sumstats.write(self.place / sumstats.STORE, start, out)
        return {"start": start, "stop": stop, "tested": int((out.minp_trait_M >= 0).sum())}


def model_dir(out: Path) -> Path:
    """Where the plan keeps its models."""
    return out / "model"


def planned_path(out: Path) -> Path:
    """The plan's marker, written last."""
    return model_dir(out) / "planned.json"


def stamp_of(path: Path) -> str:
    """Changes when the plan is made anew, so that no worker keeps models of an older one."""
    return str(path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _load(place: Path, stamp: str) -> tuple[genotypes.PackedRows, np.ndarray, list[assoc.Model]]:
    """Genotype rows, rows of the analysed people in the .fam, and models of the plan with this stamp."""
    planned = json.loads(planned_path(place).read_text(encoding="utf-8"))
    models = [assoc.Model.load(model_dir(place) / f"group-{i:05d}.npz") for i in range(planned["groups"])]
    return genotypes.PackedRows(**planned["rows"]), np.array(planned["fam"], np.int64), models


def _empty_block(m: int, p: int) -> sumstats.SumstatsBlock:
    return sumstats.SumstatsBlock(
        beta_MP=np.full((m, p), np.nan, np.float32),
        se_MP=np.full((m, p), np.nan, np.float32),
        n_M=np.zeros(m, np.int32),
        af1_M=np.full(m, np.nan, np.float32),
        minp_log10p_M=np.full(m, np.nan, np.float32),
        minp_trait_M=np.full(m, -1, np.int16),
        multivariate_log10p_M=np.full(m, np.nan, np.float32),
    )


def _test_block(
    testers: list[assoc.Tester],
    packed: np.ndarray,
    fam_N: np.ndarray,
    workspace: np.ndarray,
    where: slice,
    out: sumstats.SumstatsBlock,
) -> None:
    """Test one block with every group of traits, and put the results at `where` of the part."""
    b = len(packed)
    best_B, trait_B = np.full(b, -np.inf), np.full(b, -1)
    for tester in testers:
        result = tester.test(packed, workspace)
        out.beta_MP[where, tester.model.trait_P] = result.beta_BP
        out.se_MP[where, tester.model.trait_P] = result.se_BP
        log10p_B, column_B = _smallest_p(tester, result)
        better_B = log10p_B > best_B
        best_B = np.where(better_B, log10p_B, best_B)
        trait_B = np.where(better_B, tester.model.trait_P[column_B], trait_B)
    called_B, copies_B = result.called_B, result.copies_B
    if len(testers) > 1:
        kernels.count_rows(packed, fam_N, called_B, copies_B)
    else:
        out.multivariate_log10p_M[where] = result.multivariate_log10p_B
    tested_B = trait_B >= 0
    out.n_M[where] = called_B
    out.af1_M[where] = np.divide(copies_B, 2 * called_B, out=np.full(b, np.nan), where=called_B > 0)
    out.minp_log10p_M[where] = np.where(tested_B, best_B, np.nan)
    out.minp_trait_M[where] = trait_B


def _smallest_p(tester: assoc.Tester, result: assoc.Result) -> tuple[np.ndarray, np.ndarray]:
    """-log10 of the smallest p over the traits of a group [B] (-inf where none was tested), and its column.

    The traits of a group share their degrees of freedom, so the smallest p has the largest |beta / se|.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        size_BP = np.abs(result.beta_BP / result.se_BP)
    size_BP = np.where(np.isnan(size_BP), -1.0, size_BP)
    column_B = size_BP.argmax(axis=1)
    size_B = size_BP[np.arange(len(size_BP)), column_B]
    largest_B = np.maximum(size_B, 0.0)
    if tester.model.chi2:
        log10p_B = sumstats.log10p_from_z(largest_B)
    else:
        log10p_B = sumstats.log10p_from_t(largest_B, tester.model.df)
    return np.where(size_B < 0, -np.inf, log10p_B), column_B
