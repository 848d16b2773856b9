"""What will become of a cohort's files, from their headers: one grid and one type of voxels for each modality."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from hpc.errors import ConfigError, InputError, some
from hpc.progress import Progress
from udipdist.config import IngestConfig
from udipdist.volumes import nifti
from udipdist.volumes.resample import MNI_AFFINE, MNI_SHAPE
from udipdist.volumes.sources import Cohort, Scan, Source, list_cohort

AFFINE_DIGITS = 3  # of mm: affines that agree so far are of one grid
ELSEWHERE = "lies elsewhere than most"
_SAME_PLACE = 0.1  # of a voxel's edge
_RESERVED = ("parts", "packed")  # folders of a store
_PACKED_SHARE = 0.25  # about what compression leaves of a brain in a grid


@dataclass(frozen=True)
class Grid:
    """What all volumes of a modality have in common in the store."""

    modality: str
    shape: tuple[int, int, int]
    dtype: np.dtype  # holds the stored values of every file exactly
    affine: np.ndarray  # [4, 4] voxel -> mm, of most of the files


@dataclass(frozen=True)
class Described:
    """What the header of one image says, or why it cannot be used; the header may be there all the same."""

    source: Source
    modality: str
    scan: Scan
    header: nifti.Header | None
    reason: str


class Refused(InputError):
    """A cohort that cannot become a store because of what its headers say."""

    def __init__(self, message: str, described: Sequence[Described]):
        super().__init__(message)
        self.described = described


@dataclass(frozen=True)
class Plan:
    """A cohort, the grid of each of its modalities, and what the headers say beside."""

    cohort: Cohort
    grids: tuple[Grid, ...]
    unusable: list[str]  # names of files that cannot go into the store
    orientations: Counter[str]
    bytes: int  # estimate of the store's size

    @property
    def scans(self) -> int:
        """How many images there should be."""
        return len(self.cohort.sources) * len(self.grids)


def make_plan(config: IngestConfig) -> Plan:
    """Read every header. Raises InputError where the files cannot become one store, and Refused where that is because
    of their headers."""
    cohort = list_cohort(config.volumes, config.layout, config.modalities, config.mask)
    wrong = sorted(set(cohort.modalities) & set(_RESERVED)) if len(cohort.modalities) > 1 else []
    if wrong:
        raise ConfigError(f"modalities: {some(wrong)} is the name of another folder of the store; rename the column")
    described = _describe(cohort, "orientation" in config.allow)
    grids, unusable, size = [], [], 10_000_000
    for modality in cohort.modalities:
        seen = [one for one in described if one.modality == modality]
        usable = {one.scan: one.header for one in seen if one.header is not None and not one.reason}
        if not usable:
            raise Refused(
                f"{config.volumes}: none of {len(seen)} files can be read; the first, {seen[0].scan.name}: "
                f"{seen[0].reason}",
                described,
            )
        shape = _common_shape(usable)
        odd = [scan for scan, header in usable.items() if header.shape != shape]
        unusable += [one.scan.name for one in seen if one.scan not in usable] + [scan.name for scan in odd]
        fitting = {scan: header for scan, header in usable.items() if header.shape == shape}
        dtype, affine = _common_dtype(fitting), common_affine([header.affine for header in fitting.values()])
        grids.append(Grid(modality, shape, dtype, affine))
        if "affines" not in config.allow:
            _require_one_place(config, grids[-1], fitting, described)
        size += round(1.2 * sum(_stored_size(scan, header, dtype) for scan, header in fitting.items()))
    orientations = Counter(one.header.orientation for one in described if one.header is not None)
    return Plan(cohort, tuple(grids), unusable, orientations, size)


def read_header(scan: Scan) -> nifti.Header:
    """What a scan will be in the store: as its header says, or float32 in MNI where a matrix takes it there.

    Raises Unreadable.
    """
    header = nifti.read_header(scan.read_start(nifti.START), scan.name)
    return header if scan.matrix is None else in_mni(header)


def in_mni(header: nifti.Header) -> nifti.Header:
    """The header of an image after `resample.to_mni`; the orientation stays that of the file."""
    return replace(header, shape=MNI_SHAPE, dtype=np.dtype(np.float32), affine=MNI_AFFINE, slope=1.0, inter=0.0)


def _describe(cohort: Cohort, any_orientation: bool) -> list[Described]:
    """The header of each image that there is. Threads, because a network file system answers slowly."""

    def one(image: tuple[str, Source, Scan]) -> Described:
        modality, source, scan = image
        header = None
        try:
            header = read_header(scan)
            if not any_orientation:
                nifti.require_orientation(header)
        except nifti.Unreadable as error:
            return Described(source, modality, scan, header, str(error))
        return Described(source, modality, scan, header, "")

    images = [
        (modality, source, scan)
        for m, modality in enumerate(cohort.modalities)
        for source in cohort.sources
        if (scan := source.scans[m]) is not None
    ]
    described = []
    with ThreadPoolExecutor(8) as threads, Progress("reading headers", len(images), "files") as progress:
        for header in threads.map(one, images):
            described.append(header)
            progress.advance()
    return described


def _require_one_place(
    config: IngestConfig, grid: Grid, fitting: dict[Scan, nifti.Header], described: Sequence[Described]
) -> None:
    """Raises Refused where no place in space is that of most files."""
    away = {scan: moved(grid.shape, header.affine, grid.affine) for scan, header in fitting.items()}
    apart = {scan: mm for scan, mm in away.items() if mm > near(grid.affine)}
    if not apart or 2 * len(apart) < len(fitting):
        return
    said = [replace(one, reason=elsewhere(apart[one.scan])) if one.scan in apart else one for one in described]
    names, farthest = some([scan.name for scan in apart]), max(away.values())
    raise Refused(
        f"volumes={config.volumes}: {len(apart)} of {len(fitting)} files lie elsewhere than the most frequent place "
        f"(by their affines up to {farthest:.3g} mm away: {names}), so a voxel is not the same place of the brain in "
        "different people. Are these images in native space? Register them to one grid (MNI152), or type "
        "allow=[affines] to compare voxel by voxel all the same",
        said,
    )


def elsewhere(mm: float) -> str:
    """What is said of a scan whose affine puts it `mm` away from most."""
    return f"{ELSEWHERE}: its affine is up to {mm:.3g} mm away"


def near(affine: np.ndarray) -> float:
    """How many mm apart two grids are the same for our purposes: a tenth of a voxel's edge."""
    return _SAME_PLACE * float(np.linalg.norm(affine[:3, :3], axis=0).min())


