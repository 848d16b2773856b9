"""One at a time: among threads and processes, and after a holder that was killed. Waiting, and being refused."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hpc import lock
from hpc.errors import InUse
from hpc.lock import held, lock_of, locked

HOLD = "import sys, time; from hpc.lock import held, locked\nwith {}: print('held', flush=True); time.sleep(60)"
ELSEWHERE = {"host": "elsewhere", "pid": 1, "what": "train", "since": "2026-01-02 03:04:05 UTC"}


@contextmanager
def holder(path, call="locked(sys.argv[1])", ends=signal.SIGKILL) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock; at the end of the block it is killed."""
    words = [sys.executable, "-c", HOLD.format(call), path]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.send_signal(ends)


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

    with holder(tmp_path / "lock") as other, pytest.raises(TimeoutError), locked(tmp_path / "lock", give_up):
        pass
    with locked(tmp_path / "lock", give_up):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert f"process {other.pid} on" in caplog.text and "takes it over" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_holder_elsewhere_counts_as_dead_when_its_file_is_not_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_STALE", 1.5)
    monkeypatch.setattr(lock, "_LOOK", 0.01)
    path = tmp_path / "lock"
    path.write_text(json.dumps(ELSEWHERE))
    looks, start = 0, time.monotonic()

    def check():
        nonlocal looks
        looks += 1
        if time.monotonic() - start < 2:  # longer than the limit
            os.utime(path)

    with locked(path, check):
        assert time.monotonic() - start > 2 and looks > 1


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


def test_a_second_is_refused_at_once_with_the_name_of_the_first(tmp_path):
    out = tmp_path / "run"
    with holder(out, "held(sys.argv[1], 'train')") as first:
        with pytest.raises(InUse) as refusal, held(out, "train", "run_dir"):
            pass
        since = json.loads((tmp_path / ".run.lock").read_text())["since"]
        assert str(refusal.value) == (
            f"{out}: another train is at work on it (process {first.pid} on {socket.gethostname()}, since {since}); "
            "wait for its end or stop it, or give another run_dir="
        )
        assert refusal.value.exit_code == 2
        (tmp_path / "alias").symlink_to(out)
        with pytest.raises(InUse), held(tmp_path / "alias", "train"):  # by another name
            pass
    with held(out, "train"):  # the first was killed
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["alias"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["term", "hup"])
def test_a_holder_that_is_asked_to_end_leaves_nothing(tmp_path, number):
    nested = "held(sys.argv[1], 'run'), held(sys.argv[1] + '/train', 'train'), locked(sys.argv[1] + '/a')"
    with holder(tmp_path / "run", nested, ends=number) as process:
        assert {path.name for path in tmp_path.rglob("*")} == {".run.lock", "run", ".train.lock", "a"}
    assert process.returncode == -number
    assert [path.name for path in tmp_path.rglob("*")] == ["run"]


def test_a_child_does_not_give_back_what_its_parent_holds(tmp_path):
    fork = (
        "import os, signal, sys, time; from hpc.lock import held\n"
        "with held(sys.argv[1], 'run'):\n"
        "    ready, tell = os.pipe()\n"
        "    child = os.fork()\n"
        "    if not child: os.write(tell, b'.'), time.sleep(60)\n"
        "    os.read(ready, 1)\n"
        "    os.kill(child, signal.SIGTERM)\n"
        "    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "    print(ended, sorted(os.listdir(os.path.dirname(sys.argv[1]))))"
    )
    done = subprocess.run([sys.executable, "-c", fork, tmp_path / "run"], capture_output=True, text=True, check=True)
    assert done.stdout == "-15 ['.run.lock']\n"


def test_an_error_and_a_refusal_leave_no_folders_that_were_made_for_the_lock(tmp_path):
    with pytest.raises(KeyError), held(tmp_path / "a" / "b" / "out", "gwas"):
        raise KeyError
    assert not list(tmp_path.iterdir())
    with held(tmp_path / "a" / "b" / "out", "gwas"):
        (tmp_path / "a" / "b" / "out").mkdir()
    assert (tmp_path / "a" / "b" / "out").exists()


def card(**keys) -> str:
    return json.dumps(lock._card("train") | keys)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(lambda: card(born=1.0), id="another process has its number now"),
        pytest.param(lambda: card(pid=2**22 + 1), id="its process is gone"),
        pytest.param(lambda: card(boot="before"), id="the machine was started again since"),
    ],
)
def test_a_holder_of_this_machine_that_has_ended_does_not_count(tmp_path, text, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waits"))
    path = lock_of(tmp_path / "run")
    path.write_text(text())
    os.utime(path, (1, 1))
    with held(tmp_path / "run", "train"):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_holder_that_nobody_has_buried_has_ended(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        born = lock._state_and_birth(process.pid)[1]
        lock_of(tmp_path / "run").write_text(card(pid=process.pid, born=born))
        with held(tmp_path / "run", "train"):
            pass


@pytest.mark.parametrize("text", [json.dumps(ELSEWHERE), "", "5"], ids=["of another machine", "not written yet", "odd"])
def test_a_holder_of_whom_nothing_is_known_is_watched(tmp_path, monkeypatch, caplog, text):
    monkeypatch.setattr(lock, "_STALE", 0.2)
    caplog.set_level(logging.INFO)
    path = lock_of(tmp_path / "run")
    path.write_text(text)
    with held(tmp_path / "run", "train"):  # it gives no sign of life
        pass
    assert "waiting for a sign of life" in caplog.text and "takes it over" in caplog.text


def test_a_holder_elsewhere_that_gives_a_sign_of_life_is_not_disturbed(tmp_path, monkeypatch):
    path = lock_of(tmp_path / "run")
    path.write_text(json.dumps(ELSEWHERE))
    monkeypatch.setattr(time, "sleep", lambda seconds: os.utime(path, (2, 2)))
    told = "another train is at work on it .process 1 on elsewhere, since 2026-01-02 03:04:05 UTC."
    with pytest.raises(InUse, match=told), held(tmp_path / "run", "train"):
        pass
    assert path.read_text() == json.dumps(ELSEWHERE)


def test_a_lock_that_cannot_be_written_is_not_left_empty(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_card", lambda what: {"since": "\udc80"})  # which UTF-8 cannot hold
    monkeypatch.setattr(json, "dumps", lambda value: value["since"])
    with pytest.raises(UnicodeEncodeError), held(tmp_path / "run", "train"):
        pass
    assert not list(tmp_path.iterdir())


def test_in_a_folder_that_is_mounted_the_lock_stands_inside(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    (tmp_path / "out").mkdir()
    with held(tmp_path / "out", "gwas"):
        assert [path.name for path in tmp_path.rglob("*")] == ["out", ".lock"]
        with pytest.raises(InUse), held(tmp_path / "out", "gwas"):
            pass
    assert not list((tmp_path / "out").iterdir())
