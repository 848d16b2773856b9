"""A study with planted clades: statistics of lead SNPs that share directions, and the folder of their loci."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.files import publish_json
from udipdist.sumstats.store import STORE, NullScores, SumstatsBlock, create, write

BESIDE = 5  # variants without effect beside each lead


@dataclass(frozen=True)
class Planted:
    """The folders, and the clade of each lead."""

    gwas: Path
    loci: Path
    clade_L: np.ndarray


def directions(clade_L: np.ndarray, q: int, strength: float, seed: int, within: float = 0.9) -> np.ndarray:
    """w [L, q] of SNPs with the squared cosine `within` to the direction of their clade, |mean of w|^2 = `strength`,
    any sign, and error N(0, 1). Another seed measures the same SNPs again."""
    same, rng = np.random.default_rng(7), np.random.default_rng(seed)
    base, own = (_unit(same.standard_normal((n, q))) for n in (clade_L.max() + 1, len(clade_L)))
    mean_Lq = _unit(np.sqrt(within) * base[clade_L] + np.sqrt(1 - within) * own)
    sign_L = rng.choice([-1.0, 1.0], (len(clade_L), 1))
    return sign_L * np.sqrt(strength) * mean_Lq + rng.standard_normal(mean_Lq.shape)


def plant(
    place: Path,
    seed: int = 1,
    clades: int = 3,
    each: int = 4,
    q: int = 12,
    strength: float = 400.0,
    scores: bool = True,
) -> Planted:
    """Write gwas/ and loci/ below `place`. The traits are correlated; `scores`: the store says how."""
    rng = np.random.default_rng(seed)
    clade_L = np.tile(np.arange(clades), each)
    mix_qq = rng.standard_normal((q, q)) * np.geomspace(1, 0.1, q)
    covariance_qq = mix_qq @ mix_qq.T
    size_q = np.sqrt(np.diag(covariance_qq))
    colour_qq = np.linalg.cholesky(covariance_qq / np.outer(size_q, size_q)).T
    m = len(clade_L) * (BESIDE + 1)
    w_Mq = rng.standard_normal((m, q))
    w_Mq[:: BESIDE + 1] = directions(clade_L, q, strength, seed)
    z_Mq = w_Mq @ colour_qq
    variants = pd.DataFrame(
        {
            "chrom": [str(1 + i * 4 // m) for i in range(m)],
            "position": 1_000_000 + 200_000 * np.arange(m),
            "snp": [f"rs{i}" for i in range(m)],
            "a1": "A",
            "a2": "C",
        }
    )
    null = NullScores(colour_qq.T @ colour_qq, np.ones(q)) if scores else None
    write_store(place / "gwas", variants, z_Mq, f"gwas-{seed}", null)
    write_loci(place / "loci", variants.iloc[:: BESIDE + 1], place / "gwas", f"gwas-{seed}")
    return Planted(place / "gwas", place / "loci", clade_L)


def write_store(folder: Path, variants: pd.DataFrame, z_MP: np.ndarray, name: str, null: NullScores | None) -> None:
    """A finished folder of gwas with these z-scores."""
    m, p = z_MP.shape
    create(folder / STORE, variants, [f"z{i:03d}" for i in range(p)], m, {"df": None}, null)
    se_MP = np.full((m, p), 0.01)
    nothing = np.full(m, 1.0)
    block = SumstatsBlock(z_MP * se_MP, se_MP, np.full(m, 90), np.full(m, 0.3), nothing, np.zeros(m), nothing)
    write(folder / STORE, 0, block)
    publish_json(folder / "manifest.json", {"id": name, "stage": "gwas"})


def write_loci(folder: Path, leads: pd.DataFrame, sumstats: Path, made_of: str | None) -> None:
    """GenomicRiskLoci.txt and leadSNPs.txt with a locus a lead; without `made_of` as FUMA has it, without manifest."""
    folder.mkdir()
    numbers = range(1, len(leads) + 1)
    table = pd.DataFrame(
        {
            "GenomicLocus": numbers,
            "uniqID": [f"{c}:{p}:A:C" for c, p in zip(leads.chrom, leads.position, strict=True)],
            "rsID": leads.snp, "chr": leads.chrom, "pos": leads.position, "p": 1e-9,
            "start": leads.position - 20_000, "end": leads.position + 20_000,
        }
    )  # fmt: skip
    table.to_csv(folder / "GenomicRiskLoci.txt", sep="\t", index=False)
    table.drop(columns=["start", "end"]).assign(No=numbers).to_csv(folder / "leadSNPs.txt", sep="\t", index=False)
    if made_of is not None:
        seen = {"path": str(sumstats), "manifest": made_of}
        publish_json(folder / "manifest.json", {"id": "loci-1", "stage": "loci", "inputs": {"sumstats": seen}})


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
