"""What is written of the scans' quality beside a store: the table NAME.qc.tsv, the contact sheet NAME.qc.png."""

from __future__ import annotations

import csv
import io
import logging
import math
import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hpc import files, store
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


def write_table(out: Path, groups: Mapping[str, Path]) -> None:
    """NAME.qc.tsv: a row a subject and modality. `groups`: the place of each modality ('' where there is one unnamed).

    `outlier` is yes or no, or failed where there is no scan; `reasons` say why.
    """
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for modality, place in groups.items():
        ids, valid = [store.get(place, name) for name in ("fid", "subject")], store.get(place, "valid")
        outlier, reasons = store.get(place, "qc_outlier"), store.get(place, "qc_reasons")
        columns = [store.get(place, name if name in ("mean", "std") else f"qc_{name}") for name in FIGURES]
        for i in range(len(valid)):
            values = ["NA" if math.isnan(c[i]) else f"{c[i]:.6g}" for c in columns]
            state = "failed" if not valid[i] else "yes" if outlier[i] else "no"
            writer.writerow([*(str(column[i]) for column in ids), modality, *values, state, str(reasons[i])])
    files.publish_text(table_path(out), text.getvalue())
