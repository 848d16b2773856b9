"""Trees of directions: average linkage, clades and their support, and clusters.

A tree is scipy's linkage matrix Z [L - 1, 4]; node L + j is its row j, and a clade is the set of the leaves below a
node, kept as the bits of an integer. Shapes: L leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from hpc.progress import Progress
from udipdist.analysis.clusters.directions import Directions, chance_cosine, main_direction

ALONE = 0  # the cluster of a leaf that is in none


def grow(similarity_LL: np.ndarray, ordered: bool = True) -> np.ndarray:
    """The tree of 1 - similarity by average linkage; `ordered`: with neighbours as alike as the tree allows
    (Bar-Joseph et al. 2001, Bioinformatics 17:S22)."""
    distance = squareform(np.maximum(1 - similarity_LL, 0.0), checks=False)
    return hierarchy.linkage(distance, "average", optimal_ordering=ordered)


def members(tree: np.ndarray) -> list[list[int]]:
    """The leaves below each node, leaves first: 2 L - 1 lists."""
    below: list[list[int]] = [[leaf] for leaf in range(len(tree) + 1)]
    for left, right, *_ in tree:
        below.append(below[int(left)] + below[int(right)])
    return below


def clades(tree: np.ndarray) -> list[int]:
    """The clade of each row of the tree; the last is all leaves."""
    bits = [1 << leaf for leaf in range(len(tree) + 1)]
    for left, right in tree[:, :2].astype(int).tolist():
        bits.append(bits[left] | bits[right])
    return bits[len(tree) + 1 :]


def support(directions: Directions, tree: np.ndarray, trees: int, seed: int) -> np.ndarray:
    """The share of bootstrap trees that have each clade [L - 1]: trees of w + N(0, I), the error measured once more.

    The parametric form of Felsenstein's bootstrap (1985, Evolution 39:783). The errors are in the observed directions
    already, so trees of the bootstrap have twice of them, and support is too low rather than too high.
    """
    counts = dict.fromkeys(clades(tree), 0)
    rng = np.random.default_rng([seed, 0])
    with Progress("bootstrap", trees, "trees") as progress:
        for _ in range(trees):
            other = grow(directions.similarity(rng.standard_normal(directions.w_Lq.shape)), ordered=False)
            for clade in clades(other):
                if clade in counts:
                    counts[clade] += 1
            progress.advance()
    return np.array([counts[clade] for clade in clades(tree)]) / trees


def side_cosines(w_Lq: np.ndarray, tree: np.ndarray) -> np.ndarray:
    """|cos|, free of noise, between the main directions of the two sides of each join [L - 1]; 0 where one of them is
    lost in errors."""
    below, found = members(tree), []
    known: dict[int, tuple[np.ndarray, float]] = {}
    for left, right in tree[:, :2].astype(int).tolist():
        for node in (left, right):
            known.setdefault(node, main_direction(w_Lq[below[node]]))
        (one, sure), (other, as_sure) = known[left], known[right]
        root = np.sqrt(sure * as_sure)
        found.append(min(1.0, abs(float(one @ other)) / root) if root > 0 else 0.0)
    return np.array(found)


def by_direction(directions: Directions, tree: np.ndarray, similar: float) -> tuple[np.ndarray, float]:
    """The node of the cluster of each leaf [L], -1 for one alone, and the least cosine that was asked for.

    Clusters are the largest clades in which the two sides of every join point the same way: their `side_cosines` are
    `similar` at least, and more than those of unrelated directions would be (`chance_cosine`).
    """
    least = max(similar, chance_cosine(directions.w_Lq.shape[1], len(directions.w_Lq)))
    alike = side_cosines(directions.w_Lq, tree) >= least
    return _largest(tree, lambda row, sides: bool(alike[row]) and all(sides)), least


def by_support(tree: np.ndarray, support_C: np.ndarray, least: float) -> np.ndarray:
    """The node of the cluster of each leaf [L], -1 for one alone: the largest clades, without that of all leaves, of
    which a share `least` of the bootstrap trees have each."""
    return _largest(tree, lambda row, _: row < len(tree) - 1 and bool(support_C[row] >= least))


def _largest(tree: np.ndarray, accepted: Callable[[int, list[bool]], bool]) -> np.ndarray:
    """The highest accepted node above each leaf; `accepted` takes a row and whether its two sides were accepted."""
    leaves = len(tree) + 1
    good, below, node_L = [True] * leaves, members(tree), np.full(leaves, -1)
    for row, (left, right) in enumerate(tree[:, :2].astype(int).tolist()):
        good.append(accepted(row, [good[left], good[right]]))
        if good[-1]:
            node_L[below[leaves + row]] = leaves + row
    return node_L


def numbered(tree: np.ndarray, node_L: np.ndarray) -> np.ndarray:
    """Clusters numbered from 1 in the order of the leaves [L]; ALONE where the node is -1."""
    numbers: dict[int, int] = {-1: ALONE}
    for leaf in hierarchy.leaves_list(tree).tolist():
        numbers.setdefault(int(node_L[leaf]), len(numbers))
    return np.array([numbers[int(node)] for node in node_L])


def newick(tree: np.ndarray, names: Sequence[str], support_C: np.ndarray) -> str:
    """The tree in Newick's format, with support at its nodes; the length of a branch is the difference in height, and
    every leaf is at height 0. Names are quoted."""
    leaves = len(tree) + 1
    text = ["'" + name.replace("'", "''") + "'" for name in names]
    height = [0.0] * leaves + tree[:, 2].tolist()
    for row, (left, right) in enumerate(tree[:, :2].astype(int).tolist()):
        sides = ",".join(f"{text[side]}:{height[leaves + row] - height[side]:.6g}" for side in (left, right))
        label = "" if row == leaves - 2 else f"{support_C[row]:.4g}"
        text.append(f"({sides}){label}")
    return text[-1] + ";"
