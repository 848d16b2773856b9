"""Reads a volume store: stored values, z-scored batches, and NIfTI images again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import nibabel as nib
import numpy as np
import zarr

from hpc import store
from hpc.errors import InputError, some
from udipdist.volumes import kernels

FORMAT = "udipdist volumes 1"


@dataclass(frozen=True, eq=False)
class VolumeStore:
    """The volumes of a cohort, all of one shape in RAS order. Threads may share it; workers may get a pickled copy.

    N subjects; [x, y, z] voxels. Subjects with `valid` False could not be read when the store was made.
    """

    path: Path  # of the group: the store, or its folder of a modality
    subjects: list[str]
    fids: list[str]
    valid: np.ndarray  # [N] bool
    shape: tuple[int, int, int]
    zooms: tuple[float, float, float]  # voxel edges in mm, of the first valid subject
    mask: np.ndarray  # [x, y, z] bool, foreground in at least 5 % of the valid subjects
    mean: np.ndarray  # [N] of the scaled foreground voxels
    std: np.ndarray  # [N]
    slope: np.ndarray  # [N] scaled = stored * slope + inter
    inter: np.ndarray  # [N]
    background: np.ndarray  # [N] largest size of a scaled value that is background (kernels.background_limit)
    affines: np.ndarray  # [N, 4, 4]
    reader: store.RowReader

    @classmethod
    def open(cls, path: str | Path, modality: str | None = None) -> Self:
        """Open a finished store, or one modality of it, which must be said where it has several.

        Raises InputError where there is none.
        """
        path = _of_modality(Path(path), modality)
        group = _open_group(path)
        reader = store.RowReader(Path(path) / "image")

        def array(name: str) -> np.ndarray:
            try:
                return group[name][:]
            except (KeyError, ValueError, RuntimeError) as error:
                raise InputError(
                    f"{path}: the array {name} is damaged or missing ({str(error).splitlines()[0]}); copy the store "
                    "again, or make it again with overwrite=true"
                ) from None

        valid, affines = array("valid"), array("affine")
        return cls(
            path=path,
            subjects=[str(iid) for iid in array("subject")],
            fids=[str(fid) for fid in array("fid")],
            valid=valid,
            shape=reader.layout.row_shape,
            zooms=tuple(float(z) for z in nib.affines.voxel_sizes(affines[np.argmax(valid)])),
            mask=array("mask"),
            mean=array("mean"),
            std=array("std"),
            slope=array("scl_slope"),
            inter=array("scl_inter"),
            background=array("background") if "background" in group else np.zeros(len(valid)),  # older stores
            affines=affines,
            reader=reader,
        )

    def __len__(self) -> int:
        return len(self.subjects)

    def affine(self, i: int) -> np.ndarray:
        """Voxel indices -> mm of subject `i`, [4, 4] float64."""
        return self.affines[i]

    def raw(self, i: int) -> np.ndarray:
        """Stored values of subject `i`, [x, y, z] with x fastest in memory. Raises InputError where it is not valid."""
        self._require_valid([i])
        return self.reader.row(i)

    def normalised(self, indices: Sequence[int] | np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Subjects z-scored over their own foreground, background exactly 0: float32 [B, x, y, z].

        In memory x is fastest, as on the disk: a subject costs one read, one decompression and one pass. `out` may be
        given, made by `empty`, to be filled and returned. Raises InputError for a subject that is not valid.
        """
        indices, layout = [int(i) for i in indices], self.reader.layout
        self._require_valid(indices)
        if out is None:
            out = self.empty(len(indices))
        elif (out.shape, out.dtype, out.strides) != _alike(self.empty(len(indices))):
            raise ValueError(f"out must be float32 {(len(indices), *self.shape)} in the order of memory of `empty`")
        raw = layout.empty_row()
        for place, i in enumerate(indices):
            self.reader.row(i, raw)
            flat, filled = layout.as_stored(raw).reshape(-1), layout.as_stored(out[place]).reshape(-1)
            scale = self.slope[i], self.inter[i], self.mean[i], self.std[i], self.background[i]
            kernels.zscore(flat, *scale, filled)
        return out

    def empty(self, n: int) -> np.ndarray:
        """Memory for n z-scored subjects, float32 [n, x, y, z], laid out as on the disk."""
        layout = self.reader.layout
        if not layout.first_axis_fastest:
            return np.empty((n, *self.shape), np.float32)
        return np.empty((n, *self.shape[::-1]), np.float32).transpose(0, 3, 2, 1)

    def to_nifti(self, i: int) -> nib.Nifti1Image:
        """Subject `i` as an image in RAS order: scaled values exactly, affine to the float32 of NIfTI-1.

        The values have their stored type where the file had no scale factors, else float64: nibabel would round
        scaled integers anew when it saves them.
        """
        values = self.raw(i)
        if (self.slope[i], self.inter[i]) != (1, 0):
            values = values * self.slope[i] + self.inter[i]
        image = nib.Nifti1Image(values, self.affine(i), dtype=values.dtype)
        image.header.set_xyzt_units("mm")
        return image

    def _require_valid(self, indices: Sequence[int]) -> None:
        for i in indices:
            if not 0 <= i < len(self.subjects):
                raise IndexError(f"{self.path}: subject number {i} of {len(self.subjects)}")
            if not self.valid[i]:
                raise InputError(
                    f"{self.path}: the volume of subject {self.subjects[i]} could not be read at ingest; "
                    "leave the subjects out that are not valid"
                )


def _alike(out: np.ndarray) -> tuple:
    return out.shape, out.dtype, out.strides


def _open_group(path: Path) -> zarr.Group:
    group = store.open_group(path)
    if group.attrs.get("format") != FORMAT:
        raise InputError(f"{path}: is not a volume store ({FORMAT!r}); make one with `udipdist ingest`")
    return group


def _of_modality(path: Path, modality: str | None) -> Path:
    """The folder of a modality of a store. Raises InputError where it has no such, or several and none is said."""
    attributes = _open_group(path).attrs
    several = attributes.get("modalities")
    names = several or [attributes.get("modality")]
    if modality is None and several:
        raise InputError(f"{path}: holds {some(names)}; say which with modality=, or give {path / names[0]}")
    if modality is not None and modality not in names:
        raise InputError(f"{path}: holds no {modality}; give modality= of {some(names)}")
    return path / modality if several else path
