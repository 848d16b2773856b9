"""Do intervals of probes that know nothing cover? `python -m benchmarks.probes [--quick]`.

Targets that are independent of the latents, measured and of yes and no, in many cohorts: the share of 95 % intervals
that hold 0 (R2) or 0.5 (AUC), as they are and without the factor for the noise of training. And 24 factors read from a
table that holds them turned about: their R2 is 1.

The last line is one JSON object: probe_coverage (R2, AUC), probe_coverage_naive, probe_oracle_r2 (the smallest).
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.tables import rounded, show
from udipdist.analysis.probes import fitting, judging

PEOPLE, LATENTS, TARGETS, FACTORS = 1000, 32, 20, 24
FOLDS = 5


def main() -> None:
    """Measure, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few cohorts")
    print(json.dumps(rounded(measure(parser.parse_args().quick))))


def measure(quick: bool) -> dict[str, Any]:
    """Print the table; the numbers of the last line."""
    with threadpool_limits(1):
        found = {
            "R2": np.array([one for seed in range(5 if quick else 60) for one in null_r2(seed)]),
            "AUC": np.array([null_auc(seed) for seed in range(25 if quick else 200)]),
        }
        oracle = oracle_r2()
    rows = [
        {
            "metric": name,
            "probes": len(one),
            "95 % intervals cover": one[:, 0].mean(),
            "without the factor": one[:, 1].mean(),
        }
        for name, one in found.items()
    ]
    show(f"{PEOPLE:,} people, {LATENTS} latents, targets that are independent of them", rows)
    print(f"the smallest R2 of {FACTORS} factors from a table that holds them: {oracle:.6f}\n")
    return {
        "probe_coverage": {name: one[:, 0].mean() for name, one in found.items()},
        "probe_coverage_naive": {name: one[:, 1].mean() for name, one in found.items()},
        "probe_oracle_r2": oracle,
    }


def null_r2(seed: int) -> list[tuple[bool, bool]]:
    """Of TARGETS measurements: does the interval hold 0, with and without the factor?"""
    rng = np.random.default_rng(seed)
    fold_N, person_N = rng.integers(0, FOLDS, PEOPLE), np.arange(PEOPLE)
    y_NP = rng.standard_normal((PEOPLE, TARGETS))
    found = fitting.continuous(rng.standard_normal((PEOPLE, LATENTS)), y_NP, fold_N)
    draws_BF, covers = judging.draws(person_N, 400, seed), []
    for t in range(TARGETS):
        noise = judging.noise(found.halves_NP[0][:, t], found.halves_NP[1][:, t], fold_N)
        value_M, drawn_MB = judging.r2(y_NP[:, t], found.whole_NP[:, [t]].T, found.base_NP[:, t], person_N, draws_BF)
        both = [judging.by_draws(float(value_M[0]), drawn_MB[0], factor) for factor in (noise, 0.0)]
        covers.append(tuple(one.low <= 0 <= one.high for one in both))
    return covers


def null_auc(seed: int) -> tuple[bool, bool]:
    """Of a yes and no of a fifth of the people: does the interval hold 0.5, with and without the factor?"""
    rng = np.random.default_rng(seed)
    fold_N, case_N = rng.integers(0, FOLDS, PEOPLE), rng.random(PEOPLE) < 0.2
    found = fitting.binary(rng.standard_normal((PEOPLE, LATENTS)), case_N, fold_N, "l2", 0)
    noise = judging.noise(found.halves_NP[0][:, 0], found.halves_NP[1][:, 0], fold_N)
    area_M, covariance_MM = judging.auc(case_N, found.whole_NP.T, np.arange(PEOPLE))
    both = [judging.by_variance(float(area_M[0]), float(covariance_MM[0, 0]), factor) for factor in (noise, 0.0)]
    return both[0].low <= 0.5 <= both[0].high, both[1].low <= 0.5 <= both[1].high


def oracle_r2() -> float:
    """The smallest R2 of factors that the latents hold in other coordinates."""
    rng = np.random.default_rng(0)
    factors_NK = rng.standard_normal((PEOPLE, FACTORS))
    fold_N = rng.integers(0, FOLDS, PEOPLE)
    turned_KK, _ = np.linalg.qr(rng.standard_normal((FACTORS, FACTORS)))
    found = fitting.continuous(factors_NK @ turned_KK, factors_NK, fold_N)
    error_K = ((factors_NK - found.whole_NP) ** 2).sum(0)
    return float((1 - error_K / ((factors_NK - found.base_NP) ** 2).sum(0)).min())


if __name__ == "__main__":
    main()
