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
from udipdist.volumes.sources import Cohort, Scan, list_cohort

AFFINE_DIGITS = 3  # of mm: affines that agree so far are of one grid
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
    """Read every header. Raises InputError where the files cannot become one store."""
    cohort = list_cohort(config.volumes, config.layout, config.modalities)
    wrong = sorted(set(cohort.modalities) & set(_RESERVED)) if len(cohort.modalities) > 1 else []
    if wrong:
        raise ConfigError(f"modalities: {some(wrong)} is the name of another folder of the store; rename the column")
    scans = [source.scans[m] for m in range(len(cohort.modalities)) for source in cohort.sources]
    headers = _read_headers(scans)
    n, grids, unusable, size = len(cohort.sources), [], [], 10_000_000
    for m, modality in enumerate(cohort.modalities):
        seen = dict(zip(scans[m * n : (m + 1) * n], headers[m * n : (m + 1) * n], strict=True))
        seen.pop(None, None)
        usable = {scan: header for scan, header in seen.items() if isinstance(header, nifti.Header)}
        if not usable:
            scan, reason = next(iter(seen.items()))
            raise InputError(
                f"{config.volumes}: none of {len(seen)} files can be read; the first, {scan.name}: {reason}"
            )
        shape = _common_shape(usable)
        odd = [scan for scan, header in usable.items() if header.shape != shape]
        unusable += [scan.name for scan in seen if scan not in usable] + [scan.name for scan in odd]
        fitting = {scan: header for scan, header in usable.items() if header.shape == shape}
        dtype = _common_dtype(fitting)
        grids.append(Grid(modality, shape, dtype, _common_affine(fitting)))
        size += round(1.2 * sum(_stored_size(scan, header, dtype) for scan, header in fitting.items()))
    orientations = Counter(header.orientation for header in headers if isinstance(header, nifti.Header))
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


def _read_headers(scans: Sequence[Scan | None]) -> list[nifti.Header | str | None]:
    """The header of each scan, or why it cannot be used. Threads, because a network file system answers slowly."""

    def one(scan: Scan | None) -> nifti.Header | str | None:
        try:
            return None if scan is None else read_header(scan)
        except nifti.Unreadable as error:
            return str(error)

    headers = []
    with ThreadPoolExecutor(8) as threads, Progress("reading headers", len(scans), "files") as progress:
        for header in threads.map(one, scans):
            headers.append(header)
            progress.advance()
    return headers


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


def _common_affine(usable: dict[Scan, nifti.Header]) -> np.ndarray:
    """The affine that most files have, to AFFINE_DIGITS; of several as frequent the first."""
    rounded = [tuple((header.affine.round(AFFINE_DIGITS) + 0.0).ravel()) for header in usable.values()]
    most = Counter(rounded).most_common(1)[0][0]
    return list(usable.values())[rounded.index(most)].affine


def _stored_size(scan: Scan, header: nifti.Header, dtype: np.dtype) -> float:
    """About how many bytes a scan takes in the store: as its file, where it is one and stays as it is."""
    if scan.member is not None or scan.matrix is not None:
        return _PACKED_SHARE * math.prod(header.shape) * dtype.itemsize
    return scan.path.stat().st_size * dtype.itemsize / header.dtype.itemsize
