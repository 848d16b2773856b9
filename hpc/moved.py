"""Where the files of a record are now: the configuration names them by other paths, or all has moved together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_WILD = frozenset("*?[{")


def place_now(was: Path, named_then: Mapping[str, Path], named_now: Mapping[str, Path]) -> Path:
    """Where an input is that was at `was` (absolute): by the key that named it then, where that is known; else there.

    `named_then`, `named_now`: the paths in the configuration on record and in this one, by key. A key may name an input
    wholly (store=x.zarr), by its beginning (genotypes=x for x.bed) or by a pattern (genotypes=chr{chr} for chr1.bed).
    """
    found = {
        key: place
        for key, then in named_then.items()
        if key in named_now and (place := _follow(was, then, named_now[key])) is not None
    }
    return found[max(found, key=lambda key: len(_tail(named_then[key])))] if found else was


def place_beside(was: Path, out_then: str | None, out_now: Path) -> Path | None:
    """Where an input would be if it and the output had moved together; None where that is not on record."""
    if out_then is None:
        return None
    return Path(os.path.normpath(out_now.absolute() / os.path.relpath(was, out_then)))


def _follow(was: Path, then: Path, now: Path) -> Path | None:
    """The place of what `then` named as `was`, named by `now`; None where `then` did not name it."""
    tail = _tail(then)
    if not tail:
        return None
    if was.parts[-len(tail) :] == tail:
        return now
    if tail[:-1] and was.parts[-len(tail) : -1] != tail[:-1]:
        return None
    if was.name.startswith(f"{tail[-1]}."):
        return now.with_name(now.name + was.name[len(tail[-1]) :])
    return now.with_name(was.name) if _WILD & set(tail[-1]) else None


def _tail(path: Path) -> tuple[str, ...]:
    """The parts of a path by which it can be known from another folder."""
    return tuple(part for part in path.parts if part not in (path.anchor, "..", "."))
