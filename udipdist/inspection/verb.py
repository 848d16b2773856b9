"""The verb `inspect`: what a file or folder is, whether it is complete, and who made it from what.

It reads what stages leave beside their output (manifests, plans, records of parts) and as much of the output as tells
whether that is whole. Nothing is unpickled, nothing is written, and torch is not needed.
"""

from __future__ import annotations

import json
from pathlib import Path

from hpc.errors import Error, Incomplete, InputError
from udipdist.config import InspectConfig
from udipdist.inspection import inputs, outputs, runs, stores, sweeps, training
from udipdist.inspection.finding import DAMAGED, UNFINISHED, Finding

KNOWN = (
    "outputs of the verbs (by their manifest.json, plan.json or zarr.json), folders that hold some, trials of a sweep, "
    "checkpoints, prefixes of .bed/.bim/.fam and .grm.sp/.grm.id, NIfTI and MGH images, folders of these, OME-Zarr, "
    "tables (text, Parquet), .safetensors"
)


class Damaged(Error):
    """Files are missing or not as they were written."""

    exit_code = 4


def inspect(config: InspectConfig) -> None:
    """Print what is at `path`. Raises InputError (2), Incomplete (3) or Damaged (4) where it is not all there."""
    found = look(config.path, config.contents)
    print(json.dumps(found.tree(), indent=1) if config.format == "json" else found.text())
    if found.state == DAMAGED:
        raise Damaged(f"{found.path}: {found.kind}, damaged: {found.first_problem}")
    if found.state == UNFINISHED:
        raise Incomplete(f"{found.path}: {found.kind}, unfinished: {found.first_problem}")


def preview(config: InspectConfig) -> list[str]:
    """What it is, without a look into it."""
    found = look(config.path, contents=False)
    return [
        f"{found.path}: {found.kind}, {found.state}; reads {'all of it' if config.contents else 'what is on record'}"
    ]


def look(path: Path, contents: bool) -> Finding:
    """What stands at `path`; `contents`: read all of it. Raises InputError where that is nothing known."""
    path = _meant(Path(path))
    for recognise in (
        sweeps.folder,
        outputs.finished,
        stores.derived_array,
        training.checkpoint,
        training.unfinished,
        outputs.unfinished,
        stores.zarr_group,
        inputs.prefix,
        runs.folder,
        inputs.file,
        inputs.folder,
    ):
        found = recognise(path, contents)
        if found is not None:
            return found
    if not path.exists():
        raise InputError(f"{path}: does not exist; nor do PREFIX.bed or PREFIX.grm.sp of that prefix")
    raise InputError(f"{path}: is not a known kind of file. Looked for: {KNOWN}")


def _meant(path: Path) -> Path:
    """The output whose manifest or plan was named, else `path` itself."""
    if path.name in ("manifest.json", "plan.json"):
        return path.parent
    if path.name.endswith(".manifest.json"):
        return path.with_name(path.name.removesuffix(".manifest.json"))
    return path
