"""How long 128 traits take to become loci: `python -m benchmarks.loci [--quick] [--variants M] [--people N]`.

A store of M variants and 128 traits with 100 planted loci (real smallest p for all variants; beta and se in the shards
of the loci and where lambda_GC is taken, else fill) and a .bed of N people, real near the loci and sparse elsewhere,
are made first. Then these are timed: loci of minp; minp and multivariate together; the same p as a .tsv.gz in the
columns of GWAS-SSF. The last line is one JSON object: seconds and peak_gb of minp (the processor's seconds, which other
work on the machine hardly touches), wall_seconds, both_seconds, text_seconds, loci.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

from benchmarks import clock
from hpc.files import publish_json
from hpc.stage import read_manifest
from udipdist.genome import assemblies
from udipdist.sumstats import digits
from udipdist.sumstats import store as sumstats

TRAITS, LOCI, ROWS = 128, 100, 8192
LEVEL = 11.0  # least -log10 p of a planted locus; 5e-8 / 128 is 9.4


def main() -> None:
    """Measure, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the variants")
    parser.add_argument("--variants", type=int, default=10_000_000)
    parser.add_argument("--people", type=int, default=5000)
    parser.add_argument("--keep", type=Path, help="folder for the data, which is made if it is not there and stays")
    options = parser.parse_args()
    logging.getLogger("udipdist").setLevel(logging.ERROR)
    m = options.variants // 10 if options.quick else options.variants
    with tempfile.TemporaryDirectory() as place:
        folder = options.keep or Path(place)
        if not (folder / "p.tsv.gz").exists():
            make(folder, m, options.people)
        runs = {
            "minp": ["sumstats", "minp"], "minp and multivariate": ["sumstats", "[minp,multivariate]"],
            "text, .tsv.gz": ["p.tsv.gz", "minp"],
        }  # fmt: skip
        rows = {name: once(folder, *what) for name, what in runs.items()}
    print(f"{m:,} variants, {TRAITS} traits, {options.people:,} people")
    print(f"{'':24s}{'seconds':>9s}{'cpu':>9s}{'GB':>8s}  loci")
    for name, row in rows.items():
        print(f"{name:24s}{row['wall']:9.1f}{row['cpu']:9.1f}{row['gb']:8.2f}{row['loci']:6d}")
    one = rows["minp"]
    summary = {
        "seconds": round(one["cpu"], 1), "peak_gb": round(one["gb"], 2), "wall_seconds": round(one["wall"], 1),
        "both_seconds": round(rows["minp and multivariate"]["cpu"], 1),
        "text_seconds": round(rows["text, .tsv.gz"]["cpu"], 1), "loci": one["loci"], "planted": LOCI,
    }  # fmt: skip
    print(json.dumps(summary))


