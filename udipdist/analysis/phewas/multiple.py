"""Many tests: Benjamini and Hochberg's q, and the inflation of a median."""

from __future__ import annotations

import numpy as np
from scipy import special

MEDIAN_CHI2 = float(special.chdtri(1, 0.5))


def benjamini_hochberg(p_B: np.ndarray) -> np.ndarray:
    """q [B]: the smallest false discovery rate at which a test counts (Benjamini and Hochberg 1995)."""
    order = np.argsort(p_B)
    raw_B = p_B[order] * len(p_B) / np.arange(1, len(p_B) + 1)
    q_B = np.empty(len(p_B))
    q_B[order] = np.minimum(np.minimum.accumulate(raw_B[::-1])[::-1], 1)
    return q_B


def inflation(p_B: np.ndarray) -> float:
    """lambda: the median of the p-values, as chi2 of one degree of freedom, against its expectation."""
    return float(special.chdtri(1, np.median(p_B)) / MEDIAN_CHI2)
