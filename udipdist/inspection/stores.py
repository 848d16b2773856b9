"""Zarr groups: volume stores with their derived arrays, summary statistics, OME-Zarr, and those of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import zarr

from hpc.errors import InputError, some
from hpc.files import size_of
from hpc.progress import Progress
from hpc.store import RowReader
from udipdist.inspection import records
from udipdist.inspection.finding import COMPLETE, DAMAGED, READABLE, UNFINISHED, Finding
from udipdist.sumstats.store import Sumstats
from udipdist.volumes import packed
from udipdist.volumes.store import FORMAT, VolumeStore

SUMSTATS = "summary statistics"
_NEVER_ZEROS = (
    "subject", "fid", "valid", "mean", "std", "foreground", "scl_slope", "affine", "orientation", "source", "sha256",
    "mask", "foreground_count",
)  # fmt: skip
_BY_ROWS = ("image", "thumbnail")
_CLOSE = 1e-9  # relative, of moments taken in another order
_FAULTS = (OSError, ValueError, KeyError, RuntimeError, TypeError)  # of readers where files are damaged; InputError too


def zarr_group(path: Path, contents: bool) -> Finding | None:
    """A finished Zarr group or array without a manifest; None where `path` is no Zarr v3."""
    if not (path / "zarr.json").is_file():
        return None
    if "node_type" not in _json(path / "zarr.json"):
        return Finding(path, "Zarr store", DAMAGED, problems=["zarr.json is not that of a Zarr v3 group or array"])
    try:
        opened = zarr.open(path, mode="r", zarr_format=3)
    except _FAULTS as error:
        return Finding(path, "Zarr store", DAMAGED, problems=[f"zarr.json is damaged ({_first_line(error)})"])
    attrs = dict(opened.attrs)
    if attrs.get("format") == FORMAT:
        found = Finding(path, "volume store")
        found.notes.append(_whose(path))
        check_store(found, contents)
        return found
    if isinstance(opened, zarr.Array):
        return _other(path, opened, attrs, contents)
    names = {name for name, _ in opened.arrays()}
    if {"beta", "se", "trait"} <= names:
        found = Finding(path, SUMSTATS)
        found.notes.append("it is outside the folder that gwas wrote, so whether every part was done is not known")
        check_sumstats(found, path, contents)
        return found
    if "multiscales" in attrs.get("ome", {}):
        return _ome(path, opened, attrs, contents)
    return _other(path, opened, attrs, contents)


def check_store(found: Finding, contents: bool) -> None:
    """A volume store: its arrays can be read, and every shard has its rows; with `contents` every volume is unpacked
    and has the moments on record."""
    path = found.path
    if not (path / "zarr.json").is_file():
        found.worsen(DAMAGED, ["zarr.json is missing, which is written last"])
        return
    modalities = _json(path / "zarr.json").get("attributes", {}).get("modalities") or [None]
    for modality in modalities:
        place = path if modality is None else path / modality
        try:
            problems = _bad_arrays(place)
            if not problems:
                volumes = VolumeStore.open(place)
                found.facts |= _facts(volumes) if modality is None else {modality: _facts(volumes)}
                problems = _bad_rows(volumes, contents)
        except _FAULTS as error:
            problems = [_first_line(error)]
        found.worsen(DAMAGED, problems)
    found.facts |= {"bytes": size_of(path), "beside": _beside(path)}
    places = [place / packed.FOLDER for place in (path, *(path / str(modality) for modality in modalities))]
    derived = [one for place in places for one in sorted(place.glob("[!.]*")) if one.is_dir()]
    found.inside += [one for place in derived if (one := derived_array(place, contents)) is not None]


def derived_array(path: Path, contents: bool) -> Finding | None:
    """The voxels that a network reads, packed (volumes.packed); None where `path` is none of these. It is made again
    where it is not as it should be, so that says nothing against the store."""
    attrs = _json(path / "zarr.json").get("attributes", {})
    if attrs.get("format") != packed.FORMAT and _json(path / "plan.json").get("stage") != "pack":
        return None
    sealed = (path / "zarr.json").is_file()
    found = Finding(path, "packed voxels of a volume store", COMPLETE if sealed else UNFINISHED)
    found.facts = {key: value for key, value in attrs.items() if isinstance(value, str | int | float)}
    found.facts |= {"bytes": size_of(path)}
    records.check_parts(found, contents)
    if not sealed:
        found.parts = {"done": len(list((path / "parts").glob("*.json"))), "total": None}
        found.worsen(UNFINISHED, ["is being made, or was interrupted: the training that needs it continues it"])
    elif (stale := _stale(path, attrs)) is not None:
        found.notes.append(stale)
    return found


def _json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where there is none."""
    try:
        value = records.read_json(path)
    except records.Unreadable:
        return {}
    return value if isinstance(value, dict) else {}