def once(folder: Path, name: str, trait: str) -> dict[str, float]:
    """One call of the verb in a process of its own, imports and all: its seconds and memory by its manifest."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out"
        keys = [f"sumstats={folder / name}", f"genotypes={folder / 'geno'}", f"trait={trait}", f"out={out}"]
        words = [*keys, "tests=128"]
        started, cpu = time.perf_counter(), clock.cpu_seconds()
        subprocess.run([sys.executable, "-m", "udipdist", "loci", *words], check=True, capture_output=True)
        wall, cpu = time.perf_counter() - started, clock.cpu_seconds() - cpu
        manifest = read_manifest(out)
        return {
            "wall": wall, "cpu": cpu, "gb": manifest["peak_memory_bytes"] / 1e9, "loci": manifest["facts"]["n_loci"]
        }  # fmt: skip


def make(folder: Path, m: int, n: int) -> None:
    """The store, the genotypes, and the table of p."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    variants = _variants(m, rng)
    hits = np.arange(LOCI) * (m // LOCI) + m // LOCI // 2
    log10p, calls = np.asarray(rng.exponential(0.4, m), np.float32), {}
    log10p = np.minimum(log10p, 6.0)
    reach = max(1, round(m / 3.1e9 * 1_000_000))
    for number, hit in enumerate(hits.tolist()):
        low, high = max(0, hit - reach), min(m, hit + reach)
        counts = _block(rng, n, high - low)
        calls[low] = counts
        x = counts[hit - low].astype(np.float64)
        r = (counts - counts.mean(axis=1, keepdims=True)) @ (x - x.mean())
        r2 = r**2 / (n**2 * counts.var(axis=1) * x.var())
        level = LEVEL + 60 * number / LOCI
        log10p[low:high] = np.maximum(log10p[low:high], level * r2)
    _store(folder, variants, log10p, hits, rng)
    _bed(folder / "geno", variants, calls, n)
    table = pa.table(
        {
            "chromosome": variants["chrom"], "base_pair_location": variants["position"],
            "effect_allele": variants["a1"], "other_allele": variants["a2"],
            "p_value": digits.p_values(log10p), "rsid": variants["snp"],
        }
    )  # fmt: skip
    with pa.output_stream(str(folder / "p.tsv.gz"), compression="gzip") as stream:
        csv.write_csv(table, stream, csv.WriteOptions(delimiter="\t", quoting_style="none"))


def _variants(m: int, rng: np.random.Generator) -> pd.DataFrame:
    """Evenly over the autosomes."""
    lengths = np.array([assemblies.LENGTHS[c] for c in range(1, 23)])
    counts = np.diff(np.round(np.r_[0, np.cumsum(lengths)] / lengths.sum() * m).astype(int))
    alleles = np.array(["A", "C", "G", "T"])
    first = rng.integers(0, 4, m)
    return pd.DataFrame(
        {
            "chrom": np.repeat([str(c) for c in range(1, 23)], counts),
            "position": np.concatenate(
                [np.linspace(1, n, k).astype(int) for n, k in zip(lengths, counts, strict=True)]
            ),
            "snp": [f"rs{i * 37 + 1000}" for i in range(m)],
            "a1": alleles[first],
            "a2": alleles[(first + rng.integers(1, 4, m)) % 4],
        }
    )


def _block(rng: np.random.Generator, n: int, m: int) -> np.ndarray:
    """Counts of A1 [m, n] of neighbours in LD, which falls by half over about 30 variants."""
    frequency = rng.uniform(0.05, 0.5, m)
    counts = np.zeros((m, n), np.int8)
    for _ in range(2):
        level = rng.random(n, np.float32)
        for j in range(m):
            fresh = rng.random(n) < 0.02
            level[fresh] = rng.random(int(fresh.sum()), np.float32)
            counts[j] += level < frequency[j]
    counts[rng.random((m, n), np.float32) < 0.002] = 1
    return counts


def _store(
    folder: Path, variants: pd.DataFrame, log10p: np.ndarray, hits: np.ndarray, rng: np.random.Generator
) -> None:
    store = folder / "sumstats" / sumstats.STORE
    names, m = [f"z{i:03d}" for i in range(TRAITS)], len(variants)
    sumstats.create(store, variants, names, min(ROWS, m), {"df": None, "n_samples": 40_000})
    real = set((hits // ROWS).tolist())
    for number, start in enumerate(range(0, m, ROWS)):
        b = min(ROWS, m - start)
        shape = (b, TRAITS)
        full = number in real or number % 50 == 0
        z = rng.standard_normal(shape, np.float32) if full else np.full(shape, np.nan, np.float32)
        here = log10p[start : start + b]
        block = sumstats.SumstatsBlock(
            z * np.float32(0.01), np.where(np.isnan(z), z, np.float32(0.01)), np.full(b, 39_000), np.full(b, 0.3), here,
            rng.integers(0, TRAITS, b), here / 2,
        )  # fmt: skip
        sumstats.write(store, start, block)
    publish_json(folder / "sumstats" / "manifest.json", {"id": "gwas-1", "stage": "gwas"})


def _bed(prefix: Path, variants: pd.DataFrame, calls: dict[int, np.ndarray], n: int) -> None:
    """PREFIX.bed, a hole but for `calls` (counts from a row on), with .bim and .fam."""
    row = (n + 3) // 4
    code = np.array([3, 2, 0], np.uint8)  # of 0, 1, 2 copies of A1
    with open(f"{prefix}.bed", "wb") as file:
        file.write(b"\x6c\x1b\x01")
        file.truncate(3 + len(variants) * row)
        for start, counts in calls.items():
            bits = np.zeros((len(counts), row * 4), np.uint8)
            bits[:, :n] = code[counts]
            packed = bits[:, ::4] | bits[:, 1::4] << 2 | bits[:, 2::4] << 4 | bits[:, 3::4] << 6
            file.seek(3 + start * row)
            file.write(packed.tobytes())
    bim = {"c": variants["chrom"], "s": variants["snp"], "m": pa.repeat("0", len(variants)), "p": variants["position"]}
    table = pa.table(bim | {"a1": variants["a1"], "a2": variants["a2"]})
    csv.write_csv(table, f"{prefix}.bim", csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none"))
    Path(f"{prefix}.fam").write_text("".join(f"f{i} i{i} 0 0 0 -9\n" for i in range(n)))


if __name__ == "__main__":
    main()
