"""Brain masks that are applied to images when they are read: what is outside of the mask becomes background."""

from __future__ import annotations

import numpy as np

from udipdist.volumes import kernels, nifti
from udipdist.volumes.grids import moved, near
from udipdist.volumes.sources import Scan

_BRAIN = 0.5  # a mask has brain where its value is this or more: 0 and 1, shares, and labels are all read


def applied(values: np.ndarray, header: nifti.Header, scan: Scan) -> np.ndarray:
    """Stored values of an image [z, y, x] in RAS order, with background where the mask of `scan` has no brain.

    Raises Unreadable where the mask cannot be read, is empty, or is not on the grid of the image.
    """
    assert scan.mask is not None
    try:
        brain = _brain(scan, header)
    except nifti.Unreadable as error:
        raise nifti.Unreadable(f"its mask {scan.mask.name} {error}") from None
    return np.where(brain, values, _background(values.dtype, header))


def _brain(scan: Scan, header: nifti.Header) -> np.ndarray:
    """Where the mask has brain, bool [z, y, x] in RAS order. Raises Unreadable."""
    assert scan.mask is not None
    mask = nifti.read(scan.read_mask(), scan.mask.name)
    own = mask.header
    if own.shape != header.shape:
        raise nifti.Unreadable(f"has the shape {own.shape} in RAS order, and the image {header.shape}")
    away = moved(header.shape, own.affine, header.affine)
    if away > near(header.affine):
        raise nifti.Unreadable(f"lies elsewhere than the image: its affine is up to {away:.3g} mm away")
    brain = nifti.turned(*mask.up_to_flips()).astype(np.float64) * own.slope + own.inter >= _BRAIN
    if not brain.any():
        raise nifti.Unreadable("has no brain: no value is 0.5 or more")
    return brain


def _background(dtype: np.dtype, header: nifti.Header) -> np.generic:
    """The stored value that stands for 0. Raises Unreadable where the type has none."""
    zero = -header.inter / header.slope
    if dtype.kind == "f":
        value = dtype.type(zero)
        limit = 0.0
    else:
        bounds = np.iinfo(dtype)
        value = dtype.type(min(max(round(zero), bounds.min), bounds.max))
        limit = kernels.background_limit(dtype, header.slope)
    if kernels.foreground(np.array(value), header.slope, header.inter, limit):
        raise nifti.Unreadable(
            f"cannot be applied: the image, {dtype} with slope {header.slope:g} and intercept {header.inter:g}, has no "
            "value for 0; save it without scale factors"
        )
    return value
