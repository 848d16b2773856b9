"""What the files of a folder are, by their names: images, images that cannot be read, and what is no image."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hpc.errors import some
from udipdist.volumes.nifti import PAIR

log = logging.getLogger(__name__)
EXTENSIONS = (".nii.gz", ".nii", ".mgz", ".mgh")
_NAME = re.compile(
    r"(?P<stem>.+?)\.(?P<kind>nii|mgz|mgh|hdr|img|nrrd|nhdr|mnc|mha|mhd|dcm|head|brik)(\.gz)?(?P<more>$|[._ ~(-].*)",
    re.IGNORECASE,
)  # of an image of any format, and what has been added to it
_BESIDE = re.compile(r".*\.(json|tsv|csv|txt|log|md5|sha\d+|asc|png|jpe?g|html?|pdf|lock|ya?ml|xml|mat)", re.IGNORECASE)
_PACKED = re.compile(r"\.(bz2|xz|zst|zip|7z|lz4|lzma|z|tar)", re.IGNORECASE)
_ASIDE = re.compile(r"(\.(part|partial|crdownload|download|filepart|tmp|bak|old|orig)|~)", re.IGNORECASE)
UNFINISHED = "is an unfinished download, or a copy that was put aside; fetch it again, or remove it"
DUPLICATE = re.compile(r"(.+?)__dup-?\d*")  # how heudiconv calls the second of two images of one name
MARKED = "is marked as a duplicate of another (__dup, by heudiconv); rename it if it is the one to take, or remove it"


def extension_of(name: str) -> str | None:
    """The extension of an image file as it is written in `name`, or None where it has no such extension."""
    lower = name.lower()
    return next((name[-len(e) :] for e in EXTENSIONS if lower.endswith(e)), None)


def other_image(name: str) -> tuple[str, str] | None:
    """Of a file that is an image and cannot be read: its name without extension, and why. None for other files."""
    match = _NAME.fullmatch(name)
    if match is None or _BESIDE.fullmatch(match["more"]):
        return None
    reason = "its name does not end as that of an image does; rename it, or remove it"
    if _PACKED.fullmatch(match["more"]):
        reason = "is packed in a way that is not read; unpack it, or pack it by gzip"
    elif _ASIDE.fullmatch(match["more"]):
        reason = UNFINISHED
    elif not match["more"]:
        pair = match["kind"].lower() in ("hdr", "img")
        reason = PAIR if pair else "is of a format that is not read; save it as .nii.gz"
    return match["stem"], reason


def put_aside(name: str) -> str | None:
    """What a file was called before a mark of unfinished downloads and old copies (.part, ~) was added; else None."""
    match = re.fullmatch(rf"(.+?){_ASIDE.pattern}", name, re.IGNORECASE)
    return match[1] if match else None


@dataclass(frozen=True)
class Found:
    """Files of a folder, sorted by path: images; images that cannot be read, with why; the rest by extension."""

    images: list[Path]
    unreadable: list[tuple[Path, str, str]]  # path, name without extension, reason
    rest: Counter[str]

    @classmethod
    def among(cls, paths: Iterable[Path]) -> Found:
        """Sort out paths; links that lead nowhere count as what their names say, and hidden files not at all."""
        found = cls([], [], Counter())
        paths = [path for path in sorted(paths, key=str) if not path.name.startswith(".")]
        names = {(path.parent, path.name.lower()) for path in paths}
        for path in paths:
            if path.is_dir():
                found.rest["folders"] += 1
            elif extension_of(path.name):
                found.images.append(path)
            elif other := other_image(path.name):
                header = re.sub(r"\.img(\.gz)?$", r".hdr\1", path.name.lower())
                if header == path.name.lower() or (path.parent, header) not in names:  # a pair is told of once
                    found.unreadable.append((path, *other))
            else:
                found.rest[path.suffix.lower() or "without extension"] += 1
        return found

    def say_rest(self, place: object) -> None:
        """Tell of what is there and is no image."""
        folders = self.rest["folders"]
        files = [f"{n} {kind}" for kind, n in self.rest.most_common() if kind != "folders" and n]
        if files:
            log.info("ingest: %s: files that are no images are not read: %s", place, some(files))
        if folders:
            log.info(
                "ingest: %s: folders in it (%d) are not looked into; a pattern in quotes, as '%s/**/*.nii.gz', does",
                place,
                folders,
                place,
            )
