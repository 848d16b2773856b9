"""One image file, alone on the disk or inside a zip, and the people and files of a cohort.

Nothing is ever extracted: members of a zip are read into memory, and their names are only compared.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from udipdist.volumes.nifti import Unreadable

# What zipfile raises for a damaged, cut, encrypted or unusually packed archive.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error)


@dataclass(frozen=True)
class Scan:
    """One image: the file `path`, or `member` inside the zip `path`; `matrix` carries it to MNI152 where it is given.

    `matrix` is the path of a FLIRT .mat, or where there is `matrix_zip` (the zip of the image or another) its name
    in that. `mask`: an image on the same grid, outside of whose brain everything is background.
    """

    path: Path
    member: str | None = None
    matrix: str | None = None
    matrix_zip: Path | None = None
    mask: Path | None = None

    @property
    def name(self) -> str:
        """Short text for messages; it ends as the image's file name does."""
        return self.path.name if self.member is None else f"{self.path.name}/{self.member}"

    @property
    def source(self) -> str:
        """Where the image is: a path, with `/member` behind a zip."""
        return str(self.path) if self.member is None else f"{self.path}/{self.member}"

    @property
    def files(self) -> tuple[Path, ...]:
        """The files on the disk that it is read from."""
        matrix = self.matrix_zip or (None if self.matrix is None else Path(self.matrix))
        return tuple(dict.fromkeys(path for path in (self.path, matrix, self.mask) if path is not None))

    def content(self) -> list[Any]:
        """By what it is known again, wherever it lies: names, and the sizes and times of change of the files."""
        return [self.member, self.matrix if self.matrix_zip is not None else None, [_seen(path) for path in self.files]]

    def read_bytes(self) -> bytes:
        """The image file. A zip member's checksum is verified. Raises Unreadable."""
        return _read(self.path, self.member)

    def read_start(self, n: int) -> bytes:
        """The first `n` bytes of the image file, or all where it is shorter. Raises Unreadable."""
        return _read(self.path, self.member, n)

    def read_mask(self) -> bytes:
        """The file of the mask. Raises Unreadable."""
        if self.mask is None:
            raise ValueError(f"{self.source}: has no mask")
        return _read(self.mask, None)

    def read_matrix(self) -> np.ndarray:
        """FLIRT's matrix, [4, 4] float64: scaled mm of the image -> scaled mm of MNI152. Raises Unreadable."""
        if self.matrix is None:
            raise ValueError(f"{self.source}: has no matrix")
        place, member = (Path(self.matrix), None) if self.matrix_zip is None else (self.matrix_zip, self.matrix)
        try:
            text = _read(place, member)
        except Unreadable as error:
            raise Unreadable(f"its matrix {self.matrix} {error}") from None
        return parse_matrix(text, self.matrix)


def parse_matrix(text: bytes, name: str) -> np.ndarray:
    """The 4 x 4 numbers of a FLIRT .mat, as text. Raises Unreadable where it is no invertible affine matrix."""
    try:
        matrix = np.array([[float(word) for word in line.split()] for line in text.split(b"\n") if line.strip()])
        affine = matrix.shape == (4, 4) and np.isfinite(matrix).all() and (matrix[3] == (0, 0, 0, 1)).all()
    except ValueError:  # no numbers, or lines of different lengths
        affine = False
    if not affine:
        raise Unreadable(f"its matrix {name} is not 4 lines of 4 numbers, the last 0 0 0 1")
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-6:
        raise Unreadable(f"its matrix {name} cannot be inverted")
    return matrix


@dataclass(frozen=True)
class Source:
    """One subject: an image for each modality of the cohort, None where there is none. Ids are text: zeros count."""

    fid: str
    iid: str
    scans: tuple[Scan | None, ...]
    session: str = ""  # the imaging visit that was kept, where the layout has visits


@dataclass(frozen=True)
class Repeat:
    """An image that is not taken because the subject has an earlier one, by the rule of the layout."""

    fid: str
    iid: str
    session: str
    file: str


@dataclass(frozen=True)
class Unused:
    """An image that cannot be taken, as one whose subject's id has come before: a mistake, listed as a failure."""

    fid: str
    iid: str
    file: str
    reason: str


@dataclass(frozen=True)
class Cohort:
    """The subjects to ingest, each once, in a fixed order; and the images that are left out, with why."""

    modalities: tuple[str, ...]
    sources: list[Source]
    repeats: list[Repeat] = field(default_factory=list)
    unused: list[Unused] = field(default_factory=list)


def once_each(modality: str, listed: list[Source]) -> Cohort:
    """A cohort of one modality; of several entries of an id the first is kept, the others are duplicates."""
    cohort = Cohort((modality,), [])
    kept: dict[str, Source] = {}
    for source in listed:
        keep_first(cohort, kept, source)
    return cohort


def keep_first(cohort: Cohort, kept: dict[str, Source], source: Source) -> None:
    """Add a source to the cohort, or where its id is in `kept` its images to the duplicates."""
    first = kept.setdefault(source.iid, source)
    if first is source:
        cohort.sources.append(source)
        return
    taken = next((scan.source for scan in first.scans if scan), "an entry without a file")
    for file in [scan.source for scan in source.scans if scan] or [""]:
        reason = f"is a duplicate: subject {source.iid} has {taken} already, which is kept"
        cohort.unused.append(Unused(source.fid, source.iid, file, reason))


def _seen(path: Path) -> list[Any]:
    """Name, size and time of change of a file; of one that is not there the name."""
    if not path.exists():
        return [path.name]
    stat = path.stat()
    return [path.name, stat.st_size, stat.st_mtime_ns]


def _read(path: Path, member: str | None, n: int = -1) -> bytes:
    with _opened(path, member) as file:
        return file.read(n)


@contextmanager
def _opened(path: Path, member: str | None) -> Iterator[IO[bytes]]:
    """A file, or a member of a zip; what goes wrong with either is Unreadable."""
    try:
        if member is None:
            with path.open("rb") as file:
                yield file
            return
        with zipfile.ZipFile(path) as archive:
            described = archive.NameToInfo.get(member)
            if described is None:
                raise Unreadable(f"is not in {path.name}, which holds {len(archive.NameToInfo)} other files")
            if described.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Unreadable(f"is packed in {path.name} by method {described.compress_type}; deflate is read")
            with archive.open(member) as file:
                yield file
    except OSError as error:
        if path.is_symlink() and not path.exists():
            raise Unreadable(
                f"is a link to {os.readlink(path)}, which is not there; fetch it (in a DataLad dataset: datalad get), "
                "or remove the link"
            ) from None
        raise Unreadable(f"cannot be read ({error.strerror})") from None
    except Unreadable:
        raise
    except _DAMAGED as error:
        reason = str(error) or "it ends early"
        raise Unreadable(f"cannot be read: the zip is damaged, cut or encrypted ({reason})") from None
