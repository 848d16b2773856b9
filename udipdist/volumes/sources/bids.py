"""A BIDS dataset or derivative: sub-*/[ses-*/]anat/*_T1w.nii.gz (BIDS 1.10, 'Anatomy imaging data').

A modality is a suffix, with entities before it where it takes those to tell files apart: `T1w`,
`space-MNI152NLin6Asym_desc-preproc_T1w`; `space-_T1w` takes files without that entity. What it leaves open must not
matter: files that still differ in anything but the run are refused.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpc.errors import ConfigError, InputError, some
from udipdist.volumes.sources.found import DUPLICATE, MARKED, Found, extension_of
from udipdist.volumes.sources.scan import Cohort, Repeat, Scan, Unused
from udipdist.volumes.sources.visits import add_visits, natural

log = logging.getLogger(__name__)
_PART = re.compile(r"([A-Za-z0-9]+)-([A-Za-z0-9+.]*)")


@dataclass(frozen=True)
class _Image:
    """An image file, or a modality, by the parts of its name."""

    entities: dict[str, str]
    suffix: str
    path: Path = Path()


@dataclass
class _Findings:
    """What a dataset holds beside what is taken."""

    ambiguous: dict[str, list[list[_Image]]]  # of each modality
    misplaced: list[Path] = field(default_factory=list)  # labels that contradict the folders
    foreign: list[Path] = field(default_factory=list)  # images that are not named as BIDS has it


def list_bids(root: Path, modalities: Sequence[str] = (), mask: str | None = None) -> Cohort:
    """The subjects of a dataset (id = label behind `sub-`), by default with their T1w images.

    Of several sessions the first is kept, in the order of their labels (2 before 10), of several runs the first; the
    others are repeats. mask: suffix and entities of the masks (desc-brain_mask), whose other entities are those of the
    image. Raises InputError where other entities leave open which file is meant, where a file's labels contradict its
    folder, or there is no subject.
    """
    wanted = {name: _parse_modality("modalities", name) for name in modalities or ("T1w",)}
    masks = None if mask is None else _parse_modality("mask", mask)
    cohort = Cohort(tuple(wanted), [])
    seen = _Findings({name: [] for name in wanted})
    for folder in _folders(root, "sub-"):
        iid = folder.name.removeprefix("sub-")
        sessions = [("", folder), *((place.name.removeprefix("ses-"), place) for place in _folders(folder, "ses-"))]
        visits = []
        for session, place in sorted(sessions, key=lambda item: natural(item[0])):
            images = _images(cohort, seen, iid, place / "anat", list(wanted.values()))
            chosen = []
            for name, modality in wanted.items():
                matching = [image for image in images if _matches(image, modality)]
                seen.misplaced += [image.path for image in matching if not _at_home(image, iid, session)]
                if len({_kind(image) for image in matching}) > 1:
                    seen.ambiguous[name].append(matching)
                first = _first_run(cohort, iid, session, matching)
                chosen.append(first and Scan(first.path, mask=masks and _mask_of(first, images, masks)))
            if any(scan is not None for scan in chosen):
                visits.append((session, chosen))
        add_visits(cohort, iid, visits)
    if not cohort.sources:
        raise InputError(f"volumes={root}: holds no folder sub-*; give the folder of a BIDS dataset or derivative")
    if seen.misplaced:
        names = some([path.relative_to(root.absolute()) for path in seen.misplaced])
        raise InputError(
            f"volumes={root}: files have other labels than their folders ({names}), so it is not "
            "known whose images they are; move or rename them"
        )
    for name, cases in seen.ambiguous.items():
        if cases:
            raise InputError(_what_to_type(root, name, wanted[name], cases))
    if seen.foreign:
        names = some([path.name for path in seen.foreign])
        log.warning(
            "ingest: %s: %d images are not named as BIDS has it, and are not read: %s", root, len(seen.foreign), names
        )
    return cohort


def _at_home(image: _Image, iid: str, session: str) -> bool:
    """False where the file's labels say another subject or session than its folders."""
    return image.entities.get("sub", iid) == iid and (not session or image.entities.get("ses", session) == session)


def _mask_of(image: _Image, images: Sequence[_Image], mask: _Image) -> Path:
    """The mask of an image: all entities that `mask` leaves open are the image's, or where there is no such file, none
    contradicts them. Where there is none at all, the path at which it should be."""
    own = {key: text for key, text in image.entities.items() if key not in (*mask.entities, "desc")}
    there = []
    for other in images:
        if _matches(other, mask):
            rest = {key: text for key, text in other.entities.items() if key not in (*mask.entities, "desc")}
            if rest.items() <= own.items():
                there.append((-len(rest), str(other.path), other.path))
    if there:
        return min(there)[2]
    parts = [f"{key}-{text}" for key, text in {**own, **mask.entities}.items()]
    return image.path.with_name("_".join([*parts, mask.suffix]) + ".nii.gz")


def _parse_modality(key: str, name: str) -> _Image:
    modality = _parse(name)
    if modality is None or "sub" in modality.entities:
        raise ConfigError(
            f"{key}={name}: is not a suffix; give T1w, T2w, FLAIR ..., with entities before it to choose by, as "
            + ("desc-preproc_T1w" if key == "modalities" else "desc-brain_mask")
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


def _images(cohort: Cohort, seen: _Findings, iid: str, anat: Path, wanted: Sequence[_Image]) -> list[_Image]:
    """The image files of a folder by name. Those of the modalities that cannot be read, or are marked as duplicates, go
    to the unused; images with other names that are not those of BIDS to the findings."""
    if not anat.is_dir():
        return []
    found, images = Found.among(anat.iterdir()), []
    for path, stem, reason in found.unreadable:
        image = _parse(stem)
        if any(_matches(image, one) if image else one.suffix in stem for one in wanted):
            cohort.unused.append(Unused(iid, iid, str(path.absolute()), reason))
    for path in found.images:
        stem = path.name.removesuffix(extension_of(path.name) or "")
        image, marked = _parse(stem), DUPLICATE.fullmatch(stem)
        if image:
            images.append(_Image(image.entities, image.suffix, path.absolute()))
        elif marked and (original := _parse(marked[1])):
            if any(_matches(original, one) for one in wanted):
                cohort.unused.append(Unused(iid, iid, str(path.absolute()), MARKED))
        else:
            seen.foreign.append(path)
    return images


def _matches(image: _Image, modality: _Image) -> bool:
    return image.suffix == modality.suffix and all(
        image.entities.get(key, "") == label for key, label in modality.entities.items()
    )


def _kind(image: _Image) -> frozenset[tuple[str, str]]:
    """What tells images of one subject and session apart, but for the run: a run repeats the same acquisition."""
    return frozenset((key, label) for key, label in image.entities.items() if key not in ("sub", "ses", "run"))


def _first_run(cohort: Cohort, iid: str, session: str, images: list[_Image]) -> _Image | None:
    """The image of the first run; later runs go to the repeats, a second file of the same run to the duplicates."""
    images = sorted(images, key=lambda image: natural(image.entities.get("run", "")))
    for before, image in itertools.pairwise(images):
        if before.entities == image.entities:
            reason = f"is a duplicate: {before.path.name} has the same name but for the extension, and is kept"
            cohort.unused.append(Unused(iid, iid, str(image.path), reason))
        else:
            cohort.repeats.append(Repeat(iid, iid, session, str(image.path)))
    return images[0] if images else None


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
