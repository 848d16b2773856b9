"""Checkpoints: published whole, rotated, found, and refused when damaged."""

from __future__ import annotations

import json
import logging
import os
import re
import signal

import pytest

from hpc.checkpoint import Checkpoints, StopRequest, read_meta
from hpc.comm import Comm
from hpc.errors import InputError, NoSpace
from hpc.world import World

COMM = Comm(World())


def save(checkpoints: Checkpoints, step: int, best: bool = False) -> None:
    checkpoints.save(COMM, step, lambda folder: (folder / "state").write_text(f"step {step}"), {"ranks": 1}, best)


def test_rotation_keeps_the_newest_the_first_and_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(0, 60, 10):
        save(checkpoints, step, best=step == 20)
    assert checkpoints.steps() == [0, 20, 40, 50]
    assert checkpoints.find("last").name == "step-00000050"
    assert checkpoints.find("best").name == "step-00000020"
    assert checkpoints.find("0").name == "step-00000000"
    assert json.loads((tmp_path / "last.json").read_text()) == {"step": 50, "folder": "step-00000050"}
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_find_says_what_there_is(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(InputError, match="none is there yet; train first"):
        checkpoints.find("last")
    save(checkpoints, 0)
    save(checkpoints, 5)
    with pytest.raises(InputError, match=r"checkpoint=7: no such checkpoint .* steps 0, 5"):
        checkpoints.find("7")


def test_a_save_that_fails_leaves_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 0)

    def fail(folder):
        (folder / "state").write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        checkpoints.save(COMM, 1, fail, {})
    assert checkpoints.steps() == [0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.json", "step-00000000"]
    save(checkpoints, 1)
    assert read_meta(checkpoints.find("1"))["ranks"] == 1


def test_a_full_disk_is_told_with_the_checkpoint_that_does_not_fit(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 0)

    def full(folder):
        (folder / "state").write_text("half")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")

    with pytest.raises(NoSpace, match=r"step-00000001: the disk is full, .* \(a file was cut short\); free some space"):
        checkpoints.save(COMM, 1, full, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.json", "step-00000000"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "state").unlink(), "is missing"),
        (lambda folder: (folder / "state").write_text("step"), "has 4 bytes, not the 6"),
        (lambda folder: (folder / "state").write_text("stop !"), "SHA-256 differs"),
        (lambda folder: (folder / "meta.json").write_text("{"), "meta.json: is missing or damaged"),
    ],
)
def test_damage_is_named_and_the_one_before_is_used(tmp_path, caplog, damage, message):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.last_whole() is None
    for step in (2, 3):
        save(checkpoints, step)
    assert checkpoints.last_whole()["step"] == 3
    folder = checkpoints.find("3")
    damage(folder)
    with pytest.raises(InputError, match=message):
        read_meta(folder)
    logging.getLogger("hpc").propagate = True
    with caplog.at_level(logging.WARNING):
        assert checkpoints.last_whole()["step"] == 2
    assert re.search(f"{message}.*renamed .*damaged-step-00000003, and the run goes back to step 2", caplog.text)
    assert checkpoints.steps() == [2] and (tmp_path / "damaged-step-00000003").is_dir()
    assert json.loads((tmp_path / "last.json").read_text())["step"] == 2
    damage(checkpoints.find("2"))
    with pytest.raises(InputError, match=f"no checkpoint is intact .*{message}.*type overwrite=true to start again"):
        checkpoints.last_whole()
    assert checkpoints.steps() == [2]


def test_ctrl_c_asks_first_and_interrupts_then():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal is signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_stop_request_notes_the_signal_and_restores_the_handler():
    before = signal.getsignal(signal.SIGUSR1)
    with StopRequest() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop and stop.signal is signal.SIGUSR1
    assert signal.getsignal(signal.SIGUSR1) is before
