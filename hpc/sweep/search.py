"""The algorithms of Ray Tune by name, told what earlier runs of the sweep have found; and Optuna's proposals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import Searcher

from hpc.files import publish_text
from hpc.sweep.options import SearchConfig
from hpc.sweep.space import Domain, Space
from hpc.sweep.trial_list import trials_of
from hpc.sweep.trials import Outcome, Trial, generations, outcomes, read_reports

_FOREVER = 10**6  # reports of a trial


def tree_of(trial: Trial) -> dict[str, Any]:
    """A trial as Tune carries it; of a member of a population the values it has by now."""
    tree = {key: value for key, value in asdict(trial).items() if not key.startswith("parent")}
    return tree | {"folder": str(trial.folder), "values": dict(generations(trial)[-1].values)}


def scheduler(search: SearchConfig, space: Space, metric: str, mode: str, ended: Sequence[Outcome]) -> TrialScheduler:
    """What stops trials early or lets them exchange their state."""
    if search.algorithm == "asha":
        return _asha(search, metric, mode, ended)
    if search.algorithm == "pbt":
        return _pbt(search, space, metric, mode)
    return FIFOScheduler()


def _asha(search: SearchConfig, metric: str, mode: str, ended: Sequence[Outcome]) -> TrialScheduler:
    """Asynchronous successive halving, its rungs filled with the reports of trials that have ended."""
    asha = AsyncHyperBandScheduler(
        time_attr="training_iteration",
        metric=metric,
        mode=mode,
        max_t=_FOREVER,
        grace_period=search.grace,
        reduction_factor=search.reduction,
    )
    sign = 1 if mode == "max" else -1
    for outcome in ended:
        for count, report in enumerate(read_reports(outcome.trial.folder), 1):
            value = report.get(metric)
            if value is not None:
                # Tune cannot be told of earlier trials, so its inside is (tests/hpc/test_private_names.py).
                told = SimpleNamespace(trial_id=outcome.trial.name)
                asha._brackets[0].on_result(told, count, sign * value)  # type: ignore[arg-type]  # asks for the id
    return asha


def _pbt(search: SearchConfig, space: Space, metric: str, mode: str) -> TrialScheduler:
    domains = {domain.key: domain for domain in space.domains if not domain.named}

    def keep_inside(config: dict[str, Any]) -> dict[str, Any]:
        values = config["trial"]["values"]
        for key, domain in domains.items():
            if domain.kind not in ("grid", "choice"):
                values[key] = domain.clip(values[key])
        return config

    return PopulationBasedTraining(
        time_attr="training_iteration",
        metric=metric,
        mode=mode,
        perturbation_interval=search.interval,
        quantile_fraction=search.quantile,
        hyperparam_mutations={"trial": {"values": {key: _tune_domain(domain) for key, domain in domains.items()}}},
        custom_explore_fn=keep_inside,
        log_config=False,
    )


def _tune_domain(domain: Domain) -> Any:
    if domain.kind in ("grid", "choice"):
        return domain.extremes()
    if domain.kind == "randint":
        return tune.randint(int(domain.low), int(domain.high) + 1)
    return {"uniform": tune.uniform, "loguniform": tune.loguniform}[domain.kind](domain.low, domain.high)


class Proposals(Searcher):
    """Optuna's tree-structured Parzen estimator (Akiba et al., KDD 2019), a trial for each seed of what it proposes.

    The value of a configuration is the mean over its seeds of the best report of each. What was proposed stands in
    `place`/ray/proposals.jsonl: a sweep that goes on runs what is left of it, and learns from what has ended.
    """

    def __init__(self, place: Path, space: Space, seeds: Sequence[int], search: SearchConfig, metric: str, mode: str):
        super().__init__(metric=metric, mode=mode)
        self._place, self._space, self._seeds, self._search = place, space, list(seeds), search
        self._path = place / "ray" / "proposals.jsonl"
        self._chosen: list[dict[str, Any]] = []
        if self._path.exists():
            whole = self._path.read_text(encoding="utf-8").split("\n")[:-1]
            self._chosen = [json.loads(line) for line in whole]
            publish_text(self._path, "".join(line + "\n" for line in whole))
        self._distributions = {domain.key: _distribution(domain) for domain in space.domains}
        self._study = self._new_study()
        self._asked: dict[int, Any] = {}
        self._told: set[int] = set()
        self._ready = [t for i in range(len(self._chosen)) for t in self._trials(i)]
        self._running: dict[str, Trial] = {}
        self._tell()
        names = {outcome.trial.name for outcome in self._ended()}
        self._ready = [trial for trial in self._ready if trial.name not in names]

    @property
    def left(self) -> int:
        """Trials that are still to be run."""
        return len(self._ready) + (self._search.samples - len(self._chosen)) * len(self._seeds)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a string
        """The next trial, for Tune."""
        if not self._ready:
            if len(self._chosen) >= self._search.samples:
                return Searcher.FINISHED
            self._propose()
        self._running[trial_id] = self._ready.pop(0)
        return {"trial": tree_of(self._running[trial_id])}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn from a configuration whose seeds have all ended."""
        self._running.pop(trial_id, None)
        self._tell()

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the files of the sweep hold it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as `save`."""

    def _new_study(self) -> Any:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # A sweep that goes on must not draw again what it drew first.
        sampler = optuna.samplers.TPESampler(
            seed=self._search.seed + 1000003 * len(self._chosen), n_startup_trials=self._search.startup
        )
        return optuna.create_study(direction="maximize" if self.mode == "max" else "minimize", sampler=sampler)

    def _propose(self) -> None:
        number, asked = len(self._chosen), self._study.ask(self._distributions)
        chosen = {domain.key: _value(domain, asked.params[domain.key]) for domain in self._space.domains}
        self._asked[number] = asked
        self._chosen.append(chosen)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(chosen) + "\n")
        self._ready += self._trials(number)

    def _trials(self, number: int) -> list[Trial]:
        """The trials of a proposal. Two proposals may be alike: their names tell them apart."""
        configuration = self._space.configuration(self._chosen[number])
        named = type(configuration)(f"{number:03d}-{configuration.name}", configuration.values)
        return trials_of(self._place, named, self._seeds, number * len(self._seeds))

    def _ended(self) -> list[Outcome]:
        return [o for o in outcomes(self._place, self.metric, self.mode) if o.state in ("finished", "stopped")]

    def _tell(self) -> None:
        """Tell Optuna of configurations whose trials have all ended, those of an earlier run too."""
        import optuna

        ended = {outcome.trial.name: outcome for outcome in self._ended()}
        for number, chosen in enumerate(self._chosen):
            names = [trial.name for trial in self._trials(number)]
            if number in self._told or not all(name in ended for name in names):
                continue
            self._told.add(number)
            scores = [best[self.metric] for name in names if (best := ended[name].best)]
            if len(scores) < len(names):
                continue  # nothing was reported: Optuna does not count it
            params = {domain.key: _index(domain, chosen[domain.key]) for domain in self._space.domains}
            value = sum(scores) / len(scores)
            if number in self._asked:
                self._study.tell(self._asked[number], value)
            else:
                self._study.add_trial(
                    optuna.trial.create_trial(params=params, distributions=self._distributions, value=value)
                )


def _distribution(domain: Domain) -> Any:
    """Optuna's; options go by their number, as it takes only simple values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if domain.kind in ("grid", "choice"):
        return CategoricalDistribution(list(range(len(domain.options))))
    if domain.kind == "randint":
        return IntDistribution(int(domain.low), int(domain.high))
    return FloatDistribution(domain.low, domain.high, log=domain.kind == "loguniform")


def _value(domain: Domain, param: Any) -> Any:
    return domain.extremes()[param] if domain.kind in ("grid", "choice") else domain.clip(param)


def _index(domain: Domain, value: Any) -> Any:
    return domain.extremes().index(value) if domain.kind in ("grid", "choice") else value
