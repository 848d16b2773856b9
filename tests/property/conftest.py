"""Awkward cohorts as files: what the association engine must be exact on. Shapes: N people, M variants, P traits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from udipdist.config import GwasConfig

BED_CODE = np.array([3, 2, 0, 1], np.uint8)  # of 0, 1 and 2 copies of A1, and of -1 (missing)


@dataclass
class Case:
    """A cohort on disk, and what is in it: everything is in the order of the .fam, NaN or -1 where missing.

    `used_N` tells who has phenotypes; the phenotype, covariate and GRM files are shuffled and hold strangers too.
    """

    folder: Path
    counts_MN: np.ndarray
    grm_NN: np.ndarray
    covariates_NK: np.ndarray
    y_NP: np.ndarray
    used_N: np.ndarray
    seed: int
    keys: dict = field(default_factory=dict)

    @property
    def traits(self) -> list[str]:
        return [f"y{p}" for p in range(self.y_NP.shape[1])]

    @property
    def ids(self) -> pd.DataFrame:
        n = len(self.grm_NN)
        return pd.DataFrame({"FID": [f"F{i // 3}" for i in range(n)], "IID": [f"I{i}" for i in range(n)]})

    def write(self) -> Case:
        rng = np.random.default_rng(self.seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_plink(self.folder / "c", self.counts_MN, self.ids)
        used = np.flatnonzero(self.used_N)
        write_table(self.folder / "c.pheno", self.ids.iloc[used], self.y_NP[used], self.traits, rng)
        if self.covariates_NK.shape[1]:
            names = [f"c{k}" for k in range(self.covariates_NK.shape[1])]
            write_table(self.folder / "c.covar", self.ids, self.covariates_NK, names, rng)
            self.keys["covariates"] = self.folder / "c.covar"
        self._write_grm(rng.permutation(len(self.grm_NN)))
        return self

    def _write_grm(self, order_N: np.ndarray) -> None:
        """Lower triangle and diagonal, of everybody and of one stranger who comes first."""
        ids = pd.concat([pd.DataFrame({"FID": ["X"], "IID": ["X"]}), self.ids.iloc[order_N]])
        ids.to_csv(self.folder / "c.grm.id", sep="\t", header=False, index=False)
        shuffled_NN = self.grm_NN[order_N][:, order_N]
        low, high = np.nonzero(np.tril(shuffled_NN))
        lines = ["0\t0\t1\n"]
        lines += [f"{i + 1}\t{j + 1}\t{shuffled_NN[i, j]:.17g}\n" for i, j in zip(low, high, strict=True)]
        (self.folder / "c.grm.sp").write_text("".join(lines))

    def give_variance(self, vg_P: np.ndarray, ve_P: np.ndarray) -> None:
        """Let the run take these components instead of estimating them."""
        path = self.folder / "c.variance"
        pd.DataFrame({"trait": self.traits, "Vg": vg_P, "Ve": ve_P}).to_csv(path, sep="\t", index=False)
        self.keys["null_model"] = {"variance": path}

    def config(self, out: str = "out", **keys) -> GwasConfig:
        prefix = self.folder / "c"
        tree = {"genotypes": prefix, "phenotypes": self.folder / "c.pheno", "sparse_grm": prefix}
        return GwasConfig.parse(tree | {"out": self.folder / out, "min_maf": 0.0, "min_mac": 0} | self.keys | keys)


def write_plink(prefix: Path, counts_MN: np.ndarray, ids: pd.DataFrame, chromosome: str = "1", first: int = 0) -> None:
    """.bed/.bim/.fam of copies of A1 (-1: missing); `first`: number in the name of the first variant."""
    m, n = counts_MN.shape
    code_MN = np.zeros((m, -(-n // 4) * 4), np.uint8)
    code_MN[:, :n] = BED_CODE[counts_MN]
    quads = code_MN.reshape(m, -1, 4)
    packed = quads[..., 0] | quads[..., 1] << 2 | quads[..., 2] << 4 | quads[..., 3] << 6
    Path(f"{prefix}.bed").write_bytes(b"\x6c\x1b\x01" + packed.astype(np.uint8).tobytes())
    lines = [f"{chromosome}\tv{first + i}\t0\t{100 * (first + i + 1)}\tA\tC\n" for i in range(m)]
    Path(f"{prefix}.bim").write_text("".join(lines))
    lines = [f"{fid} {iid} 0 0 0 -9\n" for fid, iid in ids.itertuples(index=False)]
    Path(f"{prefix}.fam").write_text("".join(lines))


def write_table(path: Path, ids: pd.DataFrame, values: np.ndarray, names: list[str], rng: np.random.Generator) -> None:
    """FID IID and columns, in shuffled order, with two strangers who have values of their own."""
    table = pd.concat([ids.reset_index(drop=True), pd.DataFrame(values, columns=names)], axis=1)
    strangers = pd.DataFrame(rng.standard_normal((2, len(names))), columns=names).assign(FID="S", IID=["S1", "S2"])
    table = pd.concat([table, strangers])[["FID", "IID", *names]].iloc[rng.permutation(len(table) + 2)]
    table.to_csv(path, sep="\t", index=False, na_rep="NA", float_format="%.17g")


def relationships(rng: np.random.Generator, n: int, families: str, singular: bool) -> np.ndarray:
    """G [N, N]: blocks with diagonals about 1 and entries of both signs. `families`: none, one, large, pairs, mixed;
    `singular`: some blocks have a negative eigenvalue."""
    sizes = {
        "none": [],
        "one": [min(n, 60)],
        "large": [min(n, 90), 66, 3, 64, 2],  # as far as people suffice
        "pairs": [2] * (n // 3),
        "mixed": rng.integers(1, 9, n).tolist(),
    }[families]
    grm_NN = np.diag(rng.uniform(0.9, 1.15, n))
    member = rng.permutation(n)
    start = 0
    for size in sizes:
        people = member[start : start + size]
        start += size
        if len(people) < 2:
            continue
        factor = rng.standard_normal((len(people), 2 * len(people) + 2))
        factor /= np.linalg.norm(factor, axis=1, keepdims=True)
        scale = rng.uniform(0.95, 1.05, len(people)) ** 0.5
        block = 0.6 * factor @ factor.T + 0.2 + 0.2 * np.eye(len(people))
        block *= np.outer(scale, scale)
        if singular and rng.random() < 0.5:
            value, vector = np.linalg.eigh(block)
            block -= (value[0] + 0.01) * np.outer(vector[:, 0], vector[:, 0])
        grm_NN[np.ix_(people, people)] = block
    return (grm_NN + grm_NN.T) / 2


def awkward_variants(rng: np.random.Generator, n: int, missing: float) -> np.ndarray:
    """Copies of A1 [M, N]: common, rare, flipped, constant, all missing, and calls missing at rates up to `missing`."""
    frequency = np.append(rng.uniform(0.05, 0.95, 8), 10 ** rng.uniform(-2.5, -0.5, 6))
    counts_MN = rng.binomial(2, frequency[:, None], (14, n))
    special_MN = np.zeros((11, n), np.int64)
    one, two, three = rng.permutation(n)[:3]
    special_MN[0, one] = 1  # a singleton
    special_MN[1, one] = 2  # one person with both copies
    special_MN[2, [one, two]] = 1  # a doubleton
    special_MN[3, [two, three]] = 2, 1
    special_MN[4:8] = 2 - special_MN[:4]  # the same with A1 as the common allele
    special_MN[8] = 2  # constant: A1 only, A2 only (row 9), heterozygous only
    special_MN[10] = 1
    counts_MN = np.concatenate([counts_MN, special_MN])
    rate_M = missing * rng.random((len(counts_MN), 1)) * (rng.random((len(counts_MN), 1)) < 0.7)
    counts_MN[rng.random(counts_MN.shape) < rate_M] = -1
    lost_MN = np.full((3, n), -1)  # nobody called, one called, nearly all missing
    lost_MN[1, one] = 1
    lost_MN[2, : n // 20 + 2] = rng.integers(0, 3, n // 20 + 2)
    counts_MN = np.concatenate([counts_MN, lost_MN])
    return counts_MN[rng.permutation(len(counts_MN))]


def imputed(counts_MN: np.ndarray) -> np.ndarray:
    """Copies of A1, missing calls at the mean of the called (0 where none is)."""
    called_MN = counts_MN >= 0
    total = np.where(called_MN, counts_MN, 0).sum(axis=-1, keepdims=True)
    return np.where(called_MN, counts_MN, total / np.maximum(called_MN.sum(axis=-1, keepdims=True), 1))


def build(
    folder: Path,
    seed: int,
    n: int,
    families: str = "mixed",
    h2_P=(0.0, 0.5, 1.0),
    k: int = 2,
    missing_calls: float = 0.05,
    patterns: int = 1,
    share_used: float = 1.0,
    singular: bool = False,
    sets: int = 1,
    outliers: bool = False,
) -> Case:
    """A case in the folder: `sets` of awkward variants; traits with a family part by h2, covariates, a variant, any
    scale and offset, and `patterns` ways of missing values; `outliers` are a thousand times as large as the rest.
    Half the covariates follow a common variant so closely that 1 % of it is left."""
    rng = np.random.default_rng(seed)
    h2_P = np.array(h2_P)
    p = len(h2_P)
    grm_NN = relationships(rng, n, families, singular)
    counts_MN = np.concatenate([awkward_variants(rng, n, missing_calls) for _ in range(sets)])
    covariates_NK = rng.standard_normal((n, k))
    x_MN = imputed(counts_MN)
    common_M = np.flatnonzero(x_MN.std(axis=1) > 0.3)
    for i in range(k // 2):
        x_N = x_MN[common_M[i % len(common_M)]]
        covariates_NK[:, i] = x_N + 0.1 * x_N.std() * rng.standard_normal(n)
    value_N, vector_NN = np.linalg.eigh(grm_NN)
    shared_NP = vector_NN @ (np.sqrt(np.maximum(value_N, 0))[:, None] * rng.standard_normal((n, p)))
    y_NP = np.sqrt(h2_P) * shared_NP + np.sqrt(1 - h2_P) * rng.standard_normal((n, p))
    y_NP += covariates_NK @ rng.normal(0, 0.5, (k, p)) + np.outer(x_MN[common_M[-1]], rng.normal(0, 1, p))
    if outliers:
        y_NP[rng.integers(0, n, p), np.arange(p)] *= 1000
        covariates_NK[rng.integers(0, n, k), np.arange(k)] *= 1000
    y_NP = y_NP * 10 ** rng.uniform(-3, 3, p) * rng.choice([-1, 1], p) + rng.uniform(-50, 50, p)
    for pattern in range(1, patterns):
        lost_N = rng.random(n) < rng.uniform(0.02, 0.2)
        y_NP[np.ix_(lost_N, np.arange(p) % patterns == pattern)] = np.nan
    used_N = rng.random(n) < share_used
    return Case(folder, counts_MN, grm_NN, covariates_NK, y_NP, used_N, seed).write()


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Matrices here are small: threads inside a product would only wait for each other."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(scope="session")
def make_case():
    """`build`, for tests."""
    return build


@pytest.fixture(scope="session")
def impute():
    """`imputed`, for tests."""
    return imputed


@pytest.fixture(scope="session")
def plink_writer():
    """`write_plink`, for tests."""
    return write_plink
