"""Intervals against intervals: which is nearest, which intersect, and how many would by chance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd


def nearest(loci: pd.DataFrame, known: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """For each locus (chrom, start, end, first, last: the place of its lead) the row of the nearest interval of `known`
    on its chromosome (-1: none there) and the base pairs between them (0 where they intersect, infinity where there is
    none). Of those equally near, the one nearest to the lead SNP, then the first."""
    row, distance = np.full(len(loci), -1), np.full(len(loci), np.inf)
    groups = _by_chromosome(known)
    for i, locus in enumerate(loci.itertuples()):
        if locus.chrom in groups:
            rows, start, end = groups[locus.chrom]
            between = _between(start, end, locus.start, locus.end)
            tied = np.flatnonzero(between == between.min())
            best = tied[np.argmin(_between(start[tied], end[tied], locus.first, locus.last))]
            row[i], distance[i] = rows[best], between[best]
    return row, distance


def within(loci: pd.DataFrame, known: pd.DataFrame, flank_bp: int) -> list[np.ndarray]:
    """For each locus the rows of `known` that are at most `flank_bp` from it, nearest to the lead SNP first."""
    groups, found = _by_chromosome(known), []
    for locus in loci.itertuples():
        if locus.chrom not in groups:
            found.append(np.empty(0, np.int64))
            continue
        rows, start, end = groups[locus.chrom]
        near = np.flatnonzero(_between(start, end, locus.start, locus.end) <= flank_bp)
        found.append(rows[near[np.argsort(_between(start[near], end[near], locus.first, locus.last), kind="stable")]])
    return found


def touched(known: pd.DataFrame, loci: pd.DataFrame, flank_bp: int) -> np.ndarray:
    """True for each interval of `known` with one of `loci` at most `flank_bp` away."""
    result = np.zeros(len(known), bool)
    ours = _by_chromosome(loci)
    for chrom, (rows, start, end) in _by_chromosome(known).items():
        if chrom in ours:
            first, last = _union(*ours[chrom][1:])
            before = np.searchsorted(first, end + flank_bp, side="right") - 1
            result[rows] = (before >= 0) & (last[before] >= start - flank_bp)
    return result


def rotation_shares(
    loci: pd.DataFrame, known: pd.DataFrame, flank_bp: int, rotations: int, seed: int, lengths: Mapping[int, int]
) -> np.ndarray:
    """The share of `loci` that hit the panel after each of `rotations` random rotations along the genome, float64.

    The chromosomes (`lengths` by code, longer where an interval reaches further) are laid end to end and closed to a
    circle; the panel's flanked intervals keep their distances, so their clustering is kept.
    """
    length = dict(lengths)
    for table in (loci, known):
        for chrom, end in table.groupby("chrom").end.max().items():
            length[chrom] = max(length.get(chrom, 0), end)
    order = sorted(length)
    offset = dict(zip(order, np.cumsum([0, *(length[c] for c in order)])[:-1].tolist(), strict=True))
    total = sum(length.values())

    base = known.chrom.map(offset).to_numpy()
    first = base + np.maximum(known.start.to_numpy() - flank_bp, 1)
    last = base + np.minimum(known.end.to_numpy() + flank_bp, known.chrom.map(length).to_numpy())
    first, last = _union(np.concatenate([first, first + total]), np.concatenate([last, last + total]))

    base = loci.chrom.map(offset).to_numpy()
    begin, span = base + loci.start.to_numpy(), (loci.end - loci.start).to_numpy()
    shares = np.empty(rotations)
    for i, shift in enumerate(np.random.default_rng(seed).integers(1, total, rotations)):
        start = (begin - 1 + shift) % total + 1  # turning the loci one way is turning the panel the other way
        before = np.searchsorted(first, start + span, side="right") - 1
        shares[i] = np.mean((before >= 0) & (last[before] >= start))
    return shares


def _by_chromosome(table: pd.DataFrame) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Row numbers, start and end of each chromosome's intervals."""
    chrom, start, end = (table[name].to_numpy() for name in ("chrom", "start", "end"))
    groups = ((c, np.flatnonzero(chrom == c)) for c in np.unique(chrom).tolist())
    return {c: (rows, start[rows], end[rows]) for c, rows in groups}


def _between(start: np.ndarray, end: np.ndarray, first: int, last: int) -> np.ndarray:
    """Base pairs between each of the intervals start..end and first..last; 0 where they intersect."""
    return np.maximum(0, np.maximum(start - last, first - end))


def _union(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Disjoint intervals, ascending, that cover the same as the given ones."""
    order = np.argsort(first, kind="stable")
    first, reach = first[order], np.maximum.accumulate(last[order])
    new = np.r_[True, first[1:] > reach[:-1]]
    return first[new], reach[np.r_[new[1:], True]]
