"""Loci of several traits and of several runs compared with each other: unions, overlaps, and traits at a locus."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from udipdist.genome import assemblies
from udipdist.loci import fuma
from udipdist.loci.proximity import touched
from udipdist.loci.search import Analysis, Run

TRAIT_COLUMNS = ("locus", "trait", "log10p", "snp", "position", "significant")
OVERLAP_COLUMNS = (
    "analysis", "run_a", "run_b", "n_a", "n_b", "shared_a", "shared_b", "union", "shared", "jaccard", "jaccard_bp",
)  # fmt: skip


def unions(chrom: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """For each interval (both ends included) the number, from 1 in order of the genome, of the union that it lies in:
    intervals of a chromosome that intersect, or are joined by others that do, are one union."""
    order = np.lexsort((end, start, chrom))
    number, found, last = np.zeros(len(order), np.int64), 0, (None, 0)
    for i in order.tolist():
        if chrom[i] != last[0] or start[i] > last[1]:
            found, last = found + 1, (chrom[i], end[i])
        else:
            last = (chrom[i], max(last[1], end[i]))
        number[i] = found
    return number


def all_loci(runs: Sequence[Run]) -> pd.DataFrame:
    """Every locus of every run and analysis: run, analysis, the columns of loci.parquet, and the union (over all of
    these, by intersection) that it lies in."""
    pieces = [
        fuma.tidy(one.loci).assign(run=run.name, analysis=one.name, code=[locus.chrom for locus in one.loci])
        for run in runs
        for one in run.analyses
    ]
    table = pd.concat(pieces, ignore_index=True)
    table["union"] = unions(*(table[name].to_numpy() for name in ("code", "start", "end")))
    return table[["run", "analysis", *fuma.TIDY_TYPES, "union"]]


def by_run(runs: Sequence[Run]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of each analysis that several runs have: unions of their loci by run, and the overlap of each pair of runs.

    First table: analysis, union, chrom, start, end, n_runs, and of each run the lead SNPs of its loci in the union,
    joined by ';'. Second: OVERLAP_COLUMNS; `shared_a` loci of run_a intersect one of run_b; `union` counts unions of
    the two runs' loci, `shared` those with loci of both, `jaccard` their ratio; `jaccard_bp` is that of base pairs.
    Ratios are NaN where neither run has a locus.
    """
    union_rows, pairs = [], []
    for analysis, those in _common(runs).items():
        tables = {name: _intervals(one) for name, one in those.items()}
        whole = pd.concat([table.assign(run=name) for name, table in tables.items()], ignore_index=True)
        whole["union"] = unions(*(whole[name].to_numpy() for name in ("chrom", "start", "end")))
        for number, group in whole.groupby("union"):
            leads = group.groupby("run")["leads"].agg(";".join)
            row = (
                analysis, number, assemblies.label(group["chrom"].iloc[0]), group["start"].min(), group["end"].max(),
                len(leads), *(leads.get(name, "") for name in those),
            )  # fmt: skip
            union_rows.append(row)
        pairs += [(analysis, a, b, *compared(tables[a], tables[b])) for a, b in itertools.combinations(tables, 2)]
    columns = ["analysis", "union", "chrom", "start", "end", "n_runs", *(run.name for run in runs)]
    table = pd.DataFrame([dict(zip([*columns[:6], *_names(runs, row[0])], row, strict=True)) for row in union_rows])
    return table.reindex(columns=columns).fillna(""), pd.DataFrame(pairs, columns=list(OVERLAP_COLUMNS))


def traits_at(loci: Sequence[fuma.RiskLocus], run: Run, limits: dict[str, float]) -> pd.DataFrame:
    """Of each locus and trait the variant with the smallest p between the locus' ends: TRAIT_COLUMNS; `significant`
    where -log10 p exceeds the trait's limit. Traits without a p there have no row."""
    statistics, rows, whose = run.statistics, [], []
    for locus in loci:
        best, variant = statistics.best_of_traits(run.index.within(locus.chrom, locus.start, locus.end))
        for trait in np.flatnonzero(variant >= 0).tolist():
            name, value = statistics.traits[trait], float(best[trait])
            rows.append((locus.number, name, value, value > limits[name]))
            whose.append(int(variant[trait]))
    table = pd.DataFrame(rows, columns=["locus", "trait", "log10p", "significant"])
    distinct, back = np.unique(np.array(whose, np.int64), return_inverse=True)
    table["snp"] = statistics.names(distinct)["snp"].to_numpy()[back] if len(distinct) else []
    table["position"] = statistics.position_M[np.array(whose, np.int64)].astype(np.int64)
    types = {"locus": "int64", "trait": "str", "log10p": "float64", "snp": "str", "significant": "bool"}
    return table.astype(types)[list(TRAIT_COLUMNS)]


def _common(runs: Sequence[Run]) -> dict[str, dict[str, Analysis]]:
    """Analyses that several runs have: name -> run -> analysis. Runs with one analysis each are compared by these,
    whatever they are called."""
    if all(len(run.analyses) == 1 for run in runs):
        names = dict.fromkeys(run.analyses[0].name for run in runs)
        return {"/".join(names) if len(names) <= 2 else "each": {run.name: run.analyses[0] for run in runs}}
    found: dict[str, dict[str, Analysis]] = {}
    for run in runs:
        for one in run.analyses:
            found.setdefault(one.name, {})[run.name] = one
    return {name: those for name, those in found.items() if len(those) > 1}


def _names(runs: Sequence[Run], analysis: str) -> list[str]:
    return list(_common(runs)[analysis])


def _intervals(one: Analysis) -> pd.DataFrame:
    rows = [(locus.chrom, locus.start, locus.end, locus.top.rsid) for locus in one.loci]
    types = {"chrom": "int64", "start": "int64", "end": "int64", "leads": "object"}
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def compared(one: pd.DataFrame, other: pd.DataFrame) -> tuple:
    """n_a .. jaccard_bp of OVERLAP_COLUMNS of two tables of intervals: chrom (code), start, end, both included."""
    both = pd.concat([one, other], ignore_index=True)
    number = unions(*(both[name].to_numpy() for name in ("chrom", "start", "end")))
    first, second = set(number[: len(one)].tolist()), set(number[len(one) :].tolist())
    shared, union = len(first & second), len(first | second)
    together = _length(both)
    common = _length(one) + _length(other) - together
    return (
        len(one), len(other), int(touched(one, other, 0).sum()), int(touched(other, one, 0).sum()), union, shared,
        shared / union if union else np.nan, common / together if together else np.nan,
    )  # fmt: skip


def _length(table: pd.DataFrame) -> int:
    """Base pairs that the intervals cover."""
    if not len(table):
        return 0
    number = unions(*(table[name].to_numpy() for name in ("chrom", "start", "end")))
    groups = table.groupby(number)
    return int((groups["end"].max() - groups["start"].min() + 1).sum())
