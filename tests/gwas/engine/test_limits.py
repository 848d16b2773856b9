"""Limits on what the genotypes of a variant turn out to be: which reason counts, and how many there are of each."""

from __future__ import annotations

import numpy as np

from udipdist.genotypes.counts import Numbers
from udipdist.gwas.engine.limits import COVARIATES, HWE, MAC, MISSING, REASONS, Limits, describe, tally, total


def numbers(n: int, called, af1, hwe=None) -> Numbers:
    """Numbers of a variant each; where nothing is said, nothing is known of equilibrium."""
    called, af1 = np.asarray(called), np.asarray(af1, float)
    count_B4 = np.zeros((len(called), 4), np.int64)
    count_B4[:, 1] = n - called
    mac_B = np.nan_to_num(np.rint(2 * called * np.minimum(af1, 1 - af1))).astype(np.int64)
    return Numbers(n, count_B4, af1, mac_B, np.full(len(called), np.nan) if hwe is None else np.asarray(hwe, float))


def test_the_first_reason_counts():
    called = np.array([0, 100, 100, 89, 90, 100, 100, 100, 100, 100])
    af1 = np.array([np.nan, 0, 1, 0.005, 0.3, 0.995, 0.01, 0.3, 0.3, 0.98])
    hwe = np.array([np.nan, 0, 0, 9, 5.9, 9, 6, 6.1, np.nan, 9])
    limits = Limits(min_maf=0.01, max_missing=0.1, min_hwe=1e-6, min_mac=2)
    expected = ["monomorphic"] * 3 + ["missing", "tested", "maf", "tested", "hwe", "tested", "hwe"]
    verdict = limits.verdict(numbers(100, called, af1, hwe))
    assert [REASONS[i] for i in verdict] == expected
    alike = Limits(0.01, 0.1).verdict(numbers(100, called, af1, hwe))
    assert (alike == np.where(verdict == HWE, 0, verdict)).all()
    rarer = Limits(0.01, 0.1, min_hwe=1e-6, min_mac=5).verdict(numbers(100, called, af1, hwe))
    assert [REASONS[i] for i in rarer] == [*expected[:6], "mac", "hwe", "tested", "mac"]
    counted = tally(rarer)
    assert counted == {
        "tested": 2, "monomorphic": 3, "missing": 1, "maf": 1, "mac": 2, "hwe": 1, "covariates": 0,
    }  # fmt: skip
    both = total([counted, tally(np.array([COVARIATES, 0], np.uint8))])
    assert both == counted | {"tested": 3, "covariates": 1}
    assert describe(both) == (
        "3 of 12 variants are tested; not: 3 not called, or with one allele only, 1 above max_missing, "
        "1 below min_maf, 2 below min_mac, 1 below min_hwe, 1 a linear function of the covariates"
    )
    assert describe(tally(np.zeros(1000, np.uint8))) == "1,000 of 1,000 variants are tested"
    assert tally(np.zeros(0, np.uint8)) == dict.fromkeys(REASONS, 0)


def test_limits_hold_at_their_value():
    for n in (7, 40_000, 123_457):
        share = 0.1
        missing = int(np.floor(n * share))
        edge = numbers(n, [n - missing, n - missing - 1], [0.5, 0.5])
        assert Limits(0, share).verdict(edge).tolist() == [0, MISSING]
    assert Limits(0.01, 1).verdict(numbers(50, [50, 50], [0.99, 1 / 100])).tolist() == [0, 0]
    assert Limits(0, 1, 1).verdict(numbers(5, [5], [0.5], [0.0])).tolist() == [0]
    assert Limits(0, 1, min_mac=20).verdict(numbers(100, [100, 100], [0.1, 0.095])).tolist() == [0, MAC]
