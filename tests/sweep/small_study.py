"""A study that takes no time: 240 people, 40 variants far apart, tables of latents of which some carry a variant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from bed_reader import to_bed

from udipdist.config import SweepConfig

PEOPLE, VARIANTS, LATENTS = 240, 40, 6
IDS = pd.DataFrame({"FID": [f"F{i}" for i in range(PEOPLE)], "IID": [f"I{i}" for i in range(PEOPLE)]})


def write(folder: Path) -> Path:
    """Genotypes and a panel of the variants 0, 4, 8 ..."""
    folder.mkdir(parents=True)
    at = [2_000_000 * (i + 1) for i in range(VARIANTS)]
    properties = {
        "fid": IDS.FID.tolist(), "iid": IDS.IID.tolist(), "chromosome": ["1"] * VARIANTS,
        "sid": [f"rs{i}" for i in range(VARIANTS)], "bp_position": at, "allele_1": ["A"] * VARIANTS,
        "allele_2": ["C"] * VARIANTS,
    }  # fmt: skip
    to_bed(f"{folder / 'c'}.bed", counts(), properties=properties, count_A1=True)
    pd.DataFrame({"chr": 1, "pos": at[::4]}).to_csv(folder / "panel.tsv", sep="\t", index=False)
    return folder


def counts() -> np.ndarray:
    """Genotypes [N, M]."""
    return np.random.default_rng(1).binomial(2, 0.4, (PEOPLE, VARIANTS)).astype(np.float32)


def latents(path: Path, seed: int, carried: tuple[int, ...]) -> Path:
    """A table in which latent j carries the j-th of `carried`, at a p far below any threshold."""
    values_NP = np.random.default_rng(seed).standard_normal((PEOPLE, LATENTS)) * 0.3
    for j, variant in enumerate(carried):
        values_NP[:, j] += counts()[:, variant]
    path.parent.mkdir(parents=True, exist_ok=True)
    table = IDS.join(pd.DataFrame(values_NP.astype(np.float32), columns=[f"z{j:03d}" for j in range(LATENTS)]))
    table.to_parquet(path, index=False)
    return path


def config(study: Path, out: Path, **keys) -> SweepConfig:
    """A sweep of the study."""
    tree = {
        "out": str(out), "store": str(study / "store.zarr"), "genotypes": str(study / "c"),
        "stages": {"panel": {"panel": str(study / "panel.tsv"), "rotations": 20}},
    }  # fmt: skip
    return SweepConfig.parse(tree | keys)
