"""One volume file (NIfTI-1, NIfTI-2 or MGH, gzipped or not) -> stored values in RAS order, and what they mean.

Nothing is resampled or rounded: axes are flipped and swapped, the bytes put into native order, and the scale factors
kept beside the stored values (scaled = stored * slope + inter, as nibabel computes `get_fdata`).
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt2axcodes
from nibabel.spatialimages import HeaderDataError

from hpc.errors import InputError

_HEADER_BYTES = 1024  # more than the longest header (NIfTI-2: 540)
_GZIP = b"\x1f\x8b"


class Unreadable(InputError):
    """A volume file that cannot be used; the message is the reason, without the path."""


@dataclass(frozen=True)
class Header:
    """What a file's header says, in RAS order."""

    shape: tuple[int, int, int]
    dtype: np.dtype  # native byte order
    affine: np.ndarray  # [4, 4] float64, voxel indices in RAS order -> mm
    orientation: str  # the file's own axis codes, such as LAS
    moves: np.ndarray  # [3, 2] for each axis of the file: the RAS axis that it becomes, and 1 or -1 (flipped)
    slope: float
    inter: float


@dataclass(frozen=True)
class Volume:
    """A whole file."""

    header: Header
    raw: np.ndarray  # [x, y, z] stored values, C-contiguous, RAS order
    sha256: str  # of the file's bytes


def read_header(path: Path) -> Header:
    """The header of a file, without its voxels. Raises Unreadable."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == _GZIP
        with gzip.open(path) if zipped else path.open("rb") as file:
            start = file.read(_HEADER_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Unreadable(f"the gzip stream is damaged or ends early ({error})") from None
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from None
    return _describe(_parse(start, path.name))


def read(path: Path) -> Volume:
    """The voxels of a file. The whole gzip stream and its checksum are verified. Raises Unreadable."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from None
    digest = hashlib.sha256(data).hexdigest()
    if data[:2] == _GZIP:
        data = _inflate(data)
    parsed = _parse(data[:_HEADER_BYTES], path.name)
    header = _describe(parsed)
    stored = parsed.get_data_dtype()
    count, offset = int(np.prod(header.shape)), int(parsed.get_data_offset())
    if len(data) < offset + count * stored.itemsize:
        raise Unreadable(f"is truncated: {len(data)} bytes where {offset + count * stored.itemsize} are announced")
    raw = np.frombuffer(data, stored, count, offset).reshape(parsed.get_data_shape()[:3], order="F")
    return Volume(header, _compact(apply_orientation(raw, header.moves)), digest)


def _inflate(data: bytes) -> bytes:
    """The content of a gzip file of one or more members, each with its checksum verified."""
    contents = []
    while data:
        member = zlib.decompressobj(wbits=31)
        try:
            contents.append(member.decompress(data))
        except zlib.error as error:
            raise Unreadable(f"the gzip stream is damaged ({error})") from None
        if not member.eof:
            raise Unreadable("is truncated: the gzip stream ends early")
        data = member.unused_data.lstrip(b"\0")
    return contents[0] if len(contents) == 1 else b"".join(contents)


def _parse(start: bytes, name: str) -> nib.Nifti1Header | MGHHeader:
    """nibabel's header object of the first bytes of a file."""
    if name.lower().endswith((".mgz", ".mgh")):
        kind = MGHHeader
        size = MGHHeader.template_dtype.itemsize
    else:
        kind = next((k for k in (nib.Nifti1Header, nib.Nifti2Header) if k.may_contain_header(start)), None)
        if kind is None:
            raise Unreadable("is not a NIfTI file (it has no NIfTI-1 or NIfTI-2 header)")
        size = kind.template_dtype.itemsize
    if len(start) < size:
        raise Unreadable(f"is truncated: {len(start)} bytes are less than a header")
    try:
        header = kind(start[:size])
    except (HeaderDataError, ValueError, KeyError) as error:
        raise Unreadable(f"its header is not valid ({error})") from None
    if kind is not MGHHeader and header["magic"].item().startswith(b"ni"):
        raise Unreadable("is the header of an .hdr/.img pair; save the pair as one .nii.gz")
    return header


def _describe(parsed: nib.Nifti1Header | MGHHeader) -> Header:
    """Check that a header describes one real-valued 3-D volume, and turn it to RAS."""
    try:
        full, dtype = tuple(int(n) for n in parsed.get_data_shape()), parsed.get_data_dtype()
        slope, inter = parsed.get_slope_inter()
        affine = np.asarray(parsed.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError, KeyError) as error:
        raise Unreadable(f"its header is not valid ({error})") from None
    if len(full) < 3 or min(full) < 1 or any(n != 1 for n in full[3:]):
        raise Unreadable(f"holds an image of shape {full}; one 3-D volume is needed")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise Unreadable(f"has voxels of type {dtype}; integers and floats of up to 64 bits are read")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise Unreadable("its affine (voxel to mm) cannot be inverted")
    moves = io_orientation(affine)
    shape = np.empty(3, dtype=int)
    shape[moves[:, 0].astype(int)] = full[:3]
    return Header(
        shape=tuple(int(n) for n in shape),
        dtype=dtype.newbyteorder("="),
        affine=affine @ inv_ornt_aff(moves, full[:3]),
        orientation="".join(ornt2axcodes(moves)),
        moves=moves,
        slope=1.0 if slope is None else float(slope),
        inter=0.0 if inter is None else float(inter),
    )


def _compact(view: np.ndarray) -> np.ndarray:
    """A C-contiguous copy in native byte order, made plane by plane: files hold x fastest, and planes fit the cache."""
    copy = np.empty(view.shape, view.dtype.newbyteorder("="))
    for y in range(view.shape[1]):
        copy[:, y] = view[:, y]
    return copy
