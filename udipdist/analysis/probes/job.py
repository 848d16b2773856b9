"""Probes in parts: each part has the targets that are fitted together, in every table of latents."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from udipdist.analysis.probes import fitting, judging
from udipdist.analysis.probes.judging import Estimate
from udipdist.analysis.probes.targets import BINARY, Target

COVARIATES = "covariates"
R2, AUC = "R2", "AUC"
NOTHING = {R2: 0.0, AUC: 0.5}  # the value of a probe that knows nothing


@dataclass(frozen=True)
class Model:
    """One set of columns by which targets are predicted: its name and `x_NC`."""

    name: str
    x_NC: np.ndarray


@dataclass
class ProbeJob:
    """Groups of targets against latents of several tables, alone and with covariates. `family_N` counts from 0."""

    place: Path
    targets: list[Target]
    groups: list[list[int]]
    tables: list[Model]
    covariates_NC: np.ndarray | None
    fold_N: np.ndarray
    family_N: np.ndarray
    penalty: fitting.Penalty
    draws: int
    seed: int
    unit: str = "targets"

    @property
    def n_parts(self) -> int:
        """One for each group."""
        return len(self.groups)

    def size_of_part(self, index: int) -> int:
        """Targets of a group."""
        return len(self.groups[index])

    def part(self, index: int) -> dict[str, Any]:
        """Rows of probes.tsv and of comparisons.tsv of the group's targets."""
        with threadpool_limits(1):
            return self._part([self.targets[t] for t in self.groups[index]])

    def _part(self, targets: list[Target]) -> dict[str, Any]:
        known_N = targets[0].known_N
        fold_n = self.fold_N[known_N]
        found = {model.name: self._fit(model, targets, known_N) for model in self._models()}
        probes, comparisons = [], []
        for t, target in enumerate(targets):
            judge = Judge(self, target, {name: _of_target(one, t) for name, one in found.items()}, fold_n)
            n_cases = int(np.nansum(target.value_N)) if target.kind == BINARY else None
            facts = {"target": target.name, "kind": target.kind, "n": int(known_N.sum()), "cases": n_cases}
            for table in self.tables:
                row = facts | {"latents": table.name, "metric": judge.metric} | _spread("", judge.of(table.name))
                if self.covariates_NC is not None:
                    row |= _spread("covariates_", judge.of(COVARIATES))
                    row |= _spread("both_", judge.of(_with_covariates(table.name)))
                    row |= _spread("added_", judge.between(_with_covariates(table.name), COVARIATES))
                probes.append(row)
            for a, b in combinations(self.tables, 2):
                names = {"target": target.name, "metric": judge.metric, "a": a.name, "b": b.name}
                comparisons.append(names | _spread("difference_", judge.between(a.name, b.name)))
        unfinished = sum(one.unfinished for one in found.values())
        return {"probes": probes, "comparisons": comparisons, "unfinished": unfinished}

    def _models(self) -> list[Model]:
        if self.covariates_NC is None:
            return self.tables
        both = [
            Model(_with_covariates(one.name), np.concatenate([one.x_NC, self.covariates_NC], 1)) for one in self.tables
        ]
        return [*self.tables, Model(COVARIATES, self.covariates_NC), *both]

    def _fit(self, model: Model, targets: list[Target], known_N: np.ndarray) -> fitting.OutOfFold:
        x_nC, fold_n = model.x_NC[known_N], self.fold_N[known_N]
        y_nP = np.stack([target.value_N[known_N] for target in targets], 1)
        if targets[0].kind == BINARY:
            return fitting.binary(x_nC, y_nP[:, 0] == 1, fold_n, self.penalty, self.seed)
        return fitting.continuous(x_nC, y_nP, fold_n)


@dataclass(frozen=True)
class Predictions:
    """Of one target by one model, [n] each: whole, two halves, and the means of training."""

    whole_n: np.ndarray
    first_n: np.ndarray
    second_n: np.ndarray
    base_n: np.ndarray


@dataclass(frozen=True)
class Judge:
    """Estimates for one target; the models' predictions are of the same people."""

    job: ProbeJob
    target: Target
    found: dict[str, Predictions]
    fold_n: np.ndarray

    @property
    def metric(self) -> str:
        """What is estimated."""
        return AUC if self.target.kind == BINARY else R2

    def of(self, name: str) -> Estimate:
        """The value of one model, and the p of its knowing nothing."""
        one = self.found[name]
        noise = judging.noise(one.first_n, one.second_n, self.fold_n)
        if self.metric == AUC:
            area_M, covariance_MM = judging.auc(self._truth_n(), one.whole_n[None], self._family_n())
            return judging.by_variance(float(area_M[0]), float(covariance_MM[0, 0]), noise, NOTHING[AUC])
        value_M, drawn_MB = self._r2([one])
        return judging.by_draws(float(value_M[0]), drawn_MB[0], noise)

    def between(self, name: str, other: str) -> Estimate:
        """The value of one model less that of another, and the p of their being equal."""
        one, two = self.found[name], self.found[other]
        noise = judging.noise(one.first_n - two.first_n, one.second_n - two.second_n, self.fold_n)
        if self.metric == AUC:
            both_Mn = np.stack([one.whole_n, two.whole_n])
            area_M, c = judging.auc(self._truth_n(), both_Mn, self._family_n())
            return judging.by_variance(float(area_M[0] - area_M[1]), float(c[0, 0] + c[1, 1] - 2 * c[0, 1]), noise)
        value_M, drawn_MB = self._r2([one, two])
        return judging.by_draws(float(value_M[0] - value_M[1]), drawn_MB[0] - drawn_MB[1], noise)

    def _r2(self, models: list[Predictions]) -> tuple[np.ndarray, np.ndarray]:
        models_Mn = np.stack([one.whole_n for one in models])
        family_n = self.job.family_N[self.target.known_N]
        draws_BF = judging.draws(self.job.family_N, self.job.draws, self.job.seed)
        return judging.r2(self._truth_n(), models_Mn, models[0].base_n, family_n, draws_BF)

    def _truth_n(self) -> np.ndarray:
        return self.target.value_N[self.target.known_N]

    def _family_n(self) -> np.ndarray:
        return np.unique(self.job.family_N[self.target.known_N], return_inverse=True)[1]


def _of_target(one: fitting.OutOfFold, t: int) -> Predictions:
    return Predictions(one.whole_NP[:, t], one.halves_NP[0][:, t], one.halves_NP[1][:, t], one.base_NP[:, t])


def _with_covariates(name: str) -> str:
    return f"{name} and covariates"


def _spread(prefix: str, one: Estimate) -> dict[str, float]:
    return {f"{prefix}{key}": value for key, value in asdict(one).items()}
