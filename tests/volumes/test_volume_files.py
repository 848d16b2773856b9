"""One file at a time: what we read is what nibabel reads."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import nibabel as nib
import nilearn
import numpy as np
import pytest
from nibabel.testing import data_path

from udipdist.volumes import nifti

RNG = np.random.default_rng(0)
NILEARN = Path(nilearn.__file__).parent / "datasets" / "data"
REAL = [
    Path(data_path) / "anatomical.nii",  # int16, big-endian, LAS
    Path(data_path) / "reoriented_anat_moved.nii",  # float32, big-endian
    Path(data_path) / "resampled_anat_moved.nii",
    Path(data_path) / "standard.nii.gz",
    *sorted(NILEARN.glob("*.nii.gz")),
]


def read(path: Path) -> nifti.Volume:
    return nifti.read(path.read_bytes(), path.name)


def read_header(path: Path) -> nifti.Header:
    return nifti.read_header(path.read_bytes()[: nifti.START], path.name)


def in_ras(volume: nifti.Volume) -> np.ndarray:
    values, flips = volume.up_to_flips()
    assert values.flags.c_contiguous and values.dtype.isnative
    return values[tuple(slice(None, None, -1 if flip else 1) for flip in flips)].T


def same_as_nibabel(path: Path) -> None:
    """Scaled values, affine and orientation agree with nibabel's canonical image; header and whole file agree."""
    image = nib.load(path)
    expected = nib.as_closest_canonical(image)
    volume = read(path)
    raw = in_ras(volume)
    header = volume.header
    scaled = raw.astype(np.float64) * header.slope + header.inter
    np.testing.assert_array_equal(scaled.reshape(expected.shape), expected.get_fdata())
    np.testing.assert_array_equal(header.affine, expected.affine)
    assert header.orientation == "".join(nib.aff2axcodes(image.affine))
    assert nib.aff2axcodes(header.affine) == ("R", "A", "S")
    assert raw.dtype == image.get_data_dtype().newbyteorder("=")
    assert raw.shape == header.shape
    only = read_header(path)
    np.testing.assert_array_equal(only.affine, header.affine)
    assert (only.shape, only.dtype, only.slope, only.inter) == (header.shape, header.dtype, header.slope, header.inter)


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_images(path):
    same_as_nibabel(path)


@pytest.mark.parametrize("name", ["functional.nii", "example4d.nii.gz", "example_nifti2.nii.gz"])
def test_one_volume_of_real_4d_images(tmp_path, name):
    """Scale factors (functional.nii), an oblique affine (example4d) and NIfTI-2, cut to their first volume."""
    image = nib.load(Path(data_path) / name)
    with pytest.raises(nifti.Unreadable, match="one 3-D volume"):
        read(Path(data_path) / name)
    first = type(image)(image.dataobj.get_unscaled()[..., :1], image.affine, image.header)
    first.header.set_slope_inter(image.dataobj.slope, image.dataobj.inter)
    nib.save(first, tmp_path / "first.nii.gz")
    assert nib.load(tmp_path / "first.nii.gz").dataobj.slope == image.dataobj.slope
    same_as_nibabel(tmp_path / "first.nii.gz")


@pytest.mark.parametrize(
    ("kind", "dtype", "endian"),
    [
        (kind, dtype, endian)
        for kind in (nib.Nifti1Image, nib.Nifti2Image)
        for dtype in ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
        for endian in "<>"
    ],
)
def test_types_and_byte_orders(tmp_path, kind, dtype, endian):
    values = RNG.integers(0, 100, (3, 4, 5)).astype(dtype)
    affine = nib.affines.from_matvec(np.diag([-2.0, 1.5, 1.0]), [3, -4, 5])
    header = kind.header_class(endianness=endian)
    header.set_data_dtype(np.dtype(dtype))
    image = kind(values, affine, header)
    nib.save(image, tmp_path / "a.nii")
    assert nib.load(tmp_path / "a.nii").header.endianness == endian
    same_as_nibabel(tmp_path / "a.nii")


