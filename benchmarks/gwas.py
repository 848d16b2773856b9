"""How fast is the association? The whole pass over a .bed for all traits, against its floor and against peers.

    python -m benchmarks.gwas [--quick] [--cohort DIR] [--traits 128,1024]
    python -m benchmarks.gwas --memory

The floor is the one float32 product [M x N][N x P] that a scan of all variants and traits needs, with numpy's BLAS on
the same cores. Pass (read, decode, impute, multiply, denominators, statistics, write) and floor run in turn, and the
smallest of either counts: other work on the machine slows both. The ratio of processor seconds is the steadier one.

Without `--quick` the data are those of `udipdist simulate preset=bench` (minutes; `--cohort DIR` keeps or reuses them),
and tables follow of traits, variants, workers and allele frequency. `--quick` makes its own and ends within 45 s.
The last line is one JSON object: floor_ratio, null_seconds (reading, families, REML of all traits), peak_gb,
variants_per_s, peers, and more.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet

from benchmarks import cohort, growth, peers, tables
from benchmarks.clock import clock, cores, forget_peak_memory, since_start
from benchmarks.memory import memory
from benchmarks.passes import against_floor, one_pass, warm_up
from hpc.stage import peak_memory
from udipdist.config import GwasConfig
from udipdist.gwas.scan import verb as scan

PEOPLE, FAMILIES, TRAITS = 22_867, 3_000, 128
QUICK_VARIANTS = 8_192
QUICK_SECONDS = 38.0  # no pass starts that would end later; 45 are allowed
TABLE_VARIANTS = 8_192  # of the tables by traits


def main(words: list[str] | None = None) -> None:
    """Measure, print tables, and a line of JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few variants, 128 traits, neither varied; 45 s")
    parser.add_argument("--memory", action="store_true", help="only memory: 40,000 people, up to 1,000,000 variants")
    parser.add_argument("--cohort", type=Path, help="folder of `simulate preset=bench`; made if it is not there")
    parser.add_argument("--traits", default="128,1024", help="numbers of traits that the full run holds to the floor")
    parser.add_argument("--people", type=int, default=PEOPLE, help="of --quick")
    parser.add_argument("--variants", type=int, default=QUICK_VARIANTS, help="of --quick")
    parser.add_argument("--families", type=int, default=FAMILIES, help="of --quick")
    options = parser.parse_args(words)
    for name in ("hpc", "udipdist", "distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.memory:
            row = memory(folder)
        elif options.quick:
            row = quick(folder, options.people, options.variants, options.families)
        else:
            row = full(folder, options.cohort or folder / "bench", [int(p) for p in options.traits.split(",")])
    row["seconds"] = since_start()
    print(json.dumps(tables.rounded(row)))


def quick(folder: Path, people: int, variants: int, families: int) -> dict[str, Any]:
    """One table, within 45 s, of data made on the spot."""
    config = cohort.write(folder / "cohort", people, variants, TRAITS, families)
    row, _ = headline(config, folder, most=15, deadline=QUICK_SECONDS, peer_variants=16, peer_people=600)
    return row


def full(folder: Path, bench: Path, traits: list[int]) -> dict[str, Any]:
    """The simulated cohort, all tables."""
    files = growth.simulated(bench)
    row, job = headline(GwasConfig.parse(files | {"out": folder / "out"}), folder, 3, float("inf"), 200, 1000)
    row["by_variants"] = growth.by_variants(job)
    tables.show("Variants (the first parts of the same scan)", row["by_variants"])
    counts = sorted({64, 128, 256, 512, *traits})
    row["by_traits"] = growth.by_traits(files, folder, counts, TABLE_VARIANTS)
    tables.show(f"Traits ({TABLE_VARIANTS:,} variants)", row["by_traits"])
    row["by_workers"] = growth.by_workers(files, folder)
    tables.show("Workers, a core each (running: without their start)", row["by_workers"])
    row["by_frequency"] = growth.by_frequency(folder / "frequency", PEOPLE, TRAITS, FAMILIES)
    tables.show("Frequency of the allele", row["by_frequency"])
    return row


def headline(
    config: GwasConfig, folder: Path, most: int, deadline: float, peer_variants: int, peer_people: int
) -> tuple[dict[str, Any], Any]:
    """Null models, pass, floor and peers of one scan; also the planned scan. Peers come before the rounds, so that
    these can use what time is left."""
    warm_up(folder / "warm")
    (table,) = config.phenotypes
    n, p = growth.count_people(config.genotypes), len(pyarrow.parquet.read_schema(table).names) - 2  # FID IID
    forget_peak_memory()
    with clock() as null:
        job = scan.plan(config)
    one_pass(job)
    peak = peak_memory()
    files = (config.genotypes, table, config.covariates)
    others = peers.measure(folder / "peers", *files, peer_variants, peer_people)
    ratio = against_floor(job, n, p, most, deadline)
    scale = peers.VARIANTS * peers.TRAITS / (ratio.variants * p)
    ours = ratio.work.cpu * scale
    row = {"people": n, "variants": ratio.variants, "traits": p, "threads": cores()}
    row |= ratio.facts()
    row |= {
        "null_seconds": null.seconds,
        "null_cpu_seconds": null.cpu,
        "peak_gb": peak / 1e9,
        "cpu_seconds_per_20k_variants_128_traits": ours,
        "the_same_with_null_models": ours + null.cpu * peers.TRAITS / p,
    }
    tables.show_one("Exact mixed model, one scan", row)
    _show_peers(ours, null.cpu, others)
    row["peers"] = peers.as_json(others, ours)
    row["published_elsewhere"] = peers.as_json(peers.published(), ours)
    return row, job


def _show_peers(ours: float, null: float, others: dict[str, peers.Peer]) -> None:
    rows = [("udipdist, exact mixed model, scan alone", ours, None, ""), ("  its null models", null, None, "once")]
    rows += [(name, peer.cpu_seconds, None, peer.note) for name, peer in others.items()]
    rows += [(name, None, peer.cpu_seconds, peer.note) for name, peer in peers.published().items()]
    tables.show(
        "Processor seconds for 20,000 variants x 128 traits (elsewhere: N = 20,000, 25 covariates, NOT measured here)",
        [
            {
                "": name,
                "measured here": "" if here is None else here,
                "elsewhere": "" if elsewhere is None else elsewhere,
                "over ours": (elsewhere if here is None else here) / ours,
                "note": note,
            }
            for name, here, elsewhere, note in rows
        ],
    )


if __name__ == "__main__":
    main()
