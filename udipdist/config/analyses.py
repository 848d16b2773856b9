"""What the results of one scan are called, in configurations and in files.

An *analysis* is one -log10 p a variant: of a trait, which goes by the name of the trait, or of all traits at once.
"""

from __future__ import annotations

from enum import StrEnum


class AnalysisKind(StrEnum):
    """What an analysis is of: one trait, the smallest p over traits, or the joint test.

    MINP and MULTIVARIATE are equal to what they are called; a trait may have any other name.
    """

    TRAIT = "trait"
    MINP = "minp"
    MULTIVARIATE = "multivariate"

    @classmethod
    def of(cls, name: str) -> AnalysisKind:
        """What the analysis with this name is of."""
        return cls(name) if name in OVER_TRAITS else cls.TRAIT


MINP, MULTIVARIATE = AnalysisKind.MINP.value, AnalysisKind.MULTIVARIATE.value
OVER_TRAITS = (MINP, MULTIVARIATE)  # names that no trait may have
ALL = "all"  # every analysis that there is
LOCI_FOLDERS = {MINP: "loci", MULTIVARIATE: "loci_multivariate"}  # where a run and a sweep have the loci of each
