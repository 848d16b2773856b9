"""The table of latents: Parquet with FID, IID and a column a latent, z000 z001 ..., and the same as a PLINK .pheno."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.files import publish


def latent_names(numbers: Iterable[int]) -> list[str]:
    """The columns of latents by number."""
    return [f"z{number:03d}" for number in numbers]


def latents_table(fids: Sequence[str], iids: Sequence[str], values_NL: np.ndarray) -> pd.DataFrame:
    """FID IID z000 ... (float32) of N people, for latents [N, L]."""
    latents = pd.DataFrame(values_NL.astype(np.float32), columns=latent_names(range(values_NL.shape[1])))
    return pd.concat([pd.DataFrame({"FID": fids, "IID": iids}), latents], axis=1)


def write_latents(latents: pd.DataFrame, out: Path) -> None:
    """Publish a table as `out` (.parquet) and as NAME.pheno beside it, which comes first."""
    with publish(out.with_suffix(".pheno")) as partial:
        latents.to_csv(partial, sep=" ", index=False, float_format="%.9g")
    with publish(out) as partial:
        latents.to_parquet(partial, index=False)
