"""Checkpoints of a run: save beside, publish by rename, rotate, find again; and the signal that asks for one.

A run's folder `checkpoints/` holds `step-00000123/` folders, each with `meta.json` written last (it names every file
with its size and SHA-256), and the pointers `last.json` and `best.json`.
"""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable, Collection
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from hpc.comm import Comm
from hpc.errors import InputError, naming_full_disk, some
from hpc.files import publish_json, remove, sha256
from hpc.stopping import hear

log = logging.getLogger(__name__)
META = "meta.json"


class Checkpoints:
    """The checkpoints in one folder. `keep` newest ones stay; beside them step 0, the best and those of `always`."""

    def __init__(self, place: str | Path, keep: int = 3, always: Collection[int] = ()):
        self.place, self.keep, self.always = Path(place), keep, frozenset(always)

    def steps(self) -> list[int]:
        """The optimiser steps of all published checkpoints, ascending."""
        return sorted(int(p.name.removeprefix("step-")) for p in self.place.glob("step-*") if (p / META).exists())

    def folder(self, step: int) -> Path:
        """Where the checkpoint of `step` stands."""
        return self.place / f"step-{step:08d}"

    def save(
        self, comm: Comm, step: int, write: Callable[[Path], None], meta: dict[str, Any], best: bool = False
    ) -> None:
        """Publish one checkpoint: every rank calls `write(folder)` on a folder that is not visible yet.

        All ranks call this together; the folder must be on a disk that all of them see. `best` points best.json here.
        Where a rank cannot write, all raise (NoSpace, where the disk is full), and the checkpoints there stay.
        """
        final = self.folder(step)
        partial = final.with_name(f".{final.name}.partial")
        naming = naming_full_disk(final)
        try:
            comm.on_main(naming(lambda: _fresh(partial)))
            comm.on_all(naming(lambda: write(partial)))
            comm.on_main(naming(lambda: self._publish(partial, step, meta, best)))
        except Exception:
            if comm.is_main:
                remove(partial)
            raise

    def find(self, name: str) -> Path:
        """The folder of 'last', 'best', or a step's number. Raises InputError with the steps there are."""
        steps = self.steps()
        if name == "last" and steps:
            return self.folder(steps[-1])
        if name == "best" and (step := self.best_step()) is not None:
            return self.folder(step)
        if name.isdigit() and int(name) in steps:
            return self.folder(int(name))
        allowed = f"last, best, or one of the steps {some(steps, 20)}" if steps else "none is there yet; train first"
        raise InputError(f"checkpoint={name}: no such checkpoint in {self.place}; it may be {allowed}")

    def last_whole(self) -> dict[str, Any] | None:
        """The meta.json of the newest checkpoint whose files are all whole; None where there is no checkpoint.

        Newer ones that are damaged are set aside as `damaged-step-*`, with a warning that says what is wrong with
        them. Call it on one process. Raises InputError where every checkpoint is damaged; it leaves them in place.
        """
        damaged: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                meta = read_meta(self.folder(step))
            except InputError as error:
                damaged[step] = str(error)
                continue
            for other, message in damaged.items():
                aside = self.place / f"damaged-{self.folder(other).name}"
                remove(aside)
                self.folder(other).rename(aside)
                log.warning("%s; it is renamed %s, and the run goes back to step %d", message, aside, step)
            if damaged:
                publish_json(self.place / "last.json", {"step": step, "folder": self.folder(step).name})
            return meta
        if damaged:
            first = next(iter(damaged.values()))
            raise InputError(
                f"{self.place}: no checkpoint is intact ({first}); type overwrite=true to start again, or give another "
                "run_dir="
            )
        return None

    def best_step(self) -> int | None:
        """The step that best.json names, if its checkpoint is there."""
        path = self.place / "best.json"
        if not path.exists():
            return None
        step = json.loads(path.read_text(encoding="utf-8"))["step"]
        return step if step in self.steps() else None

    def _publish(self, partial: Path, step: int, meta: dict[str, Any], best: bool) -> None:
        final = self.folder(step)
        files = sorted(p for p in partial.rglob("*") if p.is_file())
        listing = {str(p.relative_to(partial)): {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in files}
        publish_json(partial / META, {"step": step, **meta, "files": listing})
        remove(final)
        partial.rename(final)
        publish_json(self.place / "last.json", {"step": step, "folder": final.name})
        if best:
            publish_json(self.place / "best.json", {"step": step, "folder": final.name})
        steps = self.steps()
        spare = {0, self.best_step(), *steps[-self.keep :]} | self.always
        for old in steps:
            if old not in spare:
                remove(self.folder(old))


def read_meta(folder: str | Path) -> dict[str, Any]:
    """The meta.json of a checkpoint whose files are all whole. Raises InputError that names the damaged one."""
    folder = Path(folder)
    try:
        meta: dict[str, Any] = json.loads((folder / META).read_text(encoding="utf-8"))
        files = meta["files"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{folder / META}: is missing or damaged, so the checkpoint cannot be used") from None
    for name, expected in files:
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != expected["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes, not the {expected['bytes']} it was saved with"
            raise InputError(f"{path}: {found}, so the checkpoint is damaged")
        if sha256(path) != expected["sha256"]:
            raise InputError(f"{path}: is not what was saved (SHA-256 differs)")
    return meta


class StopRequest:
    """True in a condition once SIGTERM, SIGUSR1 or SIGINT (Ctrl-C) has come; a second Ctrl-C interrupts at once.

    Use as a context manager in the main thread.
    """

    _signals = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.interrupted = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in self._signals}
        hear(set(self._signals))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.signal is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            log.info("stopping after this step, to save it; press Ctrl-C again to stop at once")
        self.signal = signal.Signals(number)


def _fresh(partial: Path) -> None:
    remove(partial)
    partial.mkdir(parents=True)
