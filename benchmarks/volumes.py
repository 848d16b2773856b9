"""How fast do volumes get into the store, and out of it into the model?

    python -m benchmarks.volumes [--quick] [--folder DIR]
    python -m benchmarks.volumes --profile

Volumes of 182 x 218 x 182 int16, .nii.gz of 2.8 MB, are made from the MNI152 template (`--folder` keeps them). All
lies in the page cache. Ways of doing a thing run in turn, in one process with one thread where nothing else is said,
and the smallest cost of each counts: other work on the machine slows all. The steadier ratio is that of processor
seconds, so the last line has these. It is one JSON object, among others with

    ingest_over_inflate     ingest of each further volume, over inflating the same .gz from memory with the library that
                            ingest uses (isal)
    ingest_workers_speedup  volumes a second of 2 processes, a core each, over 1, once they have started
    read_speedup_over_seed  the published code's __getitem__, over a volume of a random batch that is ready for the
                            model: float32 tokens, z-scored
    read_over_memcpy        copying the same float32 tokens from a plain np.memmap of them, over the same
    read_over_memcpy_raw    copying the stored values of the tokens from a plain np.memmap, over reading a raw batch

What ingest takes for each volume is the difference between two runs, of more files each than a contact sheet shows:
what comes once a run is given apart, and so is all of the longer run. Volumes have several names (links) where there
are fewer of them than files. `--quick` makes 8 volumes and ends within 45 s.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numcodecs import blosc
from threadpoolctl import threadpool_limits

from benchmarks import ingesting, scans, steps, tables
from benchmarks import volume_readers as readers
from benchmarks.clock import Cost, cores, since_start

EPOCHS, SCANS = 300, 4597  # of the paper
VOLUMES, NAMES = 64, (64, 256)  # names: files of a shorter and of a longer ingest, links to the volumes
QUICK_VOLUMES, QUICK_NAMES = 8, (40, 88)
QUICK_SECONDS = 38.0  # no round starts that would end later; 45 are allowed


def main(words: list[str] | None = None) -> None:
    """Measure, print tables, and a line of JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 volumes, few rounds; 45 s")
    parser.add_argument("--profile", action="store_true", help="only the steps of ingest, and what each takes")
    parser.add_argument("--folder", type=Path, help="keep the volumes here, or take those that are here")
    parser.add_argument("--volumes", type=int, help=f"how many; default {VOLUMES}, with --quick {QUICK_VOLUMES}")
    parser.add_argument("--names", type=int, nargs=2, help="files of the shorter and of the longer ingest")
    options = parser.parse_args(words)
    for name in ("hpc", "udipdist", "distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    n = options.volumes or (QUICK_VOLUMES if options.quick else VOLUMES)
    n_few, n_many = options.names or (QUICK_NAMES if options.quick else NAMES)
    with tempfile.TemporaryDirectory() as name, threadpool_limits(1):
        torch.set_num_threads(1)
        blosc.set_nthreads(1)
        folder = Path(name)
        paths = scans.make(options.folder or folder / "made", n, cores())
        few, many = (ingesting.link(paths, folder / name, n) for name, n in (("few", n_few), ("many", n_many)))
        row: dict[str, Any] = {"volumes": n, "names": [n_few, n_many]}
        if options.profile:
            row |= profile(few, many, folder)
        else:
            row |= measure(few, many, folder, options.quick)
    row["seconds"] = since_start()
    print(json.dumps(tables.rounded(row)))


def profile(few: Path, many: Path, folder: Path) -> dict[str, Any]:
    """The table of the steps of ingest."""
    rows = steps.profile(few, many, folder)
    tables.show("Steps of ingest in one process, processor time", rows)
    return {"steps_cpu_ms": {row[""]: row["ms, each further volume"] for row in rows}}


def measure(few: Path, many: Path, folder: Path, quick: bool) -> dict[str, Any]:
    """Ingest, then reading; the tables are printed as they come."""
    costs = ingesting.against_inflating(few, many, folder, *((3, QUICK_SECONDS / 3) if quick else (5, np.inf)))
    links = sorted(few.iterdir())
    row = {"gz_mb": _mean_mb(links)} | _ingest(costs)
    row |= _workers(links, folder / "workers", quick)
    return row | _read(links, folder, quick, costs.further)


def _ingest(costs: ingesting.Ingest) -> dict[str, Any]:
    """The table of ingest in one process."""
    floor = costs.inflate["isal"]
    named = {
        "ingest, each further volume": costs.further,
        "ingest, a volume of a whole run": costs.whole,
        **{f"  floor: inflate with {name}": cost for name, cost in costs.inflate.items()},
    }
    tables.show(
        "Getting in, one core, a volume",
        [
            {
                "": name,
                "processor ms": 1000 * cost.cpu,
                "wall ms": 1000 * cost.seconds,
                "over inflating": (cost / floor).cpu,
            }
            for name, cost in named.items()
        ],
    )
    print(f"What comes once a run takes {costs.once.cpu:.2f} processor s.\n")
    return {
        "ingest_over_inflate": (costs.further / floor).cpu,
        "ingest_over_inflate_wall": (costs.further / floor).seconds,
        "ingest_over_inflate_whole_run": (costs.whole / floor).cpu,
        "ingest_cpu_ms": 1000 * costs.further.cpu,
        "ingest_once_cpu_ms": 1000 * costs.once.cpu,
        "inflate_cpu_ms": {name: 1000 * cost.cpu for name, cost in costs.inflate.items()},
    }


def _workers(links: list[Path], folder: Path, quick: bool) -> dict[str, Any]:
    """The table of worker processes."""
    rates = ingesting.with_workers(links, folder, (1 if quick else 8) * len(links), 1 if quick else 2)
    tables.show("Processes with a core each, volumes a second", [{"processes": n, **rate} for n, rate in rates.items()])
    return {
        "ingest_workers_speedup": rates[2]["running"] / rates[1]["running"],
        "ingest_volumes_per_s": {str(n): rate["running"] for n, rate in rates.items()},
    }


def _read(links: list[Path], folder: Path, quick: bool, ingest: Cost) -> dict[str, Any]:
    """The table of reading, and what training from the store costs as a whole."""
    ways = readers.ways(links, folder, 4 if quick else len(links), ingest)
    costs = readers.in_turn(ways, *((5, QUICK_SECONDS) if quick else (9, np.inf)))
    seed, ours = costs[readers.PUBLISHED].cpu, costs[readers.OURS].cpu
    hours = EPOCHS * SCANS / 3600
    tables.show(
        f"Getting out, a volume of random batches of {readers.BATCH}",
        [
            {
                "": name,
                "processor ms": 1000 * cost.cpu,
                "wall ms": 1000 * cost.seconds,
                "published over it": seed / cost.cpu,
                f"core hours, {EPOCHS} epochs of {SCANS:,}": hours * cost.cpu,
                f"GB on disk, {SCANS:,}": way.disk / way.volumes * SCANS / 1e9 if way.disk else "",
                "made once, processor ms": 1000 * way.making.cpu if way.making else "",
            }
            for (name, way), cost in zip(ways.items(), costs.values(), strict=True)
        ],
    )
    print(f"The .nii.gz of {SCANS:,} such scans take {_mean_mb(links) * SCANS / 1e3:.1f} GB.\n")
    return {
        "read_speedup_over_seed": seed / ours,
        "read_over_memcpy": costs[readers.COPY].cpu / ours,
        "read_over_memcpy_same_memory": (costs[readers.COPY_INTO] / costs[readers.OURS_INTO]).cpu,
        "read_over_memcpy_raw": (costs[readers.COPY_RAW] / costs[readers.OURS_RAW]).cpu,
        "read_cpu_ms": 1000 * ours,
        "published_cpu_ms": 1000 * seed,
        "hours_of_300_epochs": hours * ours,
        "hours_of_300_epochs_published": hours * seed,
        "speedup_over_seed": {name.strip(): seed / cost.cpu for name, cost in costs.items()},
    }


def _mean_mb(paths: list[Path]) -> float:
    return float(np.mean([path.stat().st_size for path in paths])) / 1e6


if __name__ == "__main__":
    main()
