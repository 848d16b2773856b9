"""The rules of FUMA SNP2GENE that turn significant SNPs into genomic risk loci (Watanabe et al. 2017, Methods).

Pure functions over one stretch of one chromosome: S reference SNPs sorted by position. p is compared as -log10 p.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

R2_FLOOR = 0.05  # weaker LD counts as none, as in FUMA's reference panel

LinkageOf = Callable[[int, int, int], np.ndarray]  # (i, start, stop) -> r2 of SNP i with SNPs start..stop


@dataclass(frozen=True)
class Rules:
    """Thresholds; the -log10 p ones are to be exceeded, the r2 ones reached, `merge_bp` not reached."""

    log10p: float
    log10p_candidate: float
    r2: float
    r2_lead: float
    window_bp: int
    merge_bp: int
    r2_floor: float = R2_FLOOR


@dataclass(frozen=True)
class Snps:
    """SNPs of the reference, by position: base pairs, -log10 p (NaN: not in the GWAS), unique id. Each [S]."""

    position_S: np.ndarray
    log10p_S: np.ndarray
    id_S: np.ndarray


@dataclass(frozen=True)
class Independent:
    """An independent significant SNP: its index, its candidates' and its r2_lead mates' indices (both with itself)."""

    index: int
    candidates: np.ndarray
    mates: np.ndarray


@dataclass
class Lead:
    """A lead SNP and the independent SNPs that are its mates, itself first; start..end span all their candidates.

    An independent SNP that is the mate of two leads belongs to both, so their blocks meet.
    """

    independent: list[Independent]
    start: int
    end: int


@dataclass
class Locus:
    """A genomic risk locus of one chromosome: an interval and its leads. Works on whatever has start and end."""

    start: int
    end: int
    leads: list = field(default_factory=list)


def independent_snps(snps: Snps, rules: Rules, linkage: LinkageOf, usable: Callable[[int], bool]) -> list[Independent]:
    """Walk significant SNPs by ascending p (ties: position, then id), skipping candidates of earlier ones.

    `usable(i)` says whether SNP i may be an independent SNP or a candidate (its minor allele frequency).
    """
    log10p_S, position_S = snps.log10p_S, snps.position_S
    significant_S = log10p_S > rules.log10p
    may_be_candidate_S = np.isnan(log10p_S) | (log10p_S > rules.log10p_candidate)
    chosen = np.flatnonzero(significant_S)
    order = chosen[np.lexsort((snps.id_S[chosen].astype(str), position_S[chosen], -log10p_S[chosen]))]
    taken_S = np.zeros(len(log10p_S), bool)
    found = []
    for i in order.tolist():
        if taken_S[i] or not usable(i):
            continue
        near = [position_S[i] - rules.window_bp, position_S[i] + rules.window_bp + 1]
        start, stop = np.searchsorted(position_S, near).tolist()
        r2 = linkage(i, start, stop)
        r2[i - start] = 1.0
        candidates = start + np.flatnonzero((r2 >= max(rules.r2, rules.r2_floor)) & may_be_candidate_S[start:stop])
        mates = start + np.flatnonzero((r2 >= max(rules.r2_lead, rules.r2_floor)) & significant_S[start:stop])
        candidates = np.union1d([j for j in candidates.tolist() if usable(j)], i).astype(np.int64)
        taken_S[candidates] = True
        found.append(Independent(i, candidates, mates))
    return found


def lead_snps(snps: Snps, independent: Sequence[Independent]) -> list[Lead]:
    """Greedy by p (the order given): the next independent SNP that is no mate of a lead is a lead."""
    rank = {snp.index: number for number, snp in enumerate(independent)}
    left = set(rank)
    leads = []
    for snp in independent:
        if snp.index not in left:
            continue
        mates = sorted(rank.keys() & set(snp.mates.tolist()), key=rank.__getitem__)
        left.difference_update(mates)
        members = [snp, *(independent[rank[index]] for index in mates if index != snp.index)]
        positions = snps.position_S[np.concatenate([member.candidates for member in members])]
        leads.append(Lead(members, int(positions.min()), int(positions.max())))
    return leads


def merge(leads: Sequence, merge_bp: int) -> list[Locus]:
    """Loci of one chromosome from its leads in order of position: blocks that overlap or lie closer than `merge_bp`.

    A lead whose block reaches back over several loci joins them all, so that no two loci overlap.
    """
    loci: list[Locus] = []
    for lead in leads:
        loci.append(Locus(lead.start, lead.end, [lead]))
        while len(loci) > 1 and (_overlap(loci[-2], loci[-1]) or _gap(loci[-2], loci[-1]) < merge_bp):
            last, before = loci.pop(), loci.pop()
            start, end = min(before.start, last.start), max(before.end, last.end)
            loci.append(Locus(start, end, before.leads + last.leads))
    return loci


def _overlap(one: Locus, other: Locus) -> bool:
    return one.start <= other.end and other.start <= one.end


def _gap(one: Locus, other: Locus) -> int:
    return max(other.start - one.end, one.start - other.end)
