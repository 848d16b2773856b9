"""A scan that says which files a part wrote, so that a shard lost, cut off or changed later is noticed (hpc.parts)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import zarr

from udipdist.gwas.shard import Scan
from udipdist.gwas.sumstats import STORE


class RecordedScan(Scan):
    """The parts of one GWAS; part i is shard i of every array along the variants, in the store of every table."""

    def files_of_part(self, index: int) -> Iterator[Path]:
        """Its shards, and those that the plan wrote for it (names, positions, alleles)."""
        for store in sorted([*self.place.glob(STORE), *self.place.glob(f"*/{STORE}")]):
            for name, array in zarr.open_group(store=str(store), mode="r").arrays():
                if "variant" in (array.metadata.dimension_names or ()):
                    yield store.joinpath(name, "c", str(index), *["0"] * (array.ndim - 1))
