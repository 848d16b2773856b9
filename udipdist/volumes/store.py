"""Reads a volume store: stored values, z-scored batches, and NIfTI images again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import nibabel as nib
import numpy as np

from hpc import store
from hpc.errors import InputError
from udipdist.volumes import kernels

FORMAT = "udipdist volumes 1"


@dataclass(frozen=True, eq=False)
class VolumeStore:
    """The volumes of a cohort, all of one shape in RAS order. Threads may share it; workers may get a pickled copy.

    N subjects; [x, y, z] voxels. Subjects with `valid` False could not be read when the store was made.
    """

    path: Path
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
    affines: np.ndarray  # [N, 4, 4]
    reader: store.RowReader

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a finished store. Raises InputError where there is none."""
        group = store.open_group(path)
        if group.attrs.get("format") != FORMAT:
            raise InputError(f"{path}: is not a volume store ({FORMAT!r}); make one with `udipdist ingest`")
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
            path=Path(path),
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
            affines=affines,
            reader=reader,
        )

    def __len__(self) -> int:
        return len(self.subjects)

    def affine(self, i: int) -> np.ndarray:
        """Voxel indices -> mm of subject `i`, [4, 4] float64."""
        return self.affines[i]

    def raw(self, i: int) -> np.ndarray:
        """Stored values of subject `i`, [x, y, z]. Raises InputError for a subject that is not valid."""
        self._require_valid([i])
        return self.reader.row(i)

    def normalised(self, indices: Sequence[int] | np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Subjects z-scored over their own non-zero voxels, background exactly 0: float32 [B, x, y, z].

        The cost of a subject is one read, one decompression and one pass: at 1 mm about the time it takes to copy
        the result a few times. `out` may be given, to be filled and returned. Raises InputError for a subject that
        is not valid.
        """
        indices = [int(i) for i in indices]
        self._require_valid(indices)
        if out is None:
            out = np.empty((len(indices), *self.shape), np.float32)
        elif out.shape != (len(indices), *self.shape) or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise ValueError(f"out must be C-contiguous float32 {(len(indices), *self.shape)}")
        raw = np.empty(self.shape, self.reader.layout.dtype)
        for place, i in enumerate(indices):
            self.reader.row(i, raw)
            kernels.zscore(
                raw.reshape(-1), self.slope[i], self.inter[i], self.mean[i], self.std[i], out[place].reshape(-1)
            )
        return out

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
