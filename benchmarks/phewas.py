"""Is a PheWAS of latents calibrated, and what does it find? `python -m benchmarks.phewas [--quick]`.

- Codes without an effect, in many cohorts: lambda of the cross-fitted test, and of the sum that takes the two halves as
  independent.
- Firth's test with 15 cases: how often p is below 0.05 without an effect.
- 60 diseases, half of them with an effect of one axis of the latents: how many true ones each rule finds with a false
  discovery rate of 5 % (Benjamini and Hochberg). Published: the centroid's direction, one half derives, one tests.
- CPU seconds for 1,000 codes.

The last line is one JSON object: phewas_null_lambda, phewas_naive_lambda, firth_type1, phewas_hits_over_published,
phewas_hits, phewas_false, seconds_per_1000_codes.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.tables import rounded, show
from udipdist.analysis.phewas import crossfit, logistic, multiple, study

LATENTS, DISEASES, FDR = 32, 60, 0.05
OURS, PUBLISHED = "lda, cross-fitted", "centroid, one half (published)"
RULES: dict[str, tuple[crossfit.Rule, bool]] = {
    OURS: ("lda", True), "centroid, cross-fitted": ("centroid", True), "lda, one half": ("lda", False),
    PUBLISHED: ("centroid", False),
}  # fmt: skip


def main() -> None:
    """Measure, print tables and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer cohorts and codes")
    print(json.dumps(rounded(measure(parser.parse_args().quick))))


def measure(quick: bool) -> dict[str, Any]:
    """Print the tables; the numbers of the last line."""
    with threadpool_limits(1):
        own, naive = np.hstack([nulls(seed) for seed in range(8 if quick else 40)])
        type1 = firth_type1(100 if quick else 2000)
        hits = [compare(seed, 3000 if quick else 6000) for seed in range(2 if quick else 5)]
        seconds = speed(4000 if quick else 20_000, 128 if quick else 1800)
    found = {rule: np.sum([one[rule] for one in hits], axis=0) for rule in RULES}
    rows = [{"rule": rule, "true": int(found[rule][0]), "false": int(found[rule][1])} for rule in RULES]
    show(f"{len(hits)} cohorts of {DISEASES} diseases, half of them with an effect; FDR {FDR}", rows)
    expected = {
        "phewas_null_lambda": multiple.inflation(own), "phewas_naive_lambda": multiple.inflation(naive),
        "firth_type1": type1, "phewas_hits_over_published": int(found[OURS][0] - found[PUBLISHED][0]),
        "phewas_hits": int(found[OURS][0]), "phewas_false": int(found[OURS][1]), "seconds_per_1000_codes": seconds,
    }  # fmt: skip
    print(
        f"lambda of {len(own):,} codes without effect: {expected['phewas_null_lambda']:.3f}; halves taken as "
        f"independent: {expected['phewas_naive_lambda']:.2f}\nFirth with 15 cases: {type1:.4f} below 0.05\n"
    )
    return expected


def nulls(seed: int, people: int = 1500, codes: int = 1000) -> np.ndarray:
    """p of codes without effect [2, B]: ours, and of the sum that takes the halves as independent (two-sided)."""
    rng = np.random.default_rng(seed)
    latents, q_NK = cohort(rng, people, "lda")
    share = rng.uniform(0.04, 0.2, (codes, 1))
    status_BN = (rng.random((codes, people)) < share).astype(np.int8)
    z_HB = crossfit.score_z(latents, crossfit.models_of(status_BN, q_NK, latents.half_N))
    naive_B = 2 * crossfit.one_sided(np.abs(crossfit.stouffer(z_HB, 0)))
    return np.array([crossfit.one_sided(crossfit.stouffer(z_HB, latents.correlation)), naive_B])


def cohort(rng: np.random.Generator, people: int, rule: crossfit.Rule) -> tuple[crossfit.Latents, np.ndarray]:
    """Latents whose axes fall from 1 to 0.1, turned about, and covariates."""
    turn_LL = np.linalg.qr(rng.standard_normal((LATENTS, LATENTS)))[0]
    q_NK = np.linalg.qr(np.column_stack([np.ones(people), rng.standard_normal((people, 4))]))[0]
    axes_NL = rng.standard_normal((people, LATENTS)) + q_NK[:, 1:2] * np.sqrt(people)
    x_NL = axes_NL * np.geomspace(1, 0.1, LATENTS) @ turn_LL
    return crossfit.prepare(x_NL, q_NK, rng.integers(0, 2, people), rule), q_NK


def firth_type1(tests: int, people: int = 1000, cases: int = 15) -> float:
    """Share of p < 0.05 of a component without effect."""
    rng = np.random.default_rng(0)
    q_nK = np.linalg.qr(np.column_stack([np.ones(people), rng.standard_normal((people, 3))]))[0]
    below = 0
    for _ in range(tests):
        case_n = rng.permutation(people) < cases
        effect = logistic.firth(q_nK, case_n, rng.standard_normal(people))
        below += 2 * crossfit.one_sided(abs(effect.z)) < 0.05
    return below / tests


def compare(seed: int, people: int) -> dict[str, tuple[int, int]]:
    """True and false diseases that each rule finds."""
    rng = np.random.default_rng(100 + seed)
    turn_LL = np.linalg.qr(rng.standard_normal((LATENTS, LATENTS)))[0]
    q_NK = np.linalg.qr(np.column_stack([np.ones(people), rng.standard_normal((people, 4))]))[0]
    axes_NL, half_N = rng.standard_normal((people, LATENTS)), rng.integers(0, 2, people)
    x_NL = axes_NL * np.geomspace(1, 0.1, LATENTS) @ turn_LL
    true_B = np.arange(DISEASES) % 2 == 0
    b_B = true_B * np.exp(rng.uniform(*np.log((0.15, 0.6)), DISEASES))
    liability_BN = b_B[:, None] * axes_NL.T[rng.integers(0, LATENTS, DISEASES)]
    liability_BN += 0.3 * np.sqrt(people) * q_NK[:, 1] + rng.standard_normal((DISEASES, people))
    share_B = np.geomspace(0.01, 0.15, DISEASES)[rng.permutation(DISEASES)]
    limit_B = np.array([np.quantile(one, 1 - share) for one, share in zip(liability_BN, share_B, strict=True)])
    status_BN = (liability_BN > limit_B[:, None]).astype(np.int8)
    found = {}
    for name, (rule, both) in RULES.items():
        latents = crossfit.prepare(x_NL, q_NK, half_N, rule)
        table = study.associate(latents, q_NK, status_BN, study.Plan(both, 0, 0), name).table
        hit_B = table["q"].to_numpy() < FDR
        found[name] = (int((hit_B & true_B).sum()), int((hit_B & ~true_B).sum()))
    return found


def speed(people: int, codes: int) -> float:
    """CPU seconds of a whole study for 1,000 codes, half of them rare."""
    rng = np.random.default_rng(0)
    latents, q_NK = cohort(rng, people, "lda")
    share = np.exp(rng.uniform(*np.log((0.005, 0.1)), (codes, 1)))
    status_BN = (rng.random((codes, people)) < share).astype(np.int8)
    started = time.process_time()
    study.associate(latents, q_NK, status_BN, study.Plan(True, 0, 0), "speed")
    return (time.process_time() - started) * 1000 / codes


if __name__ == "__main__":
    main()
