"""The run of a sweep: what is left of its plan, given to Tune; nothing but files outlives it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.errors import ConfigError, Incomplete, Preempted, full_disk, no_space
from hpc.files import remove
from hpc.parts import fix_plan
from hpc.sweep import session
from hpc.sweep.options import RayConfig, SearchConfig
from hpc.sweep.space import Domain, Space
from hpc.sweep.stops import Stops
from hpc.sweep.trial_list import plan_trials
from hpc.sweep.trials import Outcome, Program, Service, Trial, generations, outcomes

log = logging.getLogger(__name__)
_OVER = ("finished", "stopped")


@dataclass(frozen=True)
class Sweep:
    """What `hpc.sweep.run` was told."""

    place: Path
    program: Program
    space: Space
    seeds: list[int]
    search: SearchConfig
    ray: RayConfig
    metric: str
    mode: str
    service: Callable[[], Service] | None

    def outcomes(self) -> list[Outcome]:
        """How the trials stand, by their files."""
        return outcomes(self.place, self.metric, self.mode)


def run(sweep: Sweep, columns: Sequence[str]) -> list[Outcome]:
    """See `hpc.sweep.run`."""
    if sweep.mode not in ("max", "min"):
        raise ConfigError(f"mode={sweep.mode!r}: must be max or min")
    planned = plan_trials(sweep.place, sweep.space, sweep.seeds, sweep.search)
    session.require_room(sweep.ray, sweep.service is not None)
    fix_plan(sweep.place / "ray", _plan(sweep))
    total, left = _left(sweep, planned)
    if left:
        ended = total - left
        log.info("%d trials%s", total, f", {ended} of them already ended" if ended else "")
        with Stops() as stops, session.connected(sweep.ray) as name:
            stops.listen()
            session.require_nodes(sweep.ray, sweep.service is not None)
            _fit(sweep, planned, name, total, ended, columns, stops)
    found = sweep.outcomes()
    for outcome in found:
        if outcome.state == "failed":
            log.warning("%s: failed: %s; its log: %s", outcome.trial.name, outcome.error, outcome.log)
    return found


def _plan(sweep: Sweep) -> dict[str, Any]:
    domains = {d.key: {d.kind: _bounds(d)} for d in sweep.space.domains}
    chosen = {"metric": sweep.metric, "mode": sweep.mode, "seeds": sweep.seeds, "search": sweep.search.semantics()}
    return {**chosen, "space": domains}


def _bounds(domain: Domain) -> list[Any]:
    return [list(option) for option in domain.options] if domain.options else [domain.low, domain.high]


def _left(sweep: Sweep, planned: list[Trial]) -> tuple[int, int]:
    """Trials in all, and those that have not ended."""
    ended = sum(outcome.state in _OVER for outcome in sweep.outcomes())
    if sweep.search.algorithm == "optuna":
        total = sweep.search.samples * len(sweep.seeds)
        return total, total - ended
    return len(planned), len(_unfinished(planned))


def _unfinished(planned: list[Trial]) -> list[Trial]:
    """Those of the plan that have not ended; a member of a population counts as what it has become."""
    return [trial for trial in planned if not (generations(trial)[-1].folder / "ended.json").exists()]


def _fit(
    sweep: Sweep, planned: list[Trial], name: str, total: int, ended: int, columns: Sequence[str], stops: Stops
) -> None:
    """Have Tune run the trials that are left. Raises Preempted, or Incomplete where Ray went away."""
    from ray import tune
    from ray.exceptions import RayError

    from hpc.sweep import search
    from hpc.sweep.table import Silence, Table
    from hpc.sweep.worker import Work

    desk = f"service-{name}" if sweep.service is not None else None
    _held = _open_desk(sweep, desk) if desk else None  # Ray ends an actor that nobody holds
    members = {trial.name: trial for trial in planned} if sweep.search.algorithm == "pbt" else {}
    work = Work(sweep.program, sweep.metric, sweep.mode, name, desk, members)

    def trial(config: dict[str, Any]) -> None:
        work.do(config["trial"])

    over = [outcome for outcome in sweep.outcomes() if outcome.state in _OVER]
    space, chosen = _what_is_left(sweep, planned)
    table = Table(sweep.place, total, ended, columns, sweep.metric, sweep.mode, name, stops)
    remove(sweep.place / "ray" / "tune")
    # metric and mode stand with the scheduler and the search; Tune refuses them twice.
    tuner = tune.Tuner(
        tune.with_resources(trial, _resources(sweep.ray)),
        param_space=space,
        tune_config=tune.TuneConfig(
            scheduler=search.scheduler(sweep.search, sweep.space, sweep.metric, sweep.mode, over),
            max_concurrent_trials=sweep.search.max_concurrent,
            trial_name_creator=_name_of,
            trial_dirname_creator=_name_of,
            reuse_actors=False,
            **chosen,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(sweep.place / "ray"),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=sweep.ray.retries),
            callbacks=[table, Silence()],
        ),
    )
    table.open()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="ray")
            errors = tuner.fit().errors
    except (RayError, ConnectionError) as error:
        if stops.asked:
            raise _stopped(sweep) from None
        raise Incomplete(
            f"{sweep.place}: lost Ray ({str(error).splitlines()[0]}); start it again, then run the same command"
        ) from None
    finally:
        table.close()
    log.info("%s", table.line())
    full = [reason for reason in map(full_disk, errors) if reason]
    if full:  # trials that could not even write how they ended
        raise no_space(sweep.place, full[0])
    failed = sum(outcome.state == "failed" for outcome in sweep.outcomes())
    if _left(sweep, planned)[1] > failed:
        raise _stopped(sweep)


def _stopped(sweep: Sweep) -> Preempted:
    return Preempted(f"{sweep.place}: stopped before all trials had ended; the same command continues")


def _what_is_left(sweep: Sweep, planned: list[Trial]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The trials that Tune is to run: as a grid, or with Optuna as what proposes them (keys of tune.TuneConfig)."""
    from ray import tune

    from hpc.sweep import search

    if sweep.search.algorithm == "optuna":
        proposals = search.Proposals(sweep.place, sweep.space, sweep.seeds, sweep.search, sweep.metric, sweep.mode)
        return None, {"search_alg": proposals, "num_samples": proposals.left}
    return {"trial": tune.grid_search([search.tree_of(trial) for trial in _unfinished(planned)])}, {}


def _name_of(trial: Any) -> str:
    """The name of a trial of Tune's, given once when it is made."""
    name: str = trial.config["trial"]["name"]
    return name


def _resources(config: RayConfig) -> Any:
    from ray import tune

    bundle = {"CPU": config.trial_cpus, **({"GPU": config.gpus_per_trial} if config.gpus_per_trial else {})}
    return tune.PlacementGroupFactory([bundle] * config.nodes, strategy="STRICT_SPREAD" if config.nodes > 1 else "PACK")


def _open_desk(sweep: Sweep, name: str) -> Any:
    """Start the process of the service, and make it. Raises what the service raises when it is made."""
    import ray

    from hpc.sweep.service import Desk

    options = {"name": name, "num_cpus": sweep.ray.service_cpus, "max_restarts": -1, "max_task_retries": -1}
    actor: Any = ray.remote(Desk).options(**options)
    desk = actor.remote(sweep.service, sweep.ray.gather, sweep.place / "service.log")
    good, answer = ray.get(desk.open.remote())
    if not good:
        raise answer
    return desk
