"""The configuration of probes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from udipdist.config.base import Draws, NonNegative, Positive, VerbConfig


class ProbeConfig(VerbConfig):
    """What can be read from latents by a linear model: R2 of measurements, AUC of yes and no, out of fold.

    `udipdist probe latents=latents.parquet targets=phenotypes.tsv covariates=covariates.tsv out=probe`
    """

    latents: tuple[Path, ...] = Field(
        min_length=1,
        description="table of latents, FID IID and a column each; or several, as [a.parquet, b.parquet], to compare",
    )
    targets: Path = Field(
        description="table with FID IID and what is to be read: columns of numbers; of two values the larger is a case"
    )
    out: Path = Field(description="folder to write: probes.tsv, comparisons.tsv, skipped.tsv, probes.png and .pdf")
    only: tuple[str, ...] | None = Field(None, description="columns of targets to probe, as [age, sex]; default: all")
    covariates: Path | None = Field(
        None, description="table with FID IID and covariates: what they predict alone, and what latents add to it"
    )
    formula: str | None = Field(None, description="covariates to use, such as 'age + sex + C(site)'; default: all")
    match: Literal["fid_iid", "iid"] = Field("fid_iid", description="ids that must agree between the tables")
    missing: tuple[str, ...] | None = Field(
        None, description="codes of missing values in targets and covariates, as in gwas"
    )
    folds: Annotated[int, Field(ge=3, le=20)] = Field(5, description="folds; no family is split")
    penalty: Literal["l2", "elasticnet"] = Field("l2", description="of the logistic model of yes and no")
    min_cases: Positive = Field(50, description="targets with fewer cases, or controls, are skipped and listed")
    draws: Draws = Field(1000, gt=0, description="bootstrap samples of families, for intervals of R2")
    seed: NonNegative = Field(0, description="of the folds and the bootstrap")
    workers: NonNegative = Field(2, description="processes; 0 works in this one")

    @field_validator("latents", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value

    @field_validator("latents")
    @classmethod
    def _different(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names a table twice; name each once")
        return value

    @field_validator("missing", "only", mode="before")
    @classmethod
    def _one_or_several_codes(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value
