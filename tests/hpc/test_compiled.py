"""Who compiles is told so, once; who finds the loops compiled is told nothing."""

import os
import subprocess
import sys

LOOPS = """
from hpc.compiled import njit


@njit(cache=True)
def one(x):
    return x + 1


@njit(cache=True)
def two(x):
    return one(x) + 1
"""
PROGRAM = "from hpc import log; log.setup(); import loops; assert loops.two(1) == 3; loops.one(1.0)"


def test_compiling_is_said_once_and_not_again(tmp_path):
    (tmp_path / "loops.py").write_text(LOOPS)
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", PROGRAM]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True, env=environ, cwd=os.getcwd()).stderr
        for _ in range(2)
    )
    assert first.count("compiling, once") == 1
    assert second == ""
