"""Sections about what the run took, and what made it."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

from dask.utils import format_bytes

import hpc
from hpc.progress import duration
from hpc.stage import read_manifest
from udipdist.report.collect import RunFolder
from udipdist.report.section import Album, Bar, Section, Table, Tile

_LIBRARIES = ("torch", "deepspeed", "numpy", "scipy", "zarr", "numba", "dask", "pandas", "nibabel", "matplotlib")


def cost(run: RunFolder, album: Album) -> Section:
    """Time, memory and disk of each stage, from the manifests."""
    section = Section("cost", "Time and memory")
    section.lead = (
        "What each stage took: wall time, processor time over all its processes, memory of the largest "
        "process, and size of the output. For a stage that was interrupted only the last start counts."
    )
    done = [(name, stage.manifest) for name, stage in run.finished.items()]
    folder = run.path / "comparison"
    made = ((path, read_manifest(path)) for path in sorted(folder.glob("*/*")))
    done += [(str(path.relative_to(run.path)), manifest) for path, manifest in made if manifest is not None]
    if not done:
        section.missing = "No stage is finished yet."
        return section
    longest = max(manifest["seconds"] for _, manifest in done)
    rows = [
        (
            name, Bar(duration(manifest["seconds"]), manifest["seconds"] / longest if longest else 0.0),
            *(duration(manifest[key]) if key in manifest else "\u2013" for key in ("cpu_seconds",)),
            *(format_bytes(manifest[k]) if k in manifest else "\u2013" for k in ("peak_memory_bytes", "output_bytes")),
        )
        for name, manifest in done
    ]  # fmt: skip
    section.tiles = [
        Tile(duration(sum(manifest["seconds"] for _, manifest in done)), "all stages"),
    ]
    section.add(Table(("stage", "time", ">processor time", ">memory", ">output"), rows))
    missing = [name for name, stage in run.stages.items() if stage.manifest is None]
    if missing:
        section.add(f"Not run, or not finished: {', '.join(missing)}.")
    return section


def provenance(run: RunFolder, album: Album) -> Section:
    """What made each output: software, commands, configurations."""
    section = Section("provenance", "Provenance")
    section.lead = (
        "Enough to run it again: the software that made this page, and for each stage its id, start, version and "
        "configuration. The figures of this page are beside it as PNG and PDF."
    )
    software = [("udipdist", hpc.__version__), ("python", platform.python_version())]
    software += [(name, metadata.version(name)) for name in _LIBRARIES]
    section.add(Table(("software", "version"), software, folded="software that made this page"))
    rows = []
    for name, stage in run.finished.items():
        made = stage.manifest.get("software", {})
        place = str(stage.path.relative_to(run.path))
        rows.append((name, str(stage.manifest.get("id", "\u2013")), str(made.get("udipdist", "\u2013")), place))
    section.add(Table(("stage", "id (start and host)", "udipdist", "output in the run folder"), rows))
    for name, stage in run.finished.items():
        settings = [(key, value) for key, value in _flat(stage.manifest["config"])]
        section.add(Table(("key", "value"), settings, folded=f"configuration of {name}"))
    return section


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted keys."""
    lines = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            lines += _flat(value, f"{prefix}{key}.")
        else:
            lines.append((prefix + key, "null" if value is None else str(value)))
    return lines
