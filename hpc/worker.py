"""What runs on a Dask worker: a look at whether it sees what the caller sees, and one part. Imports no Dask."""

from __future__ import annotations

import faulthandler
import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import hpc
from hpc import parts
from hpc.errors import InputError


@dataclass(frozen=True)
class Probe:
    """What a worker must see: the file that the caller has put into the folder, and the same software."""

    path: Path
    text: str
    software: str

    def judge(self, who: str, software: str, text: str | None) -> None:
        """Raises InputError where worker `who` has another version, or does not see the folder."""
        if software != self.software:
            raise InputError(
                f"the Dask worker {who} has udipdist {software}, and this is {self.software}; install the same version "
                "on both"
            )
        if text != self.text:
            raise InputError(
                f"the Dask worker {who} does not see the folder {self.path.parent}; out= and all input must lie on a "
                "file system that every worker mounts at the same path"
            )


@contextmanager
def probing(place: Path) -> Iterator[Probe]:
    """A probe in the folder `place`, as long as the block lasts."""
    text = uuid.uuid4().hex
    path = Path(place).absolute() / f".seen.partial-{text[:8]}"  # swept by parts.finish where the caller is killed
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    try:
        yield Probe(path, text, hpc.__version__)
    finally:
        path.unlink(missing_ok=True)


def eyes(job: parts.Job, probe: Probe) -> Callable[[], tuple]:
    """A function that travels by value, so that it can say on a worker that hpc, or the job's own module, is missing:
    ('import', reason), or ('seen', version, what stands in the probe or None)."""
    module, path = type(job).__module__, str(probe.path)

    def look():
        import importlib
        import pathlib

        try:
            seen = importlib.import_module("hpc").__version__
            if module != "__main__":
                importlib.import_module(module)
        except ImportError as error:
            return "import", str(error)
        probe = pathlib.Path(path)
        return "seen", seen, probe.read_text() if probe.exists() else None

    return look


def same(job: parts.Job) -> parts.Job:
    """The job itself, as a task that other tasks refer to."""
    return job


def do_part(job: parts.Job, index: int, probe: Probe) -> dict[str, Any]:
    """Do a part on a worker. What it says, and where it was when it crashed, stays in its log if the worker dies."""
    seen = probe.path.read_text(encoding="utf-8") if probe.path.exists() else None
    probe.judge(f"on {socket.gethostname()}", hpc.__version__, seen)  # this worker may have come later than the others
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