def _stale(path: Path, attrs: dict[str, Any]) -> str | None:
    """What is to be known of where packed voxels came from."""
    place = path.parent.parent if path.parent.name == packed.FOLDER else Path(attrs.get("store", ""))
    try:
        now = packed.content(VolumeStore.open(place))
    except _FAULTS:
        return f"its store {place} cannot be opened"
    return None if now == attrs.get("made_from") else "is of an older state of the store; it is made again when needed"


def check_sumstats(found: Finding, path: Path, contents: bool) -> None:
    """Summary statistics: what is there, and with `contents` that every chunk can be unpacked."""
    try:
        opened = Sumstats.open(path)
    except _FAULTS as error:
        found.worsen(DAMAGED, [_first_line(error)])
        return
    keys = ("test", "adjust", "n_samples", "n_covariates", "genotypes", "created")
    found.facts |= {"variants": opened.n_variants, "traits": opened.traits}
    found.facts |= {key: opened.attrs[key] for key in keys if key in opened.attrs}
    if contents:
        store = path if (path / "zarr.json").exists() else path / "sumstats.zarr"
        found.worsen(DAMAGED, _unreadable(zarr.open_group(store, mode="r")))


def _whose(path: Path) -> str:
    """Why a store has no manifest of its own."""
    if path.name in _json(path.parent / "zarr.json").get("attributes", {}).get("modalities", []):
        return f"is a modality of {path.parent}, whose manifest says who made it"
    return "its manifest is not beside it, so its origin is not known"


def _facts(volumes: VolumeStore) -> dict[str, Any]:
    invalid = [volumes.subjects[i] for i in np.flatnonzero(~volumes.valid)]
    group = zarr.open_group(volumes.path, mode="r")
    odd = np.flatnonzero(group["qc_outlier"][:]) if "qc_outlier" in group else []
    zooms = " x ".join(f"{z:.4g}" for z in volumes.zooms)
    turned = nib.orientations.aff2axcodes(volumes.affine(int(np.argmax(volumes.valid))))
    return {
        "subjects": len(volumes),
        "not_readable": invalid,
        "outliers": [volumes.subjects[i] for i in odd],
        "voxels": f"{' x '.join(map(str, volumes.shape))} of {zooms} mm, {''.join(turned)}",
        "mask_voxels": int(volumes.mask.sum()),
        "type": str(volumes.reader.layout.dtype),
        "shards": volumes.reader.layout.n_shards,
    }


def _bad_arrays(path: Path) -> list[str]:
    """Arrays that a store names and has not (Zarr reads zeros), or has otherwise; small ones are read."""
    group = zarr.open_group(path, mode="r")
    listed = _json(path / "zarr.json").get("consolidated_metadata", {}).get("metadata", {})
    problems = []
    for name, array in sorted(group.arrays()):
        own = path / name / "zarr.json"
        if not own.is_file() or (name in _NEVER_ZEROS and not array.nchunks_initialized):
            problems.append(f"the array {name} is missing")
        elif name in listed and _json(own) != listed[name]:
            problems.append(f"the array {name} is damaged (its zarr.json is not as the store has it)")
        elif name not in _BY_ROWS:
            problems += _unreadable(array)
    return problems


