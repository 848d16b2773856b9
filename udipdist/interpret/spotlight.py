"""Spotlight tokens: those that much attention goes to and that are unlike the others (ViT-UDIP, section 3.3).

The paper sees most tokens, its audience, share one direction of the embedding, and a subset, under a third, that is
weakly correlated with the audience and with each other, and that all attend to. It states no rule; ours is `Rule`.
Shapes: T tokens, H heads, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from scipy.spatial.distance import squareform

from hpc.errors import InputError


@dataclass(frozen=True)
class Rule:
    """A token is a spotlight of a head where both hold.

    Low correlation: its mean correlation with the other tokens is below `low` times the median token's. Where that
    median is not positive no direction is shared, there is no audience, and so no spotlight. High attention: it gets
    `high` times its fair share of the head's attention or more; the fair share is 1 over the number of tokens.
    """

    low: float = 0.5
    high: float = 2.0

    def spotlights(self, correlation_T: np.ndarray, received_HT: np.ndarray) -> np.ndarray:
        """[H, T] bool. correlation_T: mean correlations; received_HT: attention in fair shares; NaN: no such token."""
        if np.isnan(correlation_T).all():
            return np.zeros(received_HT.shape, bool)
        median = np.nanmedian(correlation_T)
        return (median > 0) & (correlation_T < self.low * median) & (received_HT >= self.high)


def standardised(x_TD: np.ndarray) -> np.ndarray:
    """Rows with mean 0 and length 1, float64, so that products of rows are Pearson correlations; constant rows: 0."""
    centred = x_TD - x_TD.mean(axis=1, keepdims=True, dtype=np.float64)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)


def mean_correlation(z_TD: np.ndarray) -> np.ndarray:
    """The mean correlation [T] of each token with the others, from standardised rows, without a T x T matrix."""
    own = (z_TD**2).sum(axis=1)
    return (z_TD @ z_TD.sum(axis=0) - own) / max(1, len(z_TD) - 1)


@dataclass(frozen=True, eq=False)
class Clustering:
    """Average linkage of tokens: the order [T] of its leaves, and the cluster [T] of each, 1 the largest."""

    order: np.ndarray
    cluster: np.ndarray


def cluster(correlation_TT: np.ndarray, cut: float = 0.5) -> Clustering:
    """Average-linkage clustering with the distance 1 - r, cut where clusters have a mean correlation of `cut`.

    Raises InputError for fewer than two tokens. Section 3.3 of ViT-UDIP orders its heat map by the same linkage.
    """
    if len(correlation_TT) < 2:
        raise InputError("one token alone cannot be clustered; train with a smaller model.patch")
    distance = np.clip(1.0 - correlation_TT, 0.0, 2.0)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform((distance + distance.T) / 2, checks=False), "average")
    label = fcluster(tree, 1.0 - cut, "distance")
    names, inverse, size = np.unique(label, return_inverse=True, return_counts=True)
    rank = np.empty(len(names), int)
    rank[np.argsort(-size, kind="stable")] = np.arange(1, len(names) + 1)
    return Clustering(leaves_list(tree), rank[inverse])


@dataclass(frozen=True)
class Agreement:
    """Two sets among T tokens: their Jaccard index, the one expected of random sets of these sizes, and the p-value of
    so many in common (hypergeometric; neighbouring tokens are alike, so it is optimistic for clustered sets)."""

    jaccard: float
    expected: float
    p: float


def agreement(one_T: np.ndarray, other_T: np.ndarray) -> Agreement:
    """How well two sets, bool [T], agree. The expected index is that of the expected overlap. NaN: both empty."""
    a, b, both, total = int(one_T.sum()), int(other_T.sum()), int((one_T & other_T).sum()), len(one_T)
    if a + b == 0:
        return Agreement(float("nan"), float("nan"), float("nan"))
    chance = a * b / total
    from scipy.stats import hypergeom  # scipy.stats takes half a second to import

    p = float(hypergeom.sf(both - 1, total, a, b))
    return Agreement(both / (a + b - both), chance / (a + b - chance), p)


def consistency(times_T: np.ndarray, subjects: int) -> float:
    """Overlap of two subjects' sets over their mean size, expected for a random pair of `subjects`: 1 where all have
    the same set. `times_T`: how many have the token in theirs. Exact for all pairs, from the counts alone. NaN: none.
    """
    total = float(times_T.sum())
    if subjects < 2 or total == 0:
        return float("nan")
    return float((times_T * (times_T - 1.0)).sum() / ((subjects - 1) * total))
