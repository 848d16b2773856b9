"""Confounders that are heritable: erasing those biases what a scan of the latents finds (collider bias)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from udipdist import delimited

LEAST_H2 = 0.05
NULL_TABLE = "null.tsv"  # of a gwas


def heritable(path: Path, confounders: Sequence[str]) -> dict[str, float]:
    """h2 of those of the confounders that are heritable: above LEAST_H2, and above two standard errors where these are
    known. `path` is a folder of gwas, or a table with trait, h2 and perhaps h2_se. Raises InputError."""
    table = _read(path)
    if not table["trait"].isin(list(confounders)).any():
        raise InputError(
            f"{path}: none of its traits ({some(table['trait'])}) is a confounder ({some(confounders)}); "
            "name them alike"
        )
    table = table[table["trait"].isin(list(confounders))]
    h2_T = pd.to_numeric(table["h2"], errors="coerce").to_numpy(np.float64)
    se_T = pd.to_numeric(table["h2_se"], errors="coerce").fillna(0).to_numpy(np.float64)
    acts_T = (h2_T > LEAST_H2) & (h2_T > 2 * se_T)
    return dict(zip(table["trait"][acts_T], h2_T[acts_T].tolist(), strict=True))


def _read(path: Path) -> pd.DataFrame:
    file = path / NULL_TABLE if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file}: does not exist; give h2= a folder that gwas wrote, or a table with trait and h2")
    table = delimited.read(file).frame()
    lost = [name for name in ("trait", "h2") if name not in table]
    if lost:
        raise InputError(f"{file}: has no column {some(lost)} (its columns are {some(table.columns)})")
    return table if "h2_se" in table else table.assign(h2_se="")
