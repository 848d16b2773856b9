"""plan -> part(i) -> finish: the one pattern of out-of-core work.

`plan` fixes the parts and refuses what cannot work. `part(i)` is idempotent and publishes whole files. `finish`
checks all parts. A local loop, Dask workers and a Slurm array are three ways of calling `part`. A part is done when
its marker, written last, is there: killing anything and running it again redoes only unfinished parts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from hpc.errors import Incomplete, OutputExists, some
from hpc.files import publish_json
from hpc.progress import Progress

log = logging.getLogger(__name__)


class Job(Protocol):
    """Work cut into parts. It must be picklable: workers get a copy."""

    place: Path  # the directory that holds plan.json and the markers
    n_parts: int
    unit: str  # what `size_of_part` counts, for the progress line

    def part(self, index: int) -> dict[str, Any]:
        """Do part `index` and return JSON facts about it."""

    def size_of_part(self, index: int) -> int:
        """How many units part `index` holds."""


def fix_plan(place: str | Path, plan: dict[str, Any]) -> None:
    """Write the plan of an unfinished output, or check that the one there is the same. Raises OutputExists."""
    path = Path(place) / "plan.json"
    plan = json.loads(json.dumps(plan))
    if path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        if old == plan:
            return
        differ = sorted(key for key in {*old, *plan} if old.get(key) != plan.get(key))
        raise OutputExists(
            f"{place}: holds unfinished work of another plan (different: {some(differ)}); "
            "give another out= or type overwrite=true to start afresh"
        )
    publish_json(path, plan)


def drop_plan(place: str | Path) -> bool:
    """Forget the plan of an output of which no part is done: the user may have mended a mistake. True if forgotten."""
    idle = not any((Path(place) / "parts").glob("*.json"))
    if idle:
        (Path(place) / "plan.json").unlink(missing_ok=True)
    return idle


def marker(place: str | Path, index: int) -> Path:
    """The file that says that part `index` is done."""
    return Path(place) / "parts" / f"{index:06d}.json"


def pending(job: Job) -> list[int]:
    """The parts that are not done yet."""
    return [i for i in range(job.n_parts) if not marker(job.place, i).exists()]


def run_part(job: Job, index: int) -> dict[str, Any]:
    """Do one part unless it is done, and mark it. Returns its facts."""
    path = marker(job.place, index)
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    facts = job.part(index)
    publish_json(path, facts)
    return facts


def facts(job: Job) -> list[dict[str, Any]]:
    """The facts of all parts, in order. Raises Incomplete where parts are missing."""
    missing = pending(job)
    if missing:
        raise Incomplete(f"{job.place}: {len(missing)} of {job.n_parts} parts are not done (parts {some(missing)})")
    return [json.loads(marker(job.place, i).read_text(encoding="utf-8")) for i in range(job.n_parts)]


def here(job: Job, indices: Iterable[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run parts one after the other in this process."""
    for index in indices:
        yield index, run_part(job, index)


Runner = Callable[[Job, list[int]], Iterator[tuple[int, dict[str, Any]]]]


def run(job: Job, label: str, runner: Runner = here) -> list[dict[str, Any]]:
    """Run all pending parts with a progress line; `runner` says where. Returns the facts of all parts."""
    todo = pending(job)
    total = sum(job.size_of_part(i) for i in range(job.n_parts))
    done = total - sum(job.size_of_part(i) for i in todo)
    if done:
        log.info("%s: resuming, %d of %d parts are done", label, job.n_parts - len(todo), job.n_parts)
    with Progress(label, total, job.unit, done=done) as progress:
        for index, _ in runner(job, todo):
            progress.advance(job.size_of_part(index))
    return facts(job)
