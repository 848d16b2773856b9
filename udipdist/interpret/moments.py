"""Mean and variance of paired differences, voxel by voxel, from a stream of subjects: memory constant in their number.

The published way keeps every decoded image of a latent dimension (29 GB at 1 mm and 500 subjects) and then takes t.
"""

from __future__ import annotations

import torch
from torch import Tensor


class PairedMoments:
    """What is left of the differences [B, ...] seen so far: their number, mean and sum of squares about it, float64.

    Batches are merged by Chan, Golub & LeVeque 1983 (of one subject: Welford 1962), which subtracts no large sums, so
    t agrees with that of all differences at once to about 1e-12.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device):
        self.n = 0
        self.mean = torch.zeros(shape, dtype=torch.float64, device=device)
        self.squares = torch.zeros_like(self.mean)

    def add(self, difference: Tensor) -> None:
        """Take the differences of B more subjects, [B, ...]."""
        values = difference.double()
        n = len(values)
        mean = values.mean(dim=0)
        self.squares += (values - mean).square_().sum(dim=0)
        step, total = mean - self.mean, self.n + n
        self.squares += step.square() * (self.n * n / total)
        self.mean += step * (n / total)
        self.n = total

    def sd(self) -> Tensor:
        """Standard deviation of the differences (n - 1)."""
        return (self.squares / (self.n - 1)).sqrt()

    def t(self, floor: float) -> Tensor:
        """The paired t with n - 1 degrees of freedom. A standard deviation below `floor`, what rounding alone makes of
        a difference of two images, counts as `floor`: a linear decoder would otherwise give infinite t."""
        return self.mean * self.n**0.5 / self.sd().clamp(min=floor)
