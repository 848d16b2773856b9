"""What a look at a trial is worth: one of its scores, or a weighted sum of several; the more the better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hpc.errors import InputError
from udipdist.config import SweepConfig
from udipdist.config.sweep import ObjectiveConfig

METRIC = "objective"  # its name among what a trial reports
LESS_IS_BETTER = ("val_loss",)


@dataclass(frozen=True)
class Objective:
    """Weights of scores; the worth of a look is their weighted sum."""

    weights: dict[str, float]

    @classmethod
    def of(cls, config: ObjectiveConfig) -> Self:
        """Of a single score its value, with a minus where less is better."""
        if isinstance(config.score, str):
            return cls({config.score: -1.0 if config.score in LESS_IS_BETTER else 1.0})
        return cls(dict(config.score))

    @classmethod
    def read(cls, out: str | Path) -> Self:
        """That of a sweep's folder. Raises InputError."""
        path = Path(out) / "config.yaml"
        if not path.exists():
            raise InputError(f"{path}: is missing, so {out} is not a sweep; give a folder that `udipdist sweep` wrote")
        return cls.of(SweepConfig.load(path).objective)

    @property
    def name(self) -> str:
        """'loci', '-val_loss' or '1 loci + 0.5 panel_hits', for headings."""
        if len(self.weights) == 1:
            ((score, weight),) = self.weights.items()
            sign = "" if weight > 0 else "-"
            return f"{sign}{score}" if abs(weight) == 1 else f"{weight:g} {score}"
        return " + ".join(f"{weight:g} {score}" for score, weight in self.weights.items())

    def value(self, scores: Mapping[str, float | None]) -> float | None:
        """The worth of a look, None where one of the scores is not known (no validation, no such test)."""
        known = {score: scores.get(score) for score in self.weights}
        if any(value is None or value != value for value in known.values()):
            return None
        return float(sum(weight * known[score] for score, weight in self.weights.items()))