def test_every_orientation(tmp_path):
    """All 48 flips and swaps of the axes, each a little oblique."""
    values = RNG.integers(-9, 100, (3, 4, 5)).astype("int16")
    tilt = np.eye(3) + RNG.normal(0, 0.05, (3, 3))
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((-1, 1), repeat=3):
            matrix = (np.diag(signs) @ tilt)[:, order]
            nib.save(nib.Nifti1Image(values, nib.affines.from_matvec(matrix, [1, 2, 3])), tmp_path / "a.nii.gz")
            same_as_nibabel(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(("slope", "inter"), [(2.0, 0.0), (0.0731, -3.5), (1.0, 1024.0)])
def test_scale_factors(tmp_path, slope, inter):
    image = nib.Nifti1Image(RNG.integers(0, 99, (3, 4, 5)).astype("int16"), np.eye(4))
    image.header.set_slope_inter(slope, inter)
    nib.save(image, tmp_path / "a.nii.gz")
    assert read_header(tmp_path / "a.nii.gz").inter == np.float32(inter)
    same_as_nibabel(tmp_path / "a.nii.gz")


def test_no_sform_and_no_qform(tmp_path):
    """nibabel then takes the NIfTI base affine, which is left-handed."""
    image = nib.Nifti1Image(RNG.integers(0, 99, (3, 4, 5)).astype("int16"), None)
    image.header.set_zooms((1, 2, 3))
    nib.save(image, tmp_path / "a.nii.gz")
    assert read_header(tmp_path / "a.nii.gz").orientation == "LAS"
    same_as_nibabel(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("name", ["a.mgz", "a.mgh"])
def test_freesurfer(tmp_path, name):
    affine = nib.affines.from_matvec([[-1, 0, 0], [0, 0, 1], [0, -1, 0]], [128, -128, 128])
    nib.save(nib.MGHImage(RNG.integers(0, 99, (3, 4, 5)).astype("uint8"), affine), tmp_path / name)
    same_as_nibabel(tmp_path / name)


def test_gzip_of_several_members_and_padding(tmp_path):
    image = nib.Nifti1Image(RNG.integers(0, 99, (3, 4, 5)).astype("int16"), np.eye(4))
    data = image.to_bytes()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(data[:400]) + gzip.compress(data[400:]) + bytes(16))
    np.testing.assert_array_equal(in_ras(read(path)), image.dataobj)


def good_file(path: Path) -> bytes:
    nib.save(nib.Nifti1Image(RNG.integers(0, 999, (9, 9, 9)).astype("int16"), np.eye(4)), path)
    return path.read_bytes()


def test_damaged_files(tmp_path):
    path = tmp_path / "a.nii.gz"
    data = good_file(path)
    plain = gzip.decompress(data)
    flipped = data[:-6] + bytes([data[-6] ^ 1]) + data[-5:]  # one bit of the CRC-32
    for damaged, message in [
        (data[: len(data) // 2], "is truncated"),
        (data[:-4], "is truncated"),
        (flipped, "gzip stream is damaged"),
        (data[:60] + bytes(20) + data[80:], "gzip stream is damaged"),
        (gzip.compress(plain[:-2]), "is truncated: 1808 bytes where 1810 are announced"),
        (gzip.compress(plain[:300]), "is truncated|is not a NIfTI"),
        (data + b"more", "gzip stream is damaged"),
        (plain[:-2], "is truncated"),
        (b"", "is not a NIfTI"),
        (b"\x1f\x8b", "truncated"),
        (b"no image" * 100, "is not a NIfTI"),
        (gzip.compress(b"no image" * 100), "is not a NIfTI"),
    ]:
        path.write_bytes(damaged)
        with pytest.raises(nifti.Unreadable, match=message):
            read(path)


def test_damaged_headers_are_seen_without_reading_voxels(tmp_path):
    path = tmp_path / "a.nii.gz"
    good_file(path)
    for damaged in (path.read_bytes()[:30], b"\x1f\x8b", b"\x1f\x8b" + bytes(100), b"no image"):
        path.write_bytes(damaged)
        with pytest.raises(nifti.Unreadable):
            read_header(path)


def changed(**fields) -> bytes:
    """A NIfTI-1 file with header fields overwritten."""
    image = nib.Nifti1Image(np.ones((3, 4, 5), np.int16), np.diag([2.0, 2, 2, 1]))
    data = bytearray(image.to_bytes())
    header = np.frombuffer(data, nib.Nifti1Header.template_dtype, 1)
    for field, value in fields.items():
        header[0][field] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"datatype": 32, "bitpix": 64}, "voxels of type complex64"),
        ({"datatype": 128, "bitpix": 24}, "voxels of type"),
        ({"datatype": 9999}, "header is not valid"),
        ({"dim": [4, 3, 4, 5, 2, 1, 1, 1]}, "one 3-D volume"),
        ({"dim": [2, 3, 4, 1, 1, 1, 1, 1]}, "one 3-D volume"),
        ({"dim": [3, 3, -4, 5, 1, 1, 1, 1]}, "one 3-D volume|header is not valid"),
        ({"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]}, "is truncated"),
        ({"magic": b"ni1"}, "pair"),
        ({"srow_x": [0, 0, 0, 0]}, "affine"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "affine"),
        ({"vox_offset": 8}, "header is not valid"),
    ],
)
def test_headers_that_describe_no_volume(tmp_path, fields, message):
    path = tmp_path / "a.nii"
    path.write_bytes(changed(**fields))
    with pytest.raises(nifti.Unreadable, match=message):
        read(path)
