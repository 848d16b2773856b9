"""What does a checkpoint cost a sweep? The association of 12 tables of latents in one pass over that of one.

    python -m benchmarks.sweep [--quick] [--people N] [--variants M] [--families F]

The tables are tested in the shared service of a sweep (udipdist.sweep.association), which has started long ago.
`gwas_12_over_1` compares its null models and pass, and `service_12_over_1` these with loci of the smallest p and of
the joint test, panel and scores. `command_12_over_1` compares `udipdist gwas phenotypes=[1 table]` and the same with
12, from start to end. One and twelve run in turn, and the smallest of either counts: other work on the machine slows
both. Tables differ in every value, so nothing is shared between them but what is shared between checkpoints: people,
covariates, families and genotypes. The product of genotypes and traits is twelve-fold, and no scan can do without it.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import cohort, tables
from benchmarks.clock import Cost, clock, cores, since_start, smallest
from hpc.files import publish_text, remove
from hpc.stage import peak_memory
from udipdist.config import SweepConfig
from udipdist.sweep import configs
from udipdist.sweep.association import Association, Request

LATENTS, CHECKPOINTS = 128, 12
QUICK = {"people": 10_000, "variants": 8192, "families": 1300}
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
    _service(_sweep(folder / "warm", 300, 200, 20, 1), 1)
    config = _sweep(folder / "cohort", people, variants, families, CHECKPOINTS)
    counts = (1, CHECKPOINTS) if quick else (1, 3, 6, CHECKPOINTS)
    rows = [{"tables": count} for count in counts]
    for works in (_service, _command):
        costs: dict[int, list[dict[str, Cost]]] = {count: [] for count in counts}
        for _ in range(ROUNDS):
            with clock() as spent:
                for count in counts:
                    costs[count].append(works(config, count))
            if quick and since_start() + spent.seconds > QUICK_SECONDS:
                break
        for row in rows:
            for name in costs[1][0]:
                cost = smallest([each[name] for each in costs[row["tables"]]])
                row |= {f"{name}_seconds": cost.seconds, f"{name}_cpu_seconds": cost.cpu}
                row[f"{name}_over_1"] = cost.seconds / rows[0][f"{name}_seconds"]
                row[f"{name}_over_1_cpu"] = cost.cpu / rows[0][f"{name}_cpu_seconds"]
    tables.show(f"{people:,} people, {variants:,} variants, tables of {LATENTS} latents, one pass", rows)
    one, last = rows[0], rows[-1]
    ratios = {
        f"{name}_12_over_1{kind}": last[f"{name}_over_1{kind}"]
        for name in ("gwas", "service", "command")
        for kind in ("", "_cpu")
    }
    return {
        "people": people, "variants": variants, "latents": LATENTS, "threads": cores(), **ratios,
        "gwas_1_seconds": one["gwas_seconds"], "gwas_12_seconds": last["gwas_seconds"],
        "service_seconds_per_checkpoint": last["service_seconds"] / CHECKPOINTS, "peak_gb": peak_memory() / 1e9,
        "rows": rows,
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


def _latents(config: SweepConfig, count: int) -> list[Path]:
    return [config.store / f"latents-{i:02d}.parquet" for i in range(count)]


def _command(config: SweepConfig, count: int) -> dict[str, Cost]:
    """The cost of `udipdist gwas` with so many tables."""
    remove(config.out)
    scan = configs.gwas_config(config, tuple(_latents(config, count)), config.out / "gwas")
    publish_text(config.out / "gwas.yaml", scan.yaml())
    with clock() as cost:
        subprocess.run([sys.executable, "-m", "udipdist", "gwas", str(config.out / "gwas.yaml")], check=True)
    return {"command": cost}


class _Timed(Association):
    """The service, with a clock at its gwas."""

    gwas = Cost(0.0, 0.0)

    def _gwas(self, *arguments: Any) -> dict[str, Path]:
        with clock() as self.gwas:
            return super()._gwas(*arguments)


def _service(config: SweepConfig, count: int) -> dict[str, Cost]:
    """The cost of so many tables in the service of a sweep, and of the gwas in it."""
    remove(config.out)
    requests = [Request(path.stem, str(path), str(config.out / path.stem), {}) for path in _latents(config, count)]
    association = _Timed(config)
    with clock() as cost:
        answers = association.handle(requests)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return {"gwas": association.gwas, "service": cost}


if __name__ == "__main__":
    main()
