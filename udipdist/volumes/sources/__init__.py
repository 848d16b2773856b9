"""Which volumes to ingest: a folder, a pattern, a table, a BIDS dataset or the bulk files of UK Biobank."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hpc.errors import ConfigError, InputError, some
from udipdist.volumes.sources.bids import list_bids
from udipdist.volumes.sources.folder import is_pattern, list_folder, list_glob, look_into
from udipdist.volumes.sources.scan import Cohort, Repeat, Scan, Source, Unused
from udipdist.volumes.sources.table import list_table
from udipdist.volumes.sources.ukb import find_bulk, is_bulk, list_ukb

__all__ = ["Cohort", "Repeat", "Scan", "Source", "Unused", "list_cohort"]
_WITH_MASKS = {"table": list_table, "bids": list_bids}


def list_cohort(
    volumes: str | Path, layout: str = "auto", modalities: Sequence[str] | None = None, mask: str | None = None
) -> Cohort:
    """The subjects that `volumes` names, each once, with an image for each of the modalities.

    layout: folder (or a pattern), table, bids, ukb, or auto, which looks. mask: what says the masks of the images: a
    column of the table, or a suffix of BIDS with its entities. Raises InputError where `volumes` cannot be a cohort,
    and ConfigError for a layout, modalities or mask that do not fit it.
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
    if mask is not None and found not in _WITH_MASKS:
        raise ConfigError(
            f"mask={mask}: is a column of a CSV, or for a BIDS dataset a suffix with its entities (desc-brain_mask); "
            "give volumes= as one of these, or leave it out"
        )
    if found in _WITH_MASKS:
        cohort = _WITH_MASKS[found](path, modalities, mask)
    elif found == "ukb":
        cohort = list_ukb(path, modalities)
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
    _require_utf8(volumes, cohort)
    return cohort


def _require_utf8(volumes: object, cohort: Cohort) -> None:
    """Names go into tables and stores as UTF-8 text. Raises InputError for those that are something else."""
    names = [str(path) for s in cohort.sources for scan in s.scans if scan for path in scan.files]
    names += [left.file for left in (*cohort.unused, *cohort.repeats)]
    wrong = [name for name in names if not _is_utf8(name)]
    if wrong:
        shown = list(dict.fromkeys(_shown(Path(name).name) for name in wrong))
        raise InputError(
            f"volumes={_shown(volumes)}: paths of images are not UTF-8 ({some(shown)}); "
            "rename them (convmv -f latin1 -t utf8), or give a CSV with EID and paths that are"
        )


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(name: object) -> str:
    return os.fsencode(str(name)).decode("utf-8", "backslashreplace")


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
        "folder": bool(look_into(path).images),
        "ukb": any(map(is_bulk, names)),
    }
    found = [layout for layout, seen in signs.items() if seen]
    if not found and next(find_bulk(path), None):
        return "ukb"
    if len(found) > 1:
        raise InputError(f"volumes={volumes}: could be more than one thing; say layout={' or layout='.join(found)}")
    return found[0] if found else "folder"
