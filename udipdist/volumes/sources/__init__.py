"""Which volumes to ingest: a folder, a pattern, a table, a BIDS dataset or the bulk files of UK Biobank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpc.errors import ConfigError, InputError
from udipdist.volumes.sources.folder import is_pattern, list_folder, list_glob
from udipdist.volumes.sources.scan import Cohort, Duplicate, Repeat, Scan, Source
from udipdist.volumes.sources.table import list_table

__all__ = ["Cohort", "Duplicate", "Repeat", "Scan", "Source", "list_cohort"]


def list_cohort(volumes: str | Path, layout: str = "auto", modalities: Sequence[str] | None = None) -> Cohort:
    """The subjects that `volumes` names, each once, with an image for each of the modalities.

    Raises InputError where `volumes` cannot be a cohort.
    """
    modalities = tuple(modalities or ())
    text = str(volumes)
    path = Path(volumes)
    if path.is_file():
        return list_table(path, modalities)
    if modalities:
        raise ConfigError(f"modalities={list(modalities)}: volumes={volumes} has one image a subject; leave it out")
    if path.is_dir():
        return list_folder(path)
    if is_pattern(text):
        return list_glob(text)
    raise InputError(f"volumes={volumes}: is not there; give a folder of NIfTI files or a CSV with EID and paths")


def list_sources(volumes: str | Path, column: str | None = None) -> list[Source]:
    return list_cohort(volumes, modalities=[column] if column else None).sources
