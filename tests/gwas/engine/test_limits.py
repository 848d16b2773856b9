"""Limits on what the genotypes of a variant turn out to be: which reason counts, and how many there are of each."""

from __future__ import annotations

import numpy as np

from udipdist.gwas.engine.limits import COVARIATES, HWE, MISSING, REASONS, Limits, describe, tally, total


def test_the_first_reason_counts():
    called = np.array([0, 100, 100, 89, 90, 100, 100, 100, 100])
    af1 = np.array([np.nan, 0, 1, 0.001, 0.3, 0.999, 0.01, 0.3, 0.3])
    hwe = np.array([np.nan, 0, 0, 9, 5.9, 9, 6, 6.1, np.nan])
    limits = Limits(min_maf=0.01, max_missing=0.1, min_hwe=1e-6)
    expected = ["monomorphic"] * 3 + ["missing", "tested", "maf", "tested", "hwe", "tested"]
    verdict = limits.verdict(100, called, af1, hwe)
    assert [REASONS[i] for i in verdict] == expected
    assert (Limits(0.01, 0.1).verdict(100, called, af1) == np.where(verdict == HWE, 0, verdict)).all()
    counted = tally(verdict)
    assert counted == {"tested": 3, "monomorphic": 3, "missing": 1, "maf": 1, "hwe": 1, "covariates": 0}
    both = total([counted, tally(np.array([COVARIATES, 0], np.uint8))])
    assert both == counted | {"tested": 4, "covariates": 1}
    assert describe(both) == (
        "4 of 11 variants are tested; not: 3 not called, or with one allele only, 1 above max_missing, "
        "1 below min_maf, 1 below min_hwe, 1 a linear function of the covariates"
    )
    assert describe(tally(np.zeros(1000, np.uint8))) == "1,000 of 1,000 variants are tested"
    assert tally(np.zeros(0, np.uint8)) == dict.fromkeys(REASONS, 0)


def test_limits_hold_at_their_value():
    for n in (7, 40_000, 123_457):
        share = 0.1
        missing = int(np.floor(n * share))
        edge = np.array([n - missing, n - missing - 1])
        assert Limits(0, share).verdict(n, edge, np.array([0.5, 0.5])).tolist() == [0, MISSING]
    assert Limits(0.01, 1).verdict(50, np.array([50, 50]), np.array([0.99, 1 / 100])).tolist() == [0, 0]
    assert Limits(0, 1, 1).verdict(5, np.array([5]), np.array([0.5]), np.array([0.0])).tolist() == [0]
