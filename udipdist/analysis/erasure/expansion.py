"""More columns from confounders, so that a linear method takes out curves and products too."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

KNOTS = 5


def expand(columns: pd.DataFrame, ways: Sequence[str]) -> pd.DataFrame:
    """The columns, and as `ways` say their squares, their products two by two, and cubic splines (KNOTS quantiles).

    Squares and splines are of columns with more than two values. Columns are standardised before they are multiplied.
    What is constant is left out.
    """
    unit = (columns - columns.mean()) / columns.std(ddof=0).replace(0, 1)
    curved = [str(name) for name in columns if columns[name].nunique() > 2]
    more = {}
    if "square" in ways:
        more |= {f"{name}^2": unit[name].to_numpy() ** 2 for name in curved}
    if "interactions" in ways:
        more |= {f"{a}:{b}": (unit[a] * unit[b]).to_numpy() for a, b in combinations(map(str, columns), 2)}
    if "splines" in ways:
        for name in curved:
            bases = _splines(unit[name].to_numpy())
            more |= {f"{name} spline {i}": bases[:, i] for i in range(bases.shape[1])}
    found = pd.concat([columns, pd.DataFrame(more, index=columns.index)], axis=1)
    return found.loc[:, found.nunique() > 1]


def _splines(value_N: np.ndarray) -> np.ndarray:
    from sklearn.preprocessing import SplineTransformer

    spline = SplineTransformer(KNOTS, degree=3, knots="quantile", extrapolation="linear", include_bias=False)
    bases: np.ndarray = spline.fit_transform(value_N[:, None])
    return bases
