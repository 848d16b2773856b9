"""One volume file (NIfTI-1, NIfTI-2 or MGH, gzipped or not) -> stored values in RAS order, and what they mean.

Nothing is resampled or rounded: axes are flipped and swapped, the bytes put into native order, and the scale factors
kept beside the stored values (scaled = stored * slope + inter, as nibabel computes `get_fdata`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from isal import igzip_lib
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.orientations import inv_ornt_aff, io_orientation, ornt2axcodes
from nibabel.spatialimages import HeaderDataError

from hpc.errors import InputError

START = 16384  # bytes of a file in which its header is, gzipped or not
_HEADER_BYTES = 1024  # more than the longest header (NIfTI-2: 540)
_DRAIN = 1 << 20  # bytes inflated at once behind the voxels
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
    """The content of a whole file."""

    header: Header
    stored: np.ndarray  # stored values with the axes of the file, any byte order, x fastest (Fortran); not writable

    def up_to_flips(self) -> tuple[np.ndarray, tuple[bool, bool, bool]]:
        """Native [z, y, x], C-contiguous, without a copy where possible; and which of z, y, x are still to be turned
        round to run from left, posterior and inferior."""
        order = np.argsort(self.header.moves[:, 0])  # of RAS axis a: the axis of the file
        values = np.ascontiguousarray(self.stored.transpose(order).T, self.stored.dtype.newbyteorder("="))
        x, y, z = (bool(self.header.moves[axis, 1] < 0) for axis in order)
        return values, (z, y, x)


def read_header(start: bytes, name: str) -> Header:
    """The header of a file from its first START bytes. `name` tells MGH from NIfTI. Raises Unreadable."""
    return _describe(_parse(_first_bytes(start), name))


def read(data: bytes, name: str) -> Volume:
    """A whole file. The gzip stream and its checksum are verified to the end. Raises Unreadable."""
    parsed = _parse(_first_bytes(data[:START]), name)
    header = _describe(parsed)
    dtype, shape = parsed.get_data_dtype(), parsed.get_data_shape()[:3]
    count, offset = math.prod(shape), int(parsed.get_data_offset())
    announced = offset + count * dtype.itemsize
    if data[:2] == _GZIP:
        data = _inflate(data, announced)
    if len(data) < announced:
        raise Unreadable(f"is truncated: {len(data)} bytes where {announced} are announced")
    return Volume(header, np.frombuffer(data, dtype, count, offset).reshape(shape, order="F"))


def _first_bytes(start: bytes) -> bytes:
    """The first bytes of a file's content, from its own first bytes."""
    if start[:2] != _GZIP:
        return start[:_HEADER_BYTES]
    member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    try:
        content = member.decompress(start, _HEADER_BYTES)
    except igzip_lib.error as error:
        raise Unreadable(f"the gzip stream is damaged ({error})") from None
    if not content and not member.eof:
        raise Unreadable("is truncated: the gzip stream ends early")
    return content


def _inflate(data: bytes, wanted: int) -> bytes:
    """The first `wanted` bytes in a gzip file of one or more members. All of it is inflated, in bounded memory, and
    the checksum of each member verified."""
    pieces, room = [], wanted
    while data:
        if data[:2] != _GZIP:
            raise Unreadable(f"the gzip stream is damaged ({len(data)} bytes behind it are something else)")
        member, feed = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP), data
        try:
            while not member.eof:
                piece = member.decompress(feed, room or _DRAIN)
                feed = b""
                if room:
                    pieces.append(piece)
                    room -= len(piece)
                if not piece and member.needs_input and not member.eof:
                    raise Unreadable("is truncated: the gzip stream ends early")
        except igzip_lib.error as error:
            raise Unreadable(f"the gzip stream is damaged ({error})") from None
        data = member.unused_data.lstrip(b"\0")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


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
