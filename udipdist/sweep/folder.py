"""What a sweep's folder holds: its trials, and every look at one (an epoch whose latents were tested)."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_args

from hpc.errors import InputError, some
from hpc.sweep import Trial
from udipdist.config.sweep import Score
from udipdist.sweep.objective import Objective

SCORES = get_args(Score)
_LOOK = ("epoch", "step", "variants", "screening")
CURE = "delete it, and run the sweep again to recreate it"


@dataclass(frozen=True)
class Look:
    """One epoch of a trial, tested: `scores` by name of SCORES, None for what was not measured.

    `screening`: on a thinned set of variants. Epoch 0 is the untrained network. `collapsed`: latents that are the same
    for everybody, so that they were not tested.
    """

    trial: Trial
    epoch: int
    step: int
    variants: int
    screening: bool
    scores: dict[str, float | None]
    folder: Path
    collapsed: tuple[str, ...]

    @property
    def of(self) -> str:
        """The pass over the variants: looks of different passes are not comparable."""
        return "screening" if self.screening else "full"

    @property
    def latents(self) -> Path:
        """Its table of latents, which stands with the trial."""
        return self.trial.folder / "epochs" / f"{self.epoch:04d}" / "latents.parquet"

    def loci(self, analysis: str) -> Path:
        """The folder of loci of the smallest p (`loci`) or of the joint test (`multivariate_loci`)."""
        return self.folder / {"loci": "loci", "multivariate_loci": "loci_multivariate"}[analysis]


@dataclass(frozen=True)
class SweepFolder:
    """Trials in order of their numbers, and looks by trial and epoch."""

    path: Path
    trials: list[Trial]
    looks: list[Look]
    objective: Objective

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Read what is there; looks of which the full pass is done are in it twice. Raises InputError."""
        path = Path(path)
        trials = sorted(
            (Trial.read(file.parent) for file in path.glob("trials/*/trial.json")), key=lambda one: one.number
        )
        if not trials:
            raise InputError(
                f"{path}: has no trials of a sweep; give the folder that `udipdist sweep` wrote (its out=)"
            )
        by_name = {trial.name: trial for trial in trials}
        looks = [look for trial in trials for look in _looks(trial, trial.folder / "epochs")]
        for folder in sorted(path.glob("full/*")):
            if folder.name not in by_name:
                raise InputError(f"{folder}: is of no trial in {path / 'trials'}; {CURE}")
            looks += _looks(by_name[folder.name], folder)
        return cls(path, trials, looks, Objective.read(path))

    @property
    def failed(self) -> list[Trial]:
        """Trials that ended with an error; their looks until then count."""
        return [trial for trial in self.trials if (trial.folder / "failed.json").exists()]

    def trained(self, of: str | None = None) -> list[Look]:
        """Looks at trained networks, of one pass or of both."""
        return [look for look in self.looks if look.epoch > 0 and of in (None, look.of)]

    def untrained(self, of: str) -> list[Look]:
        """Looks of a pass at untrained networks, without those that are the same network: of the same seed, of like
        keys of the model, with the same scores (a schedule does not change what training starts from)."""
        found: dict[str, Look] = {}
        for look in self.looks:
            if look.epoch == 0 and look.of == of:
                model = {key: value for key, value in look.trial.values.items() if key.startswith("model.")}
                key = repr((look.trial.seed, sorted(model.items()), sorted(look.scores.items())))
                found.setdefault(key, look)
        return list(found.values())

    def passes(self) -> list[str]:
        """Passes that looks are of, the full one first."""
        found = {look.of for look in self.looks}
        return [of for of in ("full", "screening") if of in found]

    def chosen(self, of: str | None = None) -> list[Look]:
        """Of each trial the look that is worth most, in order of trials; of the full pass where it has one, or of the
        given pass. Of equals the earliest."""
        by_trial: dict[str, list[Look]] = defaultdict(list)
        for look in self.trained(of):
            by_trial[look.trial.name].append(look)
        found = []
        for looks in by_trial.values():
            full = [look for look in looks if look.of == "full"]
            best = self.best(full or looks)
            found += [best] if best is not None else []
        return found

    def best(self, looks: Iterable[Look]) -> Look | None:
        """The look that is worth most; of equals the one with more loci, then the lower loss, then the earliest."""
        return next(iter(self.leading(looks, 1)), None)

    def leading(self, looks: Iterable[Look], most: int | None = None) -> list[Look]:
        """Those whose worth is known, the best first; at most `most`."""
        known = [look for look in looks if self.objective.value(look.scores) is not None]
        return sorted(known, key=self._rank, reverse=True)[:most]

    def _rank(self, look: Look) -> tuple[float, ...]:
        scores = {name: -1.0 if value is None else value for name, value in look.scores.items()}
        loss = float("inf") if look.scores["val_loss"] is None else look.scores["val_loss"]
        return (
            self.objective.value(look.scores), scores["loci"], scores["multivariate_loci"], -loss, -look.epoch,
            -look.trial.number,
        )  # fmt: skip


def read_json(path: Path, keys: Iterable[str]) -> dict[str, Any]:
    """An object with these keys. Raises InputError."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {CURE}") from None
    lacks = [key for key in keys if not isinstance(tree, dict) or key not in tree]
    if lacks:
        raise InputError(f"{path}: lacks {some(lacks)}; {CURE}")
    return tree


def _looks(trial: Trial, folder: Path) -> list[Look]:
    looks = []
    for file in sorted(folder.glob("*/scores.json")):
        tree = read_json(file, (*_LOOK, *SCORES))
        scores = {name: _score(tree[name], name, file) for name in SCORES}
        told = (tree[key] for key in _LOOK)
        looks.append(Look(trial, *told, scores, file.parent, tuple(tree.get("collapsed", ()))))
    return looks


def _score(value: Any, name: str, file: Path) -> float | None:
    if not isinstance(value, int | float | None):
        raise InputError(f"{file}: {name}={value!r} is not a number; {CURE}")
    return None if value is None or math.isnan(value) else value
