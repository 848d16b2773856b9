"""One scan in a process of its own, for what only a fresh process shows: memory, and how workers scale.

    python -m benchmarks.once CONFIG.json [--cores C]

CONFIG.json holds the keys of `udipdist gwas`. `--cores` ties this process, and the workers it starts, to so many cores.
The last line is JSON: seconds of the null models and of the whole pass, variants per second once every worker has done
its first part (most of which is its start), and the memory of all processes.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.clock import clock, watch_memory
from hpc import parts

ROOT = Path(__file__).parents[1]


def run(folder: Path, keys: dict[str, Any], cores: int | None = None) -> dict[str, Any]:
    """Start the process and return what it measured."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps(keys, default=str), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.once", str(path)]
    command += [] if cores is None else ["--cores", str(cores)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Plan, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--cores", type=int)
    options = parser.parse_args()
    if options.cores is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    # After the cores are chosen: libraries count them when they are loaded.
    from benchmarks.passes import one_pass
    from udipdist.config import GwasConfig
    from udipdist.gwas.scan import verb as scan

    for name in ("udipdist", "distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    config = GwasConfig.parse(json.loads(options.config.read_text(encoding="utf-8")))
    with watch_memory() as memory:
        with clock() as null:
            job = scan.plan(config)
        whole = one_pass(job, config.workers)
    assert not parts.pending(job)
    print(
        json.dumps(
            {
                "null_seconds": null.seconds,
                "pass_seconds": whole.seconds,
                "pass_cpu_seconds": whole.cpu,
                "variants": sum(job.size_of_part(i) for i in range(job.n_parts)),
                "variants_per_s_running": _running(job, max(1, config.workers)),
                "process_gb": memory.process / 1e9,
                "together_gb": memory.together / 1e9,
                "without_files_gb": memory.without_files / 1e9,
            }
        )
    )


def _running(job: parts.Job, workers: int) -> float | None:
    """Variants per second after the first part of each worker, from when the markers of parts were written."""
    done = sorted((parts.marker(job.place, i).stat().st_mtime, job.size_of_part(i)) for i in range(job.n_parts))
    rest = sum(size for _, size in done[workers:])
    return rest / (done[-1][0] - done[workers - 1][0]) if rest else None


if __name__ == "__main__":
    main()
