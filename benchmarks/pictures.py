"""How long figures of many variants take: `python -m benchmarks.pictures --data FOLDER`.

FOLDER is what `benchmarks.loci --keep FOLDER` made: ten million variants and 128 traits, and genotypes. Loci are found
first; then each kind of figure is drawn by the verb `plot`, in a process of its own, imports and all. The last line is
one JSON object: of each kind the processor's seconds, of the Manhattan plot also wall_seconds and peak_gb.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import clock
from hpc.stage import read_manifest

KINDS = {
    "manhattan": ["kind=manhattan"],
    "miami": ["kind=miami", "below_trait=multivariate"],
    "qq": ["kind=qq", "trait=multivariate"],
    "regional": ["kind=regional", "locus=1"],
    "heatmap": ["kind=heatmap"],
}


def main() -> None:
    """Measure, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that benchmarks.loci --keep made")
    rows = pictures(parser.parse_args().data)
    print(f"{'':12s}{'seconds':>9s}{'cpu':>9s}{'GB':>8s}")
    for kind, row in rows.items():
        print(f"{kind:12s}{row['wall']:9.1f}{row['cpu']:9.1f}{row['gb']:8.2f}")
    summary = {kind: round(row["cpu"], 1) for kind, row in rows.items()}
    first = rows["manhattan"]
    print(json.dumps(summary | {"wall_seconds": round(first["wall"], 1), "peak_gb": round(first["gb"], 2)}))


def pictures(folder: Path) -> dict[str, dict[str, float]]:
    """wall, cpu (seconds) and gb of each of KINDS, from `sumstats` and the prefix `geno` in `folder`."""
    data = [f"sumstats={folder / 'sumstats'}"]
    with tempfile.TemporaryDirectory() as place:
        loci = Path(place) / "loci"
        _run("loci", *data, f"genotypes={folder / 'geno'}", "tests=128", f"out={loci}")
        rows = {}
        for kind, words in KINDS.items():
            more = [] if kind == "qq" else [f"loci={loci}"]
            more += [f"genotypes={folder / 'geno'}"] if kind == "regional" else []
            out = Path(place) / f"{kind}.png"
            started, cpu = time.perf_counter(), clock.cpu_seconds()
            _run("plot", *data, *words, *more, f"out={out}")
            rows[kind] = {"wall": time.perf_counter() - started, "cpu": clock.cpu_seconds() - cpu}
            rows[kind]["gb"] = read_manifest(out)["peak_memory_bytes"] / 1e9
    return rows


def _run(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "udipdist", *words], check=True, capture_output=True)


if __name__ == "__main__":
    main()
