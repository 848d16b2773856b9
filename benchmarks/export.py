"""How fast summary statistics become text: `python -m benchmarks.export [--quick] [--variants M] [--traits P]`.

A store of random results is exported, one trait in every layout and encoding and all traits in one pass, beside
pandas.to_csv of the same table (which is in memory already, its p-values as text too). Each time is the smallest of
several rounds. The last line is one JSON object: rows_per_s and mb_per_s of one trait as plain .fastGWA, to_pandas
(its time / that of pandas.to_csv, both with reading the store), gz_rows_per_s, all_rows_per_s, peak_gb.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.stage import peak_memory
from udipdist.config import ExportConfig
from udipdist.sumstats import pvalues
from udipdist.sumstats import store as sumstats
from udipdist.sumstats.export import export

ROWS = 8192  # of a shard, as gwas writes them


def main() -> None:
    """Measure, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the variants, one round")
    parser.add_argument("--variants", type=int, default=1_000_000)
    parser.add_argument("--traits", type=int, default=16)
    options = parser.parse_args()
    logging.getLogger("udipdist").setLevel(logging.ERROR)
    m = options.variants // 10 if options.quick else options.variants
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "sumstats.zarr", m, options.traits)
        rows = measure(Path(folder), m, options.traits, 1 if options.quick else 3)
    print(f"{m:,} variants, {options.traits} traits\n{'':36s}{'seconds':>9s}{'rows/s':>13s}{'MB/s':>9s}{'MB':>9s}")
    for name, row in rows.items():
        print(f"{name:36s}{row['seconds']:9.2f}{row['rows_per_s']:13,.0f}{row['mb_per_s']:9.1f}{row['mb']:9.1f}")
    one, peer = rows["fastgwa"], rows["pandas.to_csv"]
    summary = {
        "rows_per_s": round(one["rows_per_s"]),
        "mb_per_s": round(one["mb_per_s"], 1),
        "to_pandas": round(one["seconds"] / peer["seconds"], 3),
        "gz_rows_per_s": round(rows["fastgwa .gz"]["rows_per_s"]),
        "all_rows_per_s": round(rows["all traits, regenie"]["rows_per_s"]),
        "peak_gb": round(peak_memory() / 1e9, 3),
    }
    print(json.dumps(summary))


def make(path: Path, m: int, p: int) -> None:
    """A store of random results, one variant in a hundred thousand with p far below 1e-308."""
    rng = np.random.default_rng(1)
    alleles = rng.choice(["A", "C", "G", "T"], (2, m))
    variants = pd.DataFrame(
        {
            "chrom": np.sort(rng.integers(1, 23, m)).astype(str),
            "position": np.arange(m) % 240_000_000 + 1,
            "snp": [f"rs{i * 37 + 1000}" for i in range(m)],
            "a1": alleles[0],
            "a2": alleles[1],
        }
    )
    sumstats.create(path, variants, [f"z{i:03d}" for i in range(p)], min(ROWS, m), {"df": None, "n_samples": 40_000})
    for start in range(0, m, ROWS):
        b = min(ROWS, m - start)
        se = rng.uniform(0.003, 0.1, (b, p)).astype(np.float32)
        z = rng.standard_normal((b, p), np.float32)
        z[rng.random((b, p)) < 1e-5] = 60
        columns = {
            "beta_MP": z * se,
            "se_MP": se,
            "n_M": rng.integers(38_000, 40_000, b),
            "af1_M": rng.random(b, np.float32),
            "minp_trait_M": np.abs(z).argmax(axis=1),
            "minp_log10p_M": pvalues.log10p_from_z(np.abs(z).max(axis=1)),
        }
        fields = sumstats.SumstatsBlock.__dataclass_fields__
        columns |= {name: np.full(b, 0.5) for name in fields if name not in columns}
        sumstats.write(path, start, sumstats.SumstatsBlock(**columns))


def measure(folder: Path, m: int, p: int, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds, rows and megabytes a second, and megabytes of each way."""
    store = folder / "sumstats.zarr"

    def ours(name: str, **keys: object) -> Callable[[], Path]:
        def work() -> Path:
            export(ExportConfig(sumstats=store, out=folder / name, overwrite=True, **keys))
            return folder / name

        return work

    def peer() -> Path:
        with_pandas(store, folder / "pandas.tsv")
        return folder / "pandas.tsv"

    works = {
        "pandas.to_csv": (1, peer),
        "fastgwa": (1, ours("a.fastGWA", trait="z000")),
        "fastgwa .gz": (1, ours("a.fastGWA.gz", trait="z000")),
        "fastgwa .parquet": (1, ours("a.parquet", trait="z000")),
        "ssf .tsv.gz": (1, ours("a.tsv.gz", trait="z000", format="ssf")),
        "regenie": (1, ours("a.regenie", trait="z000", format="regenie")),
        "fuma of minp": (1, ours("a.txt", format="fuma")),
        "all traits, regenie": (p, ours("text", trait="all", format="regenie", encoding="text")),
        "all traits, fastgwa .gz": (p, ours("gz", trait="all")),
    }
    rows = {}
    for name, (files, work) in works.items():
        seconds = np.inf
        for _ in range(rounds if files == 1 else 1):
            started = time.perf_counter()
            out = work()
            seconds = min(seconds, time.perf_counter() - started)
        paths = [out] if out.is_file() else list(out.glob("*z[0-9]*"))
        mb = sum(path.stat().st_size for path in paths) / 1e6
        rows[name] = {"seconds": seconds, "rows_per_s": files * m / seconds, "mb_per_s": mb / seconds, "mb": mb}
    return rows


def with_pandas(store: Path, out: Path) -> None:
    """The same table as anybody would write it: everything read, p as text one by one, pandas.to_csv."""
    read = sumstats.Sumstats.open(store)
    table = read.variants[["chrom", "snp", "position", "a1", "a2", "n", "af1"]]
    log10p = read.log10p("z000")
    table = table.assign(beta=read.beta("z000"), se=read.se("z000"), p=pvalues.p_text(log10p))
    table.to_csv(out, sep="\t", index=False, float_format="%.7g")


if __name__ == "__main__":
    main()
