"""Programs that this one starts take their modules from where it has them, not from the folder they are started in."""

from __future__ import annotations

import os
import site
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SAFE_PATH = {"PYTHONSAFEPATH": "1"}  # a file hpc.py or torch.py of the user would come before the real one


def sheltered(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for such programs. A copy of ours that is not installed is named in PYTHONPATH."""
    root = str(Path(__file__).resolve().parents[1])
    known = environ.get("PYTHONPATH", "").split(os.pathsep)
    if root in known or root in _installed():
        return {**environ, **SAFE_PATH}
    return {**environ, **SAFE_PATH, "PYTHONPATH": os.pathsep.join([root, *filter(None, known)])}


@contextmanager
def shelter() -> Iterator[None]:
    """`sheltered` for what is started in the block by means that take the environment of this process."""
    before = dict(os.environ)
    os.environ.update(sheltered(os.environ))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _installed() -> set[str]:
    """Folders in which every program finds its modules. Named in PYTHONPATH they would come before Python's own."""
    return {str(Path(folder).resolve()) for folder in (*site.getsitepackages(), site.getusersitepackages())}
