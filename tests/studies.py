"""Small studies on disk: summary statistics and the genotypes of the reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from bed_reader import to_bed

from hpc.files import publish_json
from udipdist.config import LociConfig
from udipdist.sumstats.store import SumstatsBlock, create, write


@dataclass(frozen=True)
class Study:
    """Where a study lies, and how to run `loci` on it."""

    folder: Path

    def config(self, **keys) -> LociConfig:
        """tests=1 unless given."""
        places = {"sumstats": self.folder / "gwas", "genotypes": self.folder / "geno", "out": self.folder / "loci"}
        return LociConfig(**(places | {"tests": 1} | keys))


def write_reference(prefix: Path, variants: pd.DataFrame, counts_NM: np.ndarray) -> None:
    """A .bed of counts of A1 (-1: missing) with the columns chrom, position, snp, a1, a2 of `variants`."""
    calls = np.where(counts_NM < 0, np.nan, counts_NM).astype(np.float32)
    properties = {
        "fid": [f"f{i}" for i in range(len(calls))],
        "iid": [f"i{i}" for i in range(len(calls))],
        "chromosome": variants.chrom.tolist(),
        "sid": variants.snp.tolist(),
        "bp_position": variants.position.tolist(),
        "allele_1": variants.a1.tolist(),
        "allele_2": variants.a2.tolist(),
    }
    to_bed(str(prefix) + ".bed", calls, properties=properties, count_A1=True)


def write_gwas(folder: Path, variants: pd.DataFrame, log10p, rows: int, traits=("a", "b")) -> None:
    """A finished folder of gwas whose minp (of the last trait) and multivariate are `log10p`; NaN: not tested."""
    m, log10p = len(variants), np.asarray(log10p, float)
    create(folder / "sumstats.zarr", variants, list(traits), rows, {"df": None})
    z = np.full((m, len(traits)), 0.5)
    best = np.where(np.isnan(log10p), -1, len(traits) - 1)
    for start in range(0, m, rows):
        part = slice(start, min(start + rows, m))
        n = part.stop - part.start
        block = SumstatsBlock(
            z[part], np.ones((n, len(traits))), np.full(n, 50), np.full(n, 0.3), log10p[part], best[part], log10p[part]
        )
        write(folder / "sumstats.zarr", start, block)
    publish_json(folder / "manifest.json", {"id": "gwas-1", "stage": "gwas"})
