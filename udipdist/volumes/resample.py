"""A volume and FLIRT's matrix -> the volume on the MNI152 1 mm grid, as `flirt -applyxfm -interp trilinear` makes it.

FLIRT's matrices work on *scaled mm*: voxel indices of the file times the voxel edges, with x counted from the other end
where the voxel-to-world affine has a positive determinant ("neurological" storage), for the source and for the
reference (Jenkinson et al. 2002, NeuroImage 17:825-841; FSL's FLIRT FAQ). The affine's translation and rotation play no
part. Here the voxel edges are those of the affine (its columns' lengths), which a scanner's file has in pixdim too.
"""

from __future__ import annotations

import math

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import inv_ornt_aff

from hpc.compiled import njit
from udipdist.volumes.kernels import background_limit
from udipdist.volumes.nifti import Header, Unreadable

MNI_SHAPE = (182, 218, 182)
MNI_AFFINE = np.array([[1.0, 0, 0, -91], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])  # of the RAS voxels
_TILE = 8  # rows of the source are grouped by 8 x 8 to know where along z they hold nothing
# The template's file is LAS: x of FLIRT's scaled mm runs to the left.
_FLIRT_FROM_RAS = np.array([[-1.0, 0, 0, MNI_SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def to_mni(raw_xyz: np.ndarray, header: Header, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scaled values (raw * slope + inter) on the MNI152 1 mm grid: float32 [182, 218, 182] in RAS order, its affine.

    raw_xyz: stored values in RAS order, in any memory order (x fastest, as in NIfTI files, and views that turn axes
    round cost no copy); matrix: [4, 4] FLIRT's, image -> MNI152. The result has x fastest in memory. Trilinear over
    the image continued by zeros: voxels more than one edge outside of it are exactly 0, as are those among zeros. NaN
    spreads to the neighbours, and so does infinity, in part as NaN. Differs from float64 arithmetic by less than 1e-6
    of the largest value. Raises Unreadable where nothing of the image comes to lie on the grid.
    """
    index = np.linalg.inv(source_to_mni(header, matrix))  # RAS voxels of MNI -> of the source
    for axis in range(3):
        if raw_xyz.strides[axis] < 0:  # read it as it lies, and turn the index round instead
            raw_xyz = np.flip(raw_xyz, axis)
            index[axis] *= -1
            index[axis, 3] += raw_xyz.shape[axis] - 1
    values = np.ascontiguousarray(raw_xyz.T, raw_xyz.dtype.newbyteorder("=")).view()
    values.flags.writeable = False  # of one type for the compiler, wherever they come from
    index = index[[2, 1, 0]][:, [2, 1, 0, 3]]  # from here on axes are in the order of memory: z, y, x
    out = np.zeros(MNI_SHAPE[::-1], np.float32)
    scale = header.slope, header.inter, background_limit(values.dtype, header.slope)
    first, last = _extents(values, *scale)
    filled = first < last
    if filled.any():
        places = np.nonzero(filled)
        low = np.array([places[0].min(), places[1].min(), first[filled].min()])
        high = np.array([places[0].max(), places[1].max(), last[filled].max() - 1]) + 1
        # A border of zeros, 1 voxel below and 2 above, so that no neighbour of what is looked up lies outside.
        crop = np.zeros(high - low + 3, np.float32)
        tiles = _fill(values, *scale, first, last, low, high, crop)
        index[:, 3] -= low - 1
        _sample(crop, tiles, np.ascontiguousarray(index), out)
        if not out.any():
            raise Unreadable("is wholly outside MNI152 by its matrix")
    return out.T, MNI_AFFINE.copy()


def source_to_mni(header: Header, matrix: np.ndarray) -> np.ndarray:
    """[4, 4] RAS voxel indices of an image -> RAS voxel indices of the MNI152 1 mm grid, by FLIRT's matrix."""
    shape = tuple(header.shape[int(axis)] for axis in header.moves[:, 0])  # in the order of the file's axes
    to_file = inv_ornt_aff(header.moves, shape)  # RAS indices -> the file's
    affine = header.affine @ np.linalg.inv(to_file)
    scaled = np.diag([*voxel_sizes(affine), 1.0])
    if np.linalg.det(affine[:3, :3]) > 0:
        scaled[0] = [-scaled[0, 0], 0, 0, (shape[0] - 1) * scaled[0, 0]]
    return np.linalg.inv(_FLIRT_FROM_RAS) @ matrix @ scaled @ to_file


# The kernels call the axes x, y, z in the order of memory: z is the fastest, whichever it is of the brain.


@njit(nogil=True, cache=True)
def _extents(raw: np.ndarray, slope: float, inter: float, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """For each row along z the first voxel that is not background, and one past the last; nz, 0 without any."""
    nx, ny, nz = raw.shape
    first_xy, last_xy = np.full((nx, ny), nz), np.zeros((nx, ny), np.int64)
    for x in range(nx):
        for y in range(ny):
            first, last, row = 0, nz, raw[x, y]
            while first < nz and abs(row[first] * slope + inter) <= limit:
                first += 1
            if first < nz:
                while abs(row[last - 1] * slope + inter) <= limit:
                    last -= 1
                first_xy[x, y], last_xy[x, y] = first, last
    return first_xy, last_xy


@njit(nogil=True, cache=True)
def _fill(
    raw: np.ndarray, slope: float, inter: float, limit: float, first_xy: np.ndarray, last_xy: np.ndarray,
    low: np.ndarray, high: np.ndarray, crop: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Write the scaled values of the box low <= voxel < high from voxel 1 of `crop` on, background as 0.

    Returns for each tile of rows of `crop` where along z it has any: [tiles of x, tiles of y, (first, one past last)].
    """
    tiles = np.zeros((crop.shape[0] // _TILE + 1, crop.shape[1] // _TILE + 1, 2), np.int64)
    tiles[:, :, 0] = crop.shape[2]
    for x in range(low[0], high[0]):
        for y in range(low[1], high[1]):
            i, j, down = x - low[0] + 1, y - low[1] + 1, low[2] - 1
            first, last = first_xy[x, y], last_xy[x, y]
            if first < last:
                row, values = crop[i, j, first - down : last - down], raw[x, y, first:last]
                for k in range(row.size):
                    value = values[k] * slope + inter
                    row[k] = 0.0 if abs(value) <= limit else value
                tile = tiles[i // _TILE, j // _TILE]
                tile[0], tile[1] = min(tile[0], first - down), max(tile[1], last - down)
    return tiles


@njit(nogil=True, cache=True)
def _range_inside(start: float, step: float, end: float, first: int, last: int) -> tuple[int, int]:
    """The part of first <= z < last where 0 <= start + step * z <= end."""
    if step == 0.0:
        return (first, last) if 0.0 <= start <= end else (0, 0)
    enter, leave = -start / step, (end - start) / step
    if step < 0.0:
        enter, leave = leave, enter
    return max(first, math.ceil(min(max(enter, -1.0), 1e9))), min(last, math.floor(max(min(leave, 1e9), -2.0)) + 1)


@njit(nogil=True, cache=True)
def _from_to(a: float, b: float) -> tuple[int, int]:
    """The tiles of the voxels that interpolation looks up between the places a and b, as a range."""
    return int(min(a, b)) // _TILE, (int(max(a, b)) + 1) // _TILE + 1


@njit(nogil=True, cache=True)
def _sample(crop: np.ndarray, tiles: np.ndarray, index: np.ndarray, out: np.ndarray) -> None:
    """Trilinear values of `crop` at index @ (x, y, z, 1) for every voxel of `out`; others are left alone.

    The border of zeros takes up both the continuation by zeros and what rounding does to the ends of a range.
    """
    nx, ny, nz = crop.shape
    flat = crop.reshape(-1)
    one, to_y, to_x, to_xy = np.uintp(1), np.uintp(nz), np.uintp(ny * nz), np.uintp(ny * nz + nz)
    dx, dy, dz = index[0, 2], index[1, 2], index[2, 2]
    for x in range(out.shape[0]):
        for y in range(out.shape[1]):
            x0 = index[0, 0] * x + index[0, 1] * y + index[0, 3]
            y0 = index[1, 0] * x + index[1, 1] * y + index[1, 3]
            z0 = index[2, 0] * x + index[2, 1] * y + index[2, 3]
            first, last = _range_inside(x0, dx, nx - 2.0, 0, out.shape[2])
            first, last = _range_inside(y0, dy, ny - 2.0, first, last)
            first, last = _range_inside(z0, dz, nz - 2.0, first, last)
            if first >= last:
                continue
            low, high = nz, 0  # of the rows of `crop` that the line passes
            i0, i1 = _from_to(x0 + dx * first, x0 + dx * (last - 1))
            j0, j1 = _from_to(y0 + dy * first, y0 + dy * (last - 1))
            for i in range(i0, i1):
                for j in range(j0, j1):
                    low, high = min(low, tiles[i, j, 0]), max(high, tiles[i, j, 1])
            first, last = _range_inside(z0 - low + 1.0, dz, high - low + 1.0, first, last)
            for z in range(first, last):
                cx, cy, cz = x0 + dx * z, y0 + dy * z, z0 + dz * z
                i, j, k = int(cx), int(cy), int(cz)
                at = np.uintp((i * ny + j) * nz + k)  # unsigned: no test for indices from the end
                fx, fy, fz = np.float32(cx - i), np.float32(cy - j), np.float32(cz - k)
                a, b, c = at + to_y, at + to_x, at + to_xy
                v00 = flat[at] + fz * (flat[at + one] - flat[at])
                v01 = flat[a] + fz * (flat[a + one] - flat[a])
                v10 = flat[b] + fz * (flat[b + one] - flat[b])
                v11 = flat[c] + fz * (flat[c + one] - flat[c])
                v0, v1 = v00 + fy * (v01 - v00), v10 + fy * (v11 - v10)
                out[x, y, z] = v0 + fx * (v1 - v0)
