"""What the figures show of summary statistics of any origin: a scan, a region with LD, the traits of loci."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from hpc.errors import InputError
from udipdist.config.analyses import MINP
from udipdist.genome import assemblies
from udipdist.genotypes.ld import LinkageReader
from udipdist.genotypes.source import open_hard_calls
from udipdist.loci.reference import Index
from udipdist.report import naming
from udipdist.report.figures.heatmap import Strengths
from udipdist.report.figures.manhattan import Scan
from udipdist.report.figures.regional import Region
from udipdist.sumstats.analyses import Statistics, StoreStatistics
from udipdist.sumstats.opening import open_statistics

FLANK_BP = 500_000


@dataclass
class Analysis:
    """One -log10 p a variant: float64 [M], NaN where not tested."""

    statistics: Statistics
    name: str
    log10p_M: np.ndarray

    @classmethod
    def open(cls, path: Path, trait: str) -> Self:
        """A trait, minp or multivariate of a folder of `gwas`, or of a table. Raises InputError."""
        return cls.of(open_statistics(Path(path)), trait)

    @classmethod
    def of(cls, statistics: Statistics, trait: str) -> Self:
        """The analysis `trait` of what is open. Raises InputError where there is none, or no p in it."""
        name = statistics.analyses(trait)[0]
        if isinstance(statistics, StoreStatistics):
            log10p_M = statistics.sumstats.log10p(name)
        else:
            log10p_M = statistics.log10p([name], np.arange(len(statistics.chrom_M)))(name)
        return cls(statistics, name, log10p_M)

    @cached_property
    def index(self) -> Index:
        """Variants by place."""
        return Index.of(self.statistics.chrom_M, self.statistics.position_M, None)

    def threshold(self, p: float) -> float:
        """-log10 of p, divided by the number of traits that the smallest p is of."""
        return -float(np.log10(p / self.statistics.n_tests(self.name)))

    def scan(self, threshold: float | None, loci: pd.DataFrame | None = None, **more) -> Scan:
        """What a Manhattan plot shows, with the trait of origin where there are several."""
        s = self.statistics
        origin = (lambda rows: s.trait_of(self.name, rows)) if self.name == MINP and len(s.traits) > 1 else None
        return Scan(s.chrom_M, s.position_M, self.log10p_M, threshold, loci, trait_of=origin, **more)

    def strengths(self, loci: pd.DataFrame, threshold: float | None) -> Strengths:
        """Of each locus and trait the largest -log10 p among the variants between the locus' ends."""
        best_LP = np.full((len(loci), len(self.statistics.traits)), np.nan)
        for i, row in enumerate(loci.itertuples()):
            inside = self.index.within(int(row.code), int(row.start), int(row.end))
            best_LP[i], _ = self.statistics.best_of_traits(inside)
        return Strengths(best_LP, loci, list(self.statistics.traits), threshold)

    def region(
        self,
        row,
        threshold: float | None,
        linkage: Linkage | None,
        genes: pd.DataFrame | None,
        flank_bp: int = FLANK_BP,
    ) -> Region:
        """The surroundings of a locus (a row of a table of loci): `flank_bp` around its lead SNP, and all of it."""
        ends = (int(row.start), int(row.end))
        lead = int(row.lead_position)
        start, end = max(1, min(lead - flank_bp, ends[0])), max(lead + flank_bp, ends[1])
        name = f"{naming.title(row)}, chromosome {assemblies.label(row.code)}"
        variants = self.variants(int(row.code), start, end)
        at = variants[(variants["position"] == lead) & variants["log10p"].notna()]
        named = at[at["snp"] == row.lead_snp]
        at = named if len(named) else at
        if at.empty:
            raise InputError(
                f"{self.statistics.path}: has no p at the lead SNP {row.lead_snp} "
                f"(chr{assemblies.label(row.code)}:{lead:,}) of locus {row.locus}; give the summary "
                "statistics that the loci are of"
            )
        return self._region(int(row.code), start, end, variants, at["log10p"].idxmax(), name, threshold, ends, linkage,
                            genes)  # fmt: skip

    def stretch(
        self, code: int, start: int, end: int, threshold: float | None, linkage: Linkage | None,
        genes: pd.DataFrame | None,
    ) -> Region:  # fmt: skip
        """A region that need not be a locus; LD is that to its strongest variant. Raises InputError without any p."""
        variants = self.variants(code, start, end)
        name = f"{assemblies.label(code)}:{start:,}-{end:,}"
        if not variants["log10p"].notna().any():
            raise InputError(f"region={name}: {self.statistics.path} has no variant with a p there; give another one")
        lead = variants["log10p"].idxmax()
        return self._region(code, start, end, variants, lead, f"chr{name}", threshold, None, linkage, genes)

    def variants(self, code: int, start: int, end: int) -> pd.DataFrame:
        """position, log10p, snp, a1, a2 of the variants of a region, by position."""
        rows = self.index.within(code, start, end)
        table = self.statistics.names(rows).reset_index(drop=True)
        values = Scan(self.statistics.chrom_M, self.statistics.position_M, self.log10p_M, None).heights(
            self.log10p_M[rows]
        )
        table = table.assign(position=self.statistics.position_M[rows].astype(np.int64), log10p=values)
        return table.sort_values("position", kind="stable", ignore_index=True)

    def _region(self, code, start, end, variants, lead, name, threshold, locus, linkage, genes) -> Region:
        variants = variants.assign(r2=np.nan if linkage is None else linkage.r2(code, start, end, variants, lead))
        here = None if genes is None else genes[genes["chrom"] == code]
        return Region(code, start, end, variants, lead, name, threshold, locus, here)


class Linkage:
    """r2 from genotypes."""

    def __init__(self, prefix: Path | str):
        self.source = open_hard_calls(prefix)
        self.position_M = self.source.variants["position"].to_numpy(np.int64)
        self.index = Index.of(assemblies.codes(self.source.variants["chrom"]), self.position_M, None)

    def r2(self, code: int, start: int, end: int, variants: pd.DataFrame, lead: int) -> np.ndarray:
        """r2 to the variant `lead` (its index) of `variants` (position, a1, a2), float64; NaN where one is not among
        them. They are matched by position and unordered alleles."""
        rows = self.index.within(code, start, end)
        here = self.source.variants.iloc[rows]
        known = assemblies.unique_ids(code, self.position_M[rows], here["a1"], here["a2"])
        wanted = assemblies.unique_ids(code, variants["position"].to_numpy(), variants["a1"], variants["a2"])
        row_of = {name: i for i, name in reversed(list(enumerate(known.tolist())))}  # of repeats the first
        chosen = row_of.get(wanted[variants.index.get_loc(lead)])
        if chosen is None:
            return np.full(len(variants), np.nan)
        r2 = LinkageReader(self.source, rows).r2(chosen, 0, len(rows))
        r2[chosen] = 1.0
        places = np.array([row_of.get(name, -1) for name in wanted], np.int64)
        return np.where(places >= 0, r2[places], np.nan)
