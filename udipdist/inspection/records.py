"""Manifests, plans and records of parts: who made an output from what, and whether its files are as they were written.

The forms are those of hpc.stage (manifest.json), hpc.parts (plan.json, parts/*.json) and hpc.checkpoint (meta.json).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpc.errors import some
from hpc.files import crc32c, sha256, size_of
from hpc.moved import place_beside
from hpc.stage import fingerprint, manifest_path, unchanged
from udipdist.inspection.finding import DAMAGED, Finding

UNCHANGED, CHANGED, GONE = "unchanged", "CHANGED since", "no longer there"
_DIGESTS = {"sha256": sha256, "crc32c": crc32c}
_HOST = re.compile(r"-\d{8}T\d{6}\.\d{6}-(.+)$")  # in the id of a manifest


class Unreadable(ValueError):
    """A JSON file that cannot be read; the message is the reason."""


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises Unreadable."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Unreadable(f"{path.name} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise Unreadable(f"{path.name} is not valid JSON ({error})") from None


def open_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of an output; None where there is none. Raises Unreadable."""
    place = manifest_path(path)
    if not place.is_file():
        return None
    manifest = read_json(place)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("stage"), str):
        raise Unreadable(f"{place.name} does not say which stage made it")
    return manifest


def tell(found: Finding, manifest: Mapping[str, Any]) -> None:
    """Put into `found` what a manifest says: who made it, when, and from what."""
    software = dict(manifest.get("software", {}))
    found.made = {
        "stage": manifest["stage"],
        "when": manifest.get("started"),
        "seconds": manifest.get("seconds"),
        "cpu_seconds": manifest.get("cpu_seconds"),
        "host": next(iter(_HOST.findall(manifest.get("id", ""))), None),
        "command": software.pop("command", None),
        "versions": software,
        "peak_memory_bytes": manifest.get("peak_memory_bytes"),
        "output_bytes": manifest.get("output_bytes"),
        "id": manifest.get("id"),
        "config": manifest.get("config"),
    }
    found.made = {key: value for key, value in found.made.items() if value is not None}
    found.inputs = [
        {"key": key, **look_at_input(seen, manifest.get("path"), found.path)}
        for key, seen in manifest.get("inputs", {}).items()
    ]


def look_at_input(seen: Mapping[str, Any], out_then: str | None, out: Path) -> dict[str, str]:
    """Where an input is, and whether it is still what its fingerprint says: where it was, or where it is if it has
    moved together with the output, which was `out_then`."""
    beside = place_beside(Path(seen["path"]), out_then, out)
    for place in (seen["path"], *([] if beside is None else [str(beside)])):
        if unchanged(seen, place):
            return {"path": place, "state": UNCHANGED}
    there = Path(seen["path"]).exists() or fingerprint(seen["path"]).get("files", 0) > 0
    return {"path": seen["path"], "state": CHANGED if there else GONE}


def of_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a manifest that are short enough to be shown: numbers, text, lists; no nested tables."""
    return {
        key: value
        for key, value in manifest.get("facts", {}).items()
        if not isinstance(value, dict) and not (isinstance(value, list) and any(isinstance(v, dict) for v in value))
    }


def missing(place: Path, names: Iterable[str]) -> list[str]:
    """'NAME is missing' of each file or folder that is to be below `place`."""
    return [f"{name} is missing" for name in names if not (place / name).exists()]


def check_size(found: Finding, manifest: Mapping[str, Any]) -> None:
    """Damaged where a single file has not the size it was written with, or a folder has become smaller."""
    written = manifest.get("output_bytes")
    if written is None:
        return
    own = 0 if found.path.is_file() else size_of(manifest_path(found.path))
    now = size_of(found.path) - own
    if now < written or (found.path.is_file() and now != written):
        found.worsen(DAMAGED, [f"has {now:,} bytes, and was made with {written:,}"])


def markers(place: Path) -> list[Path]:
    """The records of the parts that are done, and of what the plan wrote."""
    return sorted((place / "parts").glob("*.json")) + sorted((place / "parts").glob("plan.record"))


def last_change(paths: Iterable[Path]) -> str | None:
    """When the newest of some files was written."""
    times = [path.stat().st_mtime for path in paths if path.exists()]
    return f"{datetime.fromtimestamp(max(times), UTC):%Y-%m-%d %H:%M:%S} UTC" if times else None


def check_parts(found: Finding, contents: bool) -> int:
    """Compare every file that records below the output name; damaged where one is gone or changed. Returns how many."""
    count = 0
    for marker in markers(found.path):
        try:
            files = read_json(marker).get("files", {})
        except (Unreadable, AttributeError) as error:
            found.worsen(DAMAGED, [f"the record {marker.relative_to(found.path)}: {error}"])
            continue
        found.worsen(DAMAGED, wrong(found.path, files, contents))
        count += len(files)
    return count


def wrong(place: Path, files: Mapping[str, Mapping[str, Any]], contents: bool) -> list[str]:
    """'NAME (what is wrong)' of files that are not as recorded: name -> bytes, and sha256 or crc32c."""
    lines = []
    for name, seen in files.items():
        path = place / name
        if not path.is_file():
            lines.append(f"{name} is missing")
        elif path.stat().st_size != seen["bytes"]:
            lines.append(f"{name} has {path.stat().st_size:,} bytes, not {seen['bytes']:,}")
        elif contents:
            differ = [kind for kind, of in _DIGESTS.items() if kind in seen and of(path) != seen[kind]]
            lines += [f"{name} has other bytes than were written ({kind})" for kind in differ]
    return lines


def leftovers(place: Path) -> list[str]:
    """A note on what killed writers left."""
    names = [path.name for path in place.glob(".*.partial*")] if place.is_dir() else []
    return [f"left by a killed writer, and removed by the next: {some(names)}"] if names else []
