"""One volume file (NIfTI-1, NIfTI-2 or MGH, gzipped or not) -> stored values in RAS order, and what they mean.

Nothing is resampled or rounded: axes are flipped and swapped, the bytes put into native order, and the scale factors
kept beside the stored values (scaled = stored * slope + inter, as nibabel computes `get_fdata`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
AS_IT_IS = (False, False, False)  # no axis of `Volume.up_to_flips` is to be turned round
_DRAIN = 1 << 20  # bytes inflated at once behind the voxels
_GZIP = b"\x1f\x8b"
PAIR = "is one half of an .hdr/.img pair; save the pair as one .nii.gz"
_OTHERS = {
    b"BZh": "is packed by bzip2; unpack it, or pack it by gzip",
    b"\xfd7zXZ": "is packed by xz; unpack it, or pack it by gzip",
    b"\x28\xb5\x2f\xfd": "is packed by zstd; unpack it, or pack it by gzip",
    b"PK": "is a zip; take the image out of it",
    b"NRRD": "is an NRRD file; save it as .nii.gz",
    b"/annex/objects": "is a pointer of git-annex, not the image; fetch it (datalad get, or git annex get)",
    b"version https://git-lfs": "is a pointer of Git LFS, not the image; fetch it (git lfs pull)",
}  # what is often found under an image's name, by its first bytes


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
    codes: str = ""  # what says where the volume lies: the sform and qform codes, or goodRASFlag of MGH
    unsure: str = ""  # why it is not known which side is left; '' where it is


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


def turned(values: np.ndarray, flips: Sequence[bool]) -> np.ndarray:
    """A view with the axes in `flips` turned round."""
    return values[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]


def read_header(start: bytes, name: str) -> Header:
    """The header of a file from its first START bytes. `name` tells MGH from NIfTI. Raises Unreadable."""
    return _describe(*_parse(_first_bytes(start), name))


def require_orientation(header: Header) -> None:
    """Raises Unreadable where a header does not say for sure which side is left."""
    if header.unsure:
        raise Unreadable(
            f"{header.unsure}, so it is not known which side is left. Write the right codes into its header, or type "
            "allow=[orientation] to take it as nibabel does"
        )


def read(data: bytes, name: str) -> Volume:
    """A whole file. The gzip stream and its checksum are verified to the end. Raises Unreadable."""
    parsed, first = _parse(_first_bytes(data[:START]), name)
    header = _describe(parsed, first)
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


def _parse(start: bytes, name: str) -> tuple[nib.Nifti1Header | MGHHeader, bytes]:
    """nibabel's header object of the first bytes of a file, and the bytes that it is of."""
    if name.lower().endswith((".mgz", ".mgh")):
        kind = MGHHeader
        size = MGHHeader.template_dtype.itemsize
    else:
        kind = next((k for k in (nib.Nifti1Header, nib.Nifti2Header) if k.may_contain_header(start)), None)
        if kind is None:
            if not start:
                raise Unreadable("is not a NIfTI file (it has 0 bytes)")
            other = next((what for magic, what in _OTHERS.items() if start.startswith(magic)), "")
            raise Unreadable(other or "is not a NIfTI file (it has no NIfTI-1 or NIfTI-2 header)")
        size = kind.template_dtype.itemsize
    if len(start) < size:
        raise Unreadable(f"is truncated: {len(start)} bytes are less than a header")
    try:
        header = kind(start[:size])
    except (HeaderDataError, ValueError, KeyError) as error:
        raise Unreadable(f"its header is not valid ({error})") from None
    if kind is not MGHHeader and header["magic"].item().startswith(b"ni"):
        raise Unreadable(PAIR)
    if kind is not MGHHeader:
        offset = float(header["vox_offset"])
        if not offset >= header.single_vox_offset or offset % 1 or math.isinf(offset):
            raise Unreadable(
                f"its vox_offset is {offset:g}, and the voxels of a single file start at byte "
                f"{header.single_vox_offset} or later; write the file again, with its voxels where the header says"
            )
    return header, start[:size]


def _orientation(parsed: nib.Nifti1Header | MGHHeader, first: bytes) -> tuple[str, str]:
    """The codes that say where a volume lies, and why it is not known which side is left ('' where it is)."""
    if isinstance(parsed, MGHHeader):
        good = int(np.frombuffer(first, MGHHeader.template_dtype)[0]["goodRASFlag"])
        return f"goodRAS {good}", "" if good else "its goodRASFlag is 0"
    sform, qform = int(parsed["sform_code"]), int(parsed["qform_code"])
    codes = f"sform {sform}, qform {qform}"
    if sform <= 0 and qform <= 0:
        return codes, "its sform_code and qform_code are 0"
    if sform > 0 and qform > 0:
        try:
            one, other = parsed.get_sform()[:3, :3], parsed.get_qform()[:3, :3]
        except (HeaderDataError, ValueError):  # the quaternion says nothing, and the sform counts
            return codes, ""
        across = int(np.argmax(np.abs(one[0] / np.linalg.norm(one, axis=0))))  # the axis from left to right
        if np.linalg.det(one) * np.linalg.det(other) < 0 or one[:, across] @ other[:, across] < 0:
            return codes, "its sform and qform contradict each other about left and right"
    return codes, ""


def _describe(parsed: nib.Nifti1Header | MGHHeader, first: bytes) -> Header:
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
    codes, unsure = _orientation(parsed, first)
    return Header(
        shape=tuple(int(n) for n in shape),
        dtype=dtype.newbyteorder("="),
        affine=affine @ inv_ornt_aff(moves, full[:3]),
        orientation="".join(ornt2axcodes(moves)),
        moves=moves,
        slope=1.0 if slope is None else float(slope),
        inter=0.0 if inter is None else float(inter),
        codes=codes,
        unsure=unsure,
    )
