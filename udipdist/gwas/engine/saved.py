"""Records of arrays as folders of .npy files: one an array, mapped when read, so that processes share the pages.

A record is a dataclass whose fields are arrays, numbers or records; the array `digits.unit_C` is in digits.unit_C.npy.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np

Record = TypeVar("Record")


def save(record: Any, folder: Path) -> None:
    """Write every array and number of `record` into `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(record, folder, "")


def load(kind: type[Record], folder: Path) -> Record:
    """Map what `save` wrote of a record of this type. Writing to an array changes this process's copy only."""
    return _load(kind, folder, "")


def _save(record: Any, folder: Path, prefix: str) -> None:
    for field in fields(record):
        value, name = getattr(record, field.name), prefix + field.name
        if is_dataclass(value):
            _save(value, folder, f"{name}.")
        else:
            np.save(folder / f"{name}.npy", value, allow_pickle=False)


def _load(kind: type[Record], folder: Path, prefix: str) -> Record:
    values: dict[str, Any] = {}
    for name, own in get_type_hints(kind).items():
        if is_dataclass(own):
            values[name] = _load(own, folder, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            array = np.asarray(np.load(folder / f"{prefix}{name}.npy", mmap_mode="c", allow_pickle=False))
            values[name] = array if array.ndim else array.item()
    return kind(**values)
