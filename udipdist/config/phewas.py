"""The configuration of a phenome-wide association study of latents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from udipdist.config.base import Draws, NonNegative, Positive, VerbConfig

FEWEST_CASES = 10  # in both halves together


class PhewasConfig(VerbConfig):
    """Which diagnoses latents tell: a direction from one half of the people, tested in the other, for every phecode.

    `udipdist phewas latents=latents.parquet phecodes=phecodes.tsv covariates=covariates.tsv out=phewas`
    """

    latents: tuple[Path, ...] = Field(
        min_length=1, description="table of latents, FID IID and a column each; or several, as [a.parquet, b.parquet]"
    )
    phecodes: Path | None = Field(None, description="table with FID IID and 0, 1 or NA for each phecode; or events=")
    events: Path | None = Field(
        None, description="table with IID, code, vocabulary, date of each diagnosis; needs map="
    )
    map: Path | None = Field(None, description="of events: table with code, vocabulary, phecode; none is shipped")
    definitions: Path | None = Field(
        None,
        description="table with phecode, and phenotype, category, sex (Both, Male, Female), phecode_exclude_range",
    )
    covariates: Path | None = Field(None, description="table with FID IID and covariates; of all models")
    out: Path = Field(description="folder to write: phewas.tsv, summary.tsv, skipped.tsv, qq_NAME.png and .pdf")
    formula: str | None = Field(None, description="covariates to use, such as 'age + sex + C(site)'; default: all")
    sex: str = Field("sex", description="column of the covariates that tells sex, for codes of one sex")
    male: float = Field(1, description="its value for males")
    direction: Literal["lda", "centroid"] = Field(
        "lda",
        description="lda: difference of the means times the inverse covariance, shrunk; centroid: the difference "
        "itself, as published",
    )
    crossfit: bool = Field(
        True, description="each half is tested with the other's directions; false: one half alone, as published"
    )
    permutations: Draws = Field(0, description="shuffles of people, for p-values that assume nothing; 0: none")
    min_cases: Annotated[int, Field(ge=FEWEST_CASES)] = Field(
        50, description="phecodes with fewer cases, or controls, are skipped and listed"
    )
    min_dates: Positive = Field(2, description="of events: different dates that make a case; fewer are not known")
    rollup: bool = Field(True, description="of events: 411.11 counts for 411.1 and 411 too")
    exclusions: bool = Field(True, description="controls with a record in the code's range of exclusion are left out")
    match: Literal["fid_iid", "iid"] = Field("fid_iid", description="ids that must agree between the tables")
    missing: tuple[str, ...] | None = Field(
        None, description="codes of missing values in phecodes and covariates, as in gwas"
    )
    seed: NonNegative = Field(0, description="of the halves and the shuffles")

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

    @field_validator("missing", mode="before")
    @classmethod
    def _one_or_several_codes(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.phecodes is None) == (self.events is None):
            raise ValueError("phecodes: give either phecodes=TABLE, or events=TABLE with map=TABLE")
        if self.events is not None and self.map is None:
            raise ValueError("map: is needed to read events; give map=TABLE with code, vocabulary, phecode")
        unused = {"map", "min_dates", "rollup"} & self.model_fields_set
        if self.events is None and unused and self.map is not None:
            raise ValueError(f"{', '.join(sorted(unused))}: is of events=; leave it out")
        return self
