"""Held-out R^2 of known properties of people from their latents."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hpc.errors import InputError
from udipdist.analysis.probes.factors import factor_r2


def tables(n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    ids = pd.DataFrame({"FID": [f"F{i // 2}" for i in range(n)], "IID": [f"I{i}" for i in range(n)]})
    factors = rng.standard_normal((n, 3))
    latents = np.c_[factors[:, 0] * 2 + 1, factors[:, 1] + rng.standard_normal(n), rng.standard_normal((n, 6))]
    return (
        pd.concat([ids, pd.DataFrame(latents).add_prefix("z")], axis=1),
        pd.concat([ids, pd.DataFrame(factors, columns=["a", "b", "c"])], axis=1),
    )


def test_factor_r2_is_what_the_latents_hold():
    latents, factors = tables(2000)
    found = factor_r2(latents, factors)
    assert found["a"] > 0.999 and abs(found["b"] - 0.5) < 0.06 and -0.02 < found["c"] < 0.01
    shuffled = factor_r2(latents.sample(frac=1, random_state=1), factors)
    assert abs(shuffled["b"] - found["b"]) < 0.02


def test_factor_r2_keeps_families_together():
    """Latents that only say which family someone belongs to predict nothing held out by family."""
    rng = np.random.default_rng(1)
    n = 400
    ids = pd.DataFrame({"FID": [f"F{i // 4}" for i in range(n)], "IID": [f"I{i}" for i in range(n)]})
    marks = np.eye(n // 4)[np.arange(n) // 4]
    shared = rng.standard_normal(n // 4)[np.arange(n) // 4]
    latents = pd.concat([ids, pd.DataFrame(marks).add_prefix("z")], axis=1)
    assert factor_r2(latents, ids.assign(a=shared))["a"] < 0.05


def test_factor_r2_of_other_people_is_refused():
    latents, factors = tables(200)
    with pytest.raises(InputError, match="only 0 people have both"):
        factor_r2(latents.assign(IID="x" + latents["IID"]), factors)
