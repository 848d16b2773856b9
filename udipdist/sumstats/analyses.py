"""Summary statistics of any origin, as the search for loci needs them; here those of a sumstats.zarr.

An *analysis* is one -log10 p a variant (config.analyses). M variants, P traits, G variants asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from scipy import special  # scipy.stats takes half a second to import

from hpc.errors import InputError
from udipdist.config.analyses import ALL, MINP, MULTIVARIATE, OVER_TRAITS
from udipdist.genome import assemblies
from udipdist.sumstats.calibration import MEDIAN_CHI2, lambda_gc, lambda_of_log10p
from udipdist.sumstats.store import Sumstats

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 65_536
LAMBDA_COLUMNS = ("trait", "lambda_gc", "se", "n_variants")


class Statistics(Protocol):
    """What `loci` asks of summary statistics. `chrom_M` (codes of genome.assemblies) and `position_M` are in memory."""

    path: Path
    chrom_M: np.ndarray
    position_M: np.ndarray
    traits: list[str]

    def analyses(self, wanted: str | tuple[str, ...]) -> list[str]:
        """The analyses behind the key `trait`. Raises InputError for what is not there."""

    def n_tests(self, analysis: str) -> int:
        """How many tests a variant the p of an analysis is the smallest of. Raises InputError where that is unknown."""

    def significant(self, limits: dict[str, float]) -> dict[str, np.ndarray]:
        """Of each analysis the variants (ascending) whose -log10 p exceeds its limit."""

    def log10p(self, analyses: Sequence[str], rows: np.ndarray) -> Callable[[str], np.ndarray]:
        """A function that gives -log10 p of one of `analyses`, float64 [G], of the variants `rows` (ascending)."""

    def names(self, rows: np.ndarray) -> pd.DataFrame:
        """Columns snp, a1, a2 of the variants `rows` (ascending)."""

    def trait_of(self, analysis: str, rows: np.ndarray) -> list[str]:
        """The trait that the p of each variant belongs to: for minp the one with the smallest p."""

    def best_of_traits(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each trait the largest -log10 p, float64 [P], among the variants `rows`, and whose it is (-1: none)."""

    def lambdas(self, analyses: Sequence[str], n_variants: int) -> pd.DataFrame:
        """LAMBDA_COLUMNS, a row a trait or joint test."""


