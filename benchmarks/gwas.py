"""How fast is the association? One pass over a .bed for all traits, held against its floor.

    python -m benchmarks.gwas [--quick] [--people N] [--variants M] [--traits P] [--workers W]

The floor is the one float32 product [M x N][N x P] that any such scan must do, timed in the same run. The last line
is one JSON object: floor_ratio (pass / floor), null_seconds (reading, families, REML), peak_gb, variants_per_s.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from hpc import cluster, parts
from hpc.stage import peak_memory
from udipdist.config import GwasConfig
from udipdist.gwas import scan

COVARIATES = 15
BLOCK = 1024


def main() -> None:
    """Make random data, run, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the variants")
    parser.add_argument("--people", type=int, default=4000)
    parser.add_argument("--variants", type=int, default=26_000)
    parser.add_argument("--traits", type=int, default=128)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    m = options.variants // 10 if options.quick else options.variants
    with tempfile.TemporaryDirectory() as folder:
        row = measure(Path(folder), options.people, m, options.traits, options.workers)
    for name, value in row.items():
        print(f"{name:<16} {value:>12,.4g}")
    print(json.dumps(row))


def measure(folder: Path, n: int, m: int, p: int, workers: int) -> dict[str, float]:
    """Seconds and ratios of one run with N people, M variants, P traits."""
    config = _cohort(folder, n, m, p)
    _warm_up(folder)
    started = time.perf_counter()
    job = scan.plan(config)
    null_seconds = time.perf_counter() - started
    started = time.perf_counter()
    parts.run(job, "gwas", cluster.runner(workers))
    seconds = time.perf_counter() - started
    floor = floor_seconds(n, m, p)
    return {
        "people": n,
        "variants": m,
        "traits": p,
        "workers": workers,
        "null_seconds": round(null_seconds, 3),
        "pass_seconds": round(seconds, 3),
        "floor_seconds": round(floor, 3),
        "floor_ratio": round(seconds / floor, 3),
        "variants_per_s": round(m / seconds, 1),
        "peak_gb": round(peak_memory() / 1e9, 3),
    }


def floor_seconds(n: int, m: int, p: int) -> float:
    """Seconds of the float32 product [M x N][N x P], in blocks of variants (the best of three per block)."""
    rng = np.random.default_rng(0)
    x_BN = rng.standard_normal((BLOCK, n), np.float32)
    y_NP = rng.standard_normal((n, p), np.float32)
    out_BP = np.empty((BLOCK, p), np.float32)
    best = np.inf
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(5):
            np.matmul(x_BN, y_NP, out=out_BP)
        best = min(best, (time.perf_counter() - started) / 5)
    return best * m / BLOCK


def _warm_up(folder: Path) -> None:
    """Compile (or load) the numba kernels, so that no clock counts it."""
    config = _cohort(folder / "warm", 60, 20, 2)
    parts.run(scan.plan(config), "warm-up")


def _cohort(folder: Path, n: int, m: int, p: int) -> GwasConfig:
    """Random genotypes with 0.2 % missing calls, families of two to four sibs (a third of the people), covariates and
    heritable traits; written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    ids = pd.DataFrame({"FID": [f"F{i}" for i in range(n)], "IID": [f"I{i}" for i in range(n)]})
    ids.assign(a=0, b=0, sex=0, y=-9).to_csv(folder / "c.fam", sep=" ", index=False, header=False)
    ids.to_csv(folder / "c.grm.id", sep="\t", index=False, header=False)
    with (folder / "c.bed").open("wb") as file:
        file.write(b"\x6c\x1b\x01")
        for start in range(0, m, BLOCK):
            file.write(_random_rows(rng, min(BLOCK, m - start), n).tobytes())
    pd.DataFrame(
        {"c": 1, "s": [f"rs{i}" for i in range(m)], "cm": 0, "p": np.arange(1, m + 1) * 100, "a": "A", "b": "C"}
    ).to_csv(folder / "c.bim", sep="\t", index=False, header=False)
    first = np.arange(n)
    lines = [f"{i}\t{i}\t1" for i in range(n)]
    at = 0
    while at + 4 < n // 3:
        size = int(rng.integers(2, 5))
        first[at : at + size] = at
        lines += [f"{i}\t{j}\t0.5" for i in range(at, at + size) for j in range(at, i)]
        at += size
    (folder / "c.grm.sp").write_text("\n".join(lines) + "\n")
    c_NK = rng.standard_normal((n, COVARIATES))
    h2_P = np.linspace(0, 0.95, p)
    shared_NP = rng.standard_normal((n, p))[first]
    y_NP = np.sqrt(h2_P) * shared_NP + np.sqrt(1 - h2_P) * rng.standard_normal((n, p)) + c_NK[:, :1]
    ids.join(pd.DataFrame(c_NK).add_prefix("c")).to_csv(folder / "c.covar", sep="\t", index=False)
    ids.join(pd.DataFrame(y_NP).add_prefix("y")).to_parquet(folder / "c.parquet")
    return GwasConfig.parse(
        {
            "genotypes": folder / "c",
            "phenotypes": folder / "c.parquet",
            "covariates": folder / "c.covar",
            "sparse_grm": folder / "c",
            "out": folder / "out",
        }
    )


def _random_rows(rng: np.random.Generator, b: int, n: int) -> np.ndarray:
    """Packed rows of b variants in Hardy-Weinberg proportions, uint8 [b, ceil(n / 4)]."""
    threshold = rng.integers(3, 128, (b, 1), dtype=np.uint8)
    wide = -(-n // 4) * 4
    haplotypes = rng.integers(0, 256, (2, b, wide), dtype=np.uint8) < threshold
    code = np.array([3, 2, 0], np.uint8)[haplotypes.sum(axis=0)]
    code[rng.random((b, wide), np.float32) < 0.002] = 1
    code[:, n:] = 0
    code = code.reshape(b, wide // 4, 4)
    return code[..., 0] | code[..., 1] << 2 | code[..., 2] << 4 | code[..., 3] << 6


if __name__ == "__main__":
    main()
