"""The configuration of sweeps: many trainings, scored by the loci that their latents discover."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from hpc.config import Config
from hpc.declared import KeysOf
from hpc.sweep.options import RayConfig, SearchConfig
from udipdist.config.base import NonNegative, Positive, VerbConfig
from udipdist.config.genetics import GwasConfig, LociConfig, PanelConfig
from udipdist.config.imaging import EmbedConfig, TrainConfig

_STAGES: dict[str, type[Config]] = {"embed": EmbedConfig, "gwas": GwasConfig, "loci": LociConfig, "panel": PanelConfig}
Score = Literal["loci", "multivariate_loci", "panel_hits", "val_loss", "ssim"]


class ObjectiveConfig(Config):
    """What the search maximises."""

    score: Score | dict[Score, float] = Field(
        "loci",
        description="loci (of the smallest p over traits, which depends on the rotation of the latents), "
        "multivariate_loci (of the joint test, which does not), panel_hits, val_loss or ssim; or weights of several, "
        "as {loci: 1, panel_hits: 0.5, val_loss: -10}: their weighted sum; larger is better",
    )
    variants: Positive | None = Field(
        None,
        description="test only about this many, evenly spread over the .bim without regard to LD; the finalists with "
        "all; null: always all",
    )
    finalists: Positive = Field(3, description="with variants=: trials whose best epoch is tested with all variants")

    @field_validator("score")
    @classmethod
    def _weights(cls, value: Any) -> Any:
        if isinstance(value, dict) and not (value and all(math.isfinite(w) and w for w in value.values())):
            raise ValueError(f"needs weights other than 0 of some of {', '.join(get_args(Score))}")
        return value


class SweepConfig(VerbConfig):
    """Train many configurations and replicates, and score each by the loci it discovers.

    Every trial is a training; the checkpoints of the epochs in look_at are embedded and tested, all that are ready in
    one pass over the genotypes. If it is killed, the same command continues where it stopped.
    """

    out: Path = Field(description="folder of the sweep")
    store: Path = Field(description="volume store to train on")
    test_store: Path | None = Field(None, description="volume store of the people to test; default: store")
    modality: str | None = Field(None, description="modality, if the stores have several, such as T1")
    genotypes: Path = Field(description="prefix of PLINK .bed/.bim/.fam; {chr} in it stands for 1..22, X, XY")
    covariates: Path | None = Field(None, description="table with FID IID and covariates")
    sparse_grm: Path | None = Field(None, description="prefix of GCTA .grm.sp/.grm.id; without it the test is linear")
    train: Annotated[dict[str, Any], KeysOf(TrainConfig)] = Field({}, description="keys of train, for all trials")
    space: dict[str, Any] = Field(
        {},
        description="what varies between configurations: dotted keys of train with {grid: [a, b]}, {choice: [...]}, "
        "{uniform: [low, high]}, {loguniform: [low, high]} or {randint: [low, high]}; of grid and choice the options "
        "may have names and set several keys: {schedule: {grid: {step: {schedule.name: step}, cosine: {...}}}}",
    )
    seeds: tuple[NonNegative, ...] = Field((1, 2), description="replicates: every configuration is trained with each")
    look_at: tuple[NonNegative, ...] = Field(
        (0,),
        description="epochs whose checkpoints are tested, besides the last of each trial; 0 is the untrained network, "
        "which is scored, but not reported to the search",
    )
    objective: ObjectiveConfig = ObjectiveConfig()
    search: SearchConfig = SearchConfig()
    ray: RayConfig = RayConfig()
    stages: Annotated[dict[str, dict[str, Any]], KeysOf(**_STAGES)] = Field(
        {}, description="keys for single stages: embed, gwas, loci, panel"
    )
    tables_per_pass: Positive = Field(16, description="most checkpoints tested in one pass; memory grows with it")
    consensus: Literal["none", "pca", "maxvar"] = Field(
        "none",
        description="phenotypes common to the replicates of each configuration, by PCA or MAXVAR; tested as well",
    )
    keep_sumstats: bool = Field(False, description="keep the summary statistics of every pass, not only the loci")
    allow_failures: NonNegative = Field(0, description="number of trials that may fail before the exit status is 3")
    operational: ClassVar[frozenset[str]] = VerbConfig.operational | {
        "ray", "tables_per_pass", "consensus", "keep_sumstats", "allow_failures",
    }  # fmt: skip

    @field_validator("seeds", "look_at", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("is empty, or names a seed twice; give seeds=[1, 2]")
        return value

    @field_validator("look_at")
    @classmethod
    def _in_order(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _known_stages(self) -> Self:
        unknown = sorted(set(self.stages) - set(_STAGES))
        if unknown:
            raise ValueError(f"stages.{unknown[0]}: unknown stage; the stages are {', '.join(_STAGES)}, and train=")
        return self


class SweepDemoConfig(VerbConfig):
    """A sweep on the simulated cohort, whose planted loci are known."""

    out: Path = Field(Path("sweep-demo"), description="folder to write")
    preset: Literal["smoke", "demo"] = Field("demo", description="size of the cohort")
    seed: NonNegative = Field(1, description="of the cohort and of the networks")
    workers: NonNegative = Field(2, description="processes of simulate and ingest")
