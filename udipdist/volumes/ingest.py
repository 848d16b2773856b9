"""Images of a cohort -> the volume store: plan (read the headers), part (one shard of subjects), finish (coordinates).

A file that cannot be used is reported by name and reason, marked as not valid in the store, and listed in a table
beside it; the others are not held up by it. A store of several modalities has a group for each, with the same subjects
in the same order.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpc import cluster, files, parts, store
from hpc.errors import ConfigError, Incomplete, InputError, some
from hpc.stage import is_current, read_manifest, stage
from udipdist.config import IngestConfig
from udipdist.volumes import left_out, quality, quality_files
from udipdist.volumes.grids import AFFINE_DIGITS, Plan, Refused, make_plan
from udipdist.volumes.job import AXES, IngestJob, blocks_of, counts_name, template_name, template_of
from udipdist.volumes.sources import Source
from udipdist.volumes.store import FORMAT

log = logging.getLogger(__name__)
MASK_SHARE = 20  # a voxel is in the mask where one subject of 20 (5 %) has foreground


def ingest(config: IngestConfig) -> None:
    """Make (or finish) the volume store of a cohort.

    Raises InputError for a cohort that cannot become one store, and Incomplete, when the store is finished, where
    more than `allow_failures` files could not be used, or where most do not look like brains on a common grid.
    """
    manifest = read_manifest(config.out)
    if manifest and not config.overwrite:
        _tidy(config.out)  # it may have been killed between its last two steps
        wanting = manifest["facts"].get("failures") or manifest["facts"].get("doubts")
        if wanting and is_current("ingest", config.out, config):
            _judge(config, manifest["facts"])
            return
    if config.out.suffix != ".zarr":
        raise ConfigError(f"out={config.out}: a volume store is named NAME.zarr")
    inputs = {"volumes": Path(config.volumes)}
    with stage("ingest", config.out, config, inputs, config.overwrite) as current:
        try:
            plan = make_plan(config)
        except Refused as error:
            quality_files.write_headers(config.out, error.described)
            raise InputError(f"{error}. {quality_files.table_path(config.out)} lists what each header says") from None
        job = _start(config, plan)
        facts = _finish(job, plan, parts.run(job, "ingest", cluster.runner(config.workers, config.cluster)))
        current.note(**facts)
    _tidy(config.out)
    _judge(config, facts)


def _tidy(out: Path) -> None:
    """Remove what only unfinished work needs, and what is left of an earlier attempt to."""
    for name in ("parts", "plan.json"):
        files.remove(out / name)
        for left in out.glob(f".{name}.trash-*"):
            files.remove(left)


def preview(config: IngestConfig) -> list[str]:
    """What `ingest` would do, from the headers only."""
    plan = make_plan(config)
    largest = max(math.prod(grid.shape) * grid.dtype.itemsize for grid in plan.grids)
    shards = -(-len(plan.cohort.sources) // config.subjects_per_shard) * len(plan.grids)
    return [
        f"volumes: {plan.scans} files from {config.volumes}, {len(plan.unusable)} of them not usable"
        + (f" ({some(plan.unusable)})" if plan.unusable else ""),
        *(
            f"{grid.modality}: shape {grid.shape} in RAS order, stored as {grid.dtype}; {n_absent} subjects have none"
            for grid, n_absent in zip(plan.grids, _absent(plan), strict=True)
        ),
        "axes in the files: " + ", ".join(f"{n} x {codes}" for codes, n in plan.orientations.most_common()),
        f"left out: {len(plan.cohort.repeats)} later visits, {len(plan.cohort.unused)} files that cannot be taken",
        f"store: {config.out}, about {plan.bytes / 1e9:.2f} GB in "
        f"{shards} shards of {config.subjects_per_shard} subjects",
        f"memory: about {4 * largest / 1e6:.0f} MB for each of {max(config.workers, 1)} processes",
    ]


def _absent(plan: Plan) -> list[int]:
    return [sum(source.scans[m] is None for source in plan.cohort.sources) for m in range(len(plan.grids))]


def _start(config: IngestConfig, plan: Plan) -> IngestJob:
    """Fix the plan and make the empty arrays, or take up the ones that are there."""
    cohort, n = plan.cohort, len(plan.cohort.sources)
    any_orientation = "orientation" in config.allow
    job = IngestJob(
        config.out.absolute(), tuple(cohort.sources), plan.grids, config.subjects_per_shard, any_orientation
    )
    listed = [[s.fid, s.iid, s.session, [scan and scan.content() for scan in s.scans]] for s in job.sources]
    done = files.size_of(job.place) if job.place.exists() else 0
    files.require_space(job.place, plan.bytes - done)
    parts.fix_plan(
        job.place,
        {
            "stage": "ingest",
            "sources": hashlib.sha256(json.dumps(listed).encode()).hexdigest(),
            "shape": {grid.modality: [n, *grid.shape] for grid in job.grids},
            "dtype": {grid.modality: str(grid.dtype) for grid in job.grids},
            "subjects_per_shard": config.subjects_per_shard,
            "any_orientation": any_orientation,
        },
    )
    for m, grid in enumerate(job.grids):
        group, blocks = job.group(m), blocks_of(grid)
        if not (group / "image" / "zarr.json").exists():
            shape = (n, *grid.shape)
            store.create_rows(
                group, "image", shape, grid.dtype, ("subject", *AXES), job.subjects_per_shard, first_axis_fastest=True
            )
        if not (group / "thumbnail" / "zarr.json").exists():
            dims = ("subject", "tx", "ty", "tz")
            store.create_rows(group, "thumbnail", (n, *blocks.shape[::-1]), np.float32, dims, job.subjects_per_shard)
        if not (job.place / "parts" / template_name(m)).exists():
            template = quality.template_mask(grid.shape, grid.affine)
            if template is not None:
                store.put(job.place / "parts", template_name(m), np.ascontiguousarray(template.T), AXES[::-1])
    return job


def _finish(job: IngestJob, plan: Plan, part_facts: list[dict[str, Any]]) -> dict[str, Any]:
    """Write coordinates and masks, and make the store openable. Returns the facts for the manifest."""
    groups, failures, of_modality = {}, [], {}
    for m, grid in enumerate(job.grids):
        here = range(m * job.n_shards, (m + 1) * job.n_shards)
        subjects = [subject for index in here for subject in part_facts[index]["subjects"]]
        failed = {i: fact["failure"] for i, fact in enumerate(subjects) if "failure" in fact}
        failures += [_failure(job.sources[i], grid.modality, m, reason) for i, reason in failed.items()]
        if len(failed) == len(subjects):
            raise InputError(
                f"none of {len(subjects)} volumes can be used; the first, {failures[-len(failed)]['file']}: "
                f"{failed[0]}. Fix the files and run again with overwrite=true"
            )
        of_modality[grid.modality] = _finish_modality(job, m, subjects, failed)
        groups[grid.modality if len(job.grids) > 1 else ""] = job.group(m)
    for unused in plan.cohort.unused:
        ids = {"FID": unused.fid, "IID": unused.iid, "modality": ""}
        failures.append({**ids, "file": unused.file, "reason": unused.reason})
    left_out.write_table(left_out.failures_path(job.place), failures)
    left_out.say_failures(failures, left_out.failures_path(job.place))
    repeats = [{"FID": r.fid, "IID": r.iid, "session": r.session, "file": r.file} for r in plan.cohort.repeats]
    left_out.write_table(left_out.repeats_path(job.place), repeats)
    if repeats:
        log.info("ingest: %d later images are left out, see %s", len(repeats), left_out.repeats_path(job.place))
    if len(job.grids) > 1:
        store.seal(job.place, {"format": FORMAT, "modalities": [grid.modality for grid in job.grids]})
    quality_files.publish(job.place, groups)
    facts = {
        "subjects": len(job.sources),
        "images": plan.scans + len(plan.cohort.unused),
        "failures": len(failures),
        "failed": [" ".join(f"{f['IID']} {f['modality'] if len(groups) > 1 else ''}".split()) + f": {f['reason']}"
                   for f in failures],
        "repeats": len(repeats),
    }  # fmt: skip
    doubted = [name for name, own in of_modality.items() if own["quality"]["not_brains"] * 2 >= own["valid"]]
    facts["doubts"] = ["background"] if doubted else []
    facts["doubted"] = [text for name in doubted for text in of_modality[name]["quality"]["not_brain_subjects"]]
    (first, *more) = of_modality.values()
    return facts | ({"modalities": of_modality} if more else first)


def _failure(source: Source, modality: str, m: int, reason: str) -> dict[str, str]:
    scan = source.scans[m]
    ids = {"FID": source.fid, "IID": source.iid, "modality": modality}
    return {**ids, "file": scan.source if scan else "", "reason": reason}


def _finish_modality(
    job: IngestJob, m: int, subjects: list[dict[str, Any]], failed: Mapping[int, str]
) -> dict[str, Any]:
    """Coordinates, mask and judgement of one group, which is sealed. Returns its facts for the manifest."""
    grid, group, n_valid = job.grids[m], job.group(m), len(subjects) - len(failed)
    counts = np.zeros(grid.shape[::-1], np.int32)
    for index in range(m * job.n_shards, (m + 1) * job.n_shards):
        counts += store.get(job.place / "parts", counts_name(index)).astype(np.int32)
    counts = np.ascontiguousarray(counts.T)
    template = template_of(job.place / "parts", template_name(m))
    affines = _write_coordinates(job, m, subjects, template is not None)
    mask = (counts > 0) & (MASK_SHARE * counts.astype(np.int64) >= n_valid)
    store.put(group, "foreground_count", counts, AXES)
    store.put(group, "mask", mask, AXES)
    judged = quality.assess(group, failed, None if template is None else int(template.sum()))
    store.seal(group, {"format": FORMAT, "mask_share": 1 / MASK_SHARE, "modality": grid.modality})
    off_grid = int((np.abs(affines - grid.affine).max(axis=(1, 2)) > 10**-AFFINE_DIGITS).sum())
    if off_grid:
        names = [source.iid for source, fact in zip(job.sources, subjects, strict=True) if "failure" not in fact]
        differ = np.abs(affines - grid.affine).max(axis=(1, 2)) > 10**-AFFINE_DIGITS
        log.warning(
            "ingest: %d of %d volumes have a different affine from most (%s); a store should hold volumes on one grid",
            off_grid,
            n_valid,
            some([name for name, other in zip(names, differ, strict=True) if other]),
        )
    twins = _same_bytes(job.sources, subjects)
    if twins:
        log.warning("ingest: more than one subject has the same file, byte for byte: %s", some(twins))
    return {
        "valid": n_valid,
        "same_bytes": twins,
        "shape": list(counts.shape),
        "dtype": str(grid.dtype),
        "mask_voxels": int(mask.sum()),
        "affine_differs": off_grid,
        "quality": judged,
    }


def _same_bytes(sources: Sequence[Source], subjects: list[dict[str, Any]]) -> list[str]:
    """Subjects whose volumes are copies of one file, as 'A = B'."""
    names: dict[str, list[str]] = {}
    for source, fact in zip(sources, subjects, strict=True):
        if "sha256" in fact:
            names.setdefault(fact["sha256"], []).append(source.iid)
    return [" = ".join(group) for group in names.values() if len(group) > 1]


def _write_coordinates(job: IngestJob, m: int, subjects: list[dict[str, Any]], template: bool) -> np.ndarray:
    """The arrays along `subject`; NaN, 0 or '' for those that are not valid, but for what their headers say.

    Returns the affines of the valid ones.
    """
    group, scans = job.group(m), [source.scans[m] for source in job.sources]
    missing = {"mean": math.nan, "std": math.nan, "slope": math.nan, "inter": math.nan}
    missing |= {"affine": np.full((4, 4), math.nan).tolist(), "orientation": "", "codes": "", "sha256": ""}
    missing |= {"background": math.nan}
    valid = np.array(["failure" not in fact for fact in subjects])

    def along(key: str) -> np.ndarray:
        return np.array([fact.get(key, missing.get(key, 0)) for fact in subjects])

    columns = {
        "subject": np.array([s.iid for s in job.sources]),
        "fid": np.array([s.fid for s in job.sources]),
        "session": np.array([s.session for s in job.sources]),
        "source": np.array([scan.source if scan else "" for scan in scans]),
        "valid": valid,
        "mean": along("mean"),
        "std": along("std"),
        "foreground": along("foreground"),
        "scl_slope": along("slope"),
        "scl_inter": along("inter"),
        "background": along("background"),
        "corners": along("corners"),
        "orientation": along("orientation"),
        "codes": along("codes"),
        "sha256": along("sha256"),
    }
    if template:
        columns["foreground_in_template"] = along("foreground_in_template")
    for name, values in columns.items():
        store.put(group, name, values, ("subject",))
    affines = along("affine")
    store.put(group, "affine", affines, ("subject", "row", "column"))
    return affines[valid]


def _judge(config: IngestConfig, facts: dict[str, Any]) -> None:
    """Say how many files could not be used. Raises Incomplete where they are too many, or most are no brains."""
    failures, total = facts["failures"], facts["images"]
    wrong = []
    if failures > config.allow_failures:
        wrong.append(
            f"{failures} of {total} volumes could not be used ({some(facts['failed'], 3)}). {config.out} holds the "
            f"others, and {left_out.failures_path(config.out)} lists all that failed: fix them and run again with "
            f"overwrite=true, or accept this with allow_failures={failures}"
        )
    if "background" in set(facts.get("doubts", [])) - set(config.allow):
        wrong.append(
            f"the volumes are {quality.NOT_A_BRAIN} Half of them or more do not look like brains on a common grid "
            f"({some(facts['doubted'], 2)}), so latents of {config.out} would be of something else. See "
            f"{quality_files.sheet_path(config.out)}. Extract the brains, or give mask=, and run again with "
            "overwrite=true; or accept this with allow=[background]"
        )
    if wrong:
        raise Incomplete("\n".join(wrong))
    if failures:
        log.warning("ingest: %d of %d volumes are left out (allow_failures=%d)", failures, total, config.allow_failures)
