"""`python -m MODULE WORDS...` in a process of its own, without the seconds that its imports take.

A server that has imported what such programs need forks a process for each of them (multiprocessing's forkserver). A
program still has its own memory, signals and end. The server runs nothing itself, so each program starts from the same.
"""

from __future__ import annotations

import atexit
import multiprocessing
import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from hpc.shelter import shelter

_LAST_WORDS_SECONDS = 5.0  # for a program to end by itself, where Ctrl-C has interrupted it and this process
_TIME_TO_SAVE_SECONDS = 600.0  # for one that was asked to stop; a second Ctrl-C ends it at once


def run(module: str, words: Sequence[str], preload: Sequence[str]) -> int:
    """The exit code of `python -m module words...`; negative where a signal ended it.

    The server starts with the first call, imports the modules `preload`, and ends with this process. Programs see the
    environment of the moment when it started.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    process = context.Process(target=_program, args=(module, list(words)))
    with _nameless(), shelter():
        process.start()
    try:
        process.join()
    except BaseException:
        try:
            process.join(_LAST_WORDS_SECONDS)
            process.terminate()
            process.join(_TIME_TO_SAVE_SECONDS)
        finally:
            process.kill()
        raise
    assert process.exitcode is not None
    return process.exitcode


@contextmanager
def _nameless() -> Iterator[None]:
    """Hide what this process runs: multiprocessing would import it in the new one, where a script would run again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _program(module: str, words: list[str]) -> None:
    sys.argv = [module, *words]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out; Python has no public name for it
