"""Products of 8-bit integers, summed in 32 bits: torch's private function for them, and where it can be trusted."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import torch

Kind = Literal["int8", "float64"]


def product(left_AR: torch.Tensor, right_RB: torch.Tensor) -> torch.Tensor:
    """left @ right of int8 matrices, int32 [A, B]."""
    return torch._int_mm(left_AR, right_RB)


@cache
def fastest() -> Kind:
    """int8 where the processor has 8-bit dot products and they prove exact, else float64."""
    if not torch.cpu._is_vnni_supported():
        return "float64"
    dose, digits = np.full((64, 512), 2, np.int8), np.full((512, 32), -128, np.int8)
    digits[:, ::2] = 127  # pairs of products of this size overflow where sums are kept in 16 bits
    exact = dose.astype(np.int64) @ digits.astype(np.int64)
    found = product(torch.from_numpy(dose), torch.from_numpy(digits)).numpy()
    return "int8" if np.array_equal(found, exact) else "float64"
