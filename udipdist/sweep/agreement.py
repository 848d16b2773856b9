"""Loci of replicates and of configurations compared with each other, and their latents too."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

import numpy as np
import pandas as pd

from hpc.errors import InputError
from udipdist.analysis import similarity
from udipdist.genome import assemblies
from udipdist.loci import across_runs, fuma
from udipdist.sweep.folder import CURE, Look, SweepFolder

log = logging.getLogger(__name__)

MOST = 24  # configurations, and replicates of one, that are compared: the best ones
PAIR = ("kind", "pass", "configuration_a", "configuration_b", "trial_a", "trial_b", "epoch_a", "epoch_b")
OVERLAP = (*PAIR, "analysis", *across_runs.OVERLAP_COLUMNS[3:])
SIMILARITY = (*PAIR, *similarity.COLUMNS)
ANALYSES = ("loci", "multivariate_loci")


def overlaps(sweep: SweepFolder) -> pd.DataFrame:
    """OVERLAP: each pair of replicates, of configurations by their best trials, and of untrained networks.

    `shared_a` loci of a intersect one of b; `union` counts unions of the loci of both, `shared` those with loci of
    both, `jaccard` their ratio; `jaccard_bp` is that of base pairs. Raises InputError.
    """
    tables: dict[tuple[str, int, str, str], pd.DataFrame] = {}

    def loci(look: Look, analysis: str) -> pd.DataFrame:
        key = (look.trial.name, look.epoch, look.of, analysis)
        if key not in tables:
            tables[key] = intervals(look, analysis)
        return tables[key]

    rows = [
        (*_names(kind, a, b), analysis, *across_runs.compared(loci(a, analysis), loci(b, analysis)))
        for of in sweep.passes()
        for kind, a, b in pairs(sweep, of)
        for analysis in ANALYSES
    ]
    return pd.DataFrame(rows, columns=list(OVERLAP))


def similarities(sweep: SweepFolder) -> pd.DataFrame:
    """SIMILARITY: the same pairs by their latents. Raises InputError."""
    library, rows = similarity.Library(MOST), []
    for of in sweep.passes():
        for kind, a, b in pairs(sweep, of):
            rows.append((*_names(kind, a, b), *astuple(library.compare(a.latents, b.latents))))
    return pd.DataFrame(rows, columns=list(SIMILARITY))


def found_by(looks: list[Look]) -> np.ndarray:
    """Of each union of the loci of these looks (of the smallest p) the number of looks that have a locus in it."""
    if not looks:
        return np.empty(0, np.int64)
    tables = [intervals(look, "loci").assign(look=i) for i, look in enumerate(looks)]
    whole = pd.concat(tables, ignore_index=True)
    number = across_runs.unions(*(whole[name].to_numpy() for name in ("chrom", "start", "end")))
    return whole.groupby(number)["look"].nunique().to_numpy()


def pairs(sweep: SweepFolder, of: str) -> Iterator[tuple[str, Look, Look]]:
    """('replicates', 'configurations' or 'untrained', look, look) of one pass: of each trial the look it is chosen by,
    of each configuration the best of them, and untrained networks. Of more than MOST only the best are compared."""
    by_configuration: dict[str, list[Look]] = defaultdict(list)
    for look in sweep.chosen(of):
        by_configuration[look.trial.configuration].append(look)
    best = [sweep.best(looks) for looks in by_configuration.values()]
    kinds = {
        "replicates": list(by_configuration.values()),
        "configurations": [best],
        "untrained": [sweep.untrained(of)],
    }
    for kind, groups in kinds.items():
        for looks in groups:
            if len(looks) > MOST:
                log.info("of %d %s only the %d best are compared", len(looks), kind, MOST)
            for a, b in itertools.combinations(sweep.leading(looks, MOST), 2):
                yield kind, a, b


def intervals(look: Look, analysis: str) -> pd.DataFrame:
    """Loci of a look: chrom (code), start, end. Raises InputError."""
    path = look.loci(analysis) / fuma.TIDY
    if look.variants == 0:  # latents that are the same for everybody are not tested
        return pd.DataFrame({"chrom": [], "start": [], "end": []}, dtype=np.int64)
    try:
        table = pd.read_parquet(path, columns=["chrom", "start", "end"])
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {CURE}") from None
    return table.assign(chrom=assemblies.codes(table["chrom"]).astype(np.int64))


def _names(kind: str, a: Look, b: Look) -> tuple[Any, ...]:
    return (
        kind, a.of, a.trial.configuration, b.trial.configuration, a.trial.name, b.trial.name, a.epoch, b.epoch,
    )  # fmt: skip
