"""Folders that hold outputs: the run of a pipeline, a demo, or whatever a person has put together."""

from __future__ import annotations

from pathlib import Path

from hpc.errors import ConfigError
from hpc.stage import manifest_path, read_manifest
from udipdist import pipeline
from udipdist.config import RunConfig
from udipdist.inspection import outputs, records, stores, sweeps, training
from udipdist.inspection.finding import COMPLETE, DAMAGED, UNFINISHED, Finding

NETWORKS, SUMMARY = "networks", "networks.json"  # what `udipdist compare` adds to a run
_DEPTH = 4  # comparison/NAME/gwas of a demo's run, and the run itself


def folder(path: Path, contents: bool) -> Finding | None:
    """A folder with outputs below it; None where there are none."""
    if not path.is_dir():
        return None
    inside = _inside(path, contents, _DEPTH)
    if not inside:
        return None
    config = _config(path)
    found = Finding(path, "run of the pipeline" if config else "folder of outputs", COMPLETE)
    found.hold(inside)
    if config is not None:
        there = {one.path.resolve() for one in inside}
        steps = pipeline.plan(config.model_copy(update={"out": path}))
        gone = [step.name for step in steps if step.out.resolve() not in there and not _about_nothing(step)]
        found.worsen(UNFINISHED, [f"stage {name} has not been run" for name in gone])
        if (path / NETWORKS).is_dir():
            _compared(found)
    return found


def _about_nothing(step: pipeline.Step) -> bool:
    """True of maps of lead SNPs where there is no locus."""
    manifest = read_manifest(step.loci) if step.loci is not None else None
    return manifest is not None and manifest.get("facts", {}).get("n_loci") == 0


def _compared(found: Finding) -> None:
    """A run that `udipdist compare` made: its other networks stand in networks/, and what all found in a summary."""
    found.kind = "comparison of networks"
    summary = found.path / NETWORKS / SUMMARY
    if not summary.exists():
        found.worsen(UNFINISHED, [f"has no {NETWORKS}/{SUMMARY}: the same `udipdist compare` continues it"])
        return
    try:
        found.facts["networks"] = [row["name"] for row in records.read_json(summary)["networks"]]
    except (records.Unreadable, KeyError, TypeError) as error:
        found.worsen(DAMAGED, [f"{NETWORKS}/{SUMMARY} is damaged ({error})"])


def _inside(path: Path, contents: bool, depth: int) -> list[Finding]:
    """The outputs in a folder, and in folders of it that are no outputs themselves."""
    found = []
    for child in sorted(path.iterdir()):
        if child.name.startswith(".") or child.name in ("manifest.json", "plan.json"):
            continue
        if (one := sweeps.folder(child, contents)) is not None:
            found.append(one)
            continue
        own = manifest_path(child).is_file() or (child / "plan.json").is_file() or (child / "zarr.json").is_file()
        if own:
            looks = (outputs.finished, stores.derived_array, training.unfinished, outputs.unfinished, stores.zarr_group)
            found.append(next(one for look in looks if (one := look(child, contents)) is not None))
        elif child.is_dir() and _config(child) is not None:
            found += [one] if (one := folder(child, contents)) is not None else []
        elif child.is_dir() and depth > 1:
            found += _inside(child, contents, depth - 1)
    return found


def _config(path: Path) -> RunConfig | None:
    """The configuration of a run, which `udipdist run` writes into its folder; None where there is none."""
    if not (path / "config.yaml").is_file():
        return None
    try:
        return RunConfig.load(path / "config.yaml")
    except ConfigError:
        return None  # of something else
