"""plan -> part(i) -> finish: the one pattern of out-of-core work.

`plan` fixes the parts and refuses what cannot work. `part(i)` is idempotent and publishes whole files. `finish`
checks all parts. A local loop, Dask workers and a Slurm array are three ways of calling `part`. A part is done when
its record, written last, is there and the files it names are as they were written: killing anything and running it
again redoes only unfinished parts.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hpc import leftovers
from hpc.errors import Incomplete, OutputExists, full_disk, no_space, some
from hpc.files import crc32c, publish_json, remove, sha256
from hpc.progress import Progress

log = logging.getLogger(__name__)
_DIGESTS = {"sha256": sha256, "crc32c": crc32c}
_OF_ZARR = re.compile(r"\.[0-9a-f]{32}\.partial$")  # what zarr leaves


class Job(Protocol):
    """Work cut into parts. It must be picklable: workers get a copy. Its place is absolute where they are remote."""

    @property
    def place(self) -> Path:
        """The directory that holds plan.json and the records."""

    @property
    def n_parts(self) -> int:
        """How many parts there are."""

    @property
    def unit(self) -> str:
        """What `size_of_part` counts, for the progress line."""

    def part(self, index: int) -> dict[str, Any]:
        """Do part `index` and return JSON facts about it."""

    def size_of_part(self, index: int) -> int:
        """How many units part `index` holds."""


@runtime_checkable
class Writer(Protocol):
    """A job that says what a part wrote, so that a file lost or changed later is noticed.

    It may have `digest`: what is recorded of the bytes of each file, "sha256" (default) or "crc32c".
    """

    def files_of_part(self, index: int) -> Iterable[Path]:
        """The files below `place` that hold part `index`; those that do not exist stand for nothing written."""


class Planner(Protocol):
    """A job whose plan wrote files that parts do not write again."""

    @property
    def place(self) -> Path:
        """As of a `Job`."""

    def files_of_plan(self) -> Iterable[Path]:
        """The files below `place` that the plan wrote."""


Plan = dict[str, Any]


def fix_plan(
    place: str | Path, plan: Plan, counts: Callable[[Plan], Plan] = lambda plan: plan, key: str = "out"
) -> None:
    """Write the plan of an unfinished output, or check that the one there is the same. Raises OutputExists.

    `counts`: what of a plan makes it another (Config.identity_of, where a configuration stands in it); of fingerprints
    (hpc.stage) the path does not count. `key`: by which a user names the output.
    """
    path = Path(place) / "plan.json"
    plan = json.loads(json.dumps(plan))
    if path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        differ = _differences(counts(old), counts(plan))
        if differ:
            raise OutputExists(
                f"{place}: has unfinished work of another plan (different: {some(differ)}); "
                f"give another {key}=, or type overwrite=true to start again"
            )
        if old == plan:
            return
    publish_json(path, plan)


def _differences(old: Plan, new: Plan, prefix: str = "") -> list[str]:
    """The dotted keys at which two plans differ."""
    differ = []
    if "path" in old and ("manifest" in old or "changed_ns" in old):  # a fingerprint
        old, new = {**old, "path": ""}, {**new, "path": ""}
    for key in sorted({*old, *new}):
        one, other = old.get(key), new.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            differ += _differences(one, other, f"{prefix}{key}.")
        elif one != other:
            differ.append(prefix + key)
    return differ


def drop_plan(place: str | Path) -> bool:
    """Forget the plan of an output of which no part is done: the user may have mended a mistake. True if forgotten."""
    idle = not any((Path(place) / "parts").glob("*.json"))
    if idle:
        (Path(place) / "plan.json").unlink(missing_ok=True)
        _record_of_plan(place).unlink(missing_ok=True)
    return idle


def record_plan(job: Planner) -> None:
    """Record the checksums of what the plan wrote, once; `finish` compares them."""
    path = _record_of_plan(job.place)
    if not path.exists():
        publish_json(path, {"files": _checksums(job.place, job.files_of_plan())})


def marker(place: str | Path, index: int) -> Path:
    """The record of part `index`: it says that the part is done, what it found and what it wrote."""
    return Path(place) / "parts" / f"{index:06d}.json"


def _record_of_plan(place: str | Path) -> Path:
    return Path(place) / "parts" / "plan.record"


def log_of_part(place: str | Path, index: int) -> Path:
    """What a worker says while it does part `index`; kept where the worker dies of it."""
    return Path(place) / "parts" / f"{index:06d}.log"


def pending(job: Job) -> list[int]:
    """The parts that are not done yet."""
    return [i for i in range(job.n_parts) if not marker(job.place, i).exists()]


def damaged(job: Job, contents: bool = True) -> dict[int, list[str]]:
    """Of the parts that are done, those whose files are no longer as they were written: 'PATH (what is wrong)'.

    `contents`: compare the SHA-256 of every file; otherwise only that it is there with the same size.
    """
    done = [i for i in range(job.n_parts) if marker(job.place, i).exists()]
    found = {}
    with ThreadPoolExecutor(8) as threads, Progress("checking finished parts", len(done), "parts") as progress:
        looks = threads.map(lambda i: _wrong(job.place, _read(job, i), contents), done)
        for index, wrong in zip(done, looks, strict=True):
            if wrong:
                found[index] = wrong
            if contents:
                progress.advance()
    return found


def lost(place: str | Path, folder: str | Path) -> list[str]:
    """Of the files in `folder` that the records of `place` name, those that are gone or have another size: a look that
    costs no reading, for whoever opens a finished output."""
    wrong: list[str] = []
    inside = Path(folder).resolve().relative_to(Path(place).resolve()).as_posix() + "/"
    for path in sorted((Path(place) / "parts").glob("*.json")):
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        here = {name: seen for name, seen in files.items() if name.startswith(inside)}
        wrong += _wrong(Path(place), {"files": here}, contents=False)
    return wrong


def run_part(job: Job, index: int) -> dict[str, Any]:
    """Do one part unless it is done and its files are whole, and record it. Returns its facts. Raises NoSpace."""
    path = marker(job.place, index)
    if path.exists():
        record = _read(job, index)
        wrong = _wrong(job.place, record, contents=True)
        if not wrong:
            known: dict[str, Any] = record["facts"]
            return known
        log.warning("%s: part %d is done again: %s", job.place, index, some(wrong))
        path.unlink(missing_ok=True)
    started, clock = datetime.now(UTC), time.monotonic()
    try:
        if isinstance(job, Writer):
            for file in job.files_of_part(index):  # a writer may read what is there, and stumble over damage
                file.unlink(missing_ok=True)
        facts = job.part(index)
        record = {
            "part": index,
            "facts": facts,
            "files": _checksums(job.place, job.files_of_part(index), _digest(job)) if isinstance(job, Writer) else {},
            "host": socket.gethostname(),
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - clock, 3),
        }
        publish_json(path, record)
    except Exception as error:
        if reason := full_disk(error):
            raise no_space(job.place, reason, f", in part {index}") from None
        raise
    return facts


def finish(job: Job, contents: bool = True) -> list[dict[str, Any]]:
    """The facts of all parts, in order, when all are done and their files whole (see `damaged`); what killed writers
    left is removed. Raises Incomplete, which names what is missing or changed."""
    missing = pending(job)
    if missing:
        raise Incomplete(f"{job.place}: {len(missing)} of {job.n_parts} parts are not done (parts {some(missing)})")
    wrong = damaged(job, contents)
    if wrong:
        files = [file for listed in wrong.values() for file in listed]
        raise Incomplete(
            f"{job.place}: {len(files)} files of {len(wrong)} parts have changed since: {some(files)}; "
            f"do these parts again (parts {some(wrong, 20)}), then finish"
        )
    path = _record_of_plan(job.place)
    laid = _wrong(job.place, json.loads(path.read_text(encoding="utf-8")), contents) if path.exists() else []
    if laid:
        raise Incomplete(
            f"{job.place}: {len(laid)} files that the plan wrote have changed since: {some(laid)}; no part "
            "writes them again: copy them back, or start again with overwrite=true"
        )
    for path in list(Path(job.place).rglob("*")):
        if leftovers.NAME.match(path.name) or _OF_ZARR.search(path.name):
            remove(path)
    for path in Path(job.place).glob("parts/*.log"):  # of workers that died
        path.unlink(missing_ok=True)
    return [_read(job, i)["facts"] for i in range(job.n_parts)]


def here(job: Job, indices: Iterable[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run parts one after the other in this process."""
    for index in indices:
        yield index, run_part(job, index)


