"""What does a checkpoint cost a sweep? The association of 12 tables of latents in one pass over that of one.

    python -m benchmarks.sweep [--quick] [--people N] [--variants M] [--families F]

Both are what a sweep does with checkpoints that are ready (udipdist.sweep.association): null models, the pass over the
genotypes, loci of the smallest p and of the joint test, and the panel; 128 latents a table. One and twelve run in turn,
and the smallest of either counts: other work on the machine slows both. Tables differ in every value, so nothing is
shared between them but what is shared between checkpoints: people, covariates, families and genotypes.
The last line is one JSON object: gwas_12_over_1 (the wall), gwas_12_over_1_cpu, association_12_over_1 (with loci and
panel), and more; gwas_rows has other numbers of tables, without --quick.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import cohort, tables
from benchmarks.clock import Cost, clock, cores, forget_peak_memory, since_start, smallest
from hpc.files import remove
from hpc.stage import peak_memory
from udipdist.config import SweepConfig
from udipdist.sweep.association import Association, Request

LATENTS, CHECKPOINTS = 128, 12
QUICK = {"people": 22_867, "variants": 4096, "families": 3000}
FULL = {"people": 22_867, "variants": 65_536, "families": 3000}
QUICK_SECONDS = 40.0  # no round starts that would end later; 45 are allowed
ROUNDS = 3


def main(words: list[str] | None = None) -> None:
    """Measure, print a table, and a line of JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few variants, 1 and 12 tables; 45 s")
    for name, value in FULL.items():
        parser.add_argument(f"--{name}", type=int, help=f"default {value:,}, with --quick {QUICK[name]:,}")
    options = parser.parse_args(words)
    for name in ("hpc", "udipdist"):
        logging.getLogger(name).setLevel(logging.ERROR)
    sizes = (QUICK if options.quick else FULL) | {
        name: value for name in FULL if (value := getattr(options, name)) is not None
    }
    with tempfile.TemporaryDirectory() as name:
        row = measure(Path(name), **sizes, quick=options.quick)
    row["seconds"] = since_start()
    print(json.dumps(tables.rounded(row)))


def measure(folder: Path, people: int, variants: int, families: int, quick: bool) -> dict[str, Any]:
    """One and twelve tables in turn, as many rounds as there is time for."""
    warm = _sweep(folder / "warm", 300, 200, 20, 1)
    _associate(warm, 1)
    config = _sweep(folder / "cohort", people, variants, families, CHECKPOINTS)
    counts = (1, CHECKPOINTS) if quick else (1, 3, 6, CHECKPOINTS)
    costs: dict[int, list[dict[str, Cost]]] = {count: [] for count in counts}
    forget_peak_memory()
    for _ in range(ROUNDS):
        with clock() as spent:
            for count in counts:
                costs[count].append(_associate(config, count))
        if quick and since_start() + spent.seconds > QUICK_SECONDS:
            break
    rows = []
    for count in counts:
        gwas, whole = (smallest([cost[part] for cost in costs[count]]) for part in ("gwas", "whole"))
        rows.append({
            "tables": count, "gwas_seconds": gwas.seconds, "gwas_cpu_seconds": gwas.cpu, "seconds": whole.seconds,
            "cpu_seconds": whole.cpu,
        })  # fmt: skip
    for row in rows:
        row["gwas_over_1"] = row["gwas_seconds"] / rows[0]["gwas_seconds"]
        row["gwas_over_1_cpu"] = row["gwas_cpu_seconds"] / rows[0]["gwas_cpu_seconds"]
        row["over_1"] = row["seconds"] / rows[0]["seconds"]
    tables.show(f"{people:,} people, {variants:,} variants, tables of {LATENTS} latents, one pass", rows)
    last = rows[-1]
    return {
        "people": people, "variants": variants, "latents": LATENTS, "threads": cores(),
        "gwas_12_over_1": last["gwas_over_1"], "gwas_12_over_1_cpu": last["gwas_over_1_cpu"],
        "association_12_over_1": last["over_1"], "gwas_1_seconds": rows[0]["gwas_seconds"],
        "gwas_12_seconds": last["gwas_seconds"], "rounds": len(costs[1]), "peak_gb": peak_memory() / 1e9,
        "gwas_rows": rows,
    }  # fmt: skip


def _sweep(folder: Path, people: int, variants: int, families: int, count: int) -> SweepConfig:
    """A sweep on a cohort made on the spot, and `count` tables of latents, each with h2 from 0 to 0.95."""
    scan = cohort.write(folder, people, variants, LATENTS * count, families)
    (path,) = scan.phenotypes
    table = pd.read_parquet(path)
    values_NP = table.iloc[:, 2:].to_numpy()
    for i in range(count):
        own_NP = values_NP[:, i::count]
        names = [f"z{k:03d}" for k in range(own_NP.shape[1])]
        table[["FID", "IID"]].join(pd.DataFrame(own_NP.astype(np.float32), columns=names)).to_parquet(
            folder / f"latents-{i:02d}.parquet", index=False
        )
    tree = {"genotypes": scan.genotypes, "covariates": scan.covariates, "sparse_grm": scan.sparse_grm}
    keys = {key: str(path) for key, path in (tree | {"store": folder, "out": folder / "sweep"}).items()}
    return SweepConfig.parse(keys)


def _associate(config: SweepConfig, count: int) -> dict[str, Cost]:
    """The cost of `count` tables in one pass, and of the part of it that is gwas."""
    remove(config.out)
    requests = [
        Request(f"latents-{i:02d}", str(config.store / f"latents-{i:02d}.parquet"), str(config.out / f"{i:02d}"), {})
        for i in range(count)
    ]
    association = _Timed(config)
    with clock() as whole:
        for answer in association.handle(requests):
            if isinstance(answer, Exception):
                raise answer
    return {"gwas": association.gwas, "whole": whole}


class _Timed(Association):
    """An association that takes the time of its pass over the genotypes, with the null models."""

    gwas = Cost()

    def _gwas(self, *arguments: Any) -> dict[str, Path]:
        with clock() as self.gwas:
            return super()._gwas(*arguments)


if __name__ == "__main__":
    main()
