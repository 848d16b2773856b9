"""Who is analysed: people with genotypes, phenotypes, covariates and a row in the GRM, in the order of the .fam.

Shapes: N people, P traits. Traits with the same people missing form a group and are analysed together; what a trait
gets never depends on the traits beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import special

from hpc.errors import InputError, some
from udipdist import ids
from udipdist.config import SampleOptions
from udipdist.gwas import outputs
from udipdist.people import coding, fields, tables
from udipdist.people import design as designs
from udipdist.people.tables import Match, describe_keys, keys

log = logging.getLogger(__name__)

_SPREADS = (1e-30, 1e30)  # of a trait: its effects, and a thousandth of one, are normal numbers of float32


@dataclass(frozen=True)
class Group:
    """Traits (columns `trait_P`) observed in the same people (rows `row_N` of the sample)."""

    row_N: np.ndarray
    trait_P: np.ndarray


@dataclass(frozen=True)
class Table:
    """One table of phenotypes: its name (see outputs.names), its traits `start`..`stop` - 1 among those of all tables,
    the rows of the sample with a value for any of them, and who of its people was left out and why (FID IID reason)."""

    path: Path
    name: str
    start: int
    stop: int
    row_N: np.ndarray
    dropped: pd.DataFrame


@dataclass(frozen=True)
class Sample:
    """The analysed people: `people` (FID IID), their row in the .fam, trait values (NaN where missing), covariate
    columns without the intercept and what they are made from; and the tables that the traits are from, in which their
    names are unique."""

    people: pd.DataFrame
    fam_N: np.ndarray
    tables: list[Table]
    traits: list[str]
    y_NP: np.ndarray
    covariates: pd.DataFrame
    source: Covariates
    match: Match

    @property
    def n(self) -> int:
        """Number of people."""
        return len(self.fam_N)

    @property
    def n_dropped(self) -> int:
        """Number of people left out of every table."""
        left = {key for table in self.tables for key in keys(table.dropped, "fid_iid")}
        return len(left.difference(keys(self.people, "fid_iid")))

    def table_of(self, p: int) -> Table:
        """The table of trait `p`."""
        return next(table for table in self.tables if table.start <= p < table.stop)

    def covariates_of(self, group: Group) -> pd.DataFrame:
        """Covariate columns of the people of a group, as if they were the whole sample."""
        if self.source.formula.depends_on_people:
            return self.source.columns(self.fam_N[group.row_N])
        return self.covariates.iloc[group.row_N]

    def groups(self) -> list[Group]:
        """The traits by pattern of missing people, in the order of their first trait."""
        seen_NP = np.isfinite(self.y_NP)
        by_pattern: dict[bytes, list[int]] = {}
        for p in range(len(self.traits)):
            by_pattern.setdefault(np.packbits(seen_NP[:, p]).tobytes(), []).append(p)
        return [Group(np.flatnonzero(seen_NP[:, group[0]]), np.array(group)) for group in by_pattern.values()]


def assemble(fam: pd.DataFrame, where: str, phenotypes: Sequence[Path], config: SampleOptions) -> Sample:
    """Read phenotypes and covariates, and match them to the people of the .fam, which is at `where`. Raises InputError.

    People who lack genotypes, phenotypes or covariates are left out and listed; nobody left is an error. Each table is
    matched as if it were alone; the sample is the union of their people, with NaN where a table lacks a person.
    """
    tables.refuse_duplicates(fam, config.match, where)
    names = outputs.names(phenotypes)
    source = Covariates.read(config, fam, where)
    matched = [_match(config, path, source) for path in phenotypes]
    traits = [trait for one in matched for trait in one.traits]
    fam_N = np.unique(np.concatenate([one.fam_N for one in matched]))
    y_NP = np.full((len(fam_N), len(traits)), np.nan)
    own: list[Table] = []
    for name, path, one in zip(names, phenotypes, matched, strict=True):
        start = own[-1].stop if own else 0
        own.append(Table(path, name, start, start + len(one.traits), np.searchsorted(fam_N, one.fam_N), one.dropped))
        y_NP[own[-1].row_N, start : own[-1].stop] = one.y_NP
    columns = source.columns(fam_N)
    source.warn_of_codes(fam_N)
    designs.warn_dropped(designs.design(columns))
    sample = Sample(
        people=fam.iloc[fam_N][["FID", "IID"]].reset_index(drop=True),
        fam_N=fam_N,
        tables=own,
        traits=traits,
        y_NP=y_NP,
        covariates=columns,
        source=source,
        match=config.match,
    )
    _report(sample)
    return sample


@dataclass(frozen=True)
class _Matched:
    """One table: rows of the .fam of its people who have everything, their values [N, P], and who was left out."""

    fam_N: np.ndarray
    traits: list[str]
    y_NP: np.ndarray
    dropped: pd.DataFrame


def _match(config: SampleOptions, path: Path, source: Covariates) -> _Matched:
    fam = source.fam
    people, traits, values = tables.read_phenotypes(path, config.match, config.missing)
    dropped: list[pd.DataFrame] = []
    fam_key, row_of = keys(fam, config.match), _rows(people, config.match)
    chosen = fam_key.isin(row_of.index).to_numpy()
    if not chosen.any():
        raise InputError(_no_overlap(path, people, source.where, fam, config.match))
    _drop(dropped, fam[~chosen], f"no row in {path.name}")
    _drop(dropped, people[~keys(people, config.match).isin(fam_key)], "no genotypes")
    fam_N = source.select(np.flatnonzero(chosen), dropped)
    y_NP = values[row_of[fam_key.iloc[fam_N]].to_numpy()]
    observed = np.isfinite(y_NP).any(axis=1)
    _drop(dropped, fam.iloc[fam_N[~observed]], "every trait is missing")
    if not observed.any():
        raise InputError(f"{path}: has no value of any trait for the {len(fam_N)} people who have everything else")
    fam_N, y_NP = fam_N[observed], y_NP[observed]
    _check_traits(path, traits, y_NP)
    coding.warn_of_traits(path, traits, y_NP)
    if config.normalise == "rank":
        y_NP = normal_scores(y_NP)
    _check_spread(path, traits, y_NP)
    return _Matched(fam_N, traits, y_NP, pd.concat(dropped, ignore_index=True))


def _report(sample: Sample) -> None:
    """Say who is left out, and which tables have nobody in common."""
    several = len(sample.tables) > 1
    for table in sample.tables:
        where = f"{table.name}: " if several else ""
        for reason, group in table.dropped.groupby("reason"):
            who = describe_keys(list(keys(group, "fid_iid")))
            log.info("%s%d people are left out: %s (%s)", where, len(group), reason, who)
        if several:
            log.info("%s%d people, %d traits", where, len(table.row_N), table.stop - table.start)
    log.info("%d people, %d traits, %d covariate columns", sample.n, len(sample.traits), len(sample.covariates.columns))
    first = sample.tables[0]
    for table in sample.tables[1:]:
        if not len(np.intersect1d(table.row_N, first.row_N)):
            log.warning(
                "%s and %s have nobody in common among the people analysed; are these tables of the same cohort?",
                first.path, table.path,
            )  # fmt: skip


def normal_scores(y_NP: np.ndarray) -> np.ndarray:
    """Each column's ranks as normal quantiles, (rank - 3/8) / (n + 1/4) (Blom 1958); ties share their mean rank,
    NaN stays NaN."""
    from scipy.stats import rankdata  # half a second, which only those pay who ask for ranks

    rank_NP = rankdata(y_NP, axis=0, nan_policy="omit")
    return special.ndtri((rank_NP - 0.375) / (np.isfinite(y_NP).sum(axis=0) + 0.25))


@dataclass(frozen=True)
class Covariates:
    """The covariate table, its rows in the order of the .fam (-1: none), and the formula. The .fam is at `where`."""

    config: SampleOptions
    fam: pd.DataFrame
    where: str
    table: pd.DataFrame
    row_F: np.ndarray
    formula: designs.Formula

    @classmethod
    def read(cls, config: SampleOptions, fam: pd.DataFrame, where: str) -> Covariates:
        """Raises InputError."""
        if config.covariates is None:
            if config.formula is not None:
                raise InputError(f"formula={config.formula!r}: needs covariates=FILE")
            nothing = designs.Formula.parse(None, [])
            return cls(config, fam, where, fam[["FID", "IID"]], np.arange(len(fam)), nothing)
        table, formula = read_covariates(config, config.covariates)
        row_F = _rows(table, config.match).reindex(keys(fam, config.match)).fillna(-1).to_numpy(np.int64)
        return cls(config, fam, where, table, row_F, formula)

    def select(self, fam_N: np.ndarray, dropped: list[pd.DataFrame]) -> np.ndarray:
        """Those of the people at `fam_N` who have all covariates; the others are put on the list. Raises InputError."""
        config, path, fam = self.config, self.config.covariates, self.fam
        if path is None:
            return fam_N
        has = self.row_F[fam_N] >= 0
        if not has.any():
            raise InputError(_no_overlap(path, self.table, self.where, fam.iloc[fam_N], config.match))
        _drop(dropped, fam.iloc[fam_N[~has]], f"no row in {path.name}")
        fam_N = fam_N[has]
        table = self.table.iloc[self.row_F[fam_N]]
        lacks_NK = table[list(self.formula.columns)].isna()
        lacking = lacks_NK.any(axis=1).to_numpy()
        if lacking.any() and config.missing_covariates == "refuse":
            who = describe_keys(keys(table[lacking], "fid_iid"))
            raise InputError(
                f"{path}: {some(lacks_NK.columns[lacks_NK.any()])} missing for {lacking.sum()} of "
                f"{len(table)} people ({who}); fill in the values, or type missing_covariates=drop to leave them out"
            )
        _drop(dropped, fam.iloc[fam_N[lacking]], "missing covariates")
        if lacking.all():
            raise InputError(f"{path}: every person has a missing covariate; leave sparse columns out with formula=")
        return fam_N[~lacking]

    def columns(self, fam_N: np.ndarray) -> pd.DataFrame:
        """The columns of the formula for the people at `fam_N`, who have all covariates. Raises InputError."""
        table = self.table.iloc[self.row_F[fam_N]].reset_index(drop=True)
        return designs.encode(table, self.formula, str(self.config.covariates))

    def warn_of_codes(self, fam_N: np.ndarray) -> None:
        """Warn of columns that look like codes, among the people at `fam_N`."""
        if self.config.covariates is not None:
            coding.warn_of_covariates(self.config.covariates, self.table.iloc[self.row_F[fam_N]], self.formula)


def read_covariates(config: SampleOptions, path: Path) -> tuple[pd.DataFrame, designs.Formula]:
    """The covariate table, and the formula checked against its columns. Raises InputError."""
    table = tables.read_covariates(path, config.match, config.missing)
    formula = designs.Formula.parse(config.formula, list(table.columns[2:]), fields.read_aliases(config.aliases))
    tables.refuse_mixed(path, table, formula.columns)
    return table, formula


def _check_traits(path: Path, traits: list[str], y_NP: np.ndarray) -> None:
    """Raises InputError for traits without values, or with one value only."""
    seen_NP = np.isfinite(y_NP)
    empty = [traits[p] for p in np.flatnonzero(~seen_NP.any(axis=0))]
    if empty:
        raise InputError(
            f"{path}: {some(empty)} {'has' if len(empty) == 1 else 'have'} no value for any of the {len(y_NP)} people "
            "analysed; leave the column out"
        )
    with np.errstate(invalid="ignore"):
        constant = np.nanmax(y_NP, axis=0) == np.nanmin(y_NP, axis=0)
    if constant.any():
        first = np.flatnonzero(constant)[0]
        raise InputError(
            f"{path}: {some(traits[p] for p in np.flatnonzero(constant))} is constant "
            f"({np.nanmax(y_NP[:, first])!s}) over the people analysed; leave the column out"
        )


def _check_spread(path: Path, traits: list[str], y_NP: np.ndarray) -> None:
    """Raises InputError for traits whose effects float32 cannot hold."""
    spread_P = np.nanmax(y_NP, axis=0) / 2 - np.nanmin(y_NP, axis=0) / 2
    odd = np.flatnonzero((spread_P < _SPREADS[0]) | (spread_P > _SPREADS[1]))
    if odd.size:
        raise InputError(
            f"{path}: {some(traits[p] for p in odd)} varies by {spread_P[odd[0]]:.1e} around its middle; effects are "
            f"stored as float32, which needs {_SPREADS[0]:g} to {_SPREADS[1]:g}: write the trait in another unit"
        )


def _rows(table: pd.DataFrame, match: Match) -> pd.Series:
    return pd.Series(np.arange(len(table)), index=keys(table, match).to_numpy())


def _drop(dropped: list[pd.DataFrame], people: pd.DataFrame, reason: str) -> None:
    dropped.append(people[["FID", "IID"]].assign(reason=reason))


def _no_overlap(path: Path, table: pd.DataFrame, fam_path: str, fam: pd.DataFrame, match: Match) -> str:
    def example(people: pd.DataFrame) -> str:
        return describe_keys(keys(people, "fid_iid"), 2) if match == "fid_iid" else some(people.IID, 2)

    hint = ids.hint(table, fam) or "make the ids agree"
    if match == "fid_iid" and table.IID.isin(fam.IID).any():
        hint = f"{table.IID.isin(fam.IID).sum()} of the IIDs agree: type match=iid to match on them alone"
    names = "FID IID" if match == "fid_iid" else "IID"
    return (
        f"{path}: none of its {len(table)} people ({names}: {example(table)}) is among the {len(fam)} of "
        f"{fam_path} ({example(fam)}); {hint}"
    )
