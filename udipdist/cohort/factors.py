"""The brain factors: what each one does to the template, and how much of the image variance it makes.

A factor moves the brain by a smooth displacement, by cortical thickness, or by the intensity of a tissue. The maps
below have convenient sizes; `AMPLITUDES` bring each factor to its share of image variance. They were computed once by
`python -m udipdist.cohort.calibrate`, which prints this table again. The shares fall steeply from head size down to
the caudate: with equal shares nothing is learnt from a few thousand people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from udipdist.cohort.template import CENTRE, CONTROL_MM, Template, control_axes, sample_half

# Target share of the variance of z-scored voxels at 4 mm, per cent.
SHARES = {
    "size": 9.0, "thick_global": 8.0, "int_gm": 7.0, "shape00": 6.5, "ventricles": 5.5, "int_wm_ap": 5.0,
    "shape01": 5.0, "length": 4.2, "thick_frontal": 4.0, "int_wm_pv": 3.6, "shape02": 3.2, "torque": 2.8,
    "thick_occipital": 2.5, "width": 2.2, "shape03": 2.0, "int_putamen": 1.5, "callosum": 1.2, "int_thalamus": 1.0,
    "cerebellum": 0.8, "thick_temporal": 0.8, "frontal": 0.7, "brainstem": 0.4, "hippocampus": 0.3, "caudate": 0.2,
}  # fmt: skip
NAMES = tuple(SHARES)

AMPLITUDES = {
    "size": 1.848, "thick_global": 1.454, "int_gm": 2.676, "shape00": 1.008, "ventricles": 2.604, "int_wm_ap": 1.832,
    "shape01": 0.8211, "length": 1.73, "thick_frontal": 1.476, "int_wm_pv": 2.722, "shape02": 0.4907, "torque": 2.014,
    "thick_occipital": 1.288, "width": 1.377, "shape03": 0.466, "int_putamen": 2.665, "callosum": 2.358,
    "int_thalamus": 2.545, "cerebellum": 2.215, "thick_temporal": 1.128, "frontal": 1.231, "brainstem": 2.409,
    "hippocampus": 2.721, "caudate": 2.212,
}  # fmt: skip

# Structures that expand about a centre (mm; mirrored where x is not 0): centre, widths, strain.
_EXPANSIONS = {
    "cerebellum": ((22, -62, -36), (20, 18, 16), 0.075),
    "brainstem": ((0, -30, -36), (12, 12, 20), 0.09),
    "hippocampus": ((27, -22, -14), (8, 14, 8), 0.16),
    "caudate": ((13, 12, 10), (6, 12, 8), 0.14),
    "callosum": ((0, -8, 24), (14, 34, 9), 0.10),
    "frontal": ((22, 50, 10), (22, 18, 24), 0.08),
}
# Lobes whose cortex thickens: centre, widths.
_THICKNESS = {
    "thick_frontal": ((25, 40, 20), (28, 26, 28)),
    "thick_occipital": ((15, -85, 5), (22, 20, 24)),
    "thick_temporal": ((48, -15, -18), (20, 28, 18)),
}
_SHAPE_SMOOTHNESS_MM = {"shape00": 34.0, "shape01": 34.0, "shape02": 26.0, "shape03": 26.0}
_SHAPE_SEED = 7  # of the random shape modes: they are part of the anatomy, not of a cohort


@dataclass(frozen=True)
class FactorMaps:
    """What one SD of each factor adds on the control lattice [x, y, z] (C points), float32, in the order of NAMES.

    A voxel at p shows the template at p + displacement.
    """

    displacement: np.ndarray  # [K, 3 C] mm
    thickness: np.ndarray  # [K, C] half the fall of the log odds of csf against grey matter
    grey: np.ndarray  # [K, C] added to the intensity of grey matter
    white: np.ndarray  # [K, C] added to the intensity of white matter

    @classmethod
    def build(cls, template: Template, amplitudes: dict[str, float]) -> FactorMaps:
        """The maps of every factor, scaled by its amplitude."""
        x, y, z = np.meshgrid(*control_axes(), indexing="ij")
        lattice = np.stack([x, y, z])
        parts = _displacements(lattice, template)
        parts |= {("thickness", name): value for name, value in _thicknesses(lattice).items()}
        parts |= _intensities(lattice, template)
        stacks = {
            kind: np.zeros((len(NAMES), (3 if kind == "displacement" else 1) * x.size), np.float32)
            for kind in ("displacement", "thickness", "grey", "white")
        }
        for (kind, name), value in parts.items():
            stacks[kind][NAMES.index(name)] = amplitudes[name] * value.reshape(-1)
        return cls(**stacks)


def _bumps(lattice: np.ndarray, centre: tuple, widths: tuple) -> list[tuple[np.ndarray, np.ndarray]]:
    """Gaussian bumps at a centre and at its mirror image, each with the offsets from its centre [3, x, y, z]."""
    bumps = []
    for side in (1, -1) if centre[0] else (1,):
        offset = lattice - (np.array(centre, float) * (side, 1, 1))[:, None, None, None]
        scaled = offset / np.array(widths, float)[:, None, None, None]
        bumps.append((np.exp(-0.5 * (scaled**2).sum(0)), offset))
    return bumps


def _expansion(lattice: np.ndarray, centre: tuple, widths: tuple, strain: float, mirror: int = 1) -> np.ndarray:
    """Displacement that makes a structure larger; `mirror` -1 makes its twin smaller."""
    field = np.zeros_like(lattice)
    for sign, (bump, offset) in zip((1, mirror), _bumps(lattice, centre, widths), strict=False):
        field -= sign * strain * bump * offset
    return field


def _displacements(lattice: np.ndarray, template: Template) -> dict[tuple[str, str], np.ndarray]:
    from_centre = lattice - CENTRE[:, None, None, None]
    fields = {"size": -0.018 * from_centre}
    for name, axis, strain in (("width", 0, 0.02), ("length", 1, 0.018)):
        fields[name] = np.zeros_like(lattice)
        fields[name][axis] = -strain * lattice[axis]
    fields["ventricles"] = 2.6 * _ventricle_field(template)
    fields["torque"] = _expansion(lattice, (30, 45, 5), (24, 26, 30), 0.04, -1) + _expansion(
        lattice, (25, -75, 5), (22, 26, 28), -0.04, -1
    )
    for name, (centre, widths, strain) in _EXPANSIONS.items():
        fields[name] = _expansion(lattice, centre, widths, strain)
    rng = np.random.default_rng(_SHAPE_SEED)
    for name, smoothness in _SHAPE_SMOOTHNESS_MM.items():
        noise = rng.standard_normal(lattice.shape)
        # mode "wrap": "nearest" piles up variance in the corners of the lattice
        mode = np.stack([ndimage.gaussian_filter(c, smoothness / CONTROL_MM, mode="wrap") for c in noise])
        fields[name] = mode / mode.std()
    return {("displacement", name): field for name, field in fields.items()}


def _ventricle_field(template: Template) -> np.ndarray:
    """Tissue moves away from the ventricles along the gradient of their distance; fades over 9 mm."""
    distance = template.ventricle_distance
    reach = np.exp(-np.clip(distance, 0, None) / 9) * np.clip((distance + 6) / 6, 0, 1)
    gradient = np.gradient(distance, 2.0)
    return np.stack([sample_half(-component * reach) for component in gradient])


def _thicknesses(lattice: np.ndarray) -> dict[str, np.ndarray]:
    maps = {"thick_global": np.full(lattice.shape[1:], 0.35)}
    for name, (centre, widths) in _THICKNESS.items():
        maps[name] = 0.55 * sum(bump for bump, _ in _bumps(lattice, centre, widths))
    return maps


def _intensities(lattice: np.ndarray, template: Template) -> dict[tuple[str, str], np.ndarray]:
    near_ventricles = np.exp(-np.clip(template.ventricle_distance, 0, None) / 6)
    putamen = sum(bump for bump, _ in _bumps(lattice, (24, 3, 0), (9, 14, 9)))
    thalamus = sum(bump for bump, _ in _bumps(lattice, (11, -18, 8), (9, 11, 9)))
    return {
        ("grey", "int_gm"): np.full(lattice.shape[1:], 0.035),
        ("grey", "int_putamen"): 0.10 * putamen,
        ("grey", "int_thalamus"): 0.08 * thalamus,
        ("white", "int_wm_ap"): 0.035 * np.tanh((lattice[1] + 15) / 40),
        ("white", "int_wm_pv"): -0.09 * sample_half(near_ventricles),
    }
