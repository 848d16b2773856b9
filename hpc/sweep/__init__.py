"""Many trials of one program, side by side, chosen by a search, restarted where they were: Ray Tune's mechanics.

The only importer of ray, and it only when a sweep runs. A trial is a folder: what it has in its files it does not do
again, and this, not Ray, is what makes a restart cheap. A shared *service*, one process for all trials, answers
what they ask; all that have asked when it becomes free are answered together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hpc.sweep.options import RayConfig, SearchConfig
from hpc.sweep.space import Configuration, Domain, Space, parse_space
from hpc.sweep.trial_list import plan_trials
from hpc.sweep.trials import Outcome, Program, Service, Trial, outcomes, read_reports

__all__ = [
    "Configuration",
    "Domain",
    "Outcome",
    "Program",
    "RayConfig",
    "SearchConfig",
    "Service",
    "Space",
    "Trial",
    "outcomes",
    "parse_space",
    "plan_trials",
    "read_reports",
    "run",
]


def run(
    place: Path,
    program: Program,
    space: Space,
    seeds: Sequence[int],
    search: SearchConfig,
    ray: RayConfig,
    *,
    metric: str,
    mode: str,
    service: Callable[[], Service] | None = None,
    columns: Sequence[str] = (),
) -> list[Outcome]:
    """Run every trial of a sweep below `place`, and say how each ended; one that fails does not end the others.

    Each configuration of `space` that `search` chooses is run once for each of `seeds`. `metric` is a key of what the
    program reports, and `mode` ("max" or "min") its better side; `columns` are the keys that the live table shows.
    `service` makes the service, in a process of its own. Killed at any time, the same call goes on: finished trials
    are not run again, others go on in their folders, and failed ones are tried again.

    The program and the service travel to other processes: module-level callables, or picklable objects of
    module-level classes.

    Raises ConfigError where a trial and the service do not fit the machine, where the search does not suit the space,
    or where no Ray answers; OutputExists where `place` holds trials of another plan; Preempted where SIGTERM or
    SIGUSR1 stopped it.
    """
    from hpc.sweep import driver

    sweep = driver.Sweep(Path(place).absolute(), program, space, list(seeds), search, ray, metric, mode, service)
    return driver.run(sweep, list(columns))
