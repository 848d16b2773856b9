"""A process group that also works alone: with one rank every call is a plain function, and nothing is opened.

torch is imported only by the calls that need it, so that a verb which never leaves one process does not pay for it.
Errors travel: `on_main` raises on every rank what rank 0 raised, so no rank waits for one that has gone.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import numpy as np

from hpc.errors import ConfigError, Error, of_the_user
from hpc.world import World

T = TypeVar("T")
PATIENCE = 5.0  # seconds that a rank waits for the launcher to end it, where another one has the word
_LOOK = 2.0  # seconds between two looks at long work of another rank
_RENDEZVOUS = ("MASTER_ADDR", "MASTER_PORT")


class Comm:
    """Collectives over the ranks of a `World`. Make it with `join`."""

    def __init__(self, world: World):
        self.world = world

    @classmethod
    def join(cls, world: World, environ: Mapping[str, str] = os.environ, timeout_minutes: float = 30.0) -> Comm:
        """Meet the other ranks (gloo, and NCCL where there is a GPU). Raises ConfigError without a meeting point."""
        comm = cls(world)
        if world.size > 1:
            missing = [name for name in _RENDEZVOUS if not environ.get(name)]
            if missing:
                raise ConfigError(
                    f"{world.launcher}: {' and '.join(missing)} not set, so {world.size} ranks cannot meet; start with "
                    "torchrun or deepspeed, or export MASTER_ADDR=HOST_OF_RANK_0 MASTER_PORT=29500 first"
                )
            comm._open(timeout_minutes)
        return comm

    @property
    def rank(self) -> int:
        """This process, 0 .. size - 1."""
        return self.world.rank

    @property
    def size(self) -> int:
        """Number of processes."""
        return self.world.size

    @property
    def is_main(self) -> bool:
        """True on rank 0."""
        return self.world.is_main

    def device(self) -> Any:
        """The torch device of this rank: its own GPU, or the CPU."""
        import torch

        if not torch.cuda.is_available():
            return torch.device("cpu")
        device = torch.device("cuda", self.world.local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device

    def sharers(self) -> int:
        """How many ranks there are on this machine."""
        return self.gather(socket.gethostname()).count(socket.gethostname())

    def open_group(self) -> None:
        """Make sure that torch.distributed has a group even for one rank, for libraries that insist on one."""
        import torch.distributed as dist

        if not dist.is_initialized():
            dist.init_process_group(_backend(), store=dist.HashStore(), rank=0, world_size=1)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            self.sum([0.0])

    def on_main(self, function: Callable[[], T]) -> T:
        """Call `function` on rank 0 and return its value, or raise its error, on every rank."""
        if self.size == 1:
            return function()
        values: list[T] = []
        error: Exception | None = None
        if self.is_main:
            try:
                values.append(function())
            except Exception as caught:
                error = caught
        values, told = self._broadcast((values, None if error is None else _told(error)))
        if error is not None:
            raise error
        if told is not None:
            raise _Elsewhere(*told)
        return values[0]

    def on_all(self, function: Callable[[], T]) -> T:
        """Call `function` on every rank and return its value; where it fails on any rank, all raise. It must call no
        collective after a place where it may fail."""
        if self.size == 1:
            return function()
        values: list[T] = []
        error: Exception | None = None
        try:
            values.append(function())
        except Exception as caught:
            error = caught
        everywhere = self.gather(None if error is None else _told(error))
        if error is not None:
            raise error
        for elsewhere in everywhere:
            if elsewhere is not None:
                raise _Elsewhere(*elsewhere)
        return values[0]

    def on_each_node(self, function: Callable[[], T]) -> T:
        """Call `function` on the first rank of each node, then on the others, and return its value, or raise its error,
        on every rank.

        For work that leaves something behind which makes the later calls cheap. It may take longer than the time-out of
        the group: it runs in a thread, and the ranks look for its end together. Signals still arrive meanwhile.
        """
        if self.size == 1:
            return function()
        first = self.world.local_rank == 0
        ended = [self._patiently(function if mine else None) for mine in (first, not first)]
        return ended[0 if first else 1][0]

    def _patiently(self, function: Callable[[], T] | None) -> list[T]:
        """The value of `function` here, if there is one; where it fails on any rank, all raise."""
        values: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                if function is not None:
                    values.append(function())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while self.any(_still_busy(thread)):
            pass
        told = self.gather(_told(errors[0]) if errors else None)
        if errors:
            raise errors[0]
        for elsewhere in told:
            if elsewhere is not None:
                raise _Elsewhere(*elsewhere)
        return values

    def sum(self, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """The sum over ranks of equally long float64 vectors, on every rank."""
        array = np.array(values, dtype=np.float64)
        if self.size > 1:
            import torch
            import torch.distributed as dist

            dist.all_reduce(torch.from_numpy(array))
        return array

    def any(self, flag: bool) -> bool:
        """True where any rank says so."""
        return bool(self.sum([float(flag)])[0])

    def gather(self, value: T) -> list[T]:
        """The values of all ranks in order, on every rank."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def _broadcast(self, value: T) -> T:
        import torch
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def _open(self, timeout_minutes: float) -> None:
        import torch.distributed as dist

        if not dist.is_initialized():
            dist.init_process_group(
                _backend(),
                init_method="env://",
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(minutes=timeout_minutes),
            )


