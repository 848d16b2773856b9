"""NIfTI volumes -> the volume store: plan (read the headers), part (one shard of subjects), finish (coordinates, mask).

A file that cannot be used is reported by name and reason, marked as not valid in the store, and listed in a table
beside it; the others are not held up by it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpc import cluster, files, parts, store
from hpc.errors import ConfigError, Incomplete, InputError, some
from hpc.progress import Progress
from hpc.stage import is_current, read_manifest, stage
from udipdist.config import IngestConfig
from udipdist.volumes import kernels, nifti
from udipdist.volumes.sources import Source, list_sources
from udipdist.volumes.store import FORMAT

log = logging.getLogger(__name__)
MASK_SHARE = 20  # a voxel is in the mask where one subject of 20 (5 %) has foreground
AFFINE_TOLERANCE_MM = 1e-3
_SHOWN_FAILURES = 20


def ingest(config: IngestConfig) -> None:
    """Make (or finish) the volume store of a cohort.

    Raises InputError for a cohort that cannot become one store, and Incomplete, when the store is finished, where
    more than `allow_failures` files could not be used.
    """
    manifest = read_manifest(config.out) or {}
    if not config.overwrite and manifest.get("facts", {}).get("failures") and is_current("ingest", config.out, config):
        _judge(config, manifest["facts"])
        return
    if config.out.suffix != ".zarr":
        raise ConfigError(f"out={config.out}: a volume store is named NAME.zarr")
    with stage("ingest", config.out, config, {"volumes": config.volumes}, config.overwrite) as current:
        job = _start(config)
        facts = _finish(job, parts.run(job, "ingest", cluster.runner(config.workers, config.cluster)))
        current.note(**facts)
    files.remove(config.out / "parts")
    files.remove(config.out / "plan.json")
    _judge(config, facts)


def preview(config: IngestConfig) -> list[str]:
    """What `ingest` would do, from the headers only."""
    plan = _plan(config)
    volume = math.prod(plan.shape) * plan.dtype.itemsize
    return [
        f"volumes: {len(plan.sources)} files from {config.volumes}, {len(plan.failures)} of them not usable"
        + (f" ({some(plan.failures)})" if plan.failures else ""),
        f"shape {plan.shape} in RAS order, stored as {plan.dtype}; axes in the files: "
        + ", ".join(f"{n} x {codes}" for codes, n in plan.orientations.most_common()),
        f"store: {config.out}, about {plan.bytes / 1e9:.2f} GB in "
        f"{-(-len(plan.sources) // config.subjects_per_shard)} shards of {config.subjects_per_shard} subjects",
        f"memory: about {4 * volume / 1e6:.0f} MB for each of {max(config.workers, 1)} processes",
    ]


def failures_path(out: Path) -> Path:
    """The table of files that could not be used, beside the store."""
    return out.with_name(out.stem + ".failures.tsv")


@dataclass(frozen=True)
class _Plan:
    sources: list[Source]
    shape: tuple[int, int, int]
    dtype: np.dtype  # holds the stored values of every file exactly
    failures: list[str]  # names of files whose header is not usable
    orientations: Counter[str]
    bytes: int  # estimate of the store's size


@dataclass(frozen=True)
class IngestJob:
    """A cohort cut into shards; part i is shard i of the image array."""

    place: Path
    sources: tuple[Source, ...]
    dtype: np.dtype
    subjects_per_shard: int
    unit: str = "volumes"

    @property
    def n_parts(self) -> int:
        return -(-len(self.sources) // self.subjects_per_shard)

    def size_of_part(self, index: int) -> int:
        """Subjects of a part."""
        return min(self.subjects_per_shard, len(self.sources) - index * self.subjects_per_shard)

    def files_of_part(self, index: int) -> list[Path]:
        """The shard, and the counts beside its marker."""
        counts = self.place / "parts" / _counts_name(index)
        return [store.Layout(self.place / "image").shard_path(index), *(p for p in counts.rglob("*") if p.is_file())]

    def part(self, index: int) -> dict[str, Any]:
        """Write one shard and, beside its marker, how many subjects have foreground at each voxel."""
        layout = store.Layout(self.place / "image")
        counts = np.zeros(layout.row_shape, np.min_scalar_type(self.subjects_per_shard))
        subjects: list[dict[str, Any]] = []

        def rows() -> Iterator[np.ndarray | None]:
            for i in layout.rows_of_shard(index):
                try:
                    row, fact = _read_subject(self.sources[i].path, layout, counts)
                except nifti.Unreadable as error:
                    row, fact = None, {"failure": str(error)}
                subjects.append(fact)
                yield row

        store.write_shard(layout, index, rows())
        store.put(self.place / "parts", _counts_name(index), counts, ("x", "y", "z"))
        return {"subjects": subjects}


def _counts_name(index: int) -> str:
    return f"{index:06d}.foreground"


def _read_subject(path: Path, layout: store.Layout, counts: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Voxels and JSON facts of one file; adds its foreground to `counts`. Raises Unreadable."""
    volume = nifti.read(path)
    header = volume.header
    if header.shape != layout.row_shape or not np.can_cast(header.dtype, layout.dtype, "safe"):
        raise nifti.Unreadable(
            f"changed since the plan: it is {header.shape} {header.dtype}, the store {layout.row_shape} {layout.dtype}"
        )
    n, mean, std = kernels.foreground_moments(volume.raw, header.slope, header.inter, counts)
    if n == 0:
        raise nifti.Unreadable("is empty: every voxel is 0")
    if not math.isfinite(std):
        raise nifti.Unreadable("holds NaN, infinite or huge voxels; write 0 where there is no brain")
    if std == 0:
        raise nifti.Unreadable(f"has the value {mean:g} in all of its {n} non-zero voxels, so it cannot be z-scored")
    return volume.raw.astype(layout.dtype, copy=False), {
        "mean": mean,
        "std": std,
        "slope": header.slope,
        "inter": header.inter,
        "affine": header.affine.tolist(),
        "orientation": header.orientation,
        "sha256": volume.sha256,
    }


