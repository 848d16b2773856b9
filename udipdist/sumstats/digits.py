"""Numbers as text, a million in a blink: the shortest digits that read back equal, and p-values of any size."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

TEXT = pa.large_string()
DIGITS = 6  # significant ones of a p-value, as GCTA and plink print
_PLACES = 10  # decimals of -log10 p
_LAST_DECIMAL = 4  # 1e-4 is the last power of ten that is written 0.0001


def shortest(values: np.ndarray) -> pa.Array:
    """Integers, or float32 or float64 as the shortest decimals that read back equal; null where NaN."""
    return pa.array(values, from_pandas=True).cast(TEXT)


def minus_log10(log10p: np.ndarray) -> pa.Array:
    """-log10 p with ten decimals (an error below 1e-10); null where NaN."""
    scale = 10.0**_PLACES
    return shortest(np.rint(np.asarray(log10p, np.float64) * scale) / scale)


def p_values(log10p: np.ndarray, digits: int = DIGITS) -> pa.Array:
    """p with `digits` significant digits from -log10 p: '3.2e-420' stays what it is, below the smallest float64 too.

    Null where NaN, '0' where infinite.
    """
    log10p = np.asarray(log10p, np.float64).ravel()
    finite = np.isfinite(log10p)
    x = np.where(finite, log10p, 0.0)
    exponent = np.ceil(x)
    whole = np.rint(10.0 ** (exponent - x) * 10.0 ** (digits - 1))  # p = whole * 10^-(exponent + digits - 1)
    carried = whole >= 10.0**digits
    whole[carried], exponent[carried] = 10.0 ** (digits - 1), exponent[carried] - 1
    # A quotient of two whole numbers below 2^53 is rounded once, so its shortest digits are those of `whole`.
    decimal = whole / 10.0 ** (digits - 1 + np.minimum(exponent, _LAST_DECIMAL))
    text = shortest(np.where(np.isnan(log10p), np.nan, np.where(finite, decimal, 0.0)))
    small = finite & (exponent > _LAST_DECIMAL)
    if not small.any():
        return text
    powers, which = np.unique(exponent[small].astype(np.int64), return_inverse=True)
    power = pa.array([f"e-{power:02d}" for power in powers.tolist()], TEXT).take(pa.array(which))
    mantissa = shortest(whole[small] / 10.0 ** (digits - 1))
    return pc.replace_with_mask(
        text, pa.array(small), pc.binary_join_element_wise(mantissa, power, pa.scalar("", TEXT))
    )
