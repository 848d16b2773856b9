"""How a sweep searches, and where its trials run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hpc.config import Config

Algorithm = Literal["grid", "random", "asha", "pbt", "optuna"]
Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class SearchConfig(Config):
    """Which configurations are tried, and which are stopped early.

    - grid: every combination; all keys of the space must be grids.
    - random: every combination of the grids, each with `samples` draws of the other keys.
    - asha: the same, but trials that lag behind are stopped (Li et al., MLSys 2020).
    - pbt: the same as a population, in which the worse take over the state of the better and vary their values
      (Jaderberg et al., 2017).
    - optuna: `samples` configurations, each proposed from the results so far by the tree-structured Parzen estimator.
    """

    algorithm: Algorithm = Field("grid", description="how configurations are chosen")
    samples: Positive = Field(8, description="draws of keys that are not grids; optuna: configurations in total")
    seed: Annotated[int, Field(ge=0)] = Field(1, description="of the draws")
    max_concurrent: Positive | None = Field(None, description="trials at the same time; null: as many as fit")
    grace: Positive = Field(1, description="asha: reports before a trial may be stopped")
    reduction: Annotated[float, Field(gt=1)] = Field(3.0, description="asha: 1 in this many continues at a rung")
    interval: Positive = Field(1, description="pbt: reports between two exchanges")
    quantile: Annotated[float, Field(gt=0, le=0.5)] = Field(0.25, description="pbt: share that is replaced")
    startup: Positive = Field(5, description="optuna: configurations drawn at random before it proposes")


class RayConfig(Config):
    """Where trials run, and what each of them occupies."""

    address: str | None = Field(
        None, description="a running Ray: auto, or HOST:PORT of its head; null: start one on this machine"
    )
    cpus: Positive | None = Field(None, description="total cores that may be used; null: those of this machine")
    gpus: Annotated[int, Field(ge=0)] | None = Field(None, description="total GPUs; null: those of this machine")
    ranks: Positive = Field(1, description="ranks of a trial on each of its nodes")
    nodes: Positive = Field(1, description="nodes of a trial")
    cpus_per_trial: Positive | None = Field(
        None, description="cores of a trial on each of its nodes; null: one for each rank"
    )
    gpus_per_trial: NonNegative = Field(0.0, description="GPUs of a trial on each of its nodes; 0.5: two share one")
    service_cpus: NonNegative = Field(
        1.0, description="cores kept for the shared service; 0: it uses those of the trials that wait for it"
    )
    gather: NonNegative = Field(
        0.5, description="seconds that an idle service waits for more requests, to answer all at once"
    )
    retries: Annotated[int, Field(ge=0)] = Field(3, description="how often a trial is restarted if its process died")

    @property
    def trial_cpus(self) -> int:
        """Cores of a trial on each of its nodes."""
        return self.cpus_per_trial or self.ranks
