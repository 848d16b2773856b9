"""The verb `volumes`: subjects of a volume store as files for other programs, one subject a file.

A part is one subject, so memory is that of one volume a process, and a subject that is written is never written again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from hpc import cluster, parts, store
from hpc.errors import ConfigError, InputError, some
from hpc.files import publish, publish_text, remove, require_space, sha256, size_of
from hpc.stage import fingerprint, stage
from udipdist.config import VolumesConfig
from udipdist.volumes import formats
from udipdist.volumes.store import VolumeStore

log = logging.getLogger(__name__)
SUFFIXES = {"nifti": ".nii.gz", "nifti-zarr": ".nii.zarr", "ome-zarr": ".ome.zarr"}
FILES = "files.tsv"
_WRITERS = {
    "nifti": formats.write_nifti,
    "nifti-zarr": formats.write_nifti_zarr,
    "ome-zarr": formats.write_ome_zarr,
}


@dataclass(frozen=True)
class ConvertJob:
    """The rows of a store that are written; part i is `rows[i]`, to `place/files[i]`."""

    place: Path
    store: Path
    modality: str | None
    format: str
    orientation: str
    rows: tuple[int, ...]
    files: tuple[str, ...]
    unit: str = "subjects"

    @property
    def n_parts(self) -> int:
        return len(self.rows)

    def size_of_part(self, index: int) -> int:
        """One subject."""
        return 1

    def files_of_part(self, index: int) -> list[Path]:
        """The file, or those of the Zarr group."""
        path = self.place / self.files[index]
        return [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]

    def part(self, index: int) -> dict[str, Any]:
        """Write one subject."""
        picture = read(self.store, self.modality, self.rows[index])
        if self.orientation == "source":
            picture = picture.turned(picture.about["orientation"])
        with publish(self.place / self.files[index]) as partial:
            _WRITERS[self.format](partial, picture)
        return {"on_axes": picture.on_axes}


def volumes(config: VolumesConfig) -> None:
    """Write one file a subject to the folder `out`, and the list of them. Raises InputError where a subject is not in
    the store or could not be read when that was made; OutputExists."""
    opened = _open(config.store, config.modality)
    rows, left_out = choose(opened, config)
    with stage("volumes", config.out, config, {"store": config.store}, config.overwrite) as current:
        job = _plan(config, opened, rows)
        done = parts.run(job, "volumes", cluster.runner(config.workers))
        askew = [opened.subjects[row] for row, facts in zip(rows, done, strict=True) if not facts["on_axes"]]
        if config.format == "ome-zarr" and askew:
            log.warning(
                "%d of %d volumes are rotated or sheared against the axes, which OME-Zarr 0.5 cannot say (%s): viewers "
                "show them along their own axes. The affine is in the attributes (udipdist); format=nifti-zarr "
                "and nifti have it in the header too", len(askew), len(rows), some(askew),
            )  # fmt: skip
        if left_out:
            log.warning("%d subjects without a readable volume are left out: %s", len(left_out), some(left_out))
        _list(job, opened)
        current.note(subjects=len(rows), left_out=left_out)
        if config.format == "ome-zarr":
            current.note(not_on_axes=askew)
    remove(config.out / "parts")
    remove(config.out / "plan.json")


def preview(config: VolumesConfig) -> list[str]:
    """What would be written."""
    opened = _open(config.store, config.modality)
    rows, left_out = choose(opened, config)
    names = file_names(opened)
    shape = " x ".join(map(str, opened.shape))
    size = _bytes(opened, len(rows))
    return [
        f"{len(rows):,} of {len(opened):,} subjects, {shape} voxels of {opened.reader.layout.dtype}, as {config.format}"
        + (f"; without a readable volume: {some(left_out)}" if left_out else ""),
        f"{config.out}/{names[rows[0]]}{SUFFIXES[config.format]} and so on; about {size / 1e9:.2g} GB",
    ]


def choose(opened: VolumeStore, config: VolumesConfig) -> tuple[list[int], list[str]]:
    """The rows to write, and subjects left out because they are not valid. Raises InputError, ConfigError."""
    if config.orientation == "source" and config.format == "ome-zarr":
        raise ConfigError(
            "orientation=source: OME-Zarr 0.5 cannot say that an axis is flipped; use orientation=ras, or "
            "format=nifti-zarr or nifti"
        )
    if config.subjects == "all":
        rows = [int(row) for row in np.flatnonzero(opened.valid)]
        if not rows:
            raise InputError(f"{opened.path}: none of its {len(opened)} subjects has a readable volume")
        return rows, [opened.subjects[row] for row in np.flatnonzero(~opened.valid)]
    places = {subject: row for row, subject in enumerate(opened.subjects)}
    unknown = [subject for subject in config.subjects if subject not in places]
    if unknown:
        raise InputError(
            f"subjects: {some(unknown)} not in {opened.path}; its {len(opened)} subjects are {some(opened.subjects, 3)}"
            " (an id of digits that begins with 0 needs quotes: subjects=['0012'])"
        )
    rows = sorted({places[subject] for subject in config.subjects})
    unreadable = [opened.subjects[row] for row in rows if not opened.valid[row]]
    if unreadable:
        raise InputError(f"subjects: {some(unreadable)} could not be read when {opened.path} was made; leave them out")
    return rows, []


def file_names(opened: VolumeStore) -> list[str]:
    """The name of each subject's file without suffix: its IID. What a file system might not hold is written _, and a
    number is added where two would be the same file."""
    names: list[str] = []
    taken: set[str] = set()
    for iid in opened.subjects:
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", iid).lstrip(".")[:120] or "_"
        choice, count = stem, 1
        while choice.lower() in taken:
            count += 1
            choice = f"{stem}-{count}"
        taken.add(choice.lower())
        names.append(choice)
    return names


def read(path: Path, modality: str | None, row: int) -> formats.Picture:
    """One subject of a store, with what is known of its file."""
    opened, about = _open(path, modality), _about(path, modality)
    return formats.Picture(
        name=opened.subjects[row],
        values=opened.raw(row),
        affine=opened.affine(row),
        slope=float(opened.slope[row]),
        inter=float(opened.inter[row]),
        about={
            "subject": opened.subjects[row],
            "fid": opened.fids[row],
            "modality": modality,
            "orientation": str(about["orientation"][row]),
            "source": str(about["source"][row]),
            "source_sha256": str(about["sha256"][row]),
        },
    )


def digest(path: Path) -> tuple[int, str]:
    """Bytes and SHA-256 of a file; of a folder: of the lines 'NAME SHA-256' of its files, by name."""
    if path.is_file():
        return path.stat().st_size, sha256(path)
    inside = sorted((p.relative_to(path).as_posix(), p) for p in path.rglob("*") if p.is_file())
    return size_of(path), _digest({name: sha256(p) for name, p in inside})


def _digest(sums: dict[str, str]) -> str:
    lines = "".join(f"{name} {value}\n" for name, value in sorted(sums.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


@lru_cache(maxsize=2)
def _open(path: Path, modality: str | None) -> VolumeStore:
    return VolumeStore.open(path, modality)


@lru_cache(maxsize=2)
def _about(path: Path, modality: str | None) -> dict[str, np.ndarray]:
    group = store.open_group(_open(path, modality).path)
    return {name: group[name][:] for name in ("orientation", "source", "sha256")}


def _plan(config: VolumesConfig, opened: VolumeStore, rows: Sequence[int]) -> ConvertJob:
    """Fix what is written, or take up what is there. Raises OutputExists, NoSpace."""
    names = file_names(opened)
    files = tuple(names[row] + SUFFIXES[config.format] for row in rows)
    parts.fix_plan(
        config.out,
        {
            "stage": "volumes",
            "parts": len(rows),
            "store": fingerprint(config.store),
            "modality": config.modality,
            "format": config.format,
            "orientation": config.orientation,
            "files": _digest(dict.fromkeys(files, "")),
        },
    )
    require_space(config.out, _bytes(opened, len(rows)) - size_of(config.out))
    return ConvertJob(
        place=config.out.absolute(),
        store=config.store.absolute(),
        modality=config.modality,
        format=config.format,
        orientation=config.orientation,
        rows=tuple(rows),
        files=files,
    )


def _bytes(opened: VolumeStore, n: int) -> int:
    """About what `n` subjects take: what they take in the store, and a seventh for the levels of a pyramid."""
    return round(size_of(opened.path / "image") * n / max(int(opened.valid.sum()), 1) * 8 / 7)


def _list(job: ConvertJob, opened: VolumeStore) -> None:
    """files.tsv: a row a subject, with size and SHA-256 (of a Zarr group as `digest` has it)."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(["FID", "IID", "file", "bytes", "sha256"])
    for index, (row, name) in enumerate(zip(job.rows, job.files, strict=True)):
        seen = json.loads(parts.marker(job.place, index).read_text(encoding="utf-8"))["files"]
        sums = {path.removeprefix(f"{name}/"): file["sha256"] for path, file in seen.items()}
        total = sums[name] if name in sums else _digest(sums)
        writer.writerow([opened.fids[row], opened.subjects[row], name, sum(f["bytes"] for f in seen.values()), total])
    publish_text(job.place / FILES, text.getvalue())
