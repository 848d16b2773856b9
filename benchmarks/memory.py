"""Memory of a scan of 40,000 people and 128 traits, at 100,000 and at 1,000,000 variants: it must not grow.

A million variants are twenty names of one .bed of 50,000 (a set of files with {chr} in the name), so that the disk
holds 0.5 GB of genotypes instead of 10. Each scan is a process of its own, looked at ten times a second together with
its workers.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks import cohort, once, tables

PEOPLE, FAMILIES, TRAITS = 40_000, 5_000, 128
PER_FILE = 50_000
BUDGET_GB, BUDGET_GB_PER_WORKER = 2.0, 0.5


def memory(folder: Path, n: int = PEOPLE, per_file: int = PER_FILE) -> dict[str, Any]:
    """Peak memory at 2 and at 20 files of variants; one row a number of variants and of workers."""
    config = cohort.write(folder, n, per_file, TRAITS, n * FAMILIES // PEOPLE)
    rows = []
    for files in (2, 20):
        place = folder / f"files-{files}"
        place.mkdir()
        for chromosome in range(1, files + 1):
            for suffix in ("bed", "fam"):
                (place / f"{chromosome}.{suffix}").symlink_to(folder / f"c.{suffix}")
            cohort.write_bim(place / f"{chromosome}.bim", per_file, chromosome)
        for count in (0, 2):
            keys = config.model_dump(mode="json") | {
                "genotypes": str(place / "{chr}"), "out": str(place / "out"), "workers": count,
            }  # fmt: skip
            seen = once.run(place, keys)
            shutil.rmtree(place / "out")
            budget = BUDGET_GB + BUDGET_GB_PER_WORKER * count
            rows.append(
                {
                    "variants": files * per_file,
                    "workers": count,
                    "together_gb": seen["together_gb"],
                    "without_files_gb": seen["without_files_gb"],
                    "largest_process_gb": seen["process_gb"],
                    "budget_gb": budget,
                    "within": seen["together_gb"] <= budget,
                    "variants_per_s": seen["variants"] / seen["pass_seconds"],
                }
            )
            tables.show(f"Memory, {n:,} people, {TRAITS} traits; without_files: without mapped pages of files", rows)
    return {"memory": rows, "peak_gb": max(row["together_gb"] for row in rows)}
