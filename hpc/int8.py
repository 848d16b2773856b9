"""Products of 8-bit integers, summed in 32 bits: torch's private function for them, and where it can be trusted.

torch, which takes seconds to import, is imported when the first product is made.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np

Kind = Literal["int8", "float64"]


def product(left_AR: np.ndarray, right_RB: np.ndarray) -> np.ndarray:
    """left @ right of writable int8 matrices, int32 [A, B]."""
    import torch

    return torch._int_mm(torch.from_numpy(left_AR), torch.from_numpy(right_RB)).numpy()


def use_one_thread() -> None:
    """Products called from this thread use no other."""
    import torch

    torch.set_num_threads(1)


@cache
def fastest() -> Kind:
    """int8 where the processor has 8-bit dot products and they prove exact, else float64."""
    import torch

    if not torch.cpu._is_vnni_supported():
        return "float64"
    dose, digits = np.full((64, 512), 2, np.int8), np.full((512, 32), -128, np.int8)
    digits[:, ::2] = 127  # pairs of products of this size overflow where sums are kept in 16 bits
    exact = dose.astype(np.int64) @ digits.astype(np.int64)
    return "int8" if np.array_equal(product(dose, digits), exact) else "float64"
