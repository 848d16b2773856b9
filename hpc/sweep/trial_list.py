"""Which trials there are, as far as that is known before the first of them ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpc.errors import ConfigError, some
from hpc.sweep.options import SearchConfig
from hpc.sweep.space import Configuration, Space
from hpc.sweep.trials import Trial


def plan_trials(place: Path, space: Space, seeds: Sequence[int], search: SearchConfig) -> list[Trial]:
    """The trials of a sweep, configuration by configuration, the seeds of each together; of optuna none yet.

    Raises ConfigError where the search does not suit the space, or a seed is given twice.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds={list(seeds)}: must name at least one seed, each once; a trial is run for each")
    if search.algorithm == "optuna":
        return []
    trials: list[Trial] = []
    for configuration in _configurations(space, search):
        trials += trials_of(place, configuration, seeds, len(trials))
    return trials


def trials_of(place: Path, configuration: Configuration, seeds: Sequence[int], first: int) -> list[Trial]:
    """A trial for each seed, numbered from `first`."""
    found = []
    for number, seed in enumerate(seeds, first):
        name = f"{configuration.name}-seed{seed}"
        folder = Path(place) / "trials" / name
        found.append(Trial(name, number, configuration.name, configuration.values, folder, seed))
    return found


def _configurations(space: Space, search: SearchConfig) -> list[Configuration]:
    drawn = [domain for domain in space.domains if domain.kind != "grid"]
    if search.algorithm == "grid" and drawn:
        keys = some(f"{domain.key} ({domain.kind})" for domain in drawn)
        raise ConfigError(f"search.algorithm=grid: tries listed values only, not {keys}; give grids, or use random")
    if search.algorithm == "pbt" and all(domain.named for domain in space.domains):
        raise ConfigError("search.algorithm=pbt: varies values, but the space has none; give keys of train to vary")
    rng = np.random.default_rng(search.seed)
    found: dict[str, Configuration] = {}
    for fixed in space.grid():
        for _ in range(search.samples if drawn else 1):
            chosen: dict[str, Any] = fixed | {domain.key: domain.draw(rng) for domain in drawn}
            configuration = space.configuration(chosen)
            found.setdefault(configuration.name, configuration)
    return list(found.values())
