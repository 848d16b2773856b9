"""How others read a scan for training: the published code, and MONAI's caches where MONAI is installed.

All give the volume as the published code does: float32 [182, 224, 182] (y padded by 3 and 3), z-scored over its
non-zero voxels, background 0, axes as in the file.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

PADDED = (182, 224, 182)


def published(path: Path) -> np.ndarray:
    """What the published code does for each sample of each epoch: get_fdata, and a boolean pass each for the mean,
    the deviation and the z-score."""
    data = nib.load(path).get_fdata()
    data = np.pad(data, ((0, 0), (3, 3), (0, 0)))
    mean, std = data[data != 0].mean(), data[data != 0].std()
    data[data != 0] = (data[data != 0] - mean) / std
    return data.astype(np.float32)


def has_monai() -> bool:
    """Whether MONAI can be imported."""
    return importlib.util.find_spec("monai") is not None


def monai_persistent(paths: Sequence[Path], cache: Path) -> Any:
    """MONAI's dataset that keeps each volume, ready, in a file of its own, written when it is first asked for."""
    from monai.data import PersistentDataset

    cache.mkdir(parents=True)
    return PersistentDataset(_names(paths), _transforms(), cache)


def monai_cached(paths: Sequence[Path]) -> Callable[[], Any]:
    """Call it to make MONAI's dataset that has read all volumes into memory, ready."""
    from monai.data import CacheDataset

    return lambda: CacheDataset(_names(paths), _transforms(), num_workers=None, progress=False)


def _names(paths: Sequence[Path]) -> list[str]:
    return [str(path) for path in paths]


def _transforms() -> Any:
    from monai.transforms import Compose, LoadImage, NormalizeIntensity, SpatialPad

    return Compose([LoadImage(ensure_channel_first=True), SpatialPad(PADDED), NormalizeIntensity(nonzero=True)])
