"""Which volumes to ingest: a folder of files, or a table of ids and paths."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hpc.errors import ConfigError, InputError, some

log = logging.getLogger(__name__)
EXTENSIONS = (".nii.gz", ".nii", ".mgz", ".mgh")
ID_COLUMNS = ("eid", "iid", "subject")  # compared in lower case, the first that is there counts
FAMILY_COLUMN = "fid"


@dataclass(frozen=True)
class Source:
    """One subject and the file of its volume. Ids are text: leading zeros count."""

    fid: str
    iid: str
    path: Path


def list_sources(volumes: Path, column: str | None = None) -> list[Source]:
    """The subjects of a folder (id = file name without extension, sorted) or of a CSV or TSV (in its order).

    A table has a column EID, IID or subject, may have FID (else FID = IID), and names files in `column`, by default
    the first column that is not an id; relative paths start at the table's folder.
    Raises InputError for empty, duplicate or missing ids and files.
    """
    volumes = Path(volumes)
    if volumes.is_dir():
        if column is not None:
            raise ConfigError(f"column={column}: is for a CSV, and volumes={volumes} is a folder; leave column out")
        sources = _of_folder(volumes)
    elif volumes.is_file():
        sources = _of_table(volumes, column)
    else:
        raise InputError(f"volumes={volumes}: is not there; give a folder of NIfTI files or a CSV with EID and paths")
    repeated = [iid for iid, n in Counter(source.iid for source in sources).items() if n > 1]
    if repeated:
        raise InputError(
            f"{volumes}: {len(repeated)} subject ids stand for more than one volume ({some(repeated)}); "
            "keep one volume for each id"
        )
    missing = [source.path for source in sources if not source.path.is_file()]
    if missing:
        raise InputError(
            f"{volumes}: {len(missing)} of {len(sources)} files are not there, or are no files ({some(missing)}); "
            "mend the paths or remove these rows"
        )
    return sources


def _of_folder(folder: Path) -> list[Source]:
    sources = []
    for path in sorted(folder.iterdir()):
        extension = next((e for e in EXTENSIONS if path.name.lower().endswith(e)), None)
        if extension is None or path.name.startswith("."):
            continue
        iid = path.name[: -len(extension)]
        sources.append(Source(iid, iid, path.absolute()))
    if not sources:
        raise InputError(
            f"volumes={folder}: holds no {', '.join('*' + e for e in EXTENSIONS)}; give another folder, or a CSV with "
            "EID and paths where the files lie in subfolders"
        )
    return sources


def _of_table(table: Path, column: str | None) -> list[Source]:
    header, rows = _read_table(table)
    lower = [name.lower() for name in header]
    id_column = next((lower.index(name) for name in ID_COLUMNS if name in lower), None)
    if id_column is None:
        raise InputError(f"{table}: has no column EID (or IID, or subject); its columns are {some(header, 20)}")
    family_column = lower.index(FAMILY_COLUMN) if FAMILY_COLUMN in lower else id_column
    others = [name for name in header if name.lower() not in (*ID_COLUMNS, FAMILY_COLUMN)]
    if not others:
        raise InputError(f"{table}: has no column of paths beside the ids; add one, such as T1")
    if column is not None and column not in others:
        raise InputError(f"{table}: has no column {column!r} of paths; give column= one of {some(others, 20)}")
    if column is None and len(others) > 1:
        log.info("%s: taking the paths of column %s (column= chooses another)", table, others[0])
    path_column = header.index(column or others[0])
    sources = []
    for line, row in rows:
        fid, iid, path = row[family_column], row[id_column], row[path_column]
        if not (fid and iid and path):
            raise InputError(f"{table}, line {line}: an id or the path is empty; fill it or remove the line")
        sources.append(Source(fid, iid, (table.parent / path).absolute()))
    return sources


def _read_table(table: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and numbered rows, cells stripped; comma- or tab-separated as the first line says."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"volumes={table}: is not UTF-8 text; give a folder of NIfTI files or a CSV") from None
    first = text.partition("\n")[0]
    reader = csv.reader(text.splitlines(), delimiter="\t" if "\t" in first else ",")
    rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    if len(rows) < 2:
        raise InputError(
            f"{table}: has no rows; it needs a header line with EID and a path column, and a line a subject"
        )
    header = rows[0][1]
    repeated = [name for name, n in Counter(header).items() if n > 1]
    if repeated:
        raise InputError(f"{table}: the columns {some(repeated)} stand more than once; rename them")
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise InputError(f"{table}, line {line}: has {len(row)} cells where the header has {len(header)}")
    return header, rows[1:]
