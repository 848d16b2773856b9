"""What tables of latents of the same people have in common: principal components, or canonical ones (MAXVAR)."""

from __future__ import annotations

import numpy as np

from udipdist.analysis.similarity import Factored, leading

METHODS = ("pca", "maxvar")
COMPONENTS = 128


def reduce(values_RNP: list[np.ndarray], method: str, components: int = COMPONENTS) -> tuple[np.ndarray, np.ndarray]:
    """Components [N, C] float64 (mean 0, variance 1, uncorrelated, the most common first) of R tables [N, P_r] of the
    same people, and of each the share [C] of it that the replicates explain, mean over them of R^2.

    pca: left singular vectors of the standardised tables side by side. maxvar: MAXVAR generalised canonical correlation
    (Kettenring 1971, Biometrika 58; Rastogi, Van Durme and Arora 2015, NAACL): the G with G'G = I that minimises
    sum_r |G - X_r B_r|^2, which is made of the leading eigenvectors of the sum of the projections onto the X_r. So pca
    keeps what varies most, maxvar what replicates best. C is at most `components` and the rank. Signs are such that
    the value farthest from zero is positive.
    """
    tables = [Factored.of(values_NP) for values_NP in values_RNP]
    beside = [table.standard_NP if method == "pca" else table.basis_NR for table in tables]
    u_NC = leading(np.hstack(beside))[0][:, :components]
    shared_C = np.mean([np.sum((table.basis_NR.T @ u_NC) ** 2, axis=0) for table in tables], axis=0)
    far_C = u_NC[np.argmax(np.abs(u_NC), axis=0), np.arange(u_NC.shape[1])]
    return u_NC * np.sign(far_C) * np.sqrt(len(u_NC)), shared_C
