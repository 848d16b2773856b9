"""SIGTERM ends a program as Ctrl-C does: what it holds is given back, and it says that the same command goes on.

hpc.checkpoint.StopRequest is for work that saves its state first.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from hpc.errors import Stopped


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM raises Stopped in the block, in the main thread, unless somebody listens already."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _stop)
    hear({signal.SIGTERM})
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def held_back(number: signal.Signals) -> Iterator[None]:
    """Processes that are started in the block never get the signal.

    A terminal sends Ctrl-C, and a scheduler SIGTERM, to all processes of a job at once. Helpers are ended by this one.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hear(numbers: set[signal.Signals]) -> None:
    """Let signals come that the program which started this one may have held back (`held_back`)."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def _stop(number: int, _: FrameType | None) -> NoReturn:
    raise Stopped(f"stopped by {signal.Signals(number).name}")
