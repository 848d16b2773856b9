"""SIGTERM ends a program in good order; helpers do not hear what a terminal or a scheduler sends to all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from hpc.errors import Stopped
from hpc.stopping import hear, held_back, stoppable

SLEEPS = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def raise_it(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def alone():
    """No handler of the tests' own program."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_is_raised_and_is_no_exception():
    def work() -> None:
        with stoppable():
            try:
                raise_it(signal.SIGTERM)
            except Exception:
                pytest.fail("work took it for a failure of its own")

    with pytest.raises(Stopped, match="stopped by SIGTERM"):
        work()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and Stopped.exit_code == 75


def test_who_listens_already_is_left_alone():
    heard = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    with stoppable():
        raise_it(signal.SIGTERM)
    assert heard == [signal.SIGTERM]


def test_in_a_thread_nothing_is_set():
    found = []

    def work() -> None:
        with stoppable():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]


def test_a_helper_does_not_hear():
    with held_back(signal.SIGTERM), subprocess.Popen(SLEEPS, stdout=subprocess.PIPE, text=True) as helper:
        assert helper.stdout.readline() == "up\n"
        helper.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            helper.wait(0.5)
        helper.kill()


def test_a_program_that_listens_hears_all_the_same():
    code = (
        "import signal; from hpc.stopping import stoppable\nwith stoppable(): print('up', flush=True); signal.pause()"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with held_back(signal.SIGTERM):
        program = subprocess.Popen([sys.executable, "-c", code], **pipes)
    assert program.stdout.readline() == "up\n"
    program.terminate()
    assert "Stopped: stopped by SIGTERM" in program.communicate()[1]


def test_hearing_what_nobody_holds_back_changes_nothing():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    hear({signal.SIGTERM})
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before
