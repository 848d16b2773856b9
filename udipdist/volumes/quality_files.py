"""What is written of the scans' quality beside a store: the table NAME.qc.tsv, the contact sheet NAME.qc.png."""

from __future__ import annotations

import csv
import io
import logging
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hpc import files, store
from udipdist.volumes.grids import Described
from udipdist.volumes.quality import FIGURES, LISTED

log = logging.getLogger(__name__)


def table_path(out: Path) -> Path:
    """The table of figures, beside the store."""
    return out.with_name(out.stem + ".qc.tsv")


def sheet_path(out: Path) -> Path:
    """The contact sheet, beside the store."""
    return out.with_name(out.stem + ".qc.png")


def publish(out: Path, groups: Mapping[str, Path]) -> None:
    """After `assess`: the table and the contact sheet beside the store `out`, and the outliers in the log.

    `groups`: the place of each modality; '' as the name of the only one.
    """
    from udipdist.volumes import contact_sheet  # draws with matplotlib

    write_table(out, groups)
    contact_sheet.write(sheet_path(out), groups)
    for modality, place in groups.items():
        marked = np.flatnonzero(store.get(place, "qc_outlier"))
        subjects, reasons = store.get(place, "subject"), store.get(place, "qc_reasons")
        for i in marked[:LISTED]:
            log.warning("ingest: %s looks unusual: %s", " ".join([subjects[i], modality]).strip(), reasons[i])
        if len(marked) > LISTED:
            log.warning("ingest: and %d more %s", len(marked) - LISTED, modality)
        if len(marked):
            chosen = [f"subjects=[{subjects[marked[0]]}]", *([f"modality={modality}"] if modality else [])]
            log.warning(
                "ingest: %d of %d scans look unusual; none is left out. See %s and %s, or take one out to look at:\n"
                "  %s",
                len(marked),
                int(store.get(place, "valid").sum()),
                sheet_path(out),
                table_path(out),
                shlex.join(["udipdist", "volumes", f"store={out}", *chosen, "out=look"]),
            )


COLUMNS = ("FID", "IID", "modality", *FIGURES, "outlier", "reasons")
OF_HEADER = ("corners", "orientation", "zooms", "codes", "affine")  # columns behind those, which older tables lack


def write_table(out: Path, groups: Mapping[str, Path]) -> None:
    """NAME.qc.tsv: a row a subject and modality. `groups`: the place of each modality ('' where there is one unnamed).

    `outlier` is yes or no, or failed where there is no scan; `reasons` say why. Behind them stand how many corners of
    the grid are foreground, and what the headers say: axes of the file, voxel edges [mm], codes, and the affine of the
    voxels in RAS order, row by row.
    """
    rows = []
    for modality, place in groups.items():
        ids, valid = [store.get(place, name) for name in ("fid", "subject")], store.get(place, "valid")
        outlier, reasons = store.get(place, "qc_outlier"), store.get(place, "qc_reasons")
        corners, orientations, codes, affines = (
            store.get(place, name) for name in ("corners", "orientation", "codes", "affine")
        )
        columns = [store.get(place, name if name in ("mean", "std") else f"qc_{name}") for name in FIGURES]
        for i in range(len(valid)):
            values = ["NA" if math.isnan(c[i]) else f"{c[i]:.6g}" for c in columns]
            state = "failed" if not valid[i] else "yes" if outlier[i] else "no"
            own = [str(column[i]) for column in ids]
            corner = str(corners[i]) if valid[i] else "NA"
            place_in_space = _of_header(orientations[i], codes[i], affines[i])
            rows.append([*own, modality, *values, state, str(reasons[i]), corner, *place_in_space])
    _publish(out, rows)


def write_headers(out: Path, described: Sequence[Described]) -> None:
    """NAME.qc.tsv of a cohort that is refused for what its headers say: no figures, but all headers."""
    rows = []
    for one in described:
        header, ids = one.header, [one.source.fid, one.source.iid, one.modality]
        said = ["NA"] * 4 if header is None else _of_header(header.orientation, header.codes, header.affine)
        state = "failed" if one.reason else "NA"
        rows.append([*ids, *["NA"] * len(FIGURES), state, one.reason, "NA", *said])
    _publish(out, rows)


def _of_header(orientation: str, codes: str, affine: np.ndarray) -> list[str]:
    """The last columns of a row; NA where there is no header."""
    if not np.isfinite(affine).all():
        return ["NA"] * 4
    zooms = " ".join(f"{z:.6g}" for z in np.linalg.norm(affine[:3, :3], axis=0))
    return [str(orientation), zooms, str(codes), " ".join(f"{value:.9g}" for value in affine[:3].ravel())]


def _publish(out: Path, rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow([*COLUMNS, *OF_HEADER])
    writer.writerows(rows)
    files.publish_text(table_path(out), text.getvalue())