def _plan(config: IngestConfig) -> _Plan:
    """Read every header. Raises InputError where the files cannot become one store."""
    sources = list_sources(config.volumes, config.column)
    headers = _read_headers(sources)
    usable = {s: h for s, h in zip(sources, headers, strict=True) if isinstance(h, nifti.Header)}
    failures = {s.path.name: h for s, h in zip(sources, headers, strict=True) if isinstance(h, str)}
    if not usable:
        name, reason = next(iter(failures.items()))
        raise InputError(f"{config.volumes}: none of {len(sources)} files can be read; the first, {name}: {reason}")
    shape = _common_shape(usable)
    dtype = _common_dtype(usable)
    compressed = sum(s.path.stat().st_size * dtype.itemsize / h.dtype.itemsize for s, h in usable.items())
    return _Plan(
        sources=sources,
        shape=shape,
        dtype=dtype,
        failures=list(failures),
        orientations=Counter(h.orientation for h in usable.values()),
        bytes=round(1.2 * compressed) + 10_000_000,
    )


def _read_headers(sources: Sequence[Source]) -> list[nifti.Header | str]:
    """The header of each file, or why it cannot be used. Threads, because a network file system answers slowly."""

    def one(source: Source) -> nifti.Header | str:
        try:
            return nifti.read_header(source.path)
        except nifti.Unreadable as error:
            return str(error)

    headers = []
    with ThreadPoolExecutor(8) as threads, Progress("reading headers", len(sources), "files") as progress:
        for header in threads.map(one, sources):
            headers.append(header)
            progress.advance()
    return headers


def _common_shape(usable: dict[Source, nifti.Header]) -> tuple[int, int, int]:
    names: dict[tuple[int, int, int], list[str]] = {}
    for source, header in usable.items():
        names.setdefault(header.shape, []).append(source.path.name)
    if len(names) > 1:
        kinds = sorted(names.items(), key=lambda item: -len(item[1]))
        listed = "; ".join(f"{shape}: {len(group)} files ({some(group, 3)})" for shape, group in kinds[:6])
        raise InputError(
            f"the volumes have {len(names)} different shapes in RAS order: {listed}. A store holds one shape: register "
            "them all to one grid, or ingest each shape into its own store"
        )
    return next(iter(names))


def _common_dtype(usable: dict[Source, nifti.Header]) -> np.dtype:
    """The type that holds the stored values of every file exactly."""
    kinds = {header.dtype for header in usable.values()}
    common = np.result_type(*kinds)
    if common.kind == "f" and any(kind.kind in "iu" and kind.itemsize == 8 for kind in kinds):
        raise InputError(
            f"the volumes have voxels of types {some(sorted(map(str, kinds)), 9)}, which no one type holds exactly; "
            "save the 64-bit integers as int32 or float64"
        )
    return common


def _start(config: IngestConfig) -> IngestJob:
    """Fix the plan and make the empty image array, or take up the ones that are there."""
    plan = _plan(config)
    listed = json.dumps([[s.fid, s.iid, str(s.path)] for s in plan.sources])
    done = files.size_of(config.out) if config.out.exists() else 0
    files.require_space(config.out, plan.bytes - done)
    shape = (len(plan.sources), *plan.shape)
    parts.fix_plan(
        config.out,
        {
            "stage": "ingest",
            "sources": hashlib.sha256(listed.encode()).hexdigest(),
            "shape": shape,
            "dtype": str(plan.dtype),
            "subjects_per_shard": config.subjects_per_shard,
        },
    )
    if not (config.out / "image" / "zarr.json").exists():
        dims = ("subject", "x", "y", "z")
        store.create_rows(config.out, "image", shape, plan.dtype, dims, config.subjects_per_shard)
    return IngestJob(config.out.absolute(), tuple(plan.sources), plan.dtype, config.subjects_per_shard)


