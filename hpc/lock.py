"""One at a time among processes of one or several machines: a lock file that its holder keeps fresh.

It needs no lock service of the file system, so it works on NFS and Lustre as on a disk of one's own. It keeps work from
being done twice; where it must not be done twice, make the work itself safe (hpc.parts, hpc.files.publish): a holder
that stands still for longer than the limit is taken for dead.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

log = logging.getLogger(__name__)
_BEAT = 5.0  # seconds between the signs of life of a holder
_STALE = 60.0  # seconds without one after which a holder is taken for dead
_LOOK = 0.3  # seconds between two looks of one who waits


@contextmanager
def locked(path: str | Path, check: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold the lock file `path` in the block; wait for it before. While waiting, `check` is called now and then.

    The lock of a process that has ended is taken over: at once if it ran on this machine, else when its file has not
    been touched for a minute (by the clock of the one who waits).
    """
    path = Path(path)
    mine = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "where": _where(), "id": uuid.uuid4().hex})
    path.parent.mkdir(parents=True, exist_ok=True)
    _take(path, mine, check)
    ended = threading.Event()
    thread = threading.Thread(target=_keep_fresh, args=(path, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if _read(path)[0] == mine:  # otherwise another took it for stale
            path.unlink(missing_ok=True)


def _take(path: Path, mine: str, check: Callable[[], object]) -> None:
    seen, since, told = None, time.monotonic(), False
    while True:
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(mine)
            return
        except FileExistsError:
            found = _read(path)
        if found != seen:
            seen, since = found, time.monotonic()
        holder = _holder(found[0])
        if _has_ended(holder) or time.monotonic() - since > _STALE:
            log.warning("%s: %s ended without releasing it; this process takes it over", path, _name(holder))
            _break(path, found[0])
            continue
        if not told:
            log.info("%s: waiting for %s", path, _name(holder))
            told = True
        check()
        time.sleep(_LOOK)


def _break(path: Path, text: str | None) -> None:
    """Remove the lock with this text. Another may have done so just now and hold it: then it is put back."""
    aside = path.with_name(f".{path.name}.trash-{uuid.uuid4().hex[:8]}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if _read(aside)[0] != text:
        with suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()


def _keep_fresh(path: Path, ended: threading.Event) -> None:
    while not ended.wait(_BEAT):
        try:
            os.utime(path)
        except OSError as error:
            log.warning("%s: the lock cannot be kept fresh (%s); another process may take it over", path, error)


def _read(path: Path) -> tuple[str | None, int]:
    """Text and time of change of a lock file; (None, 0) where there is none."""
    try:
        return path.read_text(encoding="utf-8"), path.stat().st_mtime_ns
    except FileNotFoundError:
        return None, 0


def _holder(text: str | None) -> dict[str, Any]:
    """What a lock file says; nothing where its holder has not written it yet."""
    try:
        holder: dict[str, Any] = json.loads(text or "{}")
    except json.JSONDecodeError:
        return {}
    return holder


def _has_ended(holder: dict[str, Any]) -> bool:
    return holder.get("where") == _where() and not psutil.pid_exists(holder["pid"])


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']}" if holder else "another process"


def _where() -> str:
    """The machine since it was started, and the set of process ids in it (a container has its own)."""
    seen = [socket.gethostname()]
    with suppress(OSError):  # what is not Linux does without
        seen += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(seen)
