"""Files that appear whole or not at all: publish by rename, delete by rename, manifest last."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import google_crc32c

from hpc.errors import NoSpace, OutputExists, naming_full_disk
from hpc.leftovers import aside, sweep

_BLOCK = 1 << 20


@contextmanager
def publish(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`; what is written there becomes `path` by one rename when the block ends well.

    Works for files and directories. On an error nothing is left at either place; what a killed process left in the
    folder is removed. Raises NoSpace.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent.absolute())
    partial = aside(path, "partial")
    try:
        with naming_full_disk(path):
            yield partial
            if partial.is_file():
                with partial.open("rb") as file:
                    os.fsync(file.fileno())
            if partial.is_dir() and path.exists():
                remove(path)
            partial.replace(path)
    except BaseException:
        remove(partial)
        raise


def publish_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with publish(path) as partial:
        partial.write_text(text, encoding="utf-8")


def publish_json(path: str | Path, value: Any) -> None:
    """Write a JSON file atomically, keys in the order given."""
    publish_text(path, json.dumps(value, indent=1) + "\n")


def remove(path: str | Path) -> None:
    """Delete a file or a tree: renamed out of the way first, so that a half-deleted tree is never taken for a whole."""
    path = Path(path)
    if not path.exists() and not path.is_symlink():
        return
    trash = aside(path, "trash")
    path.rename(trash)
    if trash.is_dir() and not trash.is_symlink():
        shutil.rmtree(trash)
    else:
        trash.unlink()


def refuse_existing(path: str | Path, overwrite: bool) -> None:
    """Make sure that nothing stands at `path`; with `overwrite` it is removed. Raises OutputExists."""
    path = Path(path)
    if not path.exists():
        return
    if not overwrite:
        raise OutputExists(f"{path}: already exists; give another out=, or type overwrite=true to replace it")
    remove(path)


def require_space(path: str | Path, needed_bytes: int) -> None:
    """Raises NoSpace unless the disk of `path` has `needed_bytes` free."""
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed_bytes:
        raise NoSpace(
            f"{path}: needs about {needed_bytes / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free; "
            "free some space or give another out="
        )


def reserve(path: str | Path) -> None:
    """Take the space of a file that is to be written by a map: the process of one that meets a full disk is ended."""
    with Path(path).open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def crc32c(path: str | Path) -> str:
    """The CRC-32C of a file's bytes, in hexadecimal: finds damage at a twentieth of the cost of SHA-256."""
    checksum = 0
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = google_crc32c.extend(checksum, block)
    return f"{checksum:08x}"


def size_of(path: str | Path) -> int:
    """Bytes of a file, or of all files of a tree."""
    path = Path(path)
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def safe_names(names: list[str]) -> list[str]:
    """Names of files, each its own also where capitals do not count: what is no letter, digit, dot, dash or underscore
    is written _, and a number is added where that makes two equal."""
    result: list[str] = []
    plain = [re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[:120] or "_" for name in names]
    reserved = Counter(stem.lower() for stem in plain)
    taken: set[str] = set()
    for stem in plain:
        choice, number = stem, 1
        while choice.lower() in taken or (number > 1 and choice.lower() in reserved):
            number += 1
            choice = f"{stem}-{number}"
        taken.add(choice.lower())
        result.append(choice)
    return result
