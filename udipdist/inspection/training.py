"""Runs of train: the folder of a run, finished or not, and single checkpoints. Weights are looked at, never loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from hpc.checkpoint import META
from hpc.config import read_yaml
from hpc.errors import ConfigError
from udipdist.inspection import records
from udipdist.inspection.finding import COMPLETE, DAMAGED, READABLE, UNFINISHED, Finding

FILES = ("config.yaml", "provenance.json", "metrics.jsonl", "checkpoints")


def checkpoint(path: Path, contents: bool) -> Finding | None:
    """One checkpoint, or the folder of all checkpoints of a run; None where it is neither."""
    if path.name == "checkpoints" and any(path.glob("step-*")):
        found = Finding(path, "checkpoints of a training run")
        _check_all(found, path, contents)
        return found
    if not (path / META).is_file() and not (path.name.startswith("step-") and path.is_dir()):
        return None
    found = Finding(path, "checkpoint")
    try:
        meta = records.read_json(path / META)
        files = dict(meta["files"])
    except (records.Unreadable, KeyError, TypeError, ValueError) as error:
        found.worsen(DAMAGED, [f"{META}, which is written last, is missing or damaged ({error})"])
        return found
    found.facts = {key: value for key, value in meta.items() if key in ("step", "epoch", "ranks", "zero", "scores")}
    found.facts["bytes"] = sum(seen["bytes"] for seen in files.values())
    found.worsen(DAMAGED, records.wrong(path, files, contents))
    weights = [name for name in files if name.endswith(".safetensors")]
    for name in weights if found.state == COMPLETE else []:
        found.facts |= _tensors(found, path / name)
    run = path.parent.parent
    if path.parent.name == "checkpoints":
        found.facts["run"] = str(run)
        found.facts["pointed_at_by"] = [name for name in ("last", "best") if _pointer(path.parent, name) == path.name]
    return found


def safetensors(path: Path, contents: bool) -> Finding:
    """A file of tensors."""
    found = Finding(path, "tensors (.safetensors)", READABLE)
    found.facts = _tensors(found, path)
    return found


def unfinished(path: Path, contents: bool) -> Finding | None:
    """A run that is going on, or was stopped; None where `path` is none."""
    plan = path / "plan.json"
    if not plan.is_file():
        return None
    try:
        if "train" not in records.read_json(plan):
            return None
    except (records.Unreadable, TypeError):
        return None  # outputs.unfinished says so
    found = Finding(path, "training run", UNFINISHED)
    check_run(found, contents)
    epochs = _epochs(path)
    found.parts = {"done": found.facts.get("epoch", 0), "total": epochs, "unit": "epochs"}
    try:
        provenance = records.read_json(path / "provenance.json")
        start = provenance["starts"][-1]
        found.made = {
            "stage": "train",
            "when": start["time"],
            "host": start["host"],
            "command": start["command"],
            "versions": {key: start[key] for key in ("udipdist", "torch", "python") if key in start},
        }
        seen = provenance["store"]
        found.inputs = [{"key": "store", **records.look_at_input(seen, None, path)}]
    except (records.Unreadable, KeyError, IndexError, TypeError) as error:
        found.worsen(DAMAGED, [f"provenance.json does not say who started it ({error})"])
    found.facts["last_written"] = records.last_change([path / "metrics.jsonl", path / "provenance.json"])
    found.worsen(UNFINISHED, ["has no manifest.json: it is running, or was stopped; the same command continues it"])
    return found


def check_run(found: Finding, contents: bool) -> None:
    """The files of a run: settings, provenance, every line of metrics, every checkpoint."""
    found.worsen(DAMAGED, records.missing(found.path, FILES))
    found.facts |= _metrics(found)
    if (found.path / "checkpoints").is_dir():
        _check_all(found, found.path / "checkpoints", contents)
    try:
        found.facts["starts"] = len(records.read_json(found.path / "provenance.json")["starts"])
    except (records.Unreadable, KeyError, TypeError) as error:
        found.worsen(DAMAGED, [f"provenance.json is damaged ({error})"])


def _check_all(found: Finding, place: Path, contents: bool) -> None:
    """Every checkpoint in a folder, and the pointers to the last and the best."""
    found.hold([one for path in sorted(place.glob("step-*")) if (one := checkpoint(path, contents)) is not None])
    for name in ("last", "best"):
        target = _pointer(place, name)
        if target is not None and not (place / target).is_dir():
            found.worsen(DAMAGED, [f"{name}.json points to {target}, which does not exist"])
    found.notes += records.leftovers(place)


def _pointer(place: Path, name: str) -> str | None:
    try:
        return str(records.read_json(place / f"{name}.json")["folder"])
    except (records.Unreadable, KeyError, TypeError):
        return None


def _metrics(found: Finding) -> dict[str, Any]:
    """The last step, epoch and scores; a last line without its end is what a killed run leaves."""
    path = found.path / "metrics.jsonl"
    if not path.is_file():
        return {}
    *whole, rest = path.read_text(encoding="utf-8", errors="replace").split("\n")
    if rest:
        found.notes.append("the last line of metrics.jsonl is cut off; the run removes it when it continues")
    entries = []
    for number, line in enumerate(whole, 1):
        try:
            entries.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            found.worsen(DAMAGED, [f"line {number} of metrics.jsonl is not JSON ({error})"])
            return {}
    facts: dict[str, Any] = {key: entries[-1][key] for key in ("step", "epoch") if entries and key in entries[-1]}
    for split in ("train", "validation"):
        last = next((entry for entry in reversed(entries) if entry.get("split") == split), {})
        scores = {key: last[key] for key in ("loss", "ssim", "psnr") if key in last}
        facts |= {split: scores} if scores else {}
    return facts


def _epochs(path: Path) -> int | None:
    try:
        return int(read_yaml(path / "config.yaml")["epochs"])
    except (ConfigError, KeyError, TypeError, ValueError):
        return None


def _tensors(found: Finding, path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="np") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118, it is no dict
    except (SafetensorError, OSError, ValueError) as error:
        found.worsen(DAMAGED, [f"{path.name} cannot be read ({error})"])
        return {}
    numbers = 0
    for shape in shapes:
        count = 1
        for n in shape:
            count *= n
        numbers += count
    return {"tensors": len(shapes), "numbers": numbers}
