"""lambda_GC: how far the median of a test statistic is from that of its distribution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special  # scipy.stats takes half a second to import

MEDIAN_CHI2 = float(special.chdtri(1, 0.5))


def lambda_of_log10p(median: float) -> float:
    """lambda_GC of a median -log10 p: its quantile of chi2 with one degree of freedom, over the median of that."""
    return float(special.chdtri(1, 10.0**-median)) / MEDIAN_CHI2


def lambda_gc(pieces: list[np.ndarray], of_median: Callable[[float], float]) -> tuple[float, float, int]:
    """lambda_GC, its standard error, and from how many variants."""
    pieces = [piece[~np.isnan(piece)] for piece in pieces]
    pieces = [piece for piece in pieces if len(piece)]
    if not pieces:
        return np.nan, np.nan, 0
    whole = np.concatenate(pieces)
    each = np.array([of_median(float(np.median(piece))) for piece in pieces])
    error = float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else np.nan
    return of_median(float(np.median(whole))), error, len(whole)
