"""Which volumes to ingest: a folder, a pattern, a table, a BIDS dataset or the bulk files of UK Biobank."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hpc.errors import ConfigError, InputError
from udipdist.volumes.sources.bids import list_bids
from udipdist.volumes.sources.folder import images_in, is_pattern, list_folder, list_glob
from udipdist.volumes.sources.scan import Cohort, Duplicate, Repeat, Scan, Source
from udipdist.volumes.sources.table import list_table
from udipdist.volumes.sources.ukb import find_bulk, is_bulk, list_ukb

__all__ = ["Cohort", "Duplicate", "Repeat", "Scan", "Source", "list_cohort"]
_WITH_MODALITIES = {"table": list_table, "bids": list_bids, "ukb": list_ukb}


def list_cohort(volumes: str | Path, layout: str = "auto", modalities: Sequence[str] | None = None) -> Cohort:
    """The subjects that `volumes` names, each once, with an image for each of the modalities.

    layout: folder (or a pattern), table, bids, ukb, or auto, which looks. Raises InputError where `volumes` cannot be
    a cohort, and ConfigError for a layout or modalities that do not fit it.
    """
    path, modalities = Path(volumes), tuple(modalities or ())
    if not path.exists() and not is_pattern(str(volumes)):
        raise InputError(
            f"volumes={volumes}: does not exist; give a folder of NIfTI files, a pattern in quotes, a CSV with EID and "
            "paths, a BIDS dataset, or a folder of UK Biobank's zips"
        )
    found = _layout_of(volumes) if layout == "auto" else layout
    if path.is_file() != (found == "table") or (found in ("bids", "ukb") and not path.is_dir()):
        needed = "a CSV or TSV" if found == "table" else "a folder"
        raise ConfigError(f"layout={layout}: volumes={volumes} is not {needed}; leave layout= out, or correct the path")
    if found in _WITH_MODALITIES:
        cohort = _WITH_MODALITIES[found](path, modalities)
    elif modalities:
        raise ConfigError(
            f"modalities={','.join(modalities)}: images of a folder or pattern do not say what they are; leave it out, "
            "or give a CSV with EID and a column of paths for each"
        )
    else:
        cohort = list_folder(path) if path.is_dir() else list_glob(str(volumes))
    for i, name in enumerate(cohort.modalities):
        if all(source.scans[i] is None for source in cohort.sources):
            raise InputError(
                f"volumes={volumes}: none of {len(cohort.sources)} subjects has a {name} image; give other modalities="
            )
    return cohort


def _layout_of(volumes: str | Path) -> str:
    """What kind of cohort `volumes` is. Raises InputError where it could be more than one."""
    path = Path(volumes)
    if path.is_file():
        return "table"
    if not path.is_dir():
        return "folder"
    names = os.listdir(path)
    signs = {
        "bids": any(name.startswith("sub-") and (path / name).is_dir() for name in names),
        "folder": bool(images_in(path)),
        "ukb": any(map(is_bulk, names)),
    }
    found = [layout for layout, seen in signs.items() if seen]
    if not found and next(find_bulk(path), None):
        return "ukb"
    if len(found) > 1:
        raise InputError(f"volumes={volumes}: could be more than one thing; say layout={' or layout='.join(found)}")
    return found[0] if found else "folder"
