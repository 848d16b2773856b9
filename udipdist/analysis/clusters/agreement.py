"""Two trees of the same leaves compared: distances, nesting, partitions and clades, with p-values of shuffled leaves.

Shapes: L leaves, pairs of leaves in scipy's condensed order, C clades.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from udipdist.analysis.clusters.tree import members

FEWEST = 4  # leaves: of three there are three trees


@dataclass(frozen=True)
class Agreement:
    """`measures`: measure, value, p (one-sided: as alike by chance). `partitions`: clusters (k), fowlkes_mallows, its
    mean and 95th percentile over shuffled leaves. `shared`: a row a clade of the first tree (see `clade_overlap`)."""

    measures: pd.DataFrame
    partitions: pd.DataFrame
    shared: pd.DataFrame


def compare(
    trees: tuple[np.ndarray, np.ndarray],
    similarities: tuple[np.ndarray, np.ndarray],
    permutations: int,
    seed: int,
) -> Agreement:
    """All measures of two trees and of the similarities [L, L] that they are of; p by shuffling the leaves of the
    second (Mantel 1967, Cancer Res. 27:209)."""
    rng = np.random.default_rng([seed, 1])
    n = len(similarities[0])
    shuffles = [rng.permutation(n) for _ in range(permutations)]
    cophenetic = tuple(hierarchy.cophenet(tree) for tree in trees)
    pairs = {
        "cophenetic_r": cophenetic,
        "similarity_r": tuple(squareform(one, checks=False) for one in similarities),
    }
    rows = [(name, *mantel(*both, shuffles)) for name, both in pairs.items()]
    levels = tuple(joined_levels(tree) for tree in trees)
    rows.append(("bakers_gamma", goodman_kruskal(*levels), np.nan))
    return Agreement(
        pd.DataFrame(rows, columns=["measure", "value", "p"]),
        fowlkes_mallows(*levels, n, shuffles),
        clade_overlap(*trees, shuffles),
    )


def mantel(one: np.ndarray, other: np.ndarray, shuffles: list[np.ndarray]) -> tuple[float, float]:
    """Pearson's r of two condensed matrices, and the share of shuffles of the second with as high a one."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan"), float("nan")
    square = squareform(other)
    upper = np.triu_indices(len(square), 1)
    centred = (one - one.mean()) / np.linalg.norm(one - one.mean())
    own = other - other.mean()
    observed = float(centred @ own / np.linalg.norm(own))
    higher = sum(
        float(centred @ square[order][:, order][upper]) / np.linalg.norm(own) >= observed - 1e-12 for order in shuffles
    )
    return observed, (1 + higher) / (1 + len(shuffles))


def joined_levels(tree: np.ndarray) -> np.ndarray:
    """Of each pair the largest number of clusters with both in one, condensed; 1 for those that the root joins."""
    n = len(tree) + 1
    below, level_LL = members(tree), np.zeros((n, n), np.int64)
    for row, (left, right) in enumerate(tree[:, :2].astype(int).tolist()):
        level_LL[np.ix_(below[left], below[right])] = level_LL[np.ix_(below[right], below[left])] = n - 1 - row
    return squareform(level_LL)


def goodman_kruskal(one: np.ndarray, other: np.ndarray) -> float:
    """gamma of two lists of whole numbers: (concordant - discordant) / (both) over pairs of entries. Of `joined_levels`
    this is Baker's gamma (Baker 1974, J. Am. Stat. Assoc. 69:440). NaN where every pair is tied."""
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)
    after = table[::-1, ::-1].cumsum(0).cumsum(1)[::-1, ::-1]
    before = table[::-1].cumsum(0)[::-1].cumsum(1)
    concordant = float((table[:-1, :-1] * after[1:, 1:]).sum())
    discordant = float((table[:-1, 1:] * before[1:, :-1]).sum())
    both = concordant + discordant
    return (concordant - discordant) / both if both else float("nan")


def fowlkes_mallows(one: np.ndarray, other: np.ndarray, n: int, shuffles: list[np.ndarray]) -> pd.DataFrame:
    """Fowlkes and Mallows' B_k (1983, J. Am. Stat. Assoc. 78:553) of the partitions into k = 2 .. n - 1 clusters, from
    `joined_levels`: pairs together in both, over the geometric mean of those together in each."""
    k = np.arange(2, n)
    together = [_at_least(level, n)[2:n] for level in (one, other)]
    size = np.sqrt(together[0] * together[1])
    square, upper = squareform(other), np.triu_indices(n, 1)
    observed = _at_least(np.minimum(one, other), n)[2:n] / size
    drawn = np.array([_at_least(np.minimum(one, square[order][:, order][upper]), n)[2:n] / size for order in shuffles])
    return pd.DataFrame(
        {
            "clusters": k,
            "fowlkes_mallows": observed,
            "shuffled_mean": drawn.mean(axis=0),
            "shuffled_95": np.quantile(drawn, 0.95, axis=0),
        }
    )


def clade_overlap(one: np.ndarray, other: np.ndarray, shuffles: list[np.ndarray]) -> pd.DataFrame:
    """A row a clade of the first tree, without that of all leaves: row (in the tree), size, other_row and other_size of
    the clade of the second tree with the largest Jaccard index, jaccard, p (the share of shuffles of the second with
    one as large) and q (Benjamini and Hochberg over clades)."""
    from scipy.stats import false_discovery_control  # scipy.stats takes half a second to import

    mine, theirs = (_membership(tree) for tree in (one, other))
    if not len(mine):
        return pd.DataFrame(columns=["row", "size", "other_row", "other_size", "jaccard", "p", "q"])
    jaccard = _jaccard(mine, theirs)
    best = jaccard.argmax(axis=1)
    observed = jaccard[np.arange(len(mine)), best]
    higher = sum((_jaccard(mine, theirs[:, order]).max(axis=1) >= observed - 1e-12).astype(int) for order in shuffles)
    p = (1 + np.asarray(higher)) / (1 + len(shuffles))
    return pd.DataFrame(
        {
            "row": np.arange(len(mine)),
            "size": mine.sum(axis=1).astype(int),
            "other_row": best,
            "other_size": theirs.sum(axis=1).astype(int)[best],
            "jaccard": observed,
            "p": p,
            "q": false_discovery_control(p),
        }
    )


def _membership(tree: np.ndarray) -> np.ndarray:
    """Clades by leaves [C, L], 1.0 where the leaf is in the clade; without that of all leaves."""
    n = len(tree) + 1
    inside = np.zeros((n - 2, n))
    for row, leaves in enumerate(members(tree)[n:-1]):
        inside[row, leaves] = 1.0
    return inside


def _jaccard(mine_CL: np.ndarray, theirs_CL: np.ndarray) -> np.ndarray:
    shared = mine_CL @ theirs_CL.T
    return shared / (mine_CL.sum(axis=1)[:, None] + theirs_CL.sum(axis=1) - shared)


def _at_least(level: np.ndarray, n: int) -> np.ndarray:
    """How many pairs have a level of k at least, of k = 0 .. n - 1."""
    return np.bincount(level, minlength=n)[::-1].cumsum()[::-1].astype(np.float64)
