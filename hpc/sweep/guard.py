"""Ends what a process leaves behind: `python guard.py NAME=VALUE [FOLDER]`, a program that hpc.sweep starts.

It waits for the end of its input, which comes when the process that holds the other end is gone, be it by SIGKILL.
Then every process with NAME=VALUE in its environment is killed, and FOLDER is removed. It is no child of the process
it watches: Ray ends the children of its workers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

_PATIENCE = 10.0  # seconds for processes to go, and for those that they were just starting


@contextmanager
def guarded(name: str, value: str, folder: str = "") -> Iterator[None]:
    """Programs that are started in the block end with it, or with this process; `folder` is removed then."""
    words = [sys.executable, __file__, f"{name}={value}", *([folder] if folder else [])]
    with subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True) as process:  # closes its input at last
        process.wait()  # the guard proper is its child
        with environment({name: value}):
            yield


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Variables of this process and of those that it starts, in the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def main() -> None:
    """Wait, then end."""
    if os.fork():
        os._exit(0)
    while os.read(0, 1):
        pass
    name, _, value = sys.argv[1].partition("=")
    limit = time.monotonic() + _PATIENCE
    while time.monotonic() < limit and _kill(name, value):
        time.sleep(0.1)
    for folder in sys.argv[2:]:
        shutil.rmtree(folder, ignore_errors=True)


def of_variable(name: str, value: str) -> list[psutil.Process]:
    """The other processes that have the variable in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(name) == value:
                found.append(process)
    return found


def _kill(name: str, value: str) -> bool:
    """Kill what has the variable; whether there was any."""
    found = False
    for process in of_variable(name, value):
        with suppress(psutil.Error):
            process.kill()
            found = found or process.status() != psutil.STATUS_ZOMBIE
    return found


if __name__ == "__main__":
    main()
