"""The reference: SNPs of a panel near significant ones, and the LD among them, computed once for all analyses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from udipdist.genome import assemblies
from udipdist.genotypes.ld import LinkageReader
from udipdist.genotypes.source import GenotypeSource

PLACES = 10**10  # base pairs that fit between two chromosomes in one number


@dataclass(frozen=True)
class Index:
    """Variants by place: `rows` are their numbers in the file in order of the genome, `places` chromosome and position
    in one number."""

    rows: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, chrom_M: np.ndarray, position_M: np.ndarray, without: tuple[int, int, int] | None) -> Self:
        """All variants on known chromosomes; without those of the stretch `without` (chromosome, first, last)."""
        keep_M = chrom_M != assemblies.UNPLACED
        if without is not None:
            chrom, start, end = without
            keep_M &= ~((chrom_M == chrom) & (position_M >= start) & (position_M <= end))
        rows = np.flatnonzero(keep_M)
        places = chrom_M[rows].astype(np.int64)
        places *= PLACES
        places += position_M[rows]
        if (places[1:] >= places[:-1]).all():
            return cls(rows, places)
        order = np.argsort(places, kind="stable")
        return cls(rows[order], places[order])

    def within(self, chrom: int, start: int, end: int) -> np.ndarray:
        """Numbers, ascending, of the variants of a chromosome from start to end, both included."""
        first, last = np.searchsorted(self.places, [chrom * PLACES + start, chrom * PLACES + end + 1])
        return np.sort(self.rows[first:last])

    def near(self, chrom: int, positions: np.ndarray, window_bp: int) -> np.ndarray:
        """Numbers, ascending, of a chromosome's variants within `window_bp` of one of `positions` (sorted)."""
        first, last = np.searchsorted(self.places, [chrom * PLACES, (chrom + 1) * PLACES])
        here = self.places[first:last] - chrom * PLACES
        until = np.searchsorted(positions, here + window_bp, side="right")
        return np.sort(self.rows[first:last][until > np.searchsorted(positions, here - window_bp)])


class Reference:
    """Genotypes as the reference panel."""

    def __init__(self, source: GenotypeSource, without: tuple[int, int, int] | None, window_bp: int, r2_floor: float):
        self.source, self.window_bp, self.r2_floor = source, window_bp, r2_floor
        position_M = source.variants["position"].to_numpy(np.int64)
        self.chrom_M, self.position_M = assemblies.codes(source.variants["chrom"]), position_M
        self.index = Index.of(self.chrom_M, position_M, without)

    def near(self, chrom: int, positions: np.ndarray) -> Stretch:
        """The SNPs of a chromosome within the window of one of `positions` (sorted)."""
        rows = self.index.near(chrom, positions, self.window_bp)
        here = self.source.variants.iloc[rows]
        ids = assemblies.unique_ids(chrom, self.position_M[rows], here["a1"], here["a2"])
        _, first = np.unique(ids, return_index=True)  # of repeats the first of the file
        first = first[np.lexsort((ids[first].astype(str), self.position_M[rows[first]]))]
        return Stretch(self, rows[first], ids[first], here["snp"].to_numpy(object)[first])


class Stretch:
    """S reference SNPs of one chromosome by position and id: `row_S` (in the source), `id_S`, `snp_S`, `position_S`.

    LD that was asked for once is kept, for the next analysis that finds the same SNP.
    """

    def __init__(self, reference: Reference, row_S: np.ndarray, id_S: np.ndarray, snp_S: np.ndarray):
        self.row_S, self.id_S, self.snp_S = row_S, id_S, snp_S
        self.position_S = reference.position_M[row_S]
        self._window_bp = reference.window_bp
        self._floor, self._reader = reference.r2_floor, LinkageReader(reference.source, row_S)
        self._linked: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._frequency_S = np.full(len(row_S), np.nan)

    def r2(self, i: int, start: int, stop: int) -> np.ndarray:
        """r2 of SNP i with the SNPs start..stop-1, all in its window, float64; 0 where it is below the floor."""
        result = np.zeros(stop - start)
        at, values = self.linked(i)
        result[at - start] = values
        return result

    def linked(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """The SNPs in the window of SNP i whose r2 with it reaches the floor, and that r2."""
        if i not in self._linked:
            reach = [self.position_S[i] - self._window_bp, self.position_S[i] + self._window_bp + 1]
            start, stop = np.searchsorted(self.position_S, reach).tolist()
            r2 = self._reader.r2(i, start, stop)
            at = np.flatnonzero(r2 >= self._floor)
            self._linked[i] = (start + at).astype(np.int32), r2[at]
        return self._linked[i]

    def minor_frequency(self, i: int) -> float:
        """Frequency of the rarer allele of SNP i, counted once."""
        if np.isnan(self._frequency_S[i]):
            self._frequency_S[i] = self._reader.minor_frequency(i)
        return float(self._frequency_S[i])
