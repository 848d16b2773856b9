"""UK Biobank bulk files: EID_20252_2_0.zip (T1) and EID_20253_2_0.zip (T2 FLAIR), or the folders unpacked from them.

Layout as UK Biobank's pipeline writes it (Alfaro-Almagro et al. 2018, NeuroImage 166:400-424): the brain-extracted,
bias-corrected image of each field in the space of the subject's T1, and FLIRT's matrix from there to MNI152. The
pipeline brings T2 FLAIR into the T1's space, so the T1's matrix carries both; T2_FLAIR_to_MNI_linear.mat is a copy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hpc.errors import ConfigError, InputError, some
from udipdist.volumes.sources.found import UNFINISHED, put_aside
from udipdist.volumes.sources.scan import Cohort, Scan, Unused
from udipdist.volumes.sources.visits import add_visits

_BULK = re.compile(r"(\d+)_(20252|20253)_(\d+)_(\d+)(?:\.zip)?", re.IGNORECASE)


class _Field(NamedTuple):
    number: str
    image: str
    matrix: str


FIELDS = {
    "T1": _Field("20252", "T1/T1_unbiased_brain.nii.gz", "T1/transforms/T1_to_MNI_linear.mat"),
    "T2_FLAIR": _Field(
        "20253", "T2_FLAIR/T2_FLAIR_unbiased_brain.nii.gz", "T2_FLAIR/transforms/T2_FLAIR_to_MNI_linear.mat"
    ),
}


class _Bulk(NamedTuple):
    """One bulk file or folder, by what its name says."""

    eid: str
    field: str
    visit: tuple[int, int]  # instance (2: first imaging visit) and array index
    path: Path
    unfinished: bool = False  # a download that has not ended


def list_ukb(folder: Path, modalities: Sequence[str] = ()) -> Cohort:
    """The participants of a folder of bulk files, at any depth; the first imaging visit is kept. Nothing is opened.

    The matrix of T2_FLAIR is the T1's of the same visit, or where there is no T1 the copy in its own file. Raises
    ConfigError for other modalities than T1 and T2_FLAIR, and InputError where there are no bulk files.
    """
    modalities = tuple(modalities) or ("T1",)
    unknown = [name for name in modalities if name not in FIELDS]
    if unknown:
        raise ConfigError(f"modalities={some(unknown)}: of UK Biobank's files, {' and '.join(FIELDS)} can be read")
    cohort = Cohort(modalities, [])
    people: dict[str, dict[tuple[int, int], dict[str, Path]]] = {}
    for bulk in sorted(find_bulk(folder), key=lambda bulk: (int(bulk.eid), bulk)):
        if bulk.unfinished:
            cohort.unused.append(Unused(bulk.eid, bulk.eid, str(bulk.path), UNFINISHED))
            continue
        fields = people.setdefault(bulk.eid, {}).setdefault(bulk.visit, {})
        first = fields.setdefault(bulk.field, bulk.path)
        if first is not bulk.path:
            reason = f"is a duplicate: {first} is the same field and visit, and is kept"
            cohort.unused.append(Unused(bulk.eid, bulk.eid, str(bulk.path), reason))
    if not people:
        raise InputError(f"volumes={folder}: holds no EID_20252_2_0.zip or EID_20253_2_0.zip, nor such folders")
    for eid, visits in people.items():
        add_visits(
            cohort,
            eid,
            [
                (f"{instance}_{array}", [_scan(fields, name) for name in modalities])
                for (instance, array), fields in sorted(visits.items())
            ],
        )
    return cohort


def is_bulk(name: str) -> bool:
    """True for the name of a bulk file, or of the folder unpacked from it."""
    return _BULK.fullmatch(name) is not None


def find_bulk(folder: Path) -> Iterator[_Bulk]:
    """The bulk files and unpacked folders below a folder, in the order of their paths."""
    for place, folders, files in os.walk(folder, onerror=_refuse):
        named = {name: match for name in folders if (match := _BULK.fullmatch(name)) and not _is_zip(name)}
        whole = {name: _BULK.fullmatch(put_aside(name) or name) for name in files}
        named |= {name: match for name, match in whole.items() if match and _is_zip(match[0])}
        folders[:] = sorted(name for name in folders if name not in named and not name.startswith("."))
        for name, match in sorted(named.items()):
            eid, field, instance, array = match.groups()
            yield _Bulk(
                eid, field, (int(instance), int(array)), Path(place, name).absolute(), put_aside(name) is not None
            )


def _is_zip(name: str) -> bool:
    return name.lower().endswith(".zip")


def _refuse(error: OSError) -> None:
    """os.walk passes over folders that it cannot read; their participants would be missed."""
    raise error


def _scan(fields: dict[str, Path], modality: str) -> Scan | None:
    """The image of a modality among the bulk files of one visit."""
    field = FIELDS[modality]
    place = fields.get(field.number)
    if place is None:
        return None
    carried = FIELDS["T1"] if FIELDS["T1"].number in fields else field  # whose matrix is taken
    image, matrix = _inside(place, field.image), _inside(fields[carried.number], carried.matrix)
    return Scan(*image, matrix=matrix[1] or str(matrix[0]), matrix_zip=matrix[0] if matrix[1] else None)


def _inside(place: Path, name: str) -> tuple[Path, str | None]:
    """A file of a bulk: in an unpacked folder its path, else the zip and the member's name."""
    return (place, name) if _is_zip(place.name) else (place / name, None)
