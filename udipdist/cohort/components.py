"""Principal components of ancestry: fitted on unrelated people over LD-pruned variants, projected to everyone.

A decomposition of everyone over all variants shows families and LD blocks instead of ancestry (Prive et al. 2020).
"""

from __future__ import annotations

import numpy as np
from scipy.sparse.linalg import svds

from hpc.errors import InputError


def principal_components(counts_MN: np.ndarray, unrelated_N: np.ndarray, components: int) -> np.ndarray:
    """Scores float64 [N, components], unit variance among the unrelated, from A1 counts of LD-pruned variants [M, N].

    Raises InputError where there are too few variants or people.
    """
    m, n = len(counts_MN), int(unrelated_N.sum())
    if min(m, n) <= components:
        raise InputError(
            f"{components} principal components need more than {components} LD-independent variants and as many "
            f"unrelated people; there are {m} and {n}; give more genomes.variants_per_mb or gwas="
        )
    frequency = counts_MN[:, unrelated_N].mean(1, dtype=np.float64) / 2
    used = (frequency > 0) & (frequency < 1)
    frequency = frequency[used, None]
    x = counts_MN[used].astype(np.float32)
    x -= (2 * frequency).astype(np.float32)
    x /= np.sqrt(2 * frequency * (1 - frequency)).astype(np.float32)
    start = np.random.default_rng(0).standard_normal(min(len(x), n)).astype(np.float32)
    loadings, strength, _ = svds(x[:, unrelated_N], k=components, v0=start)
    loadings = loadings[:, np.argsort(-strength)]
    loadings *= np.sign(loadings[np.abs(loadings).argmax(0), np.arange(components)])
    scores = (x.T @ loadings).astype(np.float64)
    return scores / scores[unrelated_N].std(0)
