"""Run a function or a command on N ranks in a test, with a time limit.

Several ranks are started by torchrun (hpc.torchrun), which finds a free port by itself; one rank is started alone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc.comm import leave
from hpc.errors import Error
from hpc.torchrun import end, end_with_launcher, started
from hpc.world import World

HANGS = 600.0  # seconds after which a program in a test counts as hanging: many times what any takes, on a busy machine


def launch(
    module: str, words: Sequence[str], ranks: int = 1, timeout: float = HANGS, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`python -m module words...` on `ranks` ranks; returns code, stdout and stderr.

    Raises TimeoutError with the output so far, after every process it started has been ended.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with started(module, words, ranks, {"OMP_NUM_THREADS": "1", **(env or {})}, **pipes) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            end(process)
            out, err = process.communicate()
            raise TimeoutError(f"{module} {' '.join(words)}: not done in {timeout} s\n{out}\n{err}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def call(path: str | Path, function: str, *arguments: Any, ranks: int = 1, timeout: float = HANGS) -> list[Any]:
    """What `function(*arguments)` of the file `path` returns on each of `ranks` ranks (arguments and values: JSON).

    An error on any rank fails the call with that rank's output.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = [str(Path(path).absolute()), function, json.dumps(arguments), folder]
        done = launch("hpc.testing", words, ranks, timeout)
        results = [Path(folder) / f"{rank}.json" for rank in range(ranks)]
        if done.returncode or not all(result.exists() for result in results):
            raise AssertionError(f"{function} on {ranks} ranks: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return [json.loads(result.read_text(encoding="utf-8")) for result in results]


def _worker(path: str, function: str, arguments: str, folder: str) -> int:
    end_with_launcher(os.environ)
    spec = importlib.util.spec_from_file_location("ranked", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ranked"] = module
    spec.loader.exec_module(module)
    try:
        value = getattr(module, function)(*json.loads(arguments))
    except Error as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    (Path(folder) / f"{World.detect(os.environ).rank}.json").write_text(json.dumps(value), encoding="utf-8")
    return 0


if __name__ == "__main__":
    code = _worker(*sys.argv[1:])
    leave(code, together=code == 0)
