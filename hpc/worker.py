"""What runs on a Dask worker: a look at whether it sees what the caller sees, and one part. Imports no Dask."""

from __future__ import annotations

import faulthandler
import hashlib
import importlib
import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import hpc
from hpc import parts
from hpc.errors import InputError


@cache
def software(module: str) -> str:
    """Version and fingerprint of the sources of hpc and of the package of `module`: the same version may be other code.

    Raises ImportError where one of them is not there.
    """
    digest = hashlib.sha256()
    for name in sorted({"hpc", module.partition(".")[0]} - {"__main__"}):
        package = importlib.import_module(name)
        for folder in sorted({Path(folder).resolve() for folder in package.__path__}):
            for path in sorted(folder.rglob("*.py")):
                digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return f"{hpc.__version__} ({digest.hexdigest()[:8]})"


@dataclass(frozen=True)
class Probe:
    """What a worker must see: the same software, and the file that the caller has put into the folder."""

    path: Path
    text: str
    module: str  # of the job
    software: str

    def judge(self, who: str, found: str, text: str | None) -> None:
        """Raises InputError where the worker `who` has other software, or does not see the folder."""
        self.judge_software(f"worker {who}", found)
        if text != self.text:
            raise InputError(
                f"the Dask worker {who} does not see the folder {self.path.parent}; out= and all input must lie on a "
                "file system that every worker mounts at the same path"
            )

    def judge_software(self, who: str, found: str) -> None:
        """Raises InputError where `found` is not what the caller has."""
        if found != self.software:
            raise InputError(
                f"the Dask {who} has udipdist {found}, and this is {self.software}; install the same on both, and "
                "start the scheduler and its workers again"
            )


@contextmanager
def probing(job: parts.Job) -> Iterator[Probe]:
    """A probe in the folder of a job, as long as the block lasts."""
    text = uuid.uuid4().hex
    path = Path(job.place).absolute() / f".seen.partial-{text[:8]}"  # swept by parts.finish where the caller is killed
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    try:
        module = type(job).__module__
        yield Probe(path, text, module, software(module))
    finally:
        path.unlink(missing_ok=True)


def eyes(probe: Probe) -> Callable[[], tuple[str, str, str | None]]:
    """A function that travels by value, so that it can say elsewhere that hpc, or the job's own module, is missing:
    ('import', reason), or ('seen', software, what stands in the probe or None)."""
    module, path = probe.module, str(probe.path)

    def look() -> tuple[str, str, str | None]:
        import importlib
        import pathlib

        try:
            found = importlib.import_module("hpc.worker").software(module)
            if module != "__main__":
                importlib.import_module(module)
        except (ImportError, AttributeError) as error:
            return "import", str(error), None
        file = pathlib.Path(path)
        return "seen", found, file.read_text() if file.exists() else None

    return look


def same(job: parts.Job) -> parts.Job:
    """The job itself, as a task that other tasks refer to."""
    return job


def do_part(job: parts.Job, index: int, probe: Probe) -> dict[str, Any]:
    """Do a part on a worker. What it says, and where it was when it crashed, stays in its log if the worker dies."""
    seen = probe.path.read_text(encoding="utf-8") if probe.path.exists() else None
    probe.judge(
        f"on {socket.gethostname()}", software(probe.module), seen
    )  # this worker may have come later than the others
    path = parts.log_of_part(job.place, index)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        handler = logging.StreamHandler(file)
        logging.getLogger().addHandler(handler)
        faulthandler.enable(file)
        try:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} part {index} begins: {_who()}\n")
            file.flush()
            return parts.run_part(job, index)
        finally:
            faulthandler.disable()
            logging.getLogger().removeHandler(handler)
            path.unlink(missing_ok=True)


def _who() -> str:
    """Host, process and free memory, for the log of a part."""
    import psutil

    memory = psutil.virtual_memory()
    return (
        f"{socket.gethostname()}, process {os.getpid()}, {memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB "
        "of memory free"
    )