def moved(shape: Sequence[int], one: np.ndarray, other: np.ndarray) -> float:
    """How far, in mm, two affines [4, 4] put the corner of a volume apart at which they differ most."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(shape) - 1)
    away = corners @ (one - other)[:3, :3].T + (one - other)[:3, 3]
    return float(np.linalg.norm(away, axis=1).max())


def _common_shape(usable: dict[Scan, nifti.Header]) -> tuple[int, int, int]:
    """The shape of most of the files. Raises InputError where no shape has more than half of them."""
    names: dict[tuple[int, int, int], list[str]] = {}
    for scan, header in usable.items():
        names.setdefault(header.shape, []).append(scan.name)
    kinds = sorted(names.items(), key=lambda item: -len(item[1]))
    shape, group = kinds[0]
    if 2 * len(group) <= len(usable) and len(kinds) > 1:
        listed = "; ".join(f"{shape}: {len(group)} files ({some(group, 3)})" for shape, group in kinds[:6])
        raise InputError(
            f"the volumes have {len(names)} different shapes in RAS order, and none of them has most of the files: "
            f"{listed}. A store holds one shape: register them all to one grid, or ingest each shape into its own store"
        )
    return shape


def _common_dtype(usable: dict[Scan, nifti.Header]) -> np.dtype:
    """The type that holds the stored values of every file exactly."""
    kinds = {header.dtype for header in usable.values()}
    common = np.result_type(*kinds)
    if common.kind == "f" and any(kind.kind in "iu" and kind.itemsize == 8 for kind in kinds):
        raise InputError(
            f"the volumes have voxels of types {some(sorted(map(str, kinds)), 9)}, which no one type holds exactly; "
            "save the 64-bit integers as int32 or float64"
        )
    return common


def common_affine(affines: Sequence[np.ndarray]) -> np.ndarray:
    """The affine that most files have, to AFFINE_DIGITS; of several as frequent the first."""
    rounded = [tuple((affine.round(AFFINE_DIGITS) + 0.0).ravel()) for affine in affines]
    most = Counter(rounded).most_common(1)[0][0]
    return affines[rounded.index(most)]


def _stored_size(scan: Scan, header: nifti.Header, dtype: np.dtype) -> float:
    """About how many bytes a scan takes in the store: as its file, where it is one and stays as it is."""
    if scan.member is not None or scan.matrix is not None:
        return _PACKED_SHARE * math.prod(header.shape) * dtype.itemsize
    return scan.path.stat().st_size * dtype.itemsize / header.dtype.itemsize
