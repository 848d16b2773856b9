"""Small cohorts as files, for the tests of the association engine and of what it reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from udipdist.config import GwasConfig


@dataclass
class Cohort:
    """Genotype counts [M, N] (-1 missing), G [N, N], covariates and traits, and the folder they are written to."""

    folder: Path
    counts_MN: np.ndarray
    grm_NN: np.ndarray
    covariates: pd.DataFrame
    traits: pd.DataFrame
    ids: pd.DataFrame = field(init=False)

    def __post_init__(self):
        n = self.counts_MN.shape[1]
        self.ids = pd.DataFrame({"FID": [f"F{i}" for i in range(n)], "IID": [f"I{i}" for i in range(n)]})

    def write(self) -> Cohort:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_plink(self.folder / "c", self.counts_MN, self.ids)
        self.ids.to_csv(self.folder / "c.grm.id", sep="\t", header=False, index=False)
        row, column = np.nonzero(np.tril(self.grm_NN))
        entries = pd.DataFrame({"row": row, "column": column, "value": self.grm_NN[row, column]})
        entries.to_csv(self.folder / "c.grm.sp", sep="\t", header=False, index=False)
        self.ids.join(self.covariates).to_csv(self.folder / "c.covar", sep="\t", index=False, na_rep="NA")
        self.ids.join(self.traits).to_csv(self.folder / "c.pheno", sep="\t", index=False, na_rep="NA")
        return self

    def config(self, out: str = "out", **keys) -> GwasConfig:
        tree = {
            "genotypes": self.folder / "c",
            "phenotypes": self.folder / "c.pheno",
            "covariates": self.folder / "c.covar",
            "sparse_grm": self.folder / "c",
            "out": self.folder / out,
            "min_mac": 0,
        }
        return GwasConfig.parse(tree | keys)


def write_plink(prefix: Path, counts_MN: np.ndarray, ids: pd.DataFrame, chromosome: str = "1") -> None:
    """Write .bed/.bim/.fam of copies of A1 (-1 missing), the slow and obvious way."""
    m, n = counts_MN.shape
    code = {2: 0, -1: 1, 1: 2, 0: 3}
    data = bytearray(b"\x6c\x1b\x01")
    for row in counts_MN:
        packed = bytearray((n + 3) // 4)
        for i, count in enumerate(row):
            packed[i // 4] |= code[int(count)] << (2 * (i % 4))
        data += packed
    prefix.with_name(prefix.name + ".bed").write_bytes(data)
    lines = [f"{chromosome}\trs{chromosome}_{i}\t0\t{100 * (i + 1)}\tA\tC\n" for i in range(m)]
    prefix.with_name(prefix.name + ".bim").write_text("".join(lines))
    lines = [f"{fid} {iid} 0 0 0 -9\n" for fid, iid in ids[["FID", "IID"]].itertuples(index=False)]
    prefix.with_name(prefix.name + ".fam").write_text("".join(lines))


def simulate(
    folder: Path,
    seed: int,
    n: int = 120,
    m: int = 40,
    h2=(0.0, 0.4, 0.8),
    missing_calls: float = 0.02,
    missing_values: float = 0.0,
    n_covariates: int = 2,
) -> Cohort:
    """Families of one to five sibs in shuffled order; traits with a shared family part, a covariate and a variant."""
    rng = np.random.default_rng(seed)
    family = np.repeat(np.arange(n), rng.integers(1, 6, n))[:n]
    rng.shuffle(family)
    grm = np.where(family[:, None] == family, 0.5, 0.0)
    np.fill_diagonal(grm, rng.uniform(0.95, 1.05, n))
    frequency = rng.uniform(0.03, 0.97, (m, 1))
    counts = rng.binomial(2, frequency, (m, n))
    counts[rng.random((m, n)) < missing_calls] = -1
    covariates = pd.DataFrame(rng.standard_normal((n, n_covariates))).add_prefix("c")
    shared = np.linalg.cholesky(grm) @ rng.standard_normal((n, len(h2)))
    h2 = np.array(h2)
    y = np.sqrt(h2) * shared + np.sqrt(1 - h2) * rng.standard_normal((n, len(h2)))
    y = y * rng.uniform(0.01, 100, len(h2)) + rng.uniform(-50, 50, len(h2))
    y += covariates.sum(axis=1).to_numpy()[:, None] + 0.5 * y.std(axis=0) * np.maximum(counts[0], 0)[:, None]
    y[rng.random(y.shape) < missing_values] = np.nan
    return Cohort(folder, counts, grm, covariates, pd.DataFrame(y).add_prefix("y")).write()
