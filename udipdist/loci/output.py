"""The folder that `loci` writes: FUMA's tables, which traits are significant at each locus, and lambda_GC.

One run and one trait give one folder of tables. Several traits give such a folder each and their merged loci above
them; several runs give what each would give alone, their merged loci, and how well they agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc.files import publish, safe_names
from udipdist.config import LociOptions
from udipdist.loci import across_runs, fuma
from udipdist.loci.search import Run, merge_all
from udipdist.sumstats.analyses import MINP

TRAITS_AT, LAMBDA, ALL_LOCI = "locus_traits.parquet", "lambda_gc.tsv", "all_loci.parquet"
UNIONS, OVERLAP = "loci_by_run.tsv", "overlap.tsv"
RESERVED = (*fuma.FILES, TRAITS_AT, LAMBDA, ALL_LOCI, UNIONS, OVERLAP, "manifest.json")


def write_loci(out: Path, runs: Sequence[Run], config: LociOptions) -> dict[str, Any]:
    """Publish the folder of all runs, and below it one of each where there are several. Returns the facts of its
    manifest; of a single analysis its own facts are at the top."""
    merged = runs[0].merged if len(runs) == 1 else merge_all(one for run in runs for one in run.analyses)
    with publish(out) as partial:
        partial.mkdir()
        fuma.write_all(partial, merged)
        if len(runs) == 1:
            _write_run(partial, runs[0], merged, config.lambda_variants)
        else:
            _write_each(partial, runs, config.lambda_variants)
        if len(runs) > 1 or len(runs[0].analyses) > 1:
            across_runs.all_loci(runs).to_parquet(partial / ALL_LOCI, index=False)
    facts = {"n_loci": len(merged), "trait": config.trait, "assembly": config.assembly}
    if len(runs) == 1 and len(runs[0].analyses) == 1:
        return runs[0].analyses[0].facts | facts
    return facts | {"runs": {run.name: {one.name: one.facts for one in run.analyses} for run in runs}}


def _write_each(folder: Path, runs: Sequence[Run], lambda_variants: int) -> None:
    """A folder of each run, and how far they agree."""
    for run in runs:
        place, own = folder / run.name, run.merged
        place.mkdir()
        fuma.write_all(place, own)
        _write_run(place, run, own, lambda_variants)
    table, overlap = across_runs.by_run(runs)
    table.to_csv(folder / UNIONS, sep="\t", index=False)
    overlap.to_csv(folder / OVERLAP, sep="\t", index=False, float_format="%.6g")


def _write_run(folder: Path, run: Run, merged: list[fuma.RiskLocus], lambda_variants: int) -> None:
    """Which traits are significant at its loci, lambda_GC, and a folder of each analysis where there are several."""
    names = [one.name for one in run.analyses]
    across_runs.traits_at(merged, run, _limits(run)).to_parquet(folder / TRAITS_AT, index=False)
    lambdas = run.statistics.lambdas(names, lambda_variants)
    lambdas.to_csv(folder / LAMBDA, sep="\t", index=False, float_format="%.6g")
    if len(names) > 1:
        for one, name in zip(run.analyses, safe_names([*RESERVED, *names])[len(RESERVED) :], strict=True):
            (folder / name).mkdir()
            fuma.write_all(folder / name, one.loci)


def _limits(run: Run) -> dict[str, float]:
    """What -log10 p of a trait must exceed: its own limit where it is an analysis, else the strictest of them."""
    own = {one.name: one.rules.log10p for one in run.analyses}
    strictest = max(own.values())
    return {trait: own.get(trait, own.get(MINP, strictest)) for trait in run.statistics.traits}
