"""A BIDS dataset or derivative: sub-*/[ses-*/]anat/*_T1w.nii.gz (BIDS 1.10, 'Anatomy imaging data').

A modality is a suffix, with entities before it where it takes those to tell files apart: `T1w`,
`space-MNI152NLin6Asym_desc-preproc_T1w`; `space-_T1w` takes files without that entity. What it leaves open must not
matter: files that still differ in anything but the run are refused.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.errors import ConfigError, InputError, some
from udipdist.volumes.sources.scan import Cohort, Duplicate, Repeat, Scan, extension_of
from udipdist.volumes.sources.visits import add_visits, natural

_PART = re.compile(r"([A-Za-z0-9]+)-([A-Za-z0-9+.]*)")


@dataclass(frozen=True)
class _Image:
    """An image file, or a modality, by the parts of its name."""

    entities: dict[str, str]
    suffix: str
    path: Path = Path()


def list_bids(root: Path, modalities: Sequence[str] = ()) -> Cohort:
    """The subjects of a dataset (id = label behind `sub-`), by default with their T1w images.

    Of several sessions the first is kept, in the order of their labels (2 before 10), of several runs the first; the
    others are repeats. Raises InputError where other entities leave open which file is meant, or there is no subject.
    """
    wanted = {name: _parse_modality(name) for name in modalities or ("T1w",)}
    cohort = Cohort(tuple(wanted), [])
    ambiguous: dict[str, list[list[_Image]]] = {name: [] for name in wanted}
    for folder in _folders(root, "sub-"):
        iid = folder.name.removeprefix("sub-")
        sessions = [("", folder), *((place.name.removeprefix("ses-"), place) for place in _folders(folder, "ses-"))]
        visits = []
        for session, place in sorted(sessions, key=lambda item: natural(item[0])):
            images = list(_images(place / "anat"))
            chosen = []
            for name, modality in wanted.items():
                matching = [image for image in images if _matches(image, modality)]
                if len({_kind(image) for image in matching}) > 1:
                    ambiguous[name].append(matching)
                chosen.append(_first_run(cohort, iid, session, matching))
            if any(scan is not None for scan in chosen):
                visits.append((session, chosen))
        add_visits(cohort, iid, visits)
    if not cohort.sources:
        raise InputError(f"volumes={root}: holds no folder sub-*; give the folder of a BIDS dataset or derivative")
    for name, cases in ambiguous.items():
        if cases:
            raise InputError(_what_to_type(root, name, wanted[name], cases))
    return cohort


def _parse_modality(name: str) -> _Image:
    modality = _parse(name)
    if modality is None or "sub" in modality.entities:
        raise ConfigError(
            f"modalities={name}: is not a suffix; give T1w, T2w, FLAIR ..., with entities before it to choose by, as "
            "desc-preproc_T1w"
        )
    return modality


def _parse(stem: str) -> _Image | None:
    """Entities and suffix of a name without extension, or None where it is not named by BIDS."""
    *parts, suffix = stem.split("_")
    matches = [_PART.fullmatch(part) for part in parts]
    if not all(matches) or not suffix.isalnum():
        return None
    return _Image({match[1]: match[2] for match in matches}, suffix)


def _folders(place: Path, prefix: str) -> list[Path]:
    with os.scandir(place) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(prefix) and entry.is_dir()]
    return [place / name for name in sorted(names) if name != prefix]


def _images(anat: Path) -> Iterator[_Image]:
    """The image files of a folder; links that lead nowhere count, so that they are told of when they are read."""
    if not anat.is_dir():
        return
    with os.scandir(anat) as entries:
        names = sorted(entry.name for entry in entries if not entry.is_dir())
    for name in names:
        extension = extension_of(name)
        image = _parse(name.removesuffix(extension)) if extension else None
        if image:
            yield _Image(image.entities, image.suffix, (anat / name).absolute())


def _matches(image: _Image, modality: _Image) -> bool:
    return image.suffix == modality.suffix and all(
        image.entities.get(key, "") == label for key, label in modality.entities.items()
    )


def _kind(image: _Image) -> frozenset[tuple[str, str]]:
    """What tells images of one subject and session apart, but for the run: a run repeats the same acquisition."""
    return frozenset((key, label) for key, label in image.entities.items() if key not in ("sub", "ses", "run"))


def _first_run(cohort: Cohort, iid: str, session: str, images: list[_Image]) -> Scan | None:
    """The image of the first run; later runs go to the repeats, a second file of the same run to the duplicates."""
    images = sorted(images, key=lambda image: natural(image.entities.get("run", "")))
    for before, image in itertools.pairwise(images):
        if before.entities == image.entities:
            reason = f"is a duplicate: {before.path.name} has the same name but for the extension, and is kept"
            cohort.duplicates.append(Duplicate(iid, iid, str(image.path), reason))
        else:
            cohort.repeats.append(Repeat(iid, iid, session, str(image.path)))
    return Scan(images[0].path) if images else None


def _what_to_type(root: Path, name: str, modality: _Image, cases: list[list[_Image]]) -> str:
    images = cases[0]
    common = frozenset.intersection(*map(_kind, images))
    keys = sorted({key for image in images for key, _ in _kind(image) - common})
    labels = sorted({image.entities.get(keys[0], "") for image in images}, reverse=True)
    filters = [
        "_".join(f"{key}-{text}" for key, text in (*modality.entities.items(), (keys[0], label)))
        + f"_{modality.suffix}"
        for label in labels
    ]
    return (
        f"volumes={root}: modalities={name} leaves open which file is meant for {len(cases)} subjects and sessions: "
        f"{some([image.path.name for image in images])} differ in {some(keys)}. Choose with modalities=[{filters[0]}]"
        f" or [{filters[1]}]" + (f" (files without {keys[0]})" if not labels[1] else "")
    )
