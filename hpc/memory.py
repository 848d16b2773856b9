"""How much memory this process may still take: what the machine has free, within the limits of its control groups.

A batch system gives a job a share of a node by a control group; what is free on the node beyond that is not ours.
"""

from __future__ import annotations

from pathlib import Path

import psutil

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
# version -> (limit, use) and the line of memory.stat that counts the page cache, which can be given back
_FILES = {2: ("memory.max", "memory.current", "file"), 1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "cache")}


def available() -> int:
    """Bytes that can be used without swapping; the page cache counts as free."""
    return max(0, min([psutil.virtual_memory().available, *_of_groups()]))


def _of_groups() -> list[int]:
    """What is left in each control group that limits this process."""
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:  # what is not Linux has none
        return []
    left = []
    for line in lines:
        number, controllers, name = line.split(":", 2)
        if number == "0":
            left += _up(_GROUPS, name, 2)
        elif "memory" in controllers.split(","):
            left += _up(_GROUPS / "memory", name, 1)
    return left


def _up(root: Path, name: str, version: int) -> list[int]:
    """What is left in a group and in those that hold it."""
    limit, use, cache = _FILES[version]
    left, place = [], root / name.lstrip("/")
    for group in (place, *place.parents):
        if not group.is_relative_to(root):
            break
        try:
            most, used = (group / limit).read_text().strip(), int((group / use).read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # the outermost group has no limit; a container may not show the others
            continue
        if most != "max":
            left.append(int(most) - used + int(stat.get(cache, 0)))
    return left
