"""What the images of a store are like, kept with a network that was trained on them, to be compared with others later.

A network says something about images of the kind that it has seen, and gives numbers for any. So what it has seen is
written down: where the voxels lie, what the images are called, and what their mean looks like.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from hpc import store
from hpc.errors import InputError
from hpc.files import publish
from udipdist.volumes.grids import common_affine, moved, near
from udipdist.volumes.sources.folder import MODALITY as UNNAMED
from udipdist.volumes.store import VolumeStore

LIKENESS = 0.5  # correlation of two mean thumbnails below which images are not of one kind
_MOST = 256  # scans of which a mean is taken
_CONTRASTS = ("flair", "t1", "t2", "t2star", "pd", "swi", "bold", "dwi", "fa", "md", "ct", "pet")  # the first counts
_SAY_NOTHING = (UNNAMED, "images", "path", "file", "filename", "scan", "volume", "nifti", "img")
_ZOOM = 0.01  # relative, of a voxel's edge


@dataclass(frozen=True, eq=False)
class Description:
    """What is known of the images of a store."""

    modality: str  # as the store calls it
    shape: tuple[int, int, int]
    zooms: tuple[float, float, float]  # mm
    affine: np.ndarray | None  # [4, 4] of most of the volumes; None where most lie elsewhere than that
    thumbnail: np.ndarray | None  # [tx, ty, tz] mean of z-scored scans over blocks; None in stores without

    @classmethod
    def of(cls, volumes: VolumeStore) -> Self:
        """Look at a store that has readable volumes."""
        rows = np.flatnonzero(volumes.valid)
        affines = list(volumes.affines[rows])
        common = common_affine(affines)
        same = sum(moved(volumes.shape, affine, common) <= near(common) for affine in affines)
        return cls(
            modality=str(store.open_group(volumes.path).attrs.get("modality", UNNAMED)),
            shape=volumes.shape,
            zooms=volumes.zooms,
            affine=common if 2 * same > len(affines) or len(affines) == same else None,
            thumbnail=_mean_thumbnail(volumes.path / "thumbnail", rows),
        )

    def save(self, path: Path) -> None:
        """Write NAME.npz, whole or not at all."""
        arrays = {"modality": np.array(self.modality), "shape": np.array(self.shape), "zooms": np.array(self.zooms)}
        arrays |= {name: own for name in ("affine", "thumbnail") if (own := getattr(self, name)) is not None}
        with publish(path) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises InputError where it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            shape, zooms = (found[name].tolist() for name in ("shape", "zooms"))
            return cls(str(found["modality"]), tuple(shape), tuple(zooms), found.get("affine"), found.get("thumbnail"))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: is damaged ({error}); copy the run again, or delete this file") from None

    def differences(self, other: Description) -> dict[str, str]:
        """How `other` differs, in words, by what it is that differs: voxels, origin, modality, kind. The shape is the
        same."""
        found = {}
        if not np.allclose(self.zooms, other.zooms, rtol=_ZOOM, atol=0):
            found["voxels"] = f"voxels of {_by(other.zooms)} mm, not {_by(self.zooms)}"
        if self.affine is None or other.affine is None:
            if (self.affine is None) != (other.affine is None):
                found["origin"] = "no place in space that most share" if other.affine is None else "one place in space"
        elif (away := moved(self.shape, other.affine, self.affine)) > near(self.affine):
            found["origin"] = f"a place in space that is up to {away:.3g} mm away"
        if not _same_modality(self.modality, other.modality):
            found["modality"] = f"modality {other.modality}, not {self.modality}"
        likeness = _likeness(self.thumbnail, other.thumbnail)
        if likeness < LIKENESS:
            found["kind"] = f"a mean image that looks different (correlation {likeness:.2f}, limit {LIKENESS:g})"
        return found


def _mean_thumbnail(path: Path, rows: np.ndarray) -> np.ndarray | None:
    """The mean of some thumbnails, evenly from all rows; None where the store has none."""
    if not path.is_dir() or not len(rows):
        return None
    reader = store.RowReader(path)
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MOST)).astype(int))]
    return np.mean([reader.row(int(i)) for i in chosen], axis=0, dtype=np.float64).astype(np.float32)


def _likeness(one: np.ndarray | None, other: np.ndarray | None) -> float:
    """Correlation of two mean thumbnails where either has foreground; 1 where nothing can be said."""
    if one is None or other is None or one.shape != other.shape:
        return 1.0
    there = (one != 0) | (other != 0)
    a, b = one[there].astype(np.float64), other[there].astype(np.float64)
    if a.size < 2 or not (a.std() > 0 and b.std() > 0):
        return 1.0
    return float(np.corrcoef(a, b)[0, 1])


def _same_modality(one: str, other: str) -> bool:
    """True where two names may be of one modality: T1 and T1w are, as are T2_FLAIR and FLAIR.

    Names that say nothing, such as that of the images of a folder, may be anything.
    """
    a, b = _plain(one), _plain(other)
    return a == b or not a or not b


def _plain(name: str) -> str:
    """The contrast in a name, where it has a known one; '' where it says nothing; else its words without entities."""
    words = [word.removesuffix("w") for word in re.split(r"[_.\s]", name.lower()) if word and "-" not in word]
    known = next((contrast for contrast in _CONTRASTS if contrast in words), None)
    return known or "_".join(word for word in words if word not in _SAY_NOTHING)


def _by(numbers: tuple[float, ...]) -> str:
    return " x ".join(f"{n:.4g}" for n in numbers)
