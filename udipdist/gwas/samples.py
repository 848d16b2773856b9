"""Who is analysed: people with genotypes, phenotypes, covariates and a row in the GRM, in the order of the .fam.

Shapes: N people, P traits. Traits with the same people missing form a group and are analysed together; what a trait
gets never depends on the traits beside it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import special, stats

from hpc.errors import InputError, some
from udipdist.config import GwasConfig
from udipdist.gwas import covariates, tables
from udipdist.gwas.tables import Match, describe_keys, keys

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Group:
    """Traits (columns `trait_P`) observed in the same people (rows `row_N` of the sample)."""

    row_N: np.ndarray
    trait_P: np.ndarray


@dataclass(frozen=True)
class Sample:
    """The analysed people: `people` (FID IID), their row in the .fam, trait values (NaN where missing), covariate
    columns without the intercept; and who was left out and why (FID IID reason)."""

    people: pd.DataFrame
    fam_N: np.ndarray
    traits: list[str]
    y_NP: np.ndarray
    covariates: pd.DataFrame
    dropped: pd.DataFrame
    match: Match

    @property
    def n(self) -> int:
        """Number of people."""
        return len(self.fam_N)

    def groups(self) -> list[Group]:
        """The traits by pattern of missing people, in the order of their first trait."""
        seen_NP = np.isfinite(self.y_NP)
        by_pattern: dict[bytes, list[int]] = {}
        for p in range(len(self.traits)):
            by_pattern.setdefault(np.packbits(seen_NP[:, p]).tobytes(), []).append(p)
        return [Group(np.flatnonzero(seen_NP[:, group[0]]), np.array(group)) for group in by_pattern.values()]


def assemble(config: GwasConfig, fam: pd.DataFrame) -> Sample:
    """Read phenotypes and covariates, and match them to the people of the .fam. Raises InputError.

    People who lack genotypes, phenotypes or covariates are left out and listed; nobody left is an error.
    """
    tables.refuse_duplicates(fam, config.match, f"{config.genotypes}.fam")
    people, traits, values = tables.read_phenotypes(config.phenotypes, config.match)
    dropped: list[pd.DataFrame] = []
    fam_key, row_of = keys(fam, config.match), _rows(people, config.match)
    chosen = fam_key.isin(row_of.index).to_numpy()
    if not chosen.any():
        raise InputError(_no_overlap(config.phenotypes, people, f"{config.genotypes}.fam", fam, config.match))
    _drop(dropped, fam[~chosen], f"no row in {config.phenotypes.name}")
    _drop(dropped, people[~keys(people, config.match).isin(fam_key)], "no genotypes")
    fam_N = np.flatnonzero(chosen)

    if config.covariates is None:
        if config.formula is not None:
            raise InputError(f"formula={config.formula!r}: needs covariates=FILE")
        table = fam.iloc[fam_N][["FID", "IID"]].reset_index(drop=True)
        formula = covariates.Formula.parse(None, [])
    else:
        table, formula, fam_N = _covariates(config, fam, fam_N, dropped)

    y_NP = values[row_of[fam_key.iloc[fam_N]].to_numpy()]
    observed = np.isfinite(y_NP).any(axis=1)
    _drop(dropped, fam.iloc[fam_N[~observed]], "every trait is missing")
    fam_N, y_NP, table = fam_N[observed], y_NP[observed], table[observed].reset_index(drop=True)
    _check_traits(config.phenotypes, traits, y_NP)
    columns = covariates.encode(table, formula, str(config.covariates))
    covariates.warn_dropped(covariates.design(columns))
    if config.normalise == "rank":
        y_NP = normal_scores(y_NP)
    sample = Sample(
        people=fam.iloc[fam_N][["FID", "IID"]].reset_index(drop=True),
        fam_N=fam_N,
        traits=traits,
        y_NP=y_NP,
        covariates=columns,
        dropped=pd.concat(dropped, ignore_index=True),
        match=config.match,
    )
    for reason, group in sample.dropped.groupby("reason"):
        who = describe_keys(list(keys(group, "fid_iid")))
        log.info("%d people are left out: %s (%s)", len(group), reason, who)
    log.info("%d people, %d traits, %d covariate columns", sample.n, len(traits), len(columns.columns))
    return sample


def normal_scores(y_NP: np.ndarray) -> np.ndarray:
    """Each column's ranks as normal quantiles, (rank - 3/8) / (n + 1/4) (Blom 1958); ties share their mean rank,
    NaN stays NaN."""
    rank_NP = stats.rankdata(y_NP, axis=0, nan_policy="omit")
    return special.ndtri((rank_NP - 0.375) / (np.isfinite(y_NP).sum(axis=0) + 0.25))


def _covariates(
    config: GwasConfig, fam: pd.DataFrame, fam_N: np.ndarray, dropped: list[pd.DataFrame]
) -> tuple[pd.DataFrame, covariates.Formula, np.ndarray]:
    """Covariate table of the people who have one, the formula, and those people."""
    path = config.covariates
    table = tables.read_covariates(path, config.match)
    formula = covariates.Formula.parse(config.formula, list(table.columns[2:]))
    fam_key, row_of = keys(fam, config.match), _rows(table, config.match)
    has = fam_key.iloc[fam_N].isin(row_of.index).to_numpy()
    if not has.any():
        raise InputError(_no_overlap(path, table, f"{config.genotypes}.fam", fam.iloc[fam_N], config.match))
    _drop(dropped, fam.iloc[fam_N[~has]], f"no row in {path.name}")
    fam_N = fam_N[has]
    table = table.iloc[row_of[fam_key.iloc[fam_N]].to_numpy()].reset_index(drop=True)
    lacks_NK = table[list(formula.columns)].isna()
    lacking = lacks_NK.any(axis=1).to_numpy()
    if lacking.any() and config.missing_covariates == "refuse":
        who = describe_keys(keys(table[lacking], "fid_iid"))
        raise InputError(
            f"{path}: {some(lacks_NK.columns[lacks_NK.any()])} missing (NA) for {lacking.sum()} of "
            f"{len(table)} people ({who}); fill in the values, or type missing_covariates=drop to leave them out"
        )
    _drop(dropped, fam.iloc[fam_N[lacking]], "missing covariates")
    if lacking.all():
        raise InputError(f"{path}: everybody has a missing covariate; leave sparse columns out by formula=")
    return table[~lacking].reset_index(drop=True), formula, fam_N[~lacking]


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


def _rows(table: pd.DataFrame, match: Match) -> pd.Series:
    return pd.Series(np.arange(len(table)), index=keys(table, match).to_numpy())


def _drop(dropped: list[pd.DataFrame], people: pd.DataFrame, reason: str) -> None:
    dropped.append(people[["FID", "IID"]].assign(reason=reason))


def _no_overlap(path: Path, table: pd.DataFrame, fam_path: str, fam: pd.DataFrame, match: Match) -> str:
    def example(people: pd.DataFrame) -> str:
        return describe_keys(keys(people, "fid_iid"), 2) if match == "fid_iid" else some(people.IID, 2)

    hint = "make the ids agree"
    if match == "fid_iid" and table.IID.isin(fam.IID).any():
        hint = f"{table.IID.isin(fam.IID).sum()} of the IIDs agree: type match=iid to match on them alone"
    names = "FID IID" if match == "fid_iid" else "IID"
    return (
        f"{path}: none of its {len(table)} people ({names}: {example(table)}) is among the {len(fam)} of "
        f"{fam_path} ({example(fam)}); {hint}"
    )
