"""Summary statistics of any origin, opened by what stands at a path."""

from __future__ import annotations

from pathlib import Path

from hpc.errors import InputError, some
from udipdist.sumstats.analyses import Statistics, StoreStatistics
from udipdist.sumstats.store import STORE, Sumstats
from udipdist.sumstats.text import TextStatistics


def open_statistics(path: Path) -> Statistics:
    """A folder of `gwas` or its store, or a table in text. Raises InputError."""
    if path.is_file():
        return TextStatistics.read(path)
    inside = sorted(store.parent.name for store in path.glob(f"*/{STORE}")) if path.is_dir() else []
    if inside and not (path / STORE).exists():
        places = [str(path / name) for name in inside]
        raise InputError(
            f"{path}: holds the results of several tables: {some(inside, 10)}; give one, as sumstats={places[0]}, or "
            f"several, as sumstats=[{', '.join(places[:2])}]"
        )
    return StoreStatistics(Sumstats.open(path))
