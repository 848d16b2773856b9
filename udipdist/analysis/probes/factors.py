"""How much of a known property of people their latents hold: held-out R^2 of a linear probe."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hpc.errors import InputError, some

FOLDS = 5
PENALTIES = 10.0 ** np.arange(-1, 6)


def factor_r2(latents: pd.DataFrame, factors: pd.DataFrame, seed: int = 0) -> dict[str, float]:
    """Held-out R^2 of each true factor from the latents: ridge regression, five folds that keep families together.

    Both tables have FID IID and numeric columns; people in both are used. The penalty of each factor is chosen by
    leave-one-out on the training folds. Raises InputError where too few people are in both.
    """
    from sklearn.linear_model import RidgeCV

    ids = ["FID", "IID"]
    both = latents.merge(factors[ids], on=ids)
    if len(both) < 10 * FOLDS:
        missing = sorted(set(factors["IID"]) - set(latents["IID"]))
        raise InputError(
            f"only {len(both)} people have both latents and true factors (without latents: {some(missing)}); "
            "give tables of the same cohort"
        )
    truth = factors.set_index(ids).loc[pd.MultiIndex.from_frame(both[ids])]
    x, y = both.drop(columns=ids).to_numpy(np.float64), truth.to_numpy(np.float64)
    _, family = np.unique(both["FID"].to_numpy(str), return_inverse=True)
    fold = np.random.default_rng(seed).permutation(np.arange(family.max() + 1) % FOLDS)[family]
    error, total = np.zeros(y.shape[1]), np.zeros(y.shape[1])
    for k in range(FOLDS):
        held = fold == k
        mean, sd = x[~held].mean(0), x[~held].std(0)
        scaled = (x - mean) / np.where(sd > 0, sd, 1)
        ridge = RidgeCV(alphas=PENALTIES, alpha_per_target=True).fit(scaled[~held], y[~held])
        error += ((y[held] - ridge.predict(scaled[held]).reshape(-1, y.shape[1])) ** 2).sum(0)
        total += ((y[held] - y[~held].mean(0)) ** 2).sum(0)
    return dict(zip(truth.columns, (1 - error / total).tolist(), strict=True))
