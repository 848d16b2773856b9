"""Limits on what the genotypes of a variant turn out to be, and how many variants are beyond which.

A variant beyond a limit is in the output with NaN, and the manifest counts how many there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from udipdist.genotypes.counts import Numbers

TESTED, MONOMORPHIC, MISSING, MAF, MAC, HWE, COVARIATES = range(7)
REASONS = ("tested", "monomorphic", "missing", "maf", "mac", "hwe", "covariates")
_MEANING = {
    "monomorphic": "not called, or with one allele only",
    "missing": "above max_missing",
    "maf": "below min_maf",
    "mac": "below min_mac",
    "hwe": "below min_hwe",
    "covariates": "a linear function of the covariates",
}
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Limits:
    """What is tested: minor allele frequency of at least `min_maf`, `min_mac` copies of that allele or more, at most
    the share `max_missing` of calls missing, and p of Hardy-Weinberg equilibrium of at least `min_hwe` (0: any)."""

    min_maf: float
    max_missing: float
    min_hwe: float = 0.0
    min_mac: int = 0

    def verdict(self, numbers: Numbers) -> np.ndarray:
        """TESTED, or the first of REASONS that speaks against each variant, uint8 [B].

        `numbers` among the people analysed. A p of equilibrium that is NaN passes, as on X without females. COVARIATES
        is for the caller, where nothing of a variant is left.
        """
        n, af1_B = numbers.n, numbers.af1_B
        with np.errstate(invalid="ignore"):
            maf_B = np.minimum(af1_B, 1 - af1_B)
            wrong = {
                MONOMORPHIC: ~(maf_B > 0),
                MISSING: n - numbers.called_B > self.max_missing * n * (1 + _ROUNDING),
                MAF: maf_B < self.min_maf * (1 - _ROUNDING),
                MAC: numbers.mac_B < self.min_mac,
            }
            if self.min_hwe > 0:
                wrong[HWE] = numbers.hwe_log10p_B > -np.log10(self.min_hwe) + _ROUNDING
        return np.select(list(wrong.values()), list(wrong), TESTED).astype(np.uint8)


def tally(verdict_M: np.ndarray) -> dict[str, int]:
    """How many variants were tested, and how many not for which reason: {'tested': 5, 'maf': 2, ...}, all REASONS."""
    return dict(zip(REASONS, np.bincount(verdict_M, minlength=len(REASONS)).tolist(), strict=True))


def total(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    """The tallies of parts added up."""
    parts = list(parts)
    return {reason: sum(part.get(reason, 0) for part in parts) for reason in REASONS}


def describe(tally: dict[str, int]) -> str:
    """'9,990 of 10,000 variants are tested; not: 7 below min_maf, 3 above max_missing', for messages."""
    not_tested = [f"{tally[reason]:,} {meaning}" for reason, meaning in _MEANING.items() if tally[reason]]
    said = f"{tally['tested']:,} of {sum(tally.values()):,} variants are tested"
    return f"{said}; not: {', '.join(not_tested)}" if not_tested else said
