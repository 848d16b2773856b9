"""Image files of one folder, or those that a pattern with wildcards finds; ids from the names."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from hpc.errors import InputError
from udipdist.volumes.sources.found import DUPLICATE, EXTENSIONS, MARKED, Found, extension_of
from udipdist.volumes.sources.scan import Cohort, Scan, Source, Unused, once_each

MODALITY = "image"  # what the one modality of files without further information is called
_WILDCARD = re.compile(r"\[[^]]+\]|[*?]+")
_EXTENSION = re.compile(r"\.(nii\*|nii\.gz\*?|nii|mgz|mgh)$", re.IGNORECASE)  # at the end of a pattern
_ACCEPTED = ", ".join("*" + e for e in EXTENSIONS)


def list_folder(folder: Path) -> Cohort:
    """The image files of a folder by name; id = name without extension. Raises InputError where there are none."""
    found = look_into(folder)
    if not found.images:
        raise InputError(
            f"volumes={folder}: holds no {_ACCEPTED}{_but(found)}; give another folder, a pattern such as "
            f"'{folder}/*/T1.nii.gz', or a CSV with EID and paths"
        )
    found.say_rest(folder)
    return _cohort(found, [path.name[: -len(extension_of(path.name))] for path in found.images])


def look_into(folder: Path) -> Found:
    """What a folder holds, not below it."""
    return Found.among(folder.iterdir())


def _but(found: Found) -> str:
    if not found.unreadable:
        return ""
    path, _, reason = found.unreadable[0]
    return f", but {len(found.unreadable)} other images (the first, {path.name}, {reason})"


def _cohort(found: Found, ids: list[str]) -> Cohort:
    """A source for each image, and those that cannot be read, or are marked as duplicates, as unused."""
    unused = [Unused(stem, stem, str(path.absolute()), reason) for path, stem, reason in found.unreadable]
    listed = []
    for path, iid in zip(found.images, ids, strict=True):
        if marked := DUPLICATE.fullmatch(iid):
            unused.append(Unused(marked[1], marked[1], str(path.absolute()), MARKED))
        else:
            listed.append(Source(iid, iid, (Scan(path.absolute()),)))
    cohort = once_each(MODALITY, listed)
    cohort.unused.extend(unused)
    return cohort


def is_pattern(volumes: str) -> bool:
    """True where `volumes` has wildcards (* ? [a-z]) and is not simply the name of a file."""
    return _WILDCARD.search(volumes) is not None and not Path(volumes).exists()


def list_glob(pattern: str) -> Cohort:
    """The image files that a pattern finds (* ? [a-z]; ** for any folders), sorted by path.

    The id is what the wildcards stand for in the last part of the pattern that has any, from the first wildcard to
    the last: '1001' of scans/1001_T1.nii.gz by 'scans/*_T1.nii.gz', and of scans/sub-1001/T1.nii.gz by
    'scans/sub-*/T1.nii.gz'. Raises InputError where nothing is found, or where they stand for nothing.
    """
    found = Found.among(Path(name).absolute() for name in glob.glob(pattern, recursive=True))
    if not found.images:
        raise InputError(
            f"volumes={pattern}: finds no {_ACCEPTED}{_but(found)}; correct the pattern, and quote it against the shell"
        )
    *folders, last = Path(pattern).parts
    stem = _EXTENSION.sub("", last)
    parts = [*folders, stem]
    wild = [i for i, part in enumerate(parts) if part != "**" and _WILDCARD.search(part)]
    if not wild:
        raise InputError(
            f"volumes={pattern}: does not say what the ids are; put a * in place of the id, or give a CSV with EID "
            "and paths"
        )
    from_end = len(parts) - wild[-1]  # counted from the end, as ** stands for any number of folders
    signs = list(_WILDCARD.finditer(parts[wild[-1]]))
    before, behind = signs[0].start(), len(parts[wild[-1]]) - signs[-1].end()  # text around, which stands for itself
    ids = []
    for path in found.images:
        name = path.parts[-from_end]
        if from_end == 1 and stem != last:
            name = name.removesuffix(extension_of(name))
        iid = name[before : len(name) - behind]
        iid = iid.removesuffix(extension_of(iid) or "")
        if not iid:
            raise InputError(
                f"volumes={pattern}: the wildcards match nothing in {path}, so it has no id; correct the pattern, or "
                "give a CSV with EID and paths"
            )
        ids.append(iid)
    found.say_rest(pattern)
    return _cohort(found, ids)
