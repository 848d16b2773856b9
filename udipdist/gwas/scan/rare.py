"""Rare variants in traits with heavy tails: p is too small there, because few carriers do not add up to a normal sum.

The sum of m carriers' values has the excess kurtosis k / m, k that of the trait. In a skewed trait (a gamma
distribution) a p of 1e-5 is about twice too small at m = 50 k, and 5 to 20 times at m = 20 for k = 1.5 to 6:
tests/gwas/scan/test_rare.py has the exact tails.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.errors import some
from udipdist.config import ScanOptions

log = logging.getLogger(__name__)

COPIES_PER_KURTOSIS = 50  # copies of an allele from which a p of 1e-5 is less than twice too small
HEAVY = 1.0  # excess kurtosis from which a trait is warned of
_ERRORS = 3.0  # that an estimate must be above that, in standard errors: sqrt(24 / n), of a normal trait


def excess_kurtosis(y_NP: np.ndarray) -> np.ndarray:
    """Fourth moment over the squared second, less 3 [P], of centred columns: 0 for a normal trait."""
    return (y_NP**4).mean(axis=0) / (y_NP**2).mean(axis=0) ** 2 - 3


def tell_default(config: ScanOptions) -> None:
    """Say that rare variants are left out where nobody asked for it."""
    if config.min_mac is None and config.fewest_copies:
        log.info(
            "min_mac=%d: variants with fewer copies of the minor allele are not tested, because their p are too small "
            "in a skewed trait; type min_mac=0 to test them all, or normalise=rank to turn traits into normal scores",
            config.fewest_copies,
        )


def warn_of_tails(config: ScanOptions, path: Path, traits: pd.DataFrame) -> None:
    """Warn of the traits of the table at `path` whose rarer variants, of those tested, get a p that is too small.

    `traits`: columns trait, n and kurtosis, a row each.
    """
    kurtosis_P = traits["kurtosis"]
    tested_P = np.maximum(config.fewest_copies, 2 * config.min_maf * traits["n"])
    heavy_P = (kurtosis_P - _ERRORS * np.sqrt(24 / traits["n"]) > HEAVY) & (COPIES_PER_KURTOSIS * kurtosis_P > tested_P)
    if not heavy_P.any():
        return
    worst = kurtosis_P[heavy_P].max()
    copies = int(np.ceil(COPIES_PER_KURTOSIS * worst))
    cure = f"min_mac={copies}" if config.normalise == "rank" else f"normalise=rank, or min_mac={copies}"
    log.warning(
        "%s: %d of %d traits have heavy tails (%s; excess kurtosis up to %.1f, a normal trait has 0): p of variants "
        "with fewer than %d copies of the minor allele are too small; type %s",
        path, heavy_P.sum(), len(traits), some(traits["trait"][heavy_P]), worst, copies, cure,
    )  # fmt: skip