Runner = Callable[[Job, list[int]], Iterator[tuple[int, dict[str, Any]]]]


def run(job: Job, label: str, runner: Runner = here) -> list[dict[str, Any]]:
    """Run all parts that are not done, or no longer whole, with a progress line; `runner` says where.

    Returns the facts of all parts. Raises Incomplete where parts that a runner has done are not to be seen here.
    """
    todo = sorted({*pending(job), *damaged(job)})
    if 0 < len(todo) < job.n_parts:
        log.info("%s: %d of %d parts are left to do", label, len(todo), job.n_parts)
    do(job, todo, label, runner)
    return finish(job, contents=False)


def do(job: Job, todo: list[int], label: str, runner: Runner = here) -> None:
    """Run the parts `todo` with a progress line."""
    total = sum(job.size_of_part(i) for i in range(job.n_parts))
    done = total - sum(job.size_of_part(i) for i in todo)
    with Progress(label, total, job.unit, done=done) as progress:
        for index, _ in runner(job, todo):
            progress.advance(job.size_of_part(index))


def _read(job: Job, index: int) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(marker(job.place, index).read_text(encoding="utf-8"))
    return record


def _digest(job: Job) -> str:
    return getattr(job, "digest", "sha256")


def _checksums(place: Path, files: Iterable[Path], digest: str = "sha256") -> dict[str, dict[str, Any]]:
    return {
        path.relative_to(place).as_posix(): {"bytes": path.stat().st_size, digest: _DIGESTS[digest](path)}
        for path in sorted(files)
        if path.exists()
    }


def _wrong(place: Path, record: dict[str, Any], contents: bool) -> list[str]:
    """'PATH (what is wrong)' of the files in a record that are not as they were written."""
    wrong = []
    for name, seen in record["files"].items():
        path = Path(place) / name
        if not path.exists():
            wrong.append(f"{name} (is missing)")
        elif path.stat().st_size != seen["bytes"]:
            wrong.append(f"{name} (has {path.stat().st_size:,} bytes, not {seen['bytes']:,})")
        elif contents and any(of(path) != seen[digest] for digest, of in _DIGESTS.items() if digest in seen):
            wrong.append(f"{name} (other bytes)")
    return wrong
