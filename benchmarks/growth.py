"""How the pass grows: with traits, variants, workers and the frequency of an allele; on the simulated cohort."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import cohort, once
from benchmarks.clock import clock, cores, smallest
from benchmarks.passes import Floor, against_floor, one_pass
from benchmarks.peers import first_variants
from hpc.stage import read_manifest
from udipdist.cohort.simulate import simulate
from udipdist.cohort.traits import mixed_phenotypes
from udipdist.config import GwasConfig, SimulateConfig
from udipdist.gwas.scan import verb as scan

FREQUENCIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5)
VARIANTS_PER_FREQUENCY = 1024


def simulated(folder: Path) -> dict[str, Path]:
    """The input files of `simulate preset=bench` in `folder`, where it is run unless it was."""
    if read_manifest(folder) is None:
        simulate(SimulateConfig.parse({"preset": "bench", "out": folder}))
    return {
        "genotypes": folder / "genotypes",
        "phenotypes": folder / "phenotypes.parquet",
        "covariates": folder / "covariates.tsv",
        "sparse_grm": folder / "sparse",
    }


def count_people(prefix: Path) -> int:
    """Lines of the .fam."""
    with Path(f"{prefix}.fam").open(encoding="utf-8") as file:
        return sum(1 for _ in file)


def with_traits(files: dict[str, Path], folder: Path, p: int, variants: int | None = None) -> dict[str, Path]:
    """The files of a simulated cohort with P traits (its own at 128), and with its first variants only."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = dict(files)
    factors = pd.read_parquet(files["phenotypes"].parent / "truth" / "factors.parquet")
    if p != 128:
        values_NP = mixed_phenotypes(factors.iloc[:, 2:].to_numpy(), p, np.random.default_rng(p))
        table = factors[["FID", "IID"]].join(pd.DataFrame(values_NP).add_prefix("trait"))
        changed["phenotypes"] = folder / "phenotypes.parquet"
        table.to_parquet(changed["phenotypes"], index=False)
    if variants is not None:
        changed["genotypes"] = folder / "genotypes"
        first_variants(files["genotypes"], changed["genotypes"], variants)
    return changed


def by_traits(files: dict[str, Path], folder: Path, traits: Sequence[int], variants: int) -> list[dict[str, Any]]:
    """Null models, pass and floor for numbers of traits, over the first variants."""
    rows, n = [], count_people(files["genotypes"])
    for p in traits:
        place = folder / f"traits-{p}"
        config = GwasConfig.parse(with_traits(files, place, p, variants) | {"out": place / "out"})
        with clock() as null:
            job = scan.plan(config)
        one_pass(job)
        ratio = against_floor(job, n, p, most=3)
        rows.append(
            {
                "traits": p,
                "floor_ratio": ratio.work.seconds / ratio.floor.seconds,
                "floor_ratio_cpu": ratio.work.cpu / ratio.floor.cpu,
                "cpu_us_per_variant": 1e6 * ratio.work.cpu / variants,
                "cpu_ns_per_variant_trait": 1e9 * ratio.work.cpu / variants / p,
                "null_seconds": null.seconds,
                "null_cpu_seconds": null.cpu,
            }
        )
    return rows


def by_variants(job: Any) -> list[dict[str, Any]]:
    """The pass over the first quarter, half and all of the parts of a planned scan that was run."""
    rows = []
    for share in (0.25, 0.5, 1.0):
        indices = range(max(1, round(share * job.n_parts)))
        m = sum(job.size_of_part(i) for i in indices)
        cost = smallest([one_pass(job, indices=indices) for _ in range(2)])
        rows.append(
            {
                "variants": m,
                "pass_seconds": cost.seconds,
                "us_per_variant": 1e6 * cost.seconds / m,
                "cpu_us_per_variant": 1e6 * cost.cpu / m,
            }
        )
    return rows


def by_workers(files: dict[str, Path], folder: Path, variants_per_part: int = 4096) -> list[dict[str, Any]]:
    """One worker on one core and two on two; running: after the first part of each, so without their start."""
    rows = []
    for workers in (1, 2):
        if workers > cores():
            break
        place = folder / f"workers-{workers}"
        keys = files | {"out": place / "out", "workers": workers, "variants_per_part": variants_per_part}
        seen = once.run(place, keys, cores=workers)
        rows.append(
            {
                "workers": workers,
                "pass_seconds": seen["pass_seconds"],
                "pass_cpu_seconds": seen["pass_cpu_seconds"],
                "variants_per_s": seen["variants"] / seen["pass_seconds"],
                "variants_per_s_running": seen["variants_per_s_running"],
                "together_gb": seen["together_gb"],
            }
        )
    for row in rows:
        row["speedup"] = row["variants_per_s"] / rows[0]["variants_per_s"]
        row["speedup_running"] = row["variants_per_s_running"] / rows[0]["variants_per_s_running"]
    return rows


def by_frequency(folder: Path, n: int, p: int, families: int) -> list[dict[str, Any]]:
    """The pass over variants of one allele frequency after the other, each a part of one scan, against the floor."""
    each = VARIANTS_PER_FREQUENCY
    frequency_M = np.repeat(FREQUENCIES, each)
    config = cohort.write(folder, n, len(frequency_M), p, families, frequency_M=frequency_M)
    job = scan.plan(GwasConfig.parse(config.model_dump() | {"variants_per_part": each}))
    one_pass(job)
    floor, rows = Floor(n, p), []
    for i, frequency in enumerate(FREQUENCIES):
        costs, floors = [], []
        for _ in range(3):
            floors.append(floor.cost(each))
            costs.append(one_pass(job, indices=[i]))
        cost, least = smallest(costs), smallest(floors)
        rows.append(
            {
                "allele_frequency": frequency,
                "us_per_variant": 1e6 * cost.seconds / each,
                "cpu_us_per_variant": 1e6 * cost.cpu / each,
                "floor_ratio": cost.seconds / least.seconds,
                "floor_ratio_cpu": cost.cpu / least.cpu,
            }
        )
    for row in rows:
        row["gain_over_commonest"] = rows[-1]["cpu_us_per_variant"] / row["cpu_us_per_variant"]
    return rows
