"""One volume as a file for other programs: NIfTI, OME-Zarr 0.5, NIfTI-Zarr (an OME-Zarr with the NIfTI header in it).

All three hold the stored values as they are. NIfTI's header says how they are scaled and where they lie; OME-Zarr 0.5
(https://ngff.openmicroscopy.org/0.5) knows neither scale factors nor rotations, so both stand in its attributes too.
NIfTI-Zarr is the draft of https://github.com/neuroscales/nifti-zarr: where the two headers differ, NIfTI's counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import nibabel as nib
import numpy as np
import zarr
from isal import isal_zlib
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from zarr.codecs import BloscCodec

from hpc.store import COMPRESSION

TOLERANCE_MM = 1e-3  # of a corner of the volume, for an affine that scale and translation are to stand for
CHUNK = 64  # edge of a chunk of the pyramid; a level that fits into one is the last
_LEVEL = 2  # of ISA-L: as small as 6 of zlib, in a tenth of the time
_NO_EXTENSIONS = b"\0\0\0\0"  # what NIfTI has between header and voxels
_ROUNDING = 1e-12  # of float64, in a translation there and back, relative to the size of the volume


@dataclass(frozen=True)
class Picture:
    """A volume: stored values [x, y, z], their scale factors, voxel indices -> mm; `about` goes into attributes."""

    name: str
    values: np.ndarray
    affine: np.ndarray  # [4, 4] float64
    slope: float
    inter: float
    about: dict[str, Any] = field(default_factory=dict)

    def turned(self, codes: str) -> Self:
        """The same volume with its axes in another order and direction, such as LAS; this one is RAS."""
        moves = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
        affine = self.affine @ inv_ornt_aff(moves, self.values.shape)
        extent = np.abs(self.affine[:3, :3]) @ self.values.shape + np.abs(self.affine[:3, 3])
        affine[:3, 3][np.abs(affine[:3, 3]) < _ROUNDING * extent] = 0
        values = apply_orientation(self.values, moves)
        return type(self)(self.name, values, affine, self.slope, self.inter, self.about)

    @property
    def on_axes(self) -> bool:
        """True where a scale and a translation say where the voxels lie: no rotation, shear or flipped axis."""
        simple = nib.affines.from_matvec(np.diag(nib.affines.voxel_sizes(self.affine)), self.affine[:3, 3])
        return _moved(self, simple, self.affine) <= TOLERANCE_MM


def _moved(picture: Picture, one: np.ndarray, other: np.ndarray) -> float:
    """How far, in mm, two affines are apart at the corner where they differ most."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(picture.values.shape) - 1)
    away = nib.affines.apply_affine(one, corners) - nib.affines.apply_affine(other, corners)
    return float(np.linalg.norm(away, axis=1).max())


# ----------------------------------------------------------------------------------------------------------- NIfTI


def header_of(picture: Picture) -> nib.Nifti1Header:
    """NIfTI-1, or NIfTI-2 where that cannot hold the scale factors (float32) or the shape (int16) exactly.

    The affine stands in the sform, and in the qform too where that can say it (it knows no shear).
    """
    scale = np.array([picture.slope, picture.inter])
    short = max(picture.values.shape) <= np.iinfo(np.int16).max
    kind = nib.Nifti1Image if short and (scale.astype(np.float32) == scale).all() else nib.Nifti2Image
    header = kind(picture.values, picture.affine, dtype=picture.values.dtype).header
    if _moved(picture, header.get_qform(), picture.affine) <= TOLERANCE_MM:
        header.set_qform(picture.affine, "aligned")
    header.set_slope_inter(picture.slope, picture.inter)
    header.set_xyzt_units("mm")
    header["vox_offset"] = header.single_vox_offset
    return header


def write_nifti(path: Path, picture: Picture) -> None:
    """A .nii.gz whose bytes depend on the volume only: no name and no time stand in the gzip header."""
    packer = isal_zlib.compressobj(_LEVEL, wbits=31)
    with path.open("wb") as file:
        for block in (header_of(picture).binaryblock, _NO_EXTENSIONS, picture.values.tobytes(order="F")):
            file.write(packer.compress(block))
        file.write(packer.flush())


# -------------------------------------------------------------------------------------------------------- OME-Zarr


