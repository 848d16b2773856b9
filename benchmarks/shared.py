"""What does other work on the machine cost? The stages alone, and beside a busy loop for each core.

    python -m benchmarks.shared [--quick]

A process that has its imports behind it trains a network of the demo's size, embeds with it, tests genotypes and
ingests scans, alone and then beside the loops. A slowdown is the time beside the loops over the time alone; with as
many loops as cores, 2 is fair. A second process trains with the long spins that are the libraries' own default:
`idle_loss` says what short spins (hpc.threads) cost on an idle machine, and `train_slowdown_of_long_spins` what they
save beside the loops. The smallest time of several runs counts. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.clock import cores, since_start
from benchmarks.shared_stages import STAGES
from hpc.threads import SHORT_SPIN

ROOT = Path(__file__).parents[1]
LONG_SPIN = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200", "OPENBLAS_THREAD_TIMEOUT": "26"}  # their defaults
QUICK_ROUNDS, ROUNDS = 1, 4
_LOOP = "import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    for _ in range(10**6): pass"


def main(words: list[str] | None = None) -> None:
    """Measure, print a table, and a line of JSON last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little work; 45 s")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        row = measure(Path(name), options.quick)
    row["seconds"] = since_start()
    print(json.dumps(tables.rounded(row)))


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """The seconds of each stage, alone and beside the loops, in both policies."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    alone: dict[str, dict[str, float]] = {"short": {}, "long": {}}
    beside: dict[str, dict[str, float]] = {"short": {}, "long": {}}
    with _worker(folder, quick, SHORT_SPIN) as short, _worker(folder, quick, LONG_SPIN) as long:
        workers = {"short": short, "long": long}
        work = [("short", "train"), ("long", "train"), *(("short", stage) for stage in STAGES[1:])]
        for policy, stage in work:
            workers[policy].run(stage)  # compiles, and fills the page cache
        for seconds, loops in ((alone, 0), (beside, cores())):
            with busy_loops(loops):
                for _ in range(rounds):
                    for policy, stage in work:
                        took = workers[policy].run(stage)
                        seconds[policy][stage] = min(took, seconds[policy].get(stage, float("inf")))
    rows = [
        {
            "": stage + ("" if policy == "short" else ", long spins"),
            "alone, s": alone[policy][stage],
            "beside loops, s": beside[policy][stage],
            "slowdown": beside[policy][stage] / alone[policy][stage],
        }
        for policy, stage in work
    ]
    tables.show(f"{cores()} cores, alone and beside {cores()} busy loops", rows)
    slowdowns = {f"{stage}_slowdown": beside["short"][stage] / alone["short"][stage] for stage in STAGES}
    return {
        "cores": cores(),
        **slowdowns,
        "idle_loss": alone["short"]["train"] / alone["long"]["train"],
        "train_slowdown_of_long_spins": beside["long"]["train"] / alone["long"]["train"],
        "rows": rows,
    }


class Worker:
    """A process that has its imports behind it and does a stage when it is told to."""

    def __init__(self, process: subprocess.Popen[str]):
        self._process = process
        self._answer()  # it is ready

    def run(self, stage: str) -> float:
        """Seconds that the stage took."""
        assert self._process.stdin is not None
        print(stage, file=self._process.stdin, flush=True)
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of the stages ended with {self._process.wait()}; its message is above")
        return line


@contextmanager
def _worker(folder: Path, quick: bool, policy: dict[str, str]) -> Iterator[Worker]:
    """A worker."""
    words = [sys.executable, "-m", "benchmarks.shared_stages", str(folder), "quick" if quick else "full"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=ROOT, env={**os.environ, **policy}, **pipes) as process:
        try:
            yield Worker(process)
        finally:
            process.kill()


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """So many processes that do nothing but keep a core busy, as long as the block lasts or this process lives."""
    words = [sys.executable, "-S", "-c", _LOOP, str(os.getpid())]
    loops = [subprocess.Popen(words) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


if __name__ == "__main__":
    main()