def _finish(job: IngestJob, part_facts: list[dict[str, Any]]) -> dict[str, Any]:
    """Write coordinates and mask, and make the store openable. Returns the facts for the manifest."""
    subjects = [subject for fact in part_facts for subject in fact["subjects"]]
    failures = [
        {"FID": s.fid, "IID": s.iid, "file": str(s.path), "reason": fact["failure"]}
        for s, fact in zip(job.sources, subjects, strict=True)
        if "failure" in fact
    ]
    _write_failures(failures_path(job.place), failures)
    if len(failures) == len(subjects):
        raise InputError(
            f"none of {len(subjects)} volumes can be used; the first, {failures[0]['file']}: {failures[0]['reason']}. "
            "Mend the files and run again with overwrite=true"
        )
    counts = np.zeros(store.Layout(job.place / "image").row_shape, np.int32)
    for index in range(job.n_parts):
        counts += store.get(job.place / "parts", _counts_name(index)).astype(np.int32)
    affines = _write_coordinates(job, subjects)
    n_valid = len(subjects) - len(failures)
    mask = (counts > 0) & (MASK_SHARE * counts.astype(np.int64) >= n_valid)
    store.put(job.place, "foreground_count", counts, ("x", "y", "z"))
    store.put(job.place, "mask", mask, ("x", "y", "z"))
    store.seal(job.place, {"format": FORMAT, "mask_share": 1 / MASK_SHARE})
    off_grid = int((np.abs(affines - affines[0]).max(axis=(1, 2)) > AFFINE_TOLERANCE_MM).sum())
    if off_grid:
        log.warning(
            "ingest: %d of %d volumes have another affine than the first; a store should hold volumes on one grid",
            off_grid,
            n_valid,
        )
    twins = _same_bytes(job.sources, subjects)
    if twins:
        log.warning("ingest: the same file, byte for byte, stands for more than one subject: %s", some(twins))
    return {
        "subjects": len(subjects),
        "valid": n_valid,
        "same_bytes": twins,
        "failures": len(failures),
        "failed": [f"{failure['IID']}: {failure['reason']}" for failure in failures],
        "shape": list(counts.shape),
        "dtype": str(job.dtype),
        "mask_voxels": int(mask.sum()),
        "affine_differs": off_grid,
    }


def _same_bytes(sources: Sequence[Source], subjects: list[dict[str, Any]]) -> list[str]:
    """Subjects whose volumes are copies of one file, as 'A = B'."""
    names: dict[str, list[str]] = {}
    for source, fact in zip(sources, subjects, strict=True):
        if "sha256" in fact:
            names.setdefault(fact["sha256"], []).append(source.iid)
    return [" = ".join(group) for group in names.values() if len(group) > 1]


def _write_coordinates(job: IngestJob, subjects: list[dict[str, Any]]) -> np.ndarray:
    """The arrays along `subject`; NaN or '' for subjects that are not valid. Returns the affines of the valid ones."""
    missing = {"mean": math.nan, "std": math.nan, "slope": math.nan, "inter": math.nan}
    missing |= {"affine": np.full((4, 4), math.nan).tolist(), "orientation": "", "sha256": ""}
    valid = np.array(["failure" not in fact for fact in subjects])

    def along(key: str) -> np.ndarray:
        return np.array([fact.get(key, missing[key]) for fact in subjects])

    columns = {
        "subject": np.array([s.iid for s in job.sources]),
        "fid": np.array([s.fid for s in job.sources]),
        "source": np.array([str(s.path) for s in job.sources]),
        "valid": valid,
        "mean": along("mean"),
        "std": along("std"),
        "scl_slope": along("slope"),
        "scl_inter": along("inter"),
        "orientation": along("orientation"),
        "sha256": along("sha256"),
    }
    for name, values in columns.items():
        store.put(job.place, name, values, ("subject",))
    affines = along("affine")
    store.put(job.place, "affine", affines, ("subject", "row", "column"))
    return affines[valid]


def _write_failures(path: Path, failures: list[dict[str, str]]) -> None:
    if not failures:
        files.remove(path)
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(failures[0]), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(failures)
    files.publish_text(path, text.getvalue())
    for failure in failures[:_SHOWN_FAILURES]:
        log.warning("ingest: %s: %s", failure["file"], failure["reason"])
    if len(failures) > _SHOWN_FAILURES:
        log.warning("ingest: and %d more, see %s", len(failures) - _SHOWN_FAILURES, path)


def _judge(config: IngestConfig, facts: dict[str, Any]) -> None:
    """Say how many files could not be used. Raises Incomplete where they are too many."""
    failures, total = facts["failures"], facts["subjects"]
    if failures > config.allow_failures:
        raise Incomplete(
            f"{failures} of {total} volumes could not be used ({some(facts['failed'], 3)}). {config.out} holds the "
            f"others, and {failures_path(config.out)} lists all that failed: mend them and run again with "
            f"overwrite=true, or accept this with allow_failures={failures}"
        )
    if failures:
        log.warning("ingest: %d of %d volumes are left out (allow_failures=%d)", failures, total, config.allow_failures)
