"""The work of an ingest, cut into parts: each writes whole shards of one modality, from files to compressed rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpc import store
from udipdist.volumes import kernels, masks, nifti, quality, resample
from udipdist.volumes.grids import Grid, in_mni
from udipdist.volumes.nifti import AS_IT_IS, turned
from udipdist.volumes.sources import Scan, Source

AXES = ("x", "y", "z")


@dataclass(frozen=True, eq=False)
class IngestJob:
    """A cohort cut into shards; the parts are the shards of the first modality, then those of the next."""

    place: Path
    sources: tuple[Source, ...]
    grids: tuple[Grid, ...]
    subjects_per_shard: int
    any_orientation: bool = False  # also files that do not say for sure which side is left
    unit: str = "volumes"
    digest: str = "crc32c"  # what parts record of their files: shards are large, and SHA-256 is a tenth of an ingest

    @property
    def n_shards(self) -> int:
        """Shards of a modality."""
        return -(-len(self.sources) // self.subjects_per_shard)

    @property
    def n_parts(self) -> int:
        return self.n_shards * len(self.grids)

    def size_of_part(self, index: int) -> int:
        """Subjects of a part."""
        shard = index % self.n_shards
        return min(self.subjects_per_shard, len(self.sources) - shard * self.subjects_per_shard)

    def group(self, modality: int) -> Path:
        """The folder of a modality: the store itself where it is the only one."""
        return self.place / self.grids[modality].modality if len(self.grids) > 1 else self.place

    def files_of_part(self, index: int) -> list[Path]:
        """The shards, and the counts beside the part's marker."""
        modality, shard = divmod(index, self.n_shards)
        shards = [store.Layout(self.group(modality) / name).shard_path(shard) for name in ("image", "thumbnail")]
        counts = self.place / "parts" / counts_name(index)
        return [*shards, *(p for p in counts.rglob("*") if p.is_file())]

    def part(self, index: int) -> dict[str, Any]:
        """Write one shard and, beside its marker, how many subjects have foreground at each voxel."""
        modality, shard = divmod(index, self.n_shards)
        grid, group = self.grids[modality], self.group(modality)
        image, thumbnail = store.Layout(group / "image"), store.Layout(group / "thumbnail")
        into = _Into(
            grid,
            np.zeros(grid.shape[::-1], np.min_scalar_type(self.subjects_per_shard)),
            template_of(self.place / "parts", template_name(modality)),
            blocks_of(grid),
            self.any_orientation,
        )
        facts: list[dict[str, Any]] = []
        thumbnails: list[np.ndarray | None] = []

        def rows() -> Iterator[np.ndarray | None]:
            for i in image.rows_of_shard(shard):
                fact: dict[str, Any] = {}
                try:
                    row, small = _read_scan(self.sources[i].scans[modality], into, fact)
                except nifti.Unreadable as error:
                    row, small, fact["failure"] = None, None, str(error)
                facts.append(fact)
                thumbnails.append(small)
                yield row

        store.write_shard(image, shard, rows())
        store.write_shard(thumbnail, shard, thumbnails)
        store.put(self.place / "parts", counts_name(index), into.counts, AXES[::-1])
        return {"subjects": facts}


def counts_name(index: int) -> str:
    return f"{index:06d}.foreground"


def template_name(modality: int) -> str:
    return f"template.{modality}"


def template_of(place: Path, name: str) -> np.ndarray | None:
    """The template's brain on a modality's grid, bool [z, y, x], as the plan laid it down; None where it has none."""
    return store.get(place, name) if (place / name).exists() else None


def blocks_of(grid: Grid) -> kernels.Blocks:
    edge = quality.block(np.linalg.norm(grid.affine[:3, :3], axis=0))
    z, y, x = quality.thumbnail_offset(grid.shape, edge)[::-1]
    return kernels.Blocks(edge, (z, y, x), quality.thumbnail_shape(grid.shape, edge)[::-1])


@dataclass(frozen=True, eq=False)
class _Into:
    """Where the volumes of a part go: all of them arrays [z, y, x]."""

    grid: Grid
    counts: np.ndarray  # subjects of this part with foreground
    template: np.ndarray | None
    blocks: kernels.Blocks
    any_orientation: bool


def _read_scan(scan: Scan | None, into: _Into, fact: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Voxels [x, y, z] and thumbnail of one image; adds its foreground to the counts, and JSON facts to `fact`, as far
    as there are any. Raises Unreadable."""
    grid = into.grid
    if scan is None:
        raise nifti.Unreadable(f"has no {grid.modality} file")
    data = scan.read_bytes()
    volume = nifti.read(data, scan.name)
    header, values, flips = volume.header, *volume.up_to_flips()
    fact |= {"affine": header.affine.tolist(), "orientation": header.orientation, "codes": header.codes}
    if not into.any_orientation:
        nifti.require_orientation(header)
    if scan.mask is not None:
        values, flips = masks.applied(turned(values, flips), header, scan), AS_IT_IS
    if scan.matrix is not None:
        moved, _ = resample.to_mni(np.ascontiguousarray(turned(values, flips).T), header, scan.read_matrix())
        header, values, flips = in_mni(header), np.ascontiguousarray(moved.T), AS_IT_IS
    if header.shape != grid.shape:
        raise nifti.Unreadable(f"has the shape {header.shape} in RAS order, and the store {grid.shape}, as most files")
    if not np.can_cast(header.dtype, grid.dtype, "safe"):
        raise nifti.Unreadable(f"changed since the plan: it has {header.dtype} voxels, and the store {grid.dtype}")
    scale = header.slope, header.inter, kernels.background_limit(header.dtype, header.slope)
    raw, seen = kernels.survey(values, flips, *scale[:2], into.counts, into.template, into.blocks)
    if seen.n == 0:
        raise nifti.Unreadable("is empty: every voxel is 0")
    if not math.isfinite(seen.std):
        raise nifti.Unreadable("has NaN, infinite or huge voxels; write 0 outside the brain, or give mask=")
    if seen.thumbnail is None:
        raise nifti.Unreadable(
            f"has the value {seen.mean:g} in all of its {seen.n} foreground voxels, so it cannot be z-scored"
        )
    corners = raw[np.ix_(*([0, -1] for _ in range(3)))]
    fact |= {
        "mean": seen.mean,
        "std": seen.std,
        "foreground": seen.n,
        "foreground_in_template": seen.inside,
        "corners": int(kernels.foreground(corners, *scale).sum()),
        "slope": header.slope,
        "inter": header.inter,
        "background": scale[2],
        "affine": header.affine.tolist(),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return raw.astype(grid.dtype, copy=False).T, seen.thumbnail
