"""The keys of a verb given from Python: tables, paths and objects become what a configuration holds."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.config import Config
from hpc.errors import ConfigError, OutputExists, of_the_user
from udipdist.verbs import VERBS, Verb

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("phenotypes", "covariates", "population")  # keys whose value may be a DataFrame of people
_VERBS = {verb.name: verb for verb in VERBS}


@dataclass(frozen=True)
class Place:
    """Where a verb writes; `keeper`, where it is given, removes the folder when nothing refers to it any more."""

    path: Path
    keeper: tempfile.TemporaryDirectory[str] | None

    @classmethod
    def of(cls, out: str | os.PathLike[str] | None, name: str) -> Place:
        """`out`, or `name` in a temporary folder."""
        if out is not None:
            return cls(Path(out), None)
        keeper = tempfile.TemporaryDirectory(prefix="udipdist-")
        return cls(Path(keeper.name) / name, keeper)


def verb(name: str) -> Verb:
    """The verb of a name, as `interpret attention`."""
    return _VERBS[name]


def configuration(name: str, keys: Mapping[str, Any], place: Place) -> Config:
    """The configuration of a verb that writes to `place`. Raises ConfigError that lists every mistake."""
    cls = verb(name).config
    overwrite = bool(keys.get("overwrite", False))
    cls.parse({key: _stand_in(key, value) for key, value in keys.items()})  # a mistake is told before a table is made
    return cls.parse({key: _value(key, value, place.path, overwrite) for key, value in keys.items()})


def execute(name: str, config: Config) -> None:
    """Run a verb in this process. Raises what the verb raises; a refusal of the disk as an Error."""
    chosen = verb(name)
    try:
        getattr(import_module(chosen.module), chosen.function)(config)
    except Exception as error:
        told = of_the_user(error)
        if told is None or told is error:
            raise
        raise told from error


def _stand_in(key: str, value: Any) -> Any:
    """The value, with a path in the place of a table."""
    if is_table(value):
        if key not in TABLES:
            raise ConfigError(f"{key}: is a DataFrame; only {', '.join(TABLES)} may be one, so give a path")
        return f"{key}.parquet"
    if key in TABLES and isinstance(value, list | tuple):
        return [f"{key}{i}.parquet" if is_table(one) else plain(one) for i, one in enumerate(value)]
    return plain(value)


def _value(key: str, value: Any, out: Path, overwrite: bool) -> Any:
    """The value, with each table written beside `out`."""
    if is_table(value):
        return str(write_table(value, out.with_name(f"{out.name}.{key}.parquet"), overwrite))
    if key in TABLES and isinstance(value, list | tuple):
        paths = [out.with_name(f"{out.name}.{key}{i}.parquet") for i in range(len(value))]
        return [
            str(write_table(one, path, overwrite)) if is_table(one) else plain(one)
            for one, path in zip(value, paths, strict=True)
        ]
    return plain(value)


def is_table(value: Any) -> bool:
    """True for a DataFrame. pandas is not imported for that."""
    return hasattr(value, "columns") and hasattr(value, "to_parquet")


def plain(value: Any) -> Any:
    """What YAML could hold: paths and outputs of other calls as text, numbers of numpy as numbers of Python."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def write_table(table: pd.DataFrame, path: Path, overwrite: bool) -> Path:
    """Write a table of people as Parquet. One that is there with the same bytes is left as it is, so that what was made
    from it stays current. Raises ConfigError without FID and IID, OutputExists where another table is there."""
    import io

    from hpc.files import publish

    if "IID" not in table.columns and "IID" in table.index.names:
        table = table.reset_index()
    lacks = [name for name in ("FID", "IID") if name not in table.columns]
    if lacks:
        raise ConfigError(f"the DataFrame lacks the columns {', '.join(lacks)}; a table of people needs FID and IID")
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    if path.exists() and path.read_bytes() == buffer.getvalue():
        return path
    if path.exists() and not overwrite:
        raise OutputExists(f"{path}: holds another table; give another out= or overwrite=True")
    path.parent.mkdir(parents=True, exist_ok=True)
    with publish(path) as partial:
        partial.write_bytes(buffer.getvalue())
    return path
