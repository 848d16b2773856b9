"""Tables of people side by side: latents, what is asked of them, and covariates; and folds that keep families together.

Shapes: N people, L latents.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from hpc.files import safe_names
from udipdist import ids
from udipdist.people import design as designs
from udipdist.people.tables import Match, describe_keys, keys, read_covariates, read_phenotypes, refuse_mixed

log = logging.getLogger(__name__)
NO_FAMILY = "0"  # a FID that says nothing


@dataclass(frozen=True)
class Latents:
    """A table of latents: `people` (FID IID), the `names` of its columns, `values_NL` float64, none missing."""

    path: Path
    name: str
    people: pd.DataFrame
    names: list[str]
    values_NL: np.ndarray


def read_latents(paths: Sequence[Path], match: Match) -> list[Latents]:
    """Tables of latents, Parquet or text with FID and IID. Raises InputError, also where a latent is missing."""
    stems = [path.stem for path in paths]
    stems = [
        path.absolute().parent.name if stems.count(stem) > 1 else stem for path, stem in zip(paths, stems, strict=True)
    ]
    found = []
    for path, name in zip(paths, safe_names(stems), strict=True):
        people, names, values_NL = read_phenotypes(path, match)
        lost = np.flatnonzero(np.isnan(values_NL).any(1))
        if len(lost):
            who = describe_keys(keys(people.iloc[lost], "fid_iid"))
            raise InputError(
                f"{path}: {len(lost):,} of {len(people):,} people have latents that are missing ({who}); embed their "
                "scans again, or leave these rows out"
            )
        found.append(Latents(path, name, people, names, values_NL))
    return found


def common_rows(tables: Sequence[tuple[Path, pd.DataFrame]], match: Match) -> list[np.ndarray]:
    """The rows of the people whom all tables (FID IID) have, in the order of the first. Raises InputError where there
    are none, with ids of both sides."""
    rows = [pd.Series(np.arange(len(people)), index=keys(people, match).to_numpy()) for _, people in tables]
    shared = rows[0].index
    for (path, people), row in zip(tables[1:], rows[1:], strict=True):
        left = shared[shared.isin(row.index)]
        if not len(left):
            fewer, more = sorted((people, tables[0][1]), key=len)
            raise InputError(
                f"{path}: none of its {len(people):,} people is among the {len(shared):,} of {tables[0][0]} "
                f"({ids.mismatch(fewer, more)}); give tables of the same people"
            )
        shared = left
    return [row[shared].to_numpy() for row in rows]


def covariates_of(
    path: Path, formula: str | None, match: Match, missing: Sequence[str] | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """People (FID IID) without a missing covariate, and their columns float64 (categories as 0 and 1). Raises
    InputError."""
    table = read_covariates(path, match, missing)
    parsed = designs.Formula.parse(formula, list(table.columns[2:]))
    refuse_mixed(path, table, parsed.columns)
    known = table[list(parsed.columns)].notna().all(axis=1)
    if not known.any():
        raise InputError(f"{path}: nobody has all covariates ({some(parsed.columns, 20)}); choose some by formula=")
    if not known.all():
        log.warning("%s: %d of %d people lack a covariate, and are left out", path, (~known).sum(), len(table))
    table = table[known].reset_index(drop=True)
    return table[["FID", "IID"]], designs.encode(table, parsed, str(path))


def families(people: pd.DataFrame) -> np.ndarray:
    """The number of the family of each person, from 0; who has the FID 0 is a family of one."""
    own = people.FID.where(people.FID != NO_FAMILY, "\t" + people.IID)
    return np.unique(own.to_numpy(str), return_inverse=True)[1]


def folds(people: pd.DataFrame, number: int, seed: int) -> np.ndarray:
    """A fold 0..number-1 for each person, by a hash of the family: no family is split, and nobody else matters."""
    own = people.FID.where(people.FID != NO_FAMILY, people.IID)
    return np.array([_hash(f"{seed}\t{fid}") % number for fid in own], np.int64)


def _hash(text: str) -> int:
    """A number of 64 bits. (A checksum would not do: the bits of two seeds differ by the same for everybody.)"""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
