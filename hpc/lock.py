"""One at a time among processes of one or several machines: a lock file that its holder keeps fresh.

It needs no lock service of the file system, so it works on NFS and Lustre as on a disk of one's own. `locked` waits for
its turn; `held` refuses at once, for what must not be done by two. A holder that has ended counts no more. Of one on
this machine that is known; one elsewhere is taken for dead when it gives no sign of life for a minute.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from hpc.errors import InUse

log = logging.getLogger(__name__)
_BEAT = 5.0  # seconds between the signs of life of a holder
_STALE = 60.0  # seconds without one after which a holder is taken for dead
_LOOK = 0.3  # seconds between two looks of one who waits
_ENDS = (signal.SIGTERM, signal.SIGHUP)
_HELD: dict[Path, str] = {}  # the lock files of this process, and what it wrote into them

Seen = tuple[str | None, int]  # text and time of change of a lock file; (None, 0) where there is none
Meet = Callable[[dict[str, Any], bool], None]  # called with a holder, and whether it certainly lives


@contextmanager
def locked(path: str | Path, check: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold the lock file `path` in the block; wait for it before. While waiting, `check` is called now and then."""
    path, told = Path(path), False

    def wait(holder: dict[str, Any], _: bool) -> None:
        nonlocal told
        if not told:
            log.info("%s: waiting for %s", path, _name(holder))
            told = True
        check()

    path.parent.mkdir(parents=True, exist_ok=True)
    with _kept(path, "", wait):
        yield


@contextmanager
def held(out: str | Path, what: str, key: str = "out") -> Iterator[None]:
    """Hold the output `out` in the block, as `what` (a verb); `key` is what a user gives to name another output.

    Raises InUse where another process holds it: at once for one of this machine, for others at its next sign of life.
    """
    place, told = Path(out).resolve(), False

    def refuse(holder: dict[str, Any], lives: bool) -> None:
        nonlocal told
        if lives:
            raise InUse(
                f"{out}: another {holder.get('what', 'process')} is at work on it ({_name(holder)}); wait for its "
                f"end or stop it, or give another {key}="
            )
        if not told:
            log.info("%s: waiting for a sign of life of %s, at most %.0f s", out, _name(holder), _STALE)
            told = True

    with _given_back_on_signals(), _missing_parents(place), _kept(lock_of(place), what, refuse):
        yield


def lock_of(out: Path) -> Path:
    """The lock file of an output: beside it, as it is no part of it; inside a folder that is all that can be written
    (as where a container has mounted it)."""
    inside = out.is_dir() and (os.path.ismount(out) or not os.access(out.parent, os.W_OK))
    return out / ".lock" if inside else out.with_name(f".{out.name}.lock")


def is_lock(path: Path) -> bool:
    """True for a lock file, which says nothing of what it stands among."""
    return path.name.startswith(".") and path.name.endswith(".lock")


@contextmanager
def _kept(path: Path, what: str, meet: Meet) -> Iterator[None]:
    """Take the lock file, keep it fresh in the block, and give it back."""
    mine = json.dumps(_card(what))
    _take(path, mine, meet)
    ended = threading.Event()
    thread = threading.Thread(target=_keep_fresh, args=(path, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _give_back(path, mine)


def _take(path: Path, mine: str, meet: Meet) -> None:
    seen: Seen | None = None
    since = time.monotonic()
    while not _create(path, mine):
        found = _read(path)
        if found[0] is None:
            continue
        changed, first = found != seen, seen is None
        if changed:
            seen, since = found, time.monotonic()
        holder = _holder(found[0])
        lives = _lives(holder, found[1])
        if lives is False or time.monotonic() - since > _STALE:
            log.warning("%s: %s ended without releasing it; this process takes it over", path, _name(holder))
            _break(path, found[0])
            seen = None
            continue
        meet(holder, bool(lives) or (changed and not first))
        time.sleep(_LOOK)


def _create(path: Path, text: str) -> bool:
    """Write the lock file, if there is none."""
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(text)
    except Exception:
        path.unlink(missing_ok=True)
        raise
    _HELD[path] = text
    return True


def _give_back(path: Path, mine: str) -> None:
    if _HELD.get(path) == mine:
        del _HELD[path]
    if _read(path)[0] == mine:  # otherwise another took it for stale
        path.unlink(missing_ok=True)


@contextmanager
def _given_back_on_signals() -> Iterator[None]:
    """A signal that would end this process in the block gives back its lock files first."""
    process = os.getpid()

    def end(number: int, _: FrameType | None) -> None:
        if os.getpid() == process:  # and not one that it forked
            for path, mine in list(_HELD.items()):
                _give_back(path, mine)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    listens = threading.current_thread() is threading.main_thread()
    taken = [number for number in _ENDS if listens and signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _missing_parents(place: Path) -> Iterator[None]:
    """Make the folders above `place`; those that stay empty go again."""
    missing = [folder for folder in place.parents if not folder.exists()]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for folder in missing:
            with suppress(OSError):  # it holds something
                folder.rmdir()


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


def _read(path: Path) -> Seen:
    try:
        return path.read_text(encoding="utf-8"), path.stat().st_mtime_ns
    except FileNotFoundError:
        return None, 0


def _card(what: str) -> dict[str, Any]:
    """What a lock file says of its holder, this process."""
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    born = _state_and_birth(os.getpid())[1]
    return {"what": what, "since": since, "pid": os.getpid(), "born": born, "id": uuid.uuid4().hex, **_machine()}


def _holder(text: str | None) -> dict[str, Any]:
    """What a lock file says; nothing where its holder has not written it yet."""
    try:
        holder = json.loads(text or "{}")
    except json.JSONDecodeError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _name(holder: dict[str, Any]) -> str:
    if not holder:
        return "another process"
    return f"process {holder['pid']} on {holder['host']}" + (f", since {holder['since']}" if "since" in holder else "")


def _lives(holder: dict[str, Any], touched_ns: int) -> bool | None:
    """Whether a holder is at work; None where that cannot be known from this machine."""
    here = _machine()
    if all(holder.get(key) == value for key, value in here.items()):
        if not psutil.pid_exists(holder["pid"]):
            return False
        state, born = _state_and_birth(holder["pid"])
        return None if born is None else state not in _DEAD and born == holder["born"]
    rebooted = holder.get("host") == here["host"] and holder.get("boot") != here["boot"]
    return False if rebooted and touched_ns < psutil.boot_time() * 1e9 else None


_DEAD = ("Z", "X", psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)  # has ended, and nobody has asked how


def _state_and_birth(pid: int) -> tuple[str | None, float | None]:
    """State of a process, and when it began, which tells it from another of the same number; None where it is hidden.

    Linux counts from the start of the machine, so that setting the clock changes nothing.
    """
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], float(fields[19])
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return process.status(), process.create_time()
    return None, None


@cache
def _machine() -> dict[str, str]:
    """The machine since it was started, and the set of process ids in it (a container has its own)."""
    seen = {"host": socket.gethostname(), "boot": "", "processes": ""}
    with suppress(OSError):  # what is not Linux does without
        seen["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        seen["processes"] = os.readlink("/proc/self/ns/pid")
    return seen