def _bad_rows(volumes: VolumeStore, contents: bool) -> list[str]:
    """Of each shard the first and the last valid row, or all of them, that cannot be read or has other moments."""
    layout, small = volumes.reader.layout, volumes.path / "thumbnail"
    thumbnails = RowReader(small) if small.is_dir() else None
    chosen = []
    for shard in range(layout.n_shards):
        rows = [row for row in layout.rows_of_shard(shard) if volumes.valid[row]]
        chosen += rows if contents else sorted({*rows[:1], *rows[-1:]})
    problems = []
    with Progress("reading volumes", len(chosen), "volumes") as progress:
        for row in chosen:
            try:
                raw = volumes.raw(row)
                there = raw.any() and (thumbnails is None or thumbnails.row(row).any())
            except InputError as error:
                problems.append(str(error))
            else:
                if not there:  # an empty image is never valid
                    problems.append(f"subject {volumes.subjects[row]} has no voxels in its shard, though it is valid")
                elif contents and not _as_recorded(raw, volumes, row):
                    problems.append(f"subject {volumes.subjects[row]} has other voxels than were ingested")
            progress.advance()
    return problems


def _as_recorded(raw: np.ndarray, volumes: VolumeStore, row: int) -> bool:
    """True where foreground mean and SD are those in the store."""
    values = raw * float(volumes.slope[row]) + float(volumes.inter[row])
    values = values[np.abs(values) > volumes.background[row]]
    if not values.size:
        return False
    near = [values.mean(), values.std()], [volumes.mean[row], volumes.std[row]]
    return bool(np.allclose(*near, rtol=_CLOSE, atol=_CLOSE * abs(float(volumes.std[row]))))


def _beside(path: Path) -> list[str]:
    """Tables and pictures that ingest puts beside a store."""
    stem = path.name.removesuffix(".zarr")
    return sorted(p.name for p in path.parent.glob(f"{stem}.*") if p.suffix in (".tsv", ".png") and p.is_file())


def _ome(path: Path, group: zarr.Group, attrs: dict[str, Any], contents: bool) -> Finding:
    ours = attrs.get("udipdist", {})
    found = Finding(path, "NIfTI-Zarr image" if "nifti" in group else "OME-Zarr image", READABLE)
    (image, *_) = attrs["ome"]["multiscales"] or [{}]
    levels = [dataset.get("path") for dataset in image.get("datasets", [])]
    gone = [level for level in levels if level not in group]
    found.worsen(DAMAGED, [f"level {level} is missing" for level in gone])
    if not levels:
        found.worsen(DAMAGED, ["its metadata name no level"])
    elif not gone:
        level = group[levels[0]]
        axes = "".join(axis.get("name", "?") for axis in image.get("axes", []))
        found.facts |= {"image": f"{' x '.join(map(str, level.shape))} ({axes}), {level.dtype}", "levels": len(levels)}
    found.facts |= {"version": attrs["ome"].get("version")}
    found.facts |= {key: ours[key] for key in ("subject", "modality", "orientation", "source") if ours.get(key)}
    if ours:
        found.notes.append("written by udipdist volumes")
    if contents:
        found.worsen(DAMAGED, _unreadable(group))
    return found


def _other(path: Path, opened: zarr.Group | zarr.Array, attrs: dict[str, Any], contents: bool) -> Finding:
    if isinstance(opened, zarr.Array):
        found = Finding(path, "Zarr array", READABLE, {"shape": list(opened.shape), "type": str(opened.dtype)})
    else:
        arrays = [f"{name} {list(array.shape)} {array.dtype}" for name, array in opened.arrays()]
        found = Finding(path, "Zarr group", READABLE, {"arrays": arrays, "groups": [n for n, _ in opened.groups()]})
    found.facts |= {key: value for key, value in attrs.items() if isinstance(value, str | int | float)}
    if contents:
        found.worsen(DAMAGED, _unreadable(opened))
    return found


def _unreadable(opened: zarr.Group | zarr.Array) -> list[str]:
    """Arrays of which some chunk cannot be unpacked; read chunk by chunk (shard by shard)."""
    arrays = [("", opened)] if isinstance(opened, zarr.Array) else list(opened.arrays())
    problems = []
    for name, array in arrays:
        step = (array.shards or array.chunks)[0] if array.ndim else 1
        try:
            for start in range(0, array.shape[0] if array.ndim else 1, step):
                array[start : start + step] if array.ndim else array[...]
        except _FAULTS as error:
            problems.append(f"the array {name or opened.basename or '.'} cannot be read ({_first_line(error)})")
    return problems


def _first_line(error: Exception) -> str:
    text = some(str(error).splitlines()[:1])
    return text if isinstance(error, InputError) else f"{type(error).__name__} {text}".strip()
