"""A stage of a pipeline: config and inputs in, a published output out, and a manifest written last.

The manifest says what made an output and what it cost. An output is *complete* when its manifest is there, and
*current* when the manifest names the same configuration and unchanged inputs.
"""

from __future__ import annotations

import glob
import json
import logging
import platform
import resource
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hpc
from hpc.config import Config
from hpc.errors import OutputExists, naming_full_disk
from hpc.files import publish_json, remove, size_of
from hpc.lock import held, is_lock
from hpc.moved import place_now
from hpc.progress import duration

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
DERIVED = ".derived"  # a file that says: the folder it stands in is made from the rest of what holds it


def manifest_path(out: str | Path) -> Path:
    """Where the manifest of an output stands: inside a folder, beside a file or a store (other readers list those)."""
    out = Path(out)
    beside = out.suffix == ".zarr" or (out.suffix and not out.is_dir())
    return out.with_name(f"{out.name}.{MANIFEST}") if beside else out / MANIFEST


def read_manifest(out: str | Path) -> dict[str, Any] | None:
    """The manifest of a complete output, or None."""
    path = manifest_path(out)
    if not Path(out).exists() or not path.exists():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return None
    return manifest


def fingerprint(path: str | Path) -> dict[str, Any]:
    """What an input looked like: for a stage's output its manifest's id, for a file size and time of change,
    for a folder or a pattern those of its files that are not derived from others of them. `path` says where it was;
    what it is the rest says (`same_content`)."""
    path = Path(path)
    manifest = read_manifest(path) or read_manifest(path.resolve())  # of a link the manifest stands where it points
    if manifest is not None:
        return {"path": str(path.absolute()), "manifest": manifest["id"]}
    files = _files_of(path)
    derived = [p.parent for p in files if p.name == DERIVED]
    files = [p for p in files if not is_lock(p) and not any(p.is_relative_to(folder) for folder in derived)]
    stats = [p.stat() for p in files]
    return {
        "path": str(path.absolute()),
        "files": len(files),
        "bytes": sum(s.st_size for s in stats),
        "changed_ns": max((s.st_mtime_ns for s in stats), default=0),
    }


