"""Independent random streams from one seed: each window and each person has its own, so that order, batches and
workers do not matter."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, *labels: str | int) -> np.random.Generator:
    """The generator of a named purpose, e.g. stream(1, "scan", "G000017")."""
    return np.random.default_rng(_sequence(seed, labels))


def integer(seed: int, *labels: str | int) -> int:
    """A seed in 1 .. 2^31 for a library that wants a number."""
    return int(_sequence(seed, labels).generate_state(1)[0]) % 2**31 + 1


def _sequence(seed: int, labels: tuple[str | int, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, *(zlib.crc32(str(label).encode()) for label in labels)])
