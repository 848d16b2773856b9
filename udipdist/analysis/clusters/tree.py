"""Trees of directions: average linkage, clades and their support, and clusters.

A tree is scipy's linkage matrix Z [L - 1, 4]; node L + j is its row j, and a clade is the set of the leaves below a
node, kept as the bits of an integer. Shapes: L leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def side_cosines(w_Lq: np.ndarray, tree: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|cos| between the main directions of the two sides of each join [L - 1], as measured and free of noise; the
    latter is 0 where a side is lost in errors."""
    below, measured, free = members(tree), [], []
    known: dict[int, tuple[np.ndarray, float]] = {}
    for left, right in tree[:, :2].astype(int).tolist():
        for node in (left, right):
            known.setdefault(node, main_direction(w_Lq[below[node]]))
        (one, sure), (other, as_sure) = known[left], known[right]
        root = np.sqrt(sure * as_sure)
        measured.append(abs(float(one @ other)))
        free.append(min(1.0, measured[-1] / root) if root > 0 else 0.0)
    return np.array(measured), np.array(free)


def by_direction(directions: Directions, tree: np.ndarray, similar: float) -> tuple[np.ndarray, float]:
    """The node of the cluster of each leaf [L], -1 for one alone, and the least cosine that was asked for.

    Clusters are the largest clades of which two things are true. The two sides of every join point the same way: free
    of noise their |cos| is `similar` at least, and more than that of unrelated directions (`chance_cosine`). And the
    sides of the last join do so as they are measured: errors of weak SNPs are alike by chance, too, and free of noise
    any likeness of theirs looks large.
    """
    chance = chance_cosine(directions.w_Lq.shape[1], len(directions.w_Lq))
    least = max(similar, chance)
    measured, free = side_cosines(directions.w_Lq, tree)
    whole = _throughout(tree, free >= least)
    return _largest(tree, whole & (measured > chance)), least


def by_support(tree: np.ndarray, support_C: np.ndarray, least: float) -> np.ndarray:
    """The node of the cluster of each leaf [L], -1 for one alone: the largest clades, without that of all leaves, of
    which a share `least` of the bootstrap trees have each."""
    enough = support_C >= least
    enough[-1] = False
    return _largest(tree, enough)


def _throughout(tree: np.ndarray, true_C: np.ndarray) -> np.ndarray:
    """Which joins are true with all joins below them [L - 1]."""
    good = [True] * (len(tree) + 1)
    for row, (left, right) in enumerate(tree[:, :2].astype(int).tolist()):
        good.append(bool(true_C[row]) and good[left] and good[right])
    return np.array(good[len(tree) + 1 :])


def _largest(tree: np.ndarray, accepted_C: np.ndarray) -> np.ndarray:
    """The highest accepted node above each leaf, -1 where there is none."""
    leaves = len(tree) + 1
    below, node_L = members(tree), np.full(leaves, -1)
    for row in np.flatnonzero(accepted_C).tolist():
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
