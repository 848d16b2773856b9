"""A CSV or TSV of ids and paths, as the published code reads it: EID, and one column of paths for each modality."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hpc.errors import InputError, some
from udipdist import delimited
from udipdist.volumes.sources.scan import Cohort, Scan, Source, keep_first

log = logging.getLogger(__name__)
ID_COLUMNS = ("eid", "iid", "subject")  # compared in lower case, the first that is there counts
FAMILY_COLUMN = "fid"


def list_table(table: Path, modalities: Sequence[str] = (), mask: str | None = None) -> Cohort:
    """The subjects of a table, in its order.

    It has a column EID, IID or subject, may have FID (else FID = IID), and names files in the columns `modalities`, by
    default the first that is not an id; relative paths start at the table's folder. `mask`: the column of the masks of
    all its images. An empty cell is a subject without that file; the first row of an id is kept. Raises InputError for
    missing columns, ids and files.
    """
    header, rows = _read_table(table)
    lower = [name.lower() for name in header]
    id_column = next((lower.index(name) for name in ID_COLUMNS if name in lower), None)
    if id_column is None:
        raise InputError(f"{table}: has no column EID (or IID, or subject); its columns are {some(header, 20)}")
    family_column = lower.index(FAMILY_COLUMN) if FAMILY_COLUMN in lower else id_column
    if mask is not None and (mask not in header or mask in modalities):
        raise InputError(f"{table}: mask={mask} is not a column of paths beside the images; it has {some(header, 20)}")
    others = [name for name in header if name.lower() not in (*ID_COLUMNS, FAMILY_COLUMN) and name != mask]
    if not others:
        raise InputError(f"{table}: has no column of paths besides the ids; add one, such as T1")
    absent = [name for name in modalities if name not in others]
    if absent:
        raise InputError(
            f"{table}: has no column {some(absent)} of paths; give modalities= of {some(others, 20)}, as "
            f"modalities=[{others[0]}]"
        )
    if not modalities and len(others) > 1:
        log.info("%s: taking the paths of column %s (modalities= chooses others)", table, others[0])
    modalities = tuple(modalities) or (others[0],)
    columns = [header.index(name) for name in modalities]
    cohort, kept = Cohort(modalities, []), {}
    for line, row in rows:
        fid, iid = row[family_column], row[id_column]
        if not (fid and iid):
            raise InputError(f"{table}, line {line}: an id is empty; fill it or remove the line")
        cell = row[header.index(mask)] if mask is not None else None
        if cell == "" and any(row[c] for c in columns):
            raise InputError(f"{table}, line {line}: has an image and no {mask}; fill the cell, or empty both")
        own = (table.parent / cell).absolute() if cell else None
        scans = (Scan((table.parent / row[c]).absolute(), mask=own) if row[c] else None for c in columns)
        keep_first(cohort, kept, Source(fid, iid, tuple(scans)))
    _require_files(table, cohort)
    return cohort


def _require_files(table: Path, cohort: Cohort) -> None:
    paths = [path for source in cohort.sources for scan in source.scans if scan for path in scan.files]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f"{table}: {len(missing)} of {len(paths)} paths do not exist, or are not files ({some(missing)}); "
            "correct the paths, or empty the cells of scans that do not exist"
        )


def _read_table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and numbered rows, without rows of empty cells."""
    table = delimited.read(path)
    header = table.form.names
    if table.form.encoding == "cp1252":  # whose names of files would be guesses
        raise InputError(f"volumes={path}: is not UTF-8 text; give a folder of NIfTI files or a CSV")
    repeated = [name for name, n in Counter(header).items() if n > 1]
    if repeated:
        raise InputError(f"{path}: the columns {some(repeated)} are repeated; rename them")
    rows = [(line, row) for line, row in zip(table.line_N.tolist(), table.rows(), strict=True) if any(row)]
    if not rows:
        raise InputError(
            f"{path}: has no rows; it needs a header line with EID and a path column, and a line a subject"
        )
    return header, rows
