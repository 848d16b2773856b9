"""The tables of images that are not in a store: those that cannot be used, and later visits and runs."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hpc import files

log = logging.getLogger(__name__)
_SHOWN_FAILURES = 20


def failures_path(out: Path) -> Path:
    """The table of files that could not be used, beside the store."""
    return out.with_name(out.stem + ".failures.tsv")


def repeats_path(out: Path) -> Path:
    """The table of images that were not taken because the subject has an earlier one, beside the store."""
    return out.with_name(out.stem + ".repeats.tsv")


def write_table(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """A tab-separated table, or none where there are no rows."""
    if not rows:
        files.remove(path)
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.publish_text(path, text.getvalue())


def say_failures(failures: Iterable[Mapping[str, str]], path: Path) -> None:
    failures = list(failures)
    for failure in failures[:_SHOWN_FAILURES]:
        log.warning("ingest: %s: %s", failure["file"] or failure["IID"], failure["reason"])
    if len(failures) > _SHOWN_FAILURES:
        log.warning("ingest: and %d more, see %s", len(failures) - _SHOWN_FAILURES, path)
