"""One at a time: among threads and processes, and after a holder that was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hpc import lock
from hpc.lock import locked

HOLD = (
    "import sys, time; from hpc.lock import locked\nwith locked(sys.argv[1]): print('held', flush=True); time.sleep(60)"
)


@contextmanager
def held(path) -> Iterator[int]:
    """The number of a process that holds the lock; at the end of the block it is killed."""
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process.pid
        finally:
            process.kill()


def test_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_LOOK", 0.001)
    inside, most, turns = 0, 0, 0

    def work():
        nonlocal inside, most, turns
        for _ in range(10):
            with locked(tmp_path / "a" / "lock"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1
                turns += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, turns) == (1, 40)
    assert not list((tmp_path / "a").iterdir())


def test_given_back_after_an_error(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / "lock"):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_a_living_holder_is_waited_for_and_a_killed_one_is_not(tmp_path, caplog):

    def give_up():
        raise TimeoutError

    with held(tmp_path / "lock") as holder, pytest.raises(TimeoutError), locked(tmp_path / "lock", give_up):
        pass
    with locked(tmp_path / "lock", give_up):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert f"process {holder} on" in caplog.text and "takes it over" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_holder_elsewhere_counts_as_dead_when_its_file_is_not_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_STALE", 1.5)
    monkeypatch.setattr(lock, "_LOOK", 0.01)
    path = tmp_path / "lock"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "where": "elsewhere"}))
    ended, start = threading.Event(), time.monotonic()

    def touch():
        while not ended.wait(0.05):
            os.utime(path)

    thread = threading.Thread(target=touch)
    thread.start()

    def check():
        if time.monotonic() - start > 1:
            ended.set()

    with locked(path, check):
        assert time.monotonic() - start > 2.3
    thread.join()


def test_a_lock_cut_off_or_taken_over_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_STALE", 0.1)
    monkeypatch.setattr(lock, "_LOOK", 0.01)
    path = tmp_path / "lock"
    path.write_text('{"host": ')  # its holder was killed while it wrote
    with locked(path):
        path.write_text("another")  # which took this one for stale
    assert path.read_text() == "another"
    lock._break(path, "a third")
    assert path.read_text() == "another" and len(list(tmp_path.iterdir())) == 1


def test_a_holder_keeps_its_file_fresh(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lock, "_BEAT", 0.01)
    with locked(tmp_path / "lock"):
        os.utime(tmp_path / "lock", (0, 0))
        time.sleep(0.2)
        assert (tmp_path / "lock").stat().st_mtime > 0
        (tmp_path / "lock").unlink()
        time.sleep(0.1)
    assert "cannot be kept fresh" in caplog.text
