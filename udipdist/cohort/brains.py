"""T1-like volumes: the template warped and shaded by the factors, then scanned.

A person's anatomy is drawn before the scanner's noise and on a lattice in millimetres, so it is the same at every
resolution. Each person is rendered alone: the result does not depend on who else is rendered.

Shapes: K factors, C points of the control lattice, P voxels inside the dilated brain.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from hpc.compiled import njit
from hpc.files import publish
from udipdist.cohort.factors import AMPLITUDES, FactorMaps
from udipdist.cohort.template import (
    BOX_ORIGIN,
    CENTRE,
    CONTROL_MM,
    INTENSITY,
    SHAPES,
    Template,
    affine,
    axes,
    bspline_matrix,
    control_axes,
)
from udipdist.config import BrainConfig

STORED_WHITE = 1000.0  # stored integer value of intensity 1
# Smoothness (SD of a Gaussian kernel, mm) of the fields that no factor explains; the bias field is the smoothest.
WARP_MM, FINE_WARP_MM, THICKNESS_MM, BIAS_MM = 26.0, 13.0, 14.0, 45.0
FINE_WARP, THICKNESS = 0.8, 0.15  # SD relative to BrainConfig.idiosyncratic_mm (mm; log odds per mm)
CHANNELS = 7  # displacement x y z, thickness, grey, white, log bias


@dataclass(frozen=True)
class Scan:
    """How one person was scanned. Angles in radians, lengths in mm."""

    rotation: np.ndarray  # [3]
    translation: np.ndarray  # [3]
    contrast: float  # added to the intensity of grey matter
    gain: float
    noise: float  # SD at 1 mm
    bias: float  # SD of the log of the bias field
    warp: float  # SD of the deformation that no factor explains, mm


@dataclass(frozen=True)
class Site:
    """A scanner: contrast, gain and noise of its images."""

    contrast: float
    gain: float
    noise: float


SITES = (Site(0.0, 1.0, 0.02), Site(0.03, 1.06, 0.035), Site(-0.03, 0.95, 0.025), Site(0.015, 1.03, 0.045))


def draw_scan(config: BrainConfig, site: int, age_sd: float, rng: np.random.Generator) -> Scan:
    """The scan of one person: residual pose, scanner, noise; old people (`age_sd` from the mean) move more."""
    restless = np.exp(0.1 * age_sd)
    scanner = SITES[site]
    return Scan(
        rotation=np.deg2rad(config.pose_deg) * restless * rng.standard_normal(3),
        translation=config.pose_mm * rng.standard_normal(3),
        contrast=scanner.contrast + 0.008 * rng.standard_normal(),
        gain=scanner.gain * np.exp(0.03 * rng.standard_normal()),
        noise=config.noise * scanner.noise * np.exp(0.15 * age_sd),
        bias=config.bias_field,
        warp=config.idiosyncratic_mm,
    )


class _SmoothField:
    """White noise on a coarse lattice, spread by cubic B-splines to the control lattice: unit variance on average."""

    def __init__(self, smoothness: float):
        spacing = np.sqrt(3) * smoothness  # the B-spline has the SD spacing / sqrt(3)
        self.matrices = []
        for points in control_axes():
            count = int(np.ceil((points[-1] - points[0]) / spacing)) + 4
            self.matrices.append(bspline_matrix(points, points[0] - spacing * 1.5, spacing, count))
        self.shape = tuple(m.shape[1] for m in self.matrices)
        self.scale = 1 / np.sqrt(np.prod([(m.astype(np.float64) ** 2).sum(1).mean() for m in self.matrices]))

    def draw(self, channels: int, rng: np.random.Generator) -> np.ndarray:
        """float32 [channels, x, y, z] on the control lattice."""
        noise = rng.standard_normal((channels, *self.shape), dtype=np.float32)
        return spread(noise, self.matrices) * np.float32(self.scale)


def spread(coefficients: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """Separable products along x, y, z: [channels, a, b, c] -> [channels, x, y, z], float32."""
    mx, my, mz = matrices
    channels, a, b, c = coefficients.shape
    values = coefficients.reshape(-1, c) @ mz.T
    values = np.matmul(my, values.reshape(channels, a, b, -1))
    return np.matmul(mx, values.reshape(channels, a, -1)).reshape(channels, len(mx), len(my), len(mz))


class BrainModel:
    """Everything needed to render people at one resolution."""

    def __init__(self, resolution: int, amplitudes: dict[str, float] = AMPLITUDES):
        template = Template.load()
        self.resolution, self.shape, self.affine = resolution, SHAPES[resolution], affine(resolution)
        maps = FactorMaps.build(template, amplitudes)
        self.maps = {  # only the factors that a channel has
            name: (rows := np.flatnonzero(value.any(1)), np.ascontiguousarray(value[rows]))
            for name, value in vars(maps).items()
        }
        self.lattice = tuple(len(a) for a in control_axes())
        self.fields = {mm: _SmoothField(mm) for mm in (WARP_MM, FINE_WARP_MM, THICKNESS_MM, BIAS_MM)}
        self.matrices = [
            bspline_matrix(points, control[0], CONTROL_MM, len(control))
            for points, control in zip(axes(resolution), control_axes(), strict=True)
        ]
        self.step = max(1, resolution // 2)  # of the stored template, half the voxel size
        blur = 0.0 if resolution == 1 else 0.42 * resolution  # the point spread of a coarse voxel
        channels = template.channels if not blur else ndimage.gaussian_filter(template.channels, (blur,) * 3 + (0,))
        self.template = np.ascontiguousarray(channels[:: self.step, :: self.step, :: self.step])
        self.voxels = self._voxels_near(template.brain)

    def _voxels_near(self, brain: np.ndarray) -> np.ndarray:
        """Flat indices of the voxels within 7 mm of the template's brain: nobody's brain reaches further."""
        half = brain[::2, ::2, ::2]
        near = (2 * ndimage.distance_transform_edt(~half) <= 7).astype(np.float32)
        places = np.meshgrid(
            *((a - o) / 2 for a, o in zip(axes(self.resolution), BOX_ORIGIN, strict=True)), indexing="ij"
        )
        return np.flatnonzero(ndimage.map_coordinates(near, places, order=1, mode="constant") > 0.3)

    def render(self, factors_K: np.ndarray, scan: Scan, rng: np.random.Generator) -> np.ndarray:
        """One volume, float32 [x, y, z], intensity 1 about white; exactly 0 outside the brain.

        `rng` must be the person's own.
        """
        intensity, tissue = self._scan(self._fields(factors_K, scan, rng), scan)
        sd = np.float32(scan.noise / self.resolution**0.75)
        noise = sd * rng.standard_normal((2, len(self.voxels)), dtype=np.float32)
        intensity = np.hypot(intensity + noise[0], noise[1])  # a magnitude image has Rician noise
        volume = np.zeros(int(np.prod(self.shape)), np.float32)
        volume[self.voxels] = np.where(tissue > 0.5, np.maximum(intensity, 1 / STORED_WHITE), 0)
        return volume.reshape(self.shape)

    def _fields(self, factors_K: np.ndarray, scan: Scan, rng: np.random.Generator) -> np.ndarray:
        """The seven fields at every voxel of the grid, float32 [7, x, y, z]."""
        low = np.zeros((CHANNELS, *self.lattice), np.float32)
        for name, channels in (("displacement", slice(0, 3)), ("thickness", 3), ("grey", 4), ("white", 5)):
            rows, value = self.maps[name]
            low[channels] = (factors_K[rows].astype(np.float32) @ value).reshape(low[channels].shape)
        low[0:3] += np.float32(scan.warp) * self.fields[WARP_MM].draw(3, rng)
        low[0:3] += np.float32(FINE_WARP * scan.warp) * self.fields[FINE_WARP_MM].draw(3, rng)
        low[3] += np.float32(THICKNESS * scan.warp) * self.fields[THICKNESS_MM].draw(1, rng)[0]
        low[6] = np.float32(scan.bias) * self.fields[BIAS_MM].draw(1, rng)[0]
        return spread(low, self.matrices)

    def _scan(self, fields: np.ndarray, scan: Scan) -> tuple[np.ndarray, np.ndarray]:
        """Noise-free intensity and amount of brain at `voxels`, float32 [P] each."""
        return _sample(
            fields.reshape(CHANNELS, -1), self.voxels, np.array(self.shape), self.affine[:3, 3], float(self.resolution),
            self.template, BOX_ORIGIN, float(self.step), _rotation(scan.rotation), CENTRE, scan.translation,
            INTENSITY["csf"], INTENSITY["gm"] + scan.contrast, INTENSITY["wm"], scan.gain,
        )  # fmt: skip

    def save(self, volume: np.ndarray, path: Path) -> None:
        """Publish a volume as int16 .nii.gz; the same volume gives the same bytes."""
        stored = np.round(volume * STORED_WHITE).clip(0, 32767).astype(np.int16)
        image = nib.Nifti1Image(stored, self.affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(self.affine, code=4)  # MNI152
        image.set_qform(self.affine, code=4)
        with publish(path) as partial:
            partial.write_bytes(gzip.compress(image.to_bytes(), compresslevel=4, mtime=0))


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Rz Ry Rx of three angles in radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return rz @ ry @ rx


@njit(cache=True, error_model="numpy")
def _sample(
    fields, voxels, shape, origin, resolution, template, box_origin, step, rotation, centre, shift, csf_mean, gm_mean,
    wm_mean, gain,
):  # fmt: skip
    """The template's channels at each voxel's displaced and posed place (trilinear), mixed to an intensity."""
    intensity = np.zeros(len(voxels), np.float32)
    tissue = np.zeros(len(voxels), np.float32)
    place = np.empty(3)
    base = np.empty(3, np.int64)
    part = np.empty(3)
    value = np.empty(4)
    for p in range(len(voxels)):
        v = voxels[p]
        place[0] = origin[0] + resolution * (v // (shape[1] * shape[2])) + fields[0, v] - centre[0]
        place[1] = origin[1] + resolution * (v // shape[2] % shape[1]) + fields[1, v] - centre[1]
        place[2] = origin[2] + resolution * (v % shape[2]) + fields[2, v] - centre[2]
        inside = True
        for a in range(3):
            mm = rotation[a, 0] * place[0] + rotation[a, 1] * place[1] + rotation[a, 2] * place[2]
            index = (mm + centre[a] + shift[a] - box_origin[a]) / step
            base[a] = int(np.floor(index))
            part[a] = index - base[a]
            inside = inside and 0 <= base[a] < template.shape[a] - 1
        if not inside:
            continue
        value[:] = 0.0
        for i in range(2):
            for j in range(2):
                for k in range(2):
                    w = (part[0] if i else 1 - part[0]) * (part[1] if j else 1 - part[1])
                    w *= part[2] if k else 1 - part[2]
                    for c in range(4):
                        value[c] += w * template[base[0] + i, base[1] + j, base[2] + k, c]
        amount = value[0] + value[1] + value[2]
        csf = value[0] * np.exp(-2.0 * fields[3, v])  # thickness: csf gives way to tissue
        share = amount / max(csf + value[1] + value[2], 1e-4)
        mixed = csf_mean * csf + (gm_mean + fields[4, v]) * value[1] + (wm_mean + fields[5, v]) * value[2]
        intensity[p] = (mixed * share + value[3]) * np.exp(fields[6, v]) * gain
        tissue[p] = amount
    return intensity, tissue
