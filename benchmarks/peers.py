"""What other programs take for the same files: measured where they are installed, else as published.

All numbers are processor seconds for 20,000 variants x 128 traits; a peer gets fewer variants (and statsmodels fewer
people), and its cost is scaled. Where the cost of a start can be told from the cost of a variant it is not scaled.

Shapes: N people, M variants, P traits, K covariates.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmarks.clock import clock

VARIANTS, TRAITS = 20_000, 128
# From elsewhere, on this kind of machine: N = 20,000, 25 covariates. Only GCTA and regenie fit relatedness.
PUBLISHED: dict[str, tuple[float, str]] = {
    "GCTA fastGWA-mlm, scan alone": (74, "approximate mixed model"),
    "GCTA fastGWA-mlm, with null models": (1215, "1,130-1,300; its exact mode about as much, growing as N^2"),
    "regenie step 1": (373, "whole-genome ridge regression"),
    "regenie step 2": (292, "283-301"),
    "plink2 alpha 7 --glm, no missing calls": (46, "no relatedness"),
    "plink2 alpha 7 --glm, missing calls": (920, "no relatedness"),
    "plink2 alpha 7 --glm qt-residualize": (33, "31-35; no relatedness, genotypes not residualised"),
    "LDAK --linear --mpheno ALL": (39, "no relatedness"),
    "TorchGWAS on CPU": (114, "no relatedness"),
}


@dataclass(frozen=True)
class Peer:
    """Processor seconds of a peer for 20,000 variants x 128 traits, and how they were found."""

    cpu_seconds: float
    note: str


def published() -> dict[str, Peer]:
    """Figures from elsewhere; nothing of them is measured here."""
    return {name: Peer(*figure) for name, figure in PUBLISHED.items()}


def measure(
    folder: Path, genotypes: Path, phenotypes: Path, covariates: Path, variants: int, people: int
) -> dict[str, Peer]:
    """Every peer that is installed, on the files of our scan where it can take them."""
    peers = {}
    if shutil.which("plink2"):
        peers |= plink2(folder, genotypes, phenotypes, covariates, variants)
    if importlib.util.find_spec("statsmodels"):
        peers["statsmodels GLS, dense"] = statsmodels(people)
    return peers


def plink2(folder: Path, genotypes: Path, phenotypes: Path, covariates: Path, variants: int) -> dict[str, Peer]:
    """--glm with qt-residualize where this plink2 has it, else plain, over the first variants and all traits."""
    folder.mkdir(parents=True, exist_ok=True)
    traits = _as_text(phenotypes, folder / "pheno.txt")
    others = _as_text(covariates, folder / "covar.txt")
    first_variants(genotypes, folder / "one", 1)
    first_variants(genotypes, folder / "few", variants)
    mode = ["qt-residualize", "hide-covar"]
    if _glm(folder, "one", traits, mode) is None:
        mode = ["hide-covar"]
    start, whole = _glm(folder, "one", traits, mode), _glm(folder, "few", traits, mode)
    if start is None or whole is None:
        log = (folder / "plink2.log").read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"plink2 --glm failed: {log[-500:]}")
    slope = max(whole - start, 0.0) / (variants - 1) * TRAITS / len(traits)
    version = subprocess.run(["plink2", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    name = f"plink2 {version} --glm{' qt-residualize' if mode[0] == 'qt-residualize' else ''}"
    note = f"no relatedness; {variants} variants x {len(traits)} traits, {len(others)} covariates, scaled by variants"
    return {name: Peer(start + slope * VARIANTS, note)}


def _glm(folder: Path, prefix: str, traits: list[str], mode: list[str]) -> float | None:
    """Processor seconds of one run, None where plink2 refuses."""
    command = [
        "plink2", "--bfile", prefix, "--pheno", "pheno.txt", "--covar", "covar.txt", "--covar-variance-standardize",
        "--input-missing-phenotype", "-2000000000", "--pheno-name", *traits, "--glm", *mode, "--out", "plink2",
    ]  # fmt: skip
    with clock() as cost:
        done = subprocess.run(command, cwd=folder, capture_output=True)
    return cost.cpu if done.returncode == 0 else None


def first_variants(prefix: Path, out: Path, count: int) -> None:
    """A copy of the first `count` variants of a .bed/.bim/.fam."""
    with Path(f"{prefix}.fam").open(encoding="utf-8") as file:
        n = sum(1 for _ in file)
    shutil.copy(f"{prefix}.fam", f"{out}.fam")
    with Path(f"{prefix}.bim").open(encoding="utf-8") as lines, Path(f"{out}.bim").open("w", encoding="utf-8") as file:
        file.writelines(line for _, line in zip(range(count), lines, strict=False))
    with Path(f"{prefix}.bed").open("rb") as rows, Path(f"{out}.bed").open("wb") as file:
        left = 3 + count * -(-n // 4)
        while left and (data := rows.read(min(left, 1 << 24))):
            left -= file.write(data)


def _as_text(path: Path, out: Path) -> list[str]:
    """A table as plink2 reads it (text columns as indicators); returns the names of the columns after the ids."""
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, sep="\t", dtype={"IID": str})
    values = pd.get_dummies(table.iloc[:, 2:], drop_first=True, dtype=np.float32)
    header = "\t".join(["#FID", "IID", *values.columns])
    ids = table["FID"].astype(str) + "\t" + table["IID"].astype(str) + "\t"
    rows = np.round(values.to_numpy(np.float64) * 1e4).astype(np.int64).tolist()  # units of 1e-4: text in no time
    text = "\n".join(head + "\t".join(map(str, row)) for head, row in zip(ids, rows, strict=True))
    out.write_text(f"{header}\n{text}\n", encoding="utf-8")
    return list(values.columns)


def statsmodels(people: int, n: int = 22_867, variants: int = 20, covariates: int = 30) -> Peer:
    """Dense GLS as one would type it: the covariance of all people whitened once a trait, then one fit a variant.

    Measured with fewer people; the factorisation grows as N^3, whitening a variant as N^2, a fit as N.
    """
    from statsmodels.regression.linear_model import GLS, OLS

    rng = np.random.default_rng(0)
    v_NN = np.eye(people)
    pair = np.arange(0, people - 1, 2)
    v_NN[pair, pair + 1] = v_NN[pair + 1, pair] = 0.25
    design_NK = np.column_stack([np.ones(people), rng.standard_normal((people, covariates))])
    y_N = rng.standard_normal(people)
    x_MN = rng.integers(0, 3, (variants, people)).astype(float)
    with threadpool_limits(1):  # threads that wait for each other would count
        with clock() as factor:
            whitener = GLS(y_N, design_NK, sigma=v_NN)
        with clock() as whiten:
            white_MN = [whitener.whiten(x_N) for x_N in x_MN]
        with clock() as fit:
            for x_N in white_MN:
                _ = OLS(whitener.wendog, np.column_stack([x_N, whitener.wexog])).fit().bse
    grow, each = n / people, VARIANTS / variants
    seconds = TRAITS * (factor.cpu * grow**3 + each * (whiten.cpu * grow**2 + fit.cpu * grow))
    return Peer(seconds, f"exact; measured with {people:,} people, 1 trait, {variants} variants, scaled as N^3, N^2, N")


def as_json(peers: dict[str, Peer], ours: float) -> dict[str, dict[str, Any]]:
    """For the JSON line: seconds, and how many times ours."""
    return {
        name: {
            "cpu_seconds_per_20k_variants_128_traits": round(peer.cpu_seconds, 1),
            "over_ours": round(peer.cpu_seconds / ours, 1),
        }
        for name, peer in peers.items()
    }
