"""Clocks: seconds on the wall, seconds of the processor (children that have ended among them), memory of all processes.

Other work on the machine makes the wall slow and hardly touches the processor's seconds, so ratios are given in both.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from hpc.world import cores as cores  # counted beside the clocks


@dataclass
class Cost:
    """Seconds on the wall and of the processor."""

    seconds: float = 0.0
    cpu: float = 0.0

    def __truediv__(self, other: Cost) -> Cost:
        return Cost(self.seconds / other.seconds, self.cpu / other.cpu)

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.cpu + other.cpu)

    def __sub__(self, other: Cost) -> Cost:
        return self + other * -1

    def __mul__(self, factor: float) -> Cost:
        return Cost(self.seconds * factor, self.cpu * factor)


def smallest(costs: list[Cost]) -> Cost:
    """The smallest of several runs of the same work: what it takes undisturbed."""
    return Cost(min(c.seconds for c in costs), min(c.cpu for c in costs))


@contextmanager
def clock(living: bool = False) -> Iterator[Cost]:
    """The cost of the block, filled in when it ends; `living`: with the children that go on living, to 0.01 s each."""
    cost, started, cpu = Cost(), time.perf_counter(), cpu_seconds(living)
    yield cost
    cost.seconds, cost.cpu = time.perf_counter() - started, cpu_seconds(living) - cpu


def cpu_seconds(living: bool = False) -> float:
    """Processor seconds of this process and of its ended children, and of living ones where asked."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usages) + (_of_living_children() if living else 0.0)


def _of_living_children() -> float:
    seconds = 0.0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            seconds += times.user + times.system
    return seconds


def since_start() -> float:
    """Seconds since this process was started: imports count."""
    return time.time() - psutil.Process().create_time()


@contextmanager
def one_core() -> Iterator[None]:
    """This thread, and what it starts in the block, on one core, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:1])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def forget_peak_memory() -> None:
    """Let hpc.stage.peak_memory count from here (where Linux allows it), so that making the data does not show."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


@dataclass
class Memory:
    """The largest seen so far, in bytes: one process, all together, and all without mapped files (the page cache)."""

    process: int = 0
    together: int = 0
    without_files: int = 0


@contextmanager
def watch_memory(interval: float = 0.1) -> Iterator[Memory]:
    """Look at this process and all below it every `interval` seconds while the block runs."""
    seen, me = Memory(), psutil.Process()

    def look() -> None:
        sizes = []
        for process in [me, *me.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                sizes.append(process.memory_info())
        seen.process = max(seen.process, *(s.rss for s in sizes))
        seen.together = max(seen.together, sum(s.rss for s in sizes))
        seen.without_files = max(seen.without_files, sum(s.rss - s.shared for s in sizes))

    with looking(look, interval):
        yield seen


@contextmanager
def looking(look: Callable[[], None], interval: float) -> Iterator[None]:
    """Call `look` every `interval` seconds, in a thread, while the block runs, and once when it has ended."""
    stop = threading.Event()

    def repeat() -> None:
        last = False
        while not last:
            last = stop.wait(interval)
            look()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
