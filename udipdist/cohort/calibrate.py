"""How the factors' amplitudes were found: `python -m udipdist.cohort.calibrate` prints AMPLITUDES of factors.py again.

A factor's share is the variance that +-1 SD of it makes in z-scored brain voxels, over the variance of voxels between
people who differ in everything (all factors, pose, scanner, noise), at 4 mm.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from udipdist.cohort import seeds
from udipdist.cohort.brains import SITES, BrainModel, Scan, draw_scan
from udipdist.cohort.factors import NAMES, SHARES
from udipdist.config import BrainConfig

RESOLUTION, PEOPLE, ROUNDS, SEED = 4, 192, 3, 3
_STILL = Scan(np.zeros(3), np.zeros(3), contrast=0.0, gain=1.0, noise=0.0, bias=0.0, warp=0.0)


def calibrate(rounds: int = ROUNDS, people: int = PEOPLE) -> dict[str, float]:
    """Amplitudes that bring each factor to its share in SHARES, by fixed-point iteration."""
    amplitudes = dict.fromkeys(NAMES, 1.0)
    for _ in range(rounds):
        reached = shares(amplitudes, people)
        for name, share in reached.items():
            amplitudes[name] *= float(np.sqrt(SHARES[name] / 100 / max(share, 1e-6)))
    return amplitudes


def shares(amplitudes: Mapping[str, float], people: int = PEOPLE) -> dict[str, float]:
    """Share of the image variance that each factor makes with these amplitudes."""
    model = BrainModel(RESOLUTION, dict(amplitudes))
    crowd = np.stack([_someone(model, i) for i in range(people)])
    brain = (crowd > 0).mean(0) > 0.9
    crowd = crowd[:, brain]
    sd = crowd.std(1).mean()
    total = ((crowd - crowd.mean(1, keepdims=True)) / crowd.std(1, keepdims=True)).var(0).sum()
    result = {}
    for k, name in enumerate(NAMES):
        high, low = (_alone(model, k, sign)[brain] for sign in (1.0, -1.0))
        change = (high - high.mean() - low + low.mean()) / 2 / sd
        result[name] = float((change**2).sum() / total)
    return result


def _someone(model: BrainModel, i: int) -> np.ndarray:
    rng = seeds.stream(SEED, "calibrate", i)
    scan = draw_scan(BrainConfig(), i % len(SITES), 0.0, rng)
    return model.render(rng.standard_normal(len(NAMES)), scan, rng)


def _alone(model: BrainModel, k: int, value: float) -> np.ndarray:
    return model.render(value * np.eye(len(NAMES))[k], _STILL, np.random.default_rng(0))


if __name__ == "__main__":
    found = calibrate()
    for name, share in shares(found).items():
        print(f'    "{name}": {found[name]:.4g},  # {100 * share:.2f} % of {SHARES[name]} %')
