"""The signals that end a sweep: its trainings save, Tune ends its trials, and the same command goes on."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, Self

import psutil

from hpc.errors import Stopped
from hpc.sweep.guard import of_variable
from hpc.torchrun import STARTED

RUN = "HPC_SWEEP_RUN"  # in the environment of all that a run of a sweep starts on this machine


class Stops:
    """SIGTERM, SIGUSR1 and SIGINT (Ctrl-C) in the block, in the main thread. `asked`: one has come."""

    _signals = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in self._signals}
            self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def listen(self) -> None:
        """Take the signals (again: Ray takes SIGTERM when it starts)."""
        for number in self._before:
            signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        for process in of_variable(RUN, os.environ.get(RUN, "")):
            with suppress(psutil.Error):
                if STARTED in process.environ():
                    process.terminate()
        if signal.getsignal(signal.SIGUSR1) != self._stop:  # Tune listens, and ends in good order
            signal.raise_signal(signal.SIGUSR1)
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Stopped(f"stopped by {signal.Signals(number).name}")