class StoreStatistics:
    """A sumstats.zarr, of which only the shards that matter are read."""

    def __init__(self, sumstats: Sumstats):
        self.path, self.sumstats, self.traits = sumstats.path, sumstats, sumstats.traits
        self.chrom_M, pieces = np.empty(sumstats.n_variants, np.int8), []
        for start, stop in sumstats.spans(ROWS_AT_ONCE):
            names = sumstats.values("chrom", start, stop)
            begins = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
            codes = [assemblies.code(names[i]) for i in begins]
            self.chrom_M[start:stop] = np.repeat(codes, np.diff(np.r_[begins, stop - start]))
            pieces.append(sumstats.values("position", start, stop))
        self.position_M = np.concatenate([np.empty(0, np.int32), *pieces])

    def analyses(self, wanted: str | tuple[str, ...]) -> list[str]:
        """`all` is minp, multivariate where such a test was made, and each trait."""
        if wanted == ALL:
            joint = [MINP, MULTIVARIATE] if self._joint_test_made() else [MINP]
            return [*joint, *(trait for trait in self.traits if trait not in OVER_TRAITS)]
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        for name in names:
            if name not in OVER_TRAITS:
                self.sumstats.trait_index(name)
        if MULTIVARIATE in names and not self._joint_test_made():
            people = self.sumstats.attrs.get("n_effective")
            few = "" if people is None else f"; {len(self.traits)} traits, and {max(0, people):.0f} people that count"
            raise InputError(
                f"{self.path}: trait=multivariate: no joint test was made (all values are NaN{few}); use "
                "trait=minp, or run gwas with fewer traits or more people"
            )
        return names

    def n_tests(self, analysis: str) -> int:
        """All traits for minp."""
        return len(self.traits) if analysis == MINP else 1

    def significant(self, limits: dict[str, float]) -> dict[str, np.ndarray]:
        """One pass over the store for all traits; chunks of others are not read."""
        found: dict[str, list[np.ndarray]] = {name: [np.empty(0, np.int64)] for name in limits}
        columns = {name: self.sumstats.trait_index(name) for name in limits if name not in OVER_TRAITS}
        z_limits = {name: self._least_z(column, limits[name]) for name, column in columns.items()}
        for start, stop in self.sumstats.spans(ROWS_AT_ONCE):
            for name in limits.keys() - columns.keys():
                rows = np.flatnonzero(self.sumstats.log10p(name, start, stop) > limits[name])
                found[name].append(start + rows)
            for low, high in self._chunks(list(columns.values())):
                beta, se = self.sumstats.effects(start, stop, slice(low, high))
                with np.errstate(divide="ignore", invalid="ignore"):
                    z = np.abs(beta)
                    z /= se
                for name, column in columns.items():
                    if low <= column < high:
                        rows = np.flatnonzero(z[:, column - low] >= z_limits[name])
                        exact = self._exact(start + rows, column)
                        found[name].append(start + rows[exact > limits[name]])
        return {name: np.concatenate(pieces) for name, pieces in found.items()}

    def log10p(self, analyses: Sequence[str], rows: np.ndarray) -> Callable[[str], np.ndarray]:
        """Columns of traits are read together, once."""
        columns = [self.sumstats.trait_index(name) for name in analyses if name not in OVER_TRAITS]
        first, last = (min(columns), max(columns) + 1) if columns else (0, 0)
        beta, se = self.sumstats.effects_at(rows if columns else rows[:0], slice(first, last))

        def of(analysis: str) -> np.ndarray:
            if analysis in OVER_TRAITS:
                return self.sumstats.values_at(f"{analysis}_log10p", rows).astype(np.float64)
            column = self.sumstats.trait_index(analysis)
            return self.sumstats.log10p_from(beta[:, column - first], se[:, column - first], column)

        return of

    def names(self, rows: np.ndarray) -> pd.DataFrame:
        """Only the shards that hold them are read."""
        return pd.DataFrame({name: self.sumstats.values_at(name, rows).astype(object) for name in ("snp", "a1", "a2")})

    def trait_of(self, analysis: str, rows: np.ndarray) -> list[str]:
        """For minp as the store has it."""
        if analysis != MINP:
            return [analysis] * len(rows)
        return [self.traits[index] for index in self.sumstats.values_at("minp_trait", rows)]

    def best_of_traits(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """By |beta / se|, which has the order of p within a trait."""
        beta, se = (values.astype(np.float64) for values in self.sumstats.effects_at(rows))
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.nan_to_num(np.abs(beta / se), nan=-1.0)
        if not len(rows):
            return np.full(len(self.traits), np.nan), np.full(len(self.traits), -1)
        best, each = z.argmax(axis=0), np.arange(len(self.traits))
        log10p = self.sumstats.log10p_from(beta[best, each], se[best, each], each)
        return log10p, np.where(np.isnan(log10p), -1, rows[best])

    def lambdas(self, analyses: Sequence[str], n_variants: int) -> pd.DataFrame:
        """Median of (beta / se)^2 over that of its distribution, from whole shards spread evenly; the standard error
        from the spread of the shards' own medians (LD among neighbours counts)."""
        joint = [MULTIVARIATE] if MULTIVARIATE in analyses else []
        wanted = self.traits if set(analyses) & set(OVER_TRAITS) else list(analyses)
        spans = list(self.sumstats.blocks())
        number = min(len(spans), -(-n_variants // self.sumstats.rows_per_shard))
        spans = (
            [spans[i] for i in np.unique(np.linspace(0, len(spans) - 1, number).round().astype(int))] if spans else []
        )
        rows = [self._lambda_of_joint(name, spans) for name in joint]
        columns = [self.sumstats.trait_index(name) for name in wanted]
        for low, high in self._chunks(columns):
            pieces = []
            for start, stop in spans:
                beta, se = self.sumstats.effects(start, stop, slice(low, high))
                with np.errstate(divide="ignore", invalid="ignore"):
                    pieces.append(np.square(beta.astype(np.float64) / se))
            for name, column in zip(wanted, columns, strict=True):
                if low <= column < high:
                    rows.append(self._lambda_of_trait(name, column, [piece[:, column - low] for piece in pieces]))
        return pd.DataFrame(rows, columns=list(LAMBDA_COLUMNS))

    def _lambda_of_trait(self, name: str, column: int, squares: list[np.ndarray]) -> tuple[str, float, float, int]:
        null = self._median_of_null(column)
        return name, *lambda_gc(squares, lambda median: median / null)

    def _lambda_of_joint(self, name: str, spans: list[tuple[int, int]]) -> tuple[str, float, float, int]:
        return name, *lambda_gc([self.sumstats.log10p(name, *span) for span in spans], lambda_of_log10p)

    def _median_of_null(self, column: int) -> float:
        df = self.sumstats.attrs.get("df")
        if df is None:
            return MEDIAN_CHI2
        return float(special.fdtri(1, df if np.ndim(df) == 0 else df[column], 0.5))

    def _joint_test_made(self) -> bool:
        made = (
            ~np.isnan(self.sumstats.log10p(MULTIVARIATE, *span)).all() for span in self.sumstats.spans(ROWS_AT_ONCE)
        )
        return not self.sumstats.n_variants or any(made)

    def _chunks(self, columns: list[int]) -> list[tuple[int, int]]:
        """(low, high): the runs of chunks of the store, by trait, that hold one of `columns`."""
        width = self.sumstats.traits_per_chunk
        numbers = sorted({column // width for column in columns})
        return [(number * width, min((number + 1) * width, len(self.traits))) for number in numbers]

    def _exact(self, rows: np.ndarray, column: int) -> np.ndarray:
        if not len(rows):
            return np.empty(0)
        beta, se = self.sumstats.effects_at(rows, slice(column, column + 1))
        return self.sumstats.log10p_from(beta[:, 0], se[:, 0], column)

    def _least_z(self, column: int, log10p: float) -> float:
        """|z| a little below the one with that -log10 p."""
        low, high = 0.0, 1.0
        while self.sumstats.log10p_from(np.array(high), np.array(1.0), column) < log10p:
            low, high = high, 2 * high
        for _ in range(40):
            middle = (low + high) / 2
            below = self.sumstats.log10p_from(np.array(middle), np.array(1.0), column) < log10p
            low, high = (middle, high) if below else (low, middle)
        return low * (1 - 1e-5)  # the division is in float32
