"""What counts at the thresholds themselves, where files of genotypes hardly ever fall."""

from __future__ import annotations

import numpy as np
import pytest

from udipdist.loci.rules import Rules, Snps, independent_snps, lead_snps, merge

RULES = Rules(log10p=8.0, log10p_candidate=2.0, r2=0.6, r2_lead=0.1, window_bp=1000, merge_bp=250)


def found(positions, log10p, r2, rules=RULES):
    """Independent SNPs of a chromosome whose linkage is the matrix `r2`."""
    snps = Snps(np.array(positions), np.array(log10p, float), np.array([f"1:{p}" for p in positions], object))
    matrix = np.array(r2, float)
    return snps, independent_snps(snps, rules, lambda i, start, stop: matrix[i, start:stop].copy(), lambda i: True)


def pair(r2: float) -> list[list[float]]:
    return [[1.0, r2], [r2, 1.0]]


@pytest.mark.parametrize(("log10p", "count"), [(8.0, 0), (8.0001, 1)])
def test_p_must_be_below_the_threshold(log10p, count):
    assert len(found([1], [log10p], [[1.0]])[1]) == count


@pytest.mark.parametrize(("r2", "candidates"), [(0.6, [0, 1]), (0.5999, [0])])
def test_r2_of_a_candidate_reaches_the_threshold(r2, candidates):
    _, (snp, *_) = found([1, 2], [9, 3], pair(r2))
    assert snp.candidates.tolist() == candidates


@pytest.mark.parametrize(("log10p", "candidates"), [(2.0, [0]), (2.0001, [0, 1]), (np.nan, [0, 1])])
def test_p_of_a_candidate_must_be_below_its_threshold(log10p, candidates):
    _, (snp,) = found([1, 2], [9, log10p], pair(0.9))
    assert snp.candidates.tolist() == candidates


@pytest.mark.parametrize(("r2", "leads"), [(0.1, 1), (0.0999, 2)])
def test_r2_of_one_lead_reaches_the_threshold(r2, leads):
    snps, independent = found([1, 2], [10, 9], pair(r2))
    assert len(independent) == 2 and len(lead_snps(snps, independent)) == leads


def test_a_snp_is_its_own_candidate_whatever_its_linkage():
    """A reference in which it does not vary gives an r2 of 0 with itself."""
    _, (snp,) = found([1], [9], [[0.0]])
    assert snp.candidates.tolist() == [0]


def test_a_mate_of_two_leads_belongs_to_both():
    """0 and 1 are linked, 1 and 2 are linked, 0 and 2 are not: 2 is a lead of its own (not transitive), and 1 is listed
    with both, as in FUMA's getLeadSNPs."""
    r2 = [[1, 0.3, 0.0], [0.3, 1, 0.3], [0.0, 0.3, 1]]
    snps, independent = found([1, 2, 3], [12, 11, 10], r2)
    assert [[member.index for member in lead.independent] for lead in lead_snps(snps, independent)] == [[0, 1], [2, 1]]


def test_two_leads_that_share_a_mate_are_one_locus():
    """At FUMA's default settings: the blocks of the outer SNPs lie 600 kb apart, and meet in the one between them."""
    rules = Rules(log10p=-np.log10(5e-8), log10p_candidate=-np.log10(0.05), r2=0.6, r2_lead=0.1,
                  window_bp=1_000_000, merge_bp=250_000)  # fmt: skip
    r2 = [[1, 0.3, 0.0], [0.3, 1, 0.4], [0.0, 0.4, 1]]
    snps, independent = found([1_000_000, 1_200_000, 1_600_000], [20, 10, 15], r2, rules)
    leads = sorted(lead_snps(snps, independent), key=lambda lead: lead.independent[0].index)
    assert [lead.independent[0].index for lead in leads] == [0, 2]
    (locus,) = merge(leads, rules.merge_bp)
    assert (locus.start, locus.end, len(locus.leads)) == (1_000_000, 1_600_000, 2)


def test_rare_snps_are_no_candidates():
    """SNP 1 is rarer than the cut: it is no candidate and no independent SNP, so it is in no block."""
    snps = Snps(np.array([1, 2, 3]), np.array([12.0, 11.0, 10.0]), np.array(["a", "b", "c"], object))
    r2 = np.full((3, 3), 0.9)
    only = independent_snps(snps, RULES, lambda i, start, stop: r2[i, start:stop].copy(), lambda i: i != 1)
    assert [(one.index, one.candidates.tolist()) for one in only] == [(0, [0, 2])]