class Watch:
    """Asked at every step whether any rank has raised its flag, it exchanges only about once in `seconds`.

    All ranks exchange at the same step, and so all learn it at the same step: rank 0's clock decides how many steps
    later the next exchange is, and tells the others in this one. That number at most doubles, so that a few fast steps
    at the start do not lead far; with `seconds=0` every step exchanges.
    """

    def __init__(self, comm: Comm, seconds: float = 1.0):
        self.comm, self.seconds = comm, seconds
        self._every, self._left, self._since = 1, 1, time.monotonic()

    def any(self, flag: bool) -> bool:
        """True on every rank at the same call, once any rank has said so (of that rank: at the next exchange)."""
        if self.comm.size == 1:
            return flag
        self._left -= 1
        if self._left:
            return False
        now = time.monotonic()
        step, self._since = (now - self._since) / self._every, now
        wish = int(min(self.seconds / max(step, 1e-9), 2 * self._every)) if self.comm.is_main else 0
        raised, wish = self.comm.sum([float(flag), float(wish)])
        self._every = self._left = max(1, int(wish))
        return bool(raised)


def _still_busy(thread: threading.Thread) -> bool:
    thread.join(_LOOK)
    return thread.is_alive()


def _told(error: BaseException) -> tuple[str, int]:
    """The message of an error for other ranks, and its exit code."""
    shown = of_the_user(error) or error
    return str(shown), getattr(shown, "exit_code", 1)


def of_another_rank(error: BaseException) -> Error | None:
    """What a rank says whose exchange with others broke because one of them has ended, by itself with its own message,
    or by a signal; None for other errors. The first line of gloo and the word of NCCL tell."""
    text = str(error)
    if not isinstance(error, RuntimeError) or not ("gloo/transport" in text or "ncclRemoteError" in text):
        return None
    reason = text.splitlines()[0].partition("] ")[2].partition(". ")[0]
    return _Elsewhere(
        f"lost another rank, which may have said why ({reason}); or the network between them is broken: the same "
        "command continues", 1,
    )  # fmt: skip


class _Elsewhere(Error):
    """An error of one rank, told on another."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


def leave(code: int = 0, together: bool = True) -> NoReturn:
    """End this process with `code`: the last line of a program whose ranks may have joined a group.

    A gloo thread may still hold a tensor while the interpreter is taken down, and then aborts the process. So where a
    group is open it is closed and the process ends at once. `together`: every rank ends here with this code, so wait
    for the others (do not after an error of one rank).
    """
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or not dist.is_initialized():
        sys.exit(code)
    if together:
        try:
            dist.barrier()
            dist.destroy_process_group()
        except RuntimeError as error:
            if of_another_rank(error) is None:
                raise
            time.sleep(PATIENCE)  # it has failed, and its launcher ends this one
            code = code or 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _backend() -> str:
    import torch

    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