def write_ome_zarr(path: Path, picture: Picture) -> None:
    """An OME-Zarr 0.5 image (Zarr v3): a pyramid of levels, each in one file. Axes are z, y, x, in millimetres.

    Where scale and translation cannot say where the volume lies (`on_axes`), the translation is left out: what a
    viewer shows is then in millimetres from the first voxel.
    """
    datasets = []
    for level, values in enumerate(pyramid(picture.values)):
        _write_level(path / str(level), values.transpose(2, 1, 0))
        datasets.append({"path": str(level), "coordinateTransformations": _transformations(picture, level)})
    axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]
    method = "mean of 2 x 2 x 2 voxels, rounded where voxels are integers"
    image = {
        "name": picture.name,
        "axes": axes,
        "datasets": datasets,
        "type": "mean",
        "metadata": {"description": method},
    }
    own = {
        "affine": picture.affine.tolist(),
        "scl_slope": picture.slope,
        "scl_inter": picture.inter,
        **picture.about,
    }
    attributes = {"ome": {"version": "0.5", "multiscales": [image]}, "udipdist": own}
    zarr.create_group(path, zarr_format=3, attributes=attributes)


def write_nifti_zarr(path: Path, picture: Picture) -> None:
    """An OME-Zarr with the array `nifti`: the bytes of the NIfTI header, and in its attributes some of it to read."""
    write_ome_zarr(path, picture)
    header = header_of(picture)
    block = np.frombuffer(header.binaryblock, np.uint8)
    array = zarr.create_array(
        path / "nifti",
        shape=block.shape,
        chunks=block.shape,
        dtype="uint8",
        compressors=None,
        attributes={  # JNIfTI's names
            "NIIHeaderSize": int(header["sizeof_hdr"]),
            "NIIFormat": header["magic"].item().decode()[:3],
            "Dim": list(picture.values.shape),
            "VoxelSize": [float(z) for z in header.get_zooms()],
            "DataType": picture.values.dtype.name,
            "BitDepth": int(header["bitpix"]),
            "ScaleSlope": picture.slope,
            "ScaleOffset": picture.inter,
            "Unit": {"L": "mm", "T": ""},
            "QForm": "aligned_anat" if header["qform_code"] else "",
            "SForm": "aligned_anat",
            "Affine": header.get_sform()[:3].tolist(),
        },
    )
    array[...] = block


def pyramid(values: np.ndarray) -> Iterator[np.ndarray]:
    """The volume, then each time half the size, until a level fits into one chunk. Means are taken in float64 of the
    voxels that there are (at an odd edge fewer than eight); integers are rounded, once a level."""
    dtype = values.dtype
    yield values
    while max(values.shape) > CHUNK:
        values = values.astype(np.float64, copy=False)
        for axis, n in enumerate(values.shape):
            starts = np.arange(0, n, 2)
            shape = [-1 if k == axis else 1 for k in range(3)]
            values = np.add.reduceat(values, starts, axis) / np.minimum(n - starts, 2).reshape(shape)
        yield (values if dtype.kind == "f" else np.rint(values)).astype(dtype)


def _transformations(picture: Picture, level: int) -> list[dict[str, Any]]:
    """Of a level whose voxel i spans the voxels 2^level i .. 2^level (i + 1) - 1: its centre lies between them."""
    zooms = nib.affines.voxel_sizes(picture.affine)
    origin = picture.affine[:3, 3] if picture.on_axes else np.zeros(3)
    scale, translation = zooms * 2**level, origin + zooms * (2**level - 1) / 2
    return [
        {"type": "scale", "scale": scale[::-1].tolist()},
        {"type": "translation", "translation": translation[::-1].tolist()},
    ]


def _write_level(path: Path, values: np.ndarray) -> None:
    chunks = tuple(min(CHUNK, n) for n in values.shape)
    array = zarr.create_array(
        path,
        shape=values.shape,
        dtype=values.dtype,
        chunks=chunks,
        shards=tuple(-(-n // chunk) * chunk for n, chunk in zip(values.shape, chunks, strict=True)),
        compressors=BloscCodec(**COMPRESSION),
        dimension_names=("z", "y", "x"),
        fill_value=0,
    )
    array[...] = values
