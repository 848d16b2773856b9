"""Files of the working folder are not taken for modules, in any program that is started."""

from __future__ import annotations

import os
import site
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.shelter import sheltered
from hpc.testing import HANGS

ROOT = Path(__file__).resolve().parents[2]
TRAPS = ("hpc.py", "torch.py", "numpy.py", "click.py", "ray.py", "distributed.py")


@pytest.fixture
def trapped(tmp_path, monkeypatch):
    """A working folder with files named like modules, each of which ends a program that takes it for one."""
    for name in TRAPS:
        (tmp_path / name).write_text("raise SystemExit('the file of the user was imported')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    return tmp_path


def test_the_environment_of_programs():
    root = str(ROOT)
    assert sheltered({})["PYTHONPATH"] == root and sheltered({})["PYTHONSAFEPATH"] == "1"
    assert sheltered({"PYTHONPATH": "/a"})["PYTHONPATH"] == f"{root}{os.pathsep}/a"
    assert sheltered({"PYTHONPATH": root, "A": "b"}) == {"PYTHONPATH": root, "A": "b", "PYTHONSAFEPATH": "1"}


def test_an_installed_copy_needs_no_path(monkeypatch):
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(ROOT)])
    assert "PYTHONPATH" not in sheltered({})


def test_the_program_itself(trapped):
    done = subprocess.run([sys.executable, "-m", "udipdist", "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    words = ["train", "store=nowhere.zarr", "run_dir=r"]
    done = subprocess.run([sys.executable, "-m", "udipdist", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "nowhere.zarr" in done.stderr, done.stderr


def test_a_copy_that_is_not_installed_is_found_from_its_own_folder():
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [sys.executable, "-m", "udipdist", "--version"]
    done = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks(trapped, ranks):
    from hpc.torchrun import started

    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with started("udipdist", ["train", "store=nowhere.zarr", "run_dir=r"], ranks, **quiet) as process:
        said = process.communicate(timeout=HANGS)[0]
    assert process.returncode == 2 and "nowhere.zarr" in said, said


def test_warm_starts(trapped):
    """In a process of its own: a server that another test has started would speak elsewhere."""
    words = ["train", "store=nowhere.zarr", "run_dir=r"]
    program = f"from hpc import warm; raise SystemExit(warm.run('udipdist', {words!r}, ['udipdist.training.verb']))"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "nowhere.zarr" in done.stderr, done.stderr
