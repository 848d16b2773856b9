"""The parts of the configuration of a gwas, each what some function of it needs; `GwasConfig` is made of them.

Keys stand where they stood without parts: `min_info=` is a key of gwas. A part is a configuration of its own too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from hpc.cluster import ClusterConfig
from hpc.config import Config
from hpc.declared import Files
from udipdist.config.base import NonNegative, Positive, Share, VerbConfig

FEWEST_COPIES = 20  # of an allele, in traits that are not normal scores


class VariantFilter(Config):
    """Which variants of which genotypes are tested, as far as that is known without reading calls."""

    genotypes: Path = Field(description="prefix of PLINK .bed/.bim/.fam; {chr} in it stands for 1..22, X, XY")
    region: Annotated[tuple[str, ...], Files()] = Field(
        (), description="only variants in these: chr6:25000000-35000000, a chromosome, a BED file, or a list [..., ...]"
    )
    extract: Path | None = Field(None, description="only variants whose ids are in this file, one per line")
    exclude: Path | None = Field(None, description="leave out variants whose ids are in this file")
    info: Annotated[str | None, Files()] = Field(
        None, description="file with INFO: ukb_mfi_chr{chr}_v3.txt, a table with ID and INFO or R2, or two columns"
    )
    min_info: Share | None = Field(None, description="variants below this INFO, or not in the file, are left out")

    @field_validator("region", mode="before")
    @classmethod
    def _regions(cls, value: Any) -> Any:
        entries = value if isinstance(value, list | tuple) else [] if value is None else [value]
        return tuple(str(entry) if isinstance(entry, Path) else entry for entry in entries)

    @model_validator(mode="after")
    def _list_and_limit(self) -> Self:
        if self.min_info is not None and self.info is None:
            raise ValueError("min_info: needs the INFO of each variant; give info=FILE")
        if self.min_info is None and self.info is not None:
            raise ValueError("info: has no effect without a limit; give min_info=0.3, or another value between 0 and 1")
        return self


class SampleOptions(Config):
    """How people of several tables are matched, and their covariates."""

    covariates: Path | None = Field(None, description="text or Parquet table with FID IID and covariates")
    formula: str | None = Field(
        None, description="covariates to use, such as 'age + I(age**2) + sex + sex:age + C(site)'; default: all columns"
    )
    missing_covariates: Literal["refuse", "drop"] = Field(
        "refuse", description="people with a missing covariate: refuse reports an error, drop leaves them out"
    )
    missing: tuple[str, ...] | None = Field(
        None,
        description="codes of missing values in phenotypes and covariates, as [-9, -999], besides NA, nan, . and "
        "empty; default: -9 in text tables with FID and IID, as PLINK has it; []: none",
    )
    aliases: Path | None = Field(
        None,
        description="table with name, field: names for the formula, of columns or of fields of UK Biobank (21003-2.0); "
        "age, sex, centre, PC1 .. PC40 and others come with the package",
    )
    match: Literal["fid_iid", "iid"] = Field("fid_iid", description="ids that must agree between the tables")
    normalise: Literal["none", "rank"] = Field("none", description="rank: turn traits into normal scores first")

    @field_validator("missing", mode="before")
    @classmethod
    def _one_or_several_codes(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class Relatedness(Config):
    """How relatives are taken account of."""

    sparse_grm: Path | None = Field(None, description="prefix of GCTA .grm.sp/.grm.id; needed by test=mixed")
    test: Literal["mixed", "linear"] = Field("mixed", description="exact mixed model, or linear regression")
    max_family: Positive = Field(8000, description="largest group of relatives that is allowed")

    @model_validator(mode="after")
    def _has_grm(self) -> Self:
        if self.test == "mixed" and self.sparse_grm is None:
            raise ValueError(
                "sparse_grm: is required by test=mixed; give sparse_grm=PREFIX (of .grm.sp and .grm.id), "
                "or test=linear for people known to be unrelated"
            )
        return self


class NullConfig(Config):
    """The null models (variance components without a variant)."""

    total_variance: Literal["free", "sample"] = Field(
        "free", description="free: two-parameter REML; sample: GCTA's constraint Vg + Ve = sample variance"
    )
    variance: Path | None = Field(None, description="table with trait, Vg, Ve to use instead of REML")


class NullOptions(Relatedness):
    """How the models without a variant are fitted, and how covariates enter the test."""

    adjust: Literal["gls", "project", "phenotype"] = Field(
        "gls",
        description="covariates: by GLS with each variant; by OLS out of both sides; or out of the trait only",
    )
    weight_tolerance: float = Field(1e-9, gt=0, description="largest relative error of the weights' factorisation")
    null_model: NullConfig = NullConfig()
    renamed: ClassVar[dict[str, str]] = {"null": "null_model"}


class ScanOptions(NullOptions, SampleOptions, VariantFilter, VerbConfig):
    """How a genome is scanned, whatever the phenotypes."""

    min_maf: Share = Field(1e-4, description="variants below this minor allele frequency are not tested (NaN)")
    min_mac: NonNegative | None = Field(
        None,
        description="variants with fewer copies of the minor allele are not tested (NaN); default: "
        f"{FEWEST_COPIES} with normalise=none, 0 with normalise=rank",
    )
    max_missing: Share = Field(0.1, description="variants with more missing calls are not tested (NaN)")
    min_hwe: Share = Field(
        0.0,
        description="variants with a smaller p of Hardy-Weinberg equilibrium (exact; X: females) are not tested (NaN)",
    )
    block: Positive = Field(2048, description="most variants decoded at once; does not change the result")
    variants_per_part: Positive = Field(8192, description="variants in one part, which is one shard of the output")
    workers: NonNegative = Field(0, description="Dask worker processes on this machine; 0 works in this one")
    cluster: ClusterConfig = ClusterConfig()
    operational: ClassVar[frozenset[str]] = VerbConfig.operational | {"block", "variants_per_part", "cluster"}

    @property
    def fewest_copies(self) -> int:
        """min_mac, or its default: p of a rare allele is too small in a skewed trait, so that needs more of them."""
        if self.min_mac is not None:
            return self.min_mac
        return FEWEST_COPIES if self.normalise == "none" else 0


class ScanPlaces(VerbConfig):
    """The phenotypes of a scan, and where its results go."""

    phenotypes: tuple[Path, ...] = Field(
        description="Parquet or text table with FID IID and one column per trait; several, as [a.parquet, b.parquet], "
        "are tested in one pass, each with its own folder below out"
    )
    out: Path = Field(description="folder to write: sumstats.zarr, null.tsv, samples.tsv")

    @field_validator("phenotypes", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if value in ([], ()):
            raise ValueError("the list is empty; give phenotypes=TABLE or phenotypes=[TABLE, TABLE]")
        return (value,) if isinstance(value, str | Path) else value
