"""The configuration of erasing confounders from latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from udipdist.config.base import NonNegative, Positive, VerbConfig

Expansion = Literal["square", "interactions", "splines"]


class EraseConfig(VerbConfig):
    """Latents without what confounders say of them linearly, for tables that are shared or clustered.

    `udipdist erase latents=latents.parquet confounders=covariates.tsv method=leace out=erased.parquet`
    """

    latents: Path = Field(description="table of latents, Parquet or text with FID IID and a column each")
    confounders: Path = Field(description="table with FID IID and what is to be erased")
    out: Path = Field(
        description="latents table to write (.parquet, and .pheno beside it); NAME.audit.tsv and NAME.audit.png say "
        "what is left"
    )
    formula: str | None = Field(None, description="confounders to use, such as 'age + C(site)'; default: all columns")
    method: Literal["residual", "leace", "inlp"] = Field(
        "residual",
        description="residual: least squares of each latent, needs the confounders of whoever it is applied to; leace: "
        "the smallest projection after which no linear predictor works; inlp: projections over and over, to compare",
    )
    inlp: Literal["published", "ravfogel"] = Field(
        "published",
        description="rule of method=inlp: ridge of all confounders a round, as the registration paper's code; or one "
        "predictor at a time, logistic for yes and no (Ravfogel et al. 2020)",
    )
    rounds: Positive = Field(5, description="of method=inlp, at most")
    expand: tuple[Expansion, ...] = Field(
        (), description="erase also these of the confounders: square, interactions, splines, or several as [.., ..]"
    )
    trees: bool = Field(True, description="audit by boosted trees too, which see what is not linear; takes longer")
    h2: Path | None = Field(
        None,
        description="folder that gwas wrote of the confounders as traits, or a table with trait and h2 (and h2_se): "
        "warns of confounders that are heritable",
    )
    match: Literal["fid_iid", "iid"] = Field("fid_iid", description="ids that must agree between the tables")
    missing: tuple[str, ...] | None = Field(None, description="codes of missing values in confounders, as in gwas")
    seed: NonNegative = Field(0, description="of the halves")

    @field_validator("expand", "missing", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.out.suffix not in (".parquet", ".pq"):
            raise ValueError(f"out: a latents table is named NAME.parquet, not {self.out.name}")
        unused = {"inlp", "rounds"} & self.model_fields_set
        if self.method != "inlp" and unused:
            raise ValueError(f"{', '.join(sorted(unused))}: is of method=inlp; leave it out, or type method=inlp")
        return self