def same_content(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True where two fingerprints are of the same thing, wherever it lies."""
    return {**one, "path": ""} == {**other, "path": ""}


def is_current(name: str, out: str | Path, config: Config, inputs: Mapping[str, Path | None] | None = None) -> bool:
    """True where `out` is complete and was made by this stage from this configuration, and no input changed since.

    Inputs are known by their content: they may have moved. `inputs` says where they are now; without it they are looked
    for where `config` names them, else where they were.
    """
    manifest = read_manifest(out)
    if manifest is None or manifest["stage"] != name:
        return False
    cls, then = type(config), manifest["config"]
    if cls.identity_of(then) != json.loads(json.dumps(config.identity())):
        return False
    seen: dict[str, dict[str, Any]] = manifest["inputs"]
    if inputs is None:
        named_then, named_now = cls.paths_of(then), cls.paths_of(config.tree())
        inputs = {key: place_now(Path(one["path"]), named_then, named_now) for key, one in seen.items()}
    now = {key: path for key, path in inputs.items() if path is not None}
    return seen.keys() == now.keys() and all(unchanged(one, now[key]) for key, one in seen.items())


def unchanged(seen: Mapping[str, Any], path: str | Path) -> bool:
    """True where what a fingerprint was taken of is at `path`, as it was."""
    now = fingerprint(path)
    return (Path(path).exists() or now["files"] > 0) and same_content(now, seen)


class Stage:
    """A running stage: what it adds to its manifest, and the manifests of outputs that it makes inside its own.

    `inputs` are the fingerprints of its inputs, by key; `beside`: what belongs to its output, and goes with it where
    the stage fails.
    """

    def __init__(self, name: str, out: Path, inputs: Mapping[str, dict[str, Any]]):
        self.name, self.out, self.inputs = name, out, inputs
        self.facts: dict[str, Any] = {}
        self.beside: list[Path] = []
        self._started, self._clock, self._cpu = datetime.now(UTC), time.monotonic(), _cpu_seconds()

    def note(self, **facts: Any) -> None:
        """Record JSON values under `facts` of the manifest (counts, sizes, what was dropped)."""
        self.facts.update(facts)

    def complete(
        self, out: str | Path, config: Config, inputs: Mapping[str, dict[str, Any]], facts: Mapping[str, Any]
    ) -> float:
        """Write the manifest of `out` with the time and memory of the stage so far; returns the seconds."""
        seconds = time.monotonic() - self._clock
        body = {
            "stage": self.name,
            "path": str(Path(out).absolute()),
            "id": f"{self.name}-{self._started:%Y%m%dT%H%M%S.%f}-{socket.gethostname()}",
            "started": self._started.isoformat(),
            "seconds": round(seconds, 3),
            "cpu_seconds": round(_cpu_seconds() - self._cpu, 3),
            "peak_memory_bytes": peak_memory(),
            "output_bytes": size_of(out),
            "config": config.semantics(),
            "inputs": dict(inputs),
            "facts": dict(facts),
            "software": {"udipdist": hpc.__version__, "python": platform.python_version(), "command": sys.argv},
        }
        publish_json(manifest_path(out), body)
        return seconds


@contextmanager
def stage(
    name: str, out: str | Path, config: Config, inputs: Mapping[str, Path | None], overwrite: bool = False
) -> Iterator[Stage]:
    """Run one stage. A complete output is refused (OutputExists) unless `overwrite`, and one on which another process
    is at work always (InUse); an unfinished one is left for the body to resume or replace. When the body ends well the
    manifest is written with time and memory; where it fails, what has no plan to be resumed goes. Raises NoSpace."""
    out = Path(out)
    _refuse_own_input(out, inputs)
    with naming_full_disk(out, of_files=False), held(out, name, _key_of(config, out)):
        make_way(out, overwrite)
        current, found, new = Stage(name, out, _fingerprints(inputs)), out.exists(), _nothing_at(out)
        try:
            yield current
            seconds = current.complete(out, config, current.inputs, current.facts)
        except BaseException:
            if new and not (out / "plan.json").exists():  # without a manifest it would be taken for somebody else's
                for path in [*current.beside, *([out] if not found else filter(_is_content, out.iterdir()))]:
                    remove(path)
            raise
    log.info("%s: done in %s -> %s", name, duration(seconds), out)


def _key_of(config: Config, out: Path) -> str:
    """The key by which a user names the output."""
    return next((key for key in type(config).model_fields if getattr(config, key) == out), "out")


def _refuse_own_input(out: Path, inputs: Mapping[str, Path | None]) -> None:
    """An output that holds one of its inputs would be deleted with it by `overwrite`."""
    place = out.resolve()
    for key, path in inputs.items():
        if path is not None and place in (Path(path).resolve(), *Path(path).resolve().parents):
            raise OutputExists(f"{out}: is or holds an input ({key}: {path}); give another out=")


def make_way(out: str | Path, overwrite: bool) -> None:
    """Refuse or remove what stands at `out`; leave unfinished work of ours to be resumed. What is not ours is never
    removed. Raises OutputExists."""
    out = Path(out)
    ours = manifest_path(out).exists() or (out / "plan.json").exists()
    if out.is_dir() and not ours:
        if not _nothing_at(out):
            raise OutputExists(f"{out}: is a folder with other files in it; give another out=")
        return
    if not out.exists() or (not overwrite and not manifest_path(out).exists() and out.is_dir()):
        return
    if not overwrite:
        raise OutputExists(f"{out}: already exists; give another out=, or type overwrite=true to replace it")
    remove(manifest_path(out))
    remove(out)


def _nothing_at(out: Path) -> bool:
    return not any(map(_is_content, out.iterdir())) if out.is_dir() else not out.exists()


def _is_content(path: Path) -> bool:
    return not is_lock(path)


def peak_memory() -> int:
    """The largest resident size so far of this process or of one of its ended children, in bytes."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(own_peak(), children * (1 if sys.platform == "darwin" else 1024))


def own_peak() -> int:
    """The largest resident size so far of this process, in bytes."""
    # Linux lets a program inherit ru_maxrss from the one that started it; the high-water mark in /proc is its own.
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usages)


def _files_of(path: Path) -> list[Path]:
    """A file, or those of a folder or a pattern, by name."""
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())
    return sorted(p for name in glob.glob(str(path), recursive=True) if (p := Path(name)).is_file())


def _fingerprints(inputs: Mapping[str, Path | None]) -> dict[str, Any]:
    return {key: fingerprint(path) for key, path in inputs.items() if path is not None}
