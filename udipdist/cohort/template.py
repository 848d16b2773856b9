"""The MNI152 template that nilearn ships, read from the installed package, and the lattices that volumes live on.

All places are in MNI millimetres, RAS+. The template is symmetric to the eye, skull-stripped, 1 mm.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from hpc.errors import InputError

BOX_SHAPE = (182, 218, 182)  # 1 mm voxels, the field of view of UK Biobank's registered T1
BOX_ORIGIN = np.array([-91.0, -126.0, -72.0])  # centre of the first 1 mm voxel
CENTRE = np.array([0.0, -18.0, 8.0])  # of the brain
CONTROL_MM = 8.0  # spacing of the control lattice of smooth fields
# Voxels at each resolution: coarse ones are padded to a multiple of 8 or 4, so that patches fit.
SHAPES = {1: (182, 218, 182), 2: (91, 109, 91), 4: (48, 56, 48), 6: (32, 40, 32), 8: (24, 28, 24)}
# Mean T1 intensity of a tissue, as a share of white.
INTENSITY = {"csf": 0.26, "gm": 0.635, "wm": 0.875}


def affine(resolution: int) -> np.ndarray:
    """Voxel -> MNI mm, float64 [4, 4]. Coarse grids are centred on the 1 mm box."""
    middle = BOX_ORIGIN + (np.array(BOX_SHAPE) - 1) / 2
    result = np.diag([float(resolution)] * 3 + [1.0])
    result[:3, 3] = middle - (np.array(SHAPES[resolution]) - 1) / 2 * resolution
    return result


def axes(resolution: int) -> list[np.ndarray]:
    """Centres of the voxels along x, y, z in mm."""
    place = affine(resolution)
    return [place[a, 3] + resolution * np.arange(SHAPES[resolution][a]) for a in range(3)]


def control_axes() -> list[np.ndarray]:
    """Points of the control lattice along x, y, z in mm."""
    return [
        np.arange(o - CONTROL_MM, o + size + CONTROL_MM, CONTROL_MM)
        for o, size in zip(BOX_ORIGIN, BOX_SHAPE, strict=True)
    ]


def bspline_matrix(points: np.ndarray, first: float, spacing: float, count: int) -> np.ndarray:
    """Weights of a uniform cubic B-spline, float32 [points, count]: values at `points` = matrix @ coefficients."""
    t = (np.asarray(points) - first) / spacing
    cell = np.floor(t).astype(int)
    f = t - cell
    weights = ((1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3)
    matrix = np.zeros((len(t), count))
    for k, w in enumerate(weights):
        np.add.at(matrix, (np.arange(len(t)), np.clip(cell - 1 + k, 0, count - 1)), w / 6)
    return matrix.astype(np.float32)


@dataclass(frozen=True)
class Template:
    """T1 and tissue maps on the 1 mm box, float32 in 0..1, zero outside the brain."""

    t1: np.ndarray
    gm: np.ndarray
    wm: np.ndarray
    brain: np.ndarray  # bool

    @classmethod
    def load(cls) -> Template:
        """Read from the installed nilearn. Raises InputError where its files are not as expected."""
        t1, gm, wm = (_read(kind) for kind in ("t1", "gm", "wm"))
        brain = ndimage.binary_fill_holes(ndimage.binary_opening(t1 > 0.12, iterations=2))
        return cls(t1, gm * brain, wm * brain, brain)

    @cached_property
    def csf(self) -> np.ndarray:
        """What is neither grey nor white matter inside the brain."""
        return np.where(self.brain, np.clip(1 - self.gm - self.wm, 0, 1), 0).astype(np.float32)

    @cached_property
    def channels(self) -> np.ndarray:
        """csf, gm, wm and what they leave unexplained of the T1: float32 [x, y, z, 4]."""
        explained = INTENSITY["csf"] * self.csf + INTENSITY["gm"] * self.gm + INTENSITY["wm"] * self.wm
        rest = np.where(self.brain, self.t1 - explained, 0)
        return np.stack([self.csf, self.gm, self.wm, rest], -1).astype(np.float32)

    @cached_property
    def ventricle_distance(self) -> np.ndarray:
        """Signed distance in mm to the ventricles (negative inside), smoothed, on every second voxel."""
        half = (slice(None, None, 2),) * 3
        csf, brain = self.csf[half] > 0.6, self.brain[half]
        x, y, z = np.meshgrid(
            *(o + 2 * np.arange(n) for o, n in zip(BOX_ORIGIN, csf.shape, strict=True)), indexing="ij"
        )
        box = (np.abs(x) < 40) & (y > -52) & (y < 38) & (z > -18) & (z < 36)
        labels, count = ndimage.label(csf & ndimage.binary_erosion(brain, iterations=6) & box)
        sizes = ndimage.sum_labels(np.ones_like(labels), labels, range(1, count + 1))
        ventricle = np.isin(labels, 1 + np.flatnonzero(sizes > 40))
        distance = ndimage.distance_transform_edt(~ventricle) - ndimage.distance_transform_edt(ventricle)
        return ndimage.gaussian_filter(2 * distance, 1.5).astype(np.float32)


def sample_half(values: np.ndarray) -> np.ndarray:
    """A map on every second voxel of the box, smoothed and sampled on the control lattice."""
    smooth = ndimage.gaussian_filter(values.astype(np.float32), 1.5)
    places = np.meshgrid(*((a - o) / 2 for a, o in zip(control_axes(), BOX_ORIGIN, strict=True)), indexing="ij")
    return ndimage.map_coordinates(smooth, places, order=1, mode="nearest")


def _read(kind: str) -> np.ndarray:
    spec = importlib.util.find_spec("nilearn")  # found, not imported: that would take two seconds
    if spec is None or spec.origin is None:
        raise InputError(
            "nilearn is not installed, and the simulated brains are made from its template; pip install nilearn"
        )
    path = Path(spec.origin).parent / "datasets" / "data" / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    if not path.exists():
        raise InputError(f"{path}: nilearn's template does not exist; pip install 'nilearn>=0.12'")
    image = nib.load(path)
    first = BOX_ORIGIN - image.affine[:3, 3]
    if not np.array_equal(image.affine[:3, :3], np.eye(3)) or (first < 0).any() or (first % 1).any():
        raise InputError(f"{path}: is not the 1 mm RAS template of nilearn 0.12; pip install 'nilearn>=0.12'")
    box = tuple(slice(int(a), int(a) + n) for a, n in zip(first, BOX_SHAPE, strict=True))
    return np.asarray(image.dataobj, np.float32)[box] / 255
