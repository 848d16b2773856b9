"""The shared service of a sweep: an actor of Ray's that answers all who wait at once."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hpc import log
from hpc.errors import of_the_user
from hpc.sweep.trials import Service

Answer = tuple[bool, Any]  # True and an answer, or False and an exception


class ServiceFailed(RuntimeError):
    """The service could not answer; the message holds its traceback."""


class Desk:
    """Takes requests, and hands all that wait to the service when it is free. Its methods are called by Ray."""

    def __init__(self, make: Callable[[], Service], gather: float, log_file: Path | None = None):
        if log_file is not None:
            log_to(log_file)
        self._make, self._gather = make, gather
        self._service: Service | None = None
        self._waiting: list[tuple[Any, asyncio.Future[Answer]]] = []
        self._hands: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1)

    async def open(self) -> Answer:
        """Make the service; what is wrong with it comes back."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._made)
        except Exception as error:
            return False, portable(error)
        return True, os.getpid()

    async def ask(self, request: Any) -> Answer:
        """The answer to one request."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        if self._hands is None or self._hands.done():
            self._hands = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        await asyncio.sleep(self._gather)
        while self._waiting:
            batch, self._waiting = self._waiting, []
            requests = [request for request, _ in batch]
            answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._handle, requests)
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)

    def _handle(self, requests: list[Any]) -> list[Answer]:
        try:
            answers = self._made().handle(requests)
            if len(answers) != len(requests):
                raise RuntimeError(f"the service gave {len(answers)} answers to {len(requests)} requests")
        except Exception as error:
            traceback.print_exc()
            return [(False, portable(error))] * len(requests)
        return [(False, portable(a)) if isinstance(a, Exception) else (True, a) for a in answers]

    def _made(self) -> Service:
        if self._service is None:
            self._service = self._make()
        return self._service


def portable(error: Exception) -> Exception:
    """The error itself where it is the user's to mend, else one that holds its traceback: others may not travel."""
    told = of_the_user(error)
    if told is not None:
        return told
    return ServiceFailed("".join(traceback.format_exception(error)).rstrip())


def log_to(path: Path) -> None:
    """Send all that this process and the programs it starts say to a file, at its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    log.setup()
