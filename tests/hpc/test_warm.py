"""Programs in processes of their own that begin with their imports done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpc import warm
from hpc.testing import HANGS

PROGRAM = """
import atexit, json, os, signal, sys
from pathlib import Path

out, end = Path(sys.argv[1]), sys.argv[2]
known = "fractions_of_a_server" in sys.modules
atexit.register(lambda: (out.parent / "ended").write_text("yes"))
out.write_text(json.dumps({"argv": sys.argv, "pid": os.getpid(), "known": known, "name": __name__, "cwd": os.getcwd()}))
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if end == "fails":
    raise ValueError("as it was told to")
sys.exit(int(end))
"""
DRIVER = """
import sys
from hpc import warm

for end in sys.argv[2:]:
    print(warm.run("a_program", [sys.argv[1], end], ["fractions_of_a_server"]), flush=True)
"""


@pytest.fixture
def drive(tmp_path):
    """Run the driver with these words: its exit codes, and what the last program wrote."""
    (tmp_path / "a_program.py").write_text(PROGRAM)
    (tmp_path / "fractions_of_a_server.py").write_text("")
    (tmp_path / "driver.py").write_text(DRIVER)
    path = os.pathsep.join([str(tmp_path), str(Path(warm.__file__).parents[1])])

    def run(*ends: str) -> tuple[list[int], dict]:
        words = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "out.json"), *ends]
        environ = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(words, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=HANGS)
        assert done.returncode == 0, done.stderr
        return [int(line) for line in done.stdout.split()], json.loads((tmp_path / "out.json").read_text())

    return run


def test_a_program_has_its_words_its_process_and_its_end(drive, tmp_path):
    codes, said = drive("0", "3")
    assert codes == [0, 3] and (tmp_path / "ended").exists()
    assert said["argv"][1:] == [str(tmp_path / "out.json"), "3"] and said["cwd"] == str(tmp_path)
    assert said["name"] == "__main__" and said["known"], "the server had imported it before"


def test_an_error_and_a_signal_are_told_apart_and_the_server_goes_on(drive):
    codes, _ = drive("fails", "killed", "0")
    assert codes == [1, -signal.SIGKILL, 0]
