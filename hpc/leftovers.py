"""Files that are being written or deleted have names of their own, which say by whom; those of the dead are removed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import time
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

NAME = re.compile(r"^\..+\.(?:partial|trash)-[0-9a-f]{8}(?:\.(?P<machine>[0-9a-f]{6})\.(?P<pid>\d+))?$")
_OLD_SECONDS = 86_400.0  # nobody writes one file for so long: then it counts as left, whoever began it


def aside(path: Path, kind: str) -> Path:
    """A new name beside `path` for what is being written to it ("partial") or deleted from there ("trash")."""
    return path.with_name(f".{path.name}.{kind}-{uuid.uuid4().hex[:8]}.{_machine()}.{os.getpid()}")


@cache
def sweep(folder: Path) -> None:
    """Remove what processes that have ended left in a folder; once for each folder and process."""
    with os.scandir(folder) as entries:
        left = [Path(entry.path) for entry in entries if _is_left(entry)]
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _is_left(entry: os.DirEntry[str]) -> bool:
    found = NAME.match(entry.name)
    if found is None:
        return False
    if found["machine"] == _machine():
        return not psutil.pid_exists(int(found["pid"]))
    with suppress(OSError):
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _OLD_SECONDS
    return False


@cache
def _machine() -> str:
    """Six digits for this machine since it was started, and the set of process ids in it (a container has its own)."""
    seen = [socket.gethostname()]
    with suppress(OSError):  # what is not Linux does without
        seen += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256(" ".join(seen).encode()).hexdigest()[:6]
