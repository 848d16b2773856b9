"""torchrun that leaves the last word to the ranks: `python -m hpc.torchrun ...` takes torchrun's own words.

- Where a rank fails, its message stands alone on the screen, and the exit code is that of the first rank that failed.
- SIGTERM, SIGUSR1 and SIGINT (Ctrl-C) are handed to the ranks, so that they can save and leave; torchrun would end
  them, or die alone.
- `--max-restarts` is for ranks that crash or are killed, not for those that end with a message or were asked to stop.

`run` and `started` do the same from a program, in a world of its own: from a Ray task, from a stage, from a test.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

import psutil

from hpc.errors import Preempted
from hpc.shelter import sheltered
from hpc.stopping import hear
from hpc.world import outside

if TYPE_CHECKING:
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

_LAUNCHER = "HPC_TORCHRUN_PID"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
STARTED = "HPC_STARTED"  # in the environment of programs that `started` started, and that SIGTERM asks to save and end
_TIME_TO_SAVE_SECONDS = 600.0  # for ranks that were asked to stop; a second Ctrl-C ends them at once
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # a rank sets its own number of threads; unset, torchrun says at length that it is 1
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    # Without it restarted ranks read the addresses of the dead ones (https://github.com/pytorch/pytorch/issues/135712).
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
}


@contextmanager
def started(
    module: str, words: Sequence[str], ranks: int = 1, env: Mapping[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """`python -m module words...` on `ranks` ranks of this machine; the process to wait for. `options`: of Popen.

    The ranks are a world of their own: what says that this process is a rank, a Slurm task or a Ray worker is kept from
    them. When the block ends, however it ends, so does every process that was started in it.
    """
    program = [sys.executable, "-m"]
    if ranks > 1:
        program += ["hpc.torchrun", "--standalone", f"--nproc-per-node={ranks}", "-m"]
    environ = sheltered({**outside(os.environ), **(env or {}), STARTED: str(os.getpid())})
    process = subprocess.Popen([*program, module, *words], env=environ, start_new_session=True, **options)
    try:
        yield process
    finally:
        end(process)


def run(module: str, words: Sequence[str], ranks: int = 1, **options: Any) -> int:
    """`started`, waited for: the exit code. What interrupts this process (Ctrl-C, SIGTERM; Ray cancels a task so) asks
    the ranks to save and end, and is raised when they have."""
    with started(module, words, ranks, **options) as process:
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(timeout=60)  # a wait with a limit polls: one without it hears no interrupt
        except BaseException:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_TIME_TO_SAVE_SECONDS)
            raise


def main() -> None:
    """Start the ranks of this node and wait for them."""
    os.environ.update(sheltered(os.environ))
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ[_LAUNCHER] = str(os.getpid())
    stop = _Stop()
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher import api
    from torch.distributed.run import main as torchrun

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    api.LocalElasticAgent = _agent(stop)  # type: ignore[misc]  # torchrun has no other way to give it one
    try:
        torchrun()
    except ChildFailedError as failed:
        sys.exit(stop.code(failed.get_first_failure()[1].exitcode))
    except RendezvousError as error:
        print(
            f"torchrun: the nodes did not meet, or another node has left ({type(error).__name__}: {error}); see its "
            "message, or check that --rdzv-endpoint names a port that every node reaches, and --nnodes how many start",
            file=sys.stderr,
        )
        sys.exit(stop.code(1))
    except SignalException as caught:
        sys.exit(128 + caught.sigval)


def end_with_launcher(environ: Mapping[str, str]) -> None:
    """Called by a rank: the death of torchrun, be it by SIGKILL, is a SIGTERM to it. Linux only; elsewhere it lives on.

    Nothing where the process is no rank of torchrun.
    """
    if "TORCHELASTIC_RUN_ID" not in environ or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    launcher = environ.get(_LAUNCHER)
    if launcher and not psutil.pid_exists(int(launcher)):  # it died before this line
        signal.raise_signal(signal.SIGTERM)


class _Stop:
    """Signals that ask to stop, handed to the ranks there are; with none yet, the end of this process.

    Ctrl-C reaches the ranks as SIGTERM: they may have heard it from the terminal, and a second one ends them at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self.listen()

    def listen(self) -> None:
        """Take the signals (again: torchrun takes SIGTERM whenever it starts ranks)."""
        for number in _STOPS:
            signal.signal(number, self._hand_on)
        hear(set(_STOPS))

    def code(self, code: int) -> int:
        """The exit code for that of a rank (negative: of a signal). Ranks that were asked to stop may be run again."""
        if self.asked and code < 0:  # a rank that was told before it listened has done nothing that could be lost
            return Preempted.exit_code
        return code if 0 < code < 128 else 1

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        ranks = psutil.Process().children()
        if not ranks:
            sys.exit(Preempted.exit_code)
        for rank in ranks:
            with suppress(psutil.NoSuchProcess):
                rank.send_signal(signal.SIGTERM if number == signal.SIGINT else number)


def _agent(stop: _Stop) -> type[LocalElasticAgent]:
    """torchrun's agent, which starts the ranks again only where that can help. torchrun has no hook for that."""
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

    class Agent(LocalElasticAgent):
        def _start_workers(self, *arguments: Any) -> Any:
            started = super()._start_workers(*arguments)
            stop.listen()
            return started

        def _monitor_workers(self, *arguments: Any) -> Any:
            result = super()._monitor_workers(*arguments)
            codes = [failure.exitcode for failure in result.failures.values()]
            if stop.asked or any(1 < code < 128 for code in codes):  # Python ends with 1 after an unforeseen error
                self._remaining_restarts = 0
            return result

    return Agent


def end(process: subprocess.Popen[Any]) -> None:
    """Kill a launcher that still runs, and the ranks it started (they stand in sessions of their own)."""
    if process.poll() is not None:
        return
    family = [psutil.Process(process.pid)]
    family += family[0].children(recursive=True)
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


if __name__ == "__main__":
    main()
