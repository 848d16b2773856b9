"""A scan that says which files a part wrote, so that a shard lost, cut off or changed later is noticed (hpc.parts)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import zarr

from udipdist.gwas.shard import Scan
from udipdist.gwas.sumstats import COLUMNS, STORE


class RecordedScan(Scan):
    """The parts of one GWAS; part i is shard i of every array of results, in the store of every table."""

    def files_of_part(self, index: int) -> Iterator[Path]:
        """Its shards."""
        for store in self._stores():
            for name, rank in _results(store, self.planned):
                yield store.joinpath(name, "c", str(index), *["0"] * (rank - 1))

    def files_of_plan(self) -> Iterator[Path]:
        """Tables, and of the stores all metadata and the columns of the .bim."""
        for store in self._stores():
            yield from (store.parent / name for name in ("null.tsv", "samples.tsv", "dropped.tsv"))
            yield from store.rglob("zarr.json")
            for name in (*COLUMNS, "trait"):
                yield from (path for path in (store / name / "c").rglob("*") if path.is_file())

    def _stores(self) -> list[Path]:
        return sorted([*self.place.glob(STORE), *self.place.glob(f"*/{STORE}")])


@lru_cache(maxsize=64)
def _results(store: Path, stamp: str) -> list[tuple[str, int]]:
    """The arrays of results in the store of the plan with this stamp, and how many dimensions each has."""
    arrays = zarr.open_group(store=str(store), mode="r").arrays()
    along = [(name, array) for name, array in arrays if "variant" in (array.metadata.dimension_names or ())]
    return [(name, array.ndim) for name, array in along if name not in COLUMNS]
