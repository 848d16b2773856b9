"""The configuration of the simulated cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from hpc.config import Config, merge
from udipdist.config.base import NonNegative, Positive, Share, VerbConfig


class GenomeConfig(Config):
    """The simulated genomes: coalescent windows with real LD on whole chromosomes."""

    chromosomes: Annotated[int, Field(ge=2, le=22)] = Field(22, description="autosomes 1..n")
    windows_per_chromosome: Positive = Field(4, description="stretches of sequence simulated on each chromosome")
    window_bp: Positive = Field(1_000_000, description="length of a window")
    spacing_bp: Positive = Field(20_000_000, description="distance between the starts of windows")
    variants_per_mb: Positive | None = Field(300, description="variants kept per Mb, drawn at random; null keeps all")
    min_maf: Share = Field(0.01, description="variants below this minor allele frequency are left out")
    missing: Share = Field(0.002, description="share of genotype calls made missing")
    related_share: Share = Field(0.35, description="share of people who have relatives in the cohort")
    components: Positive = Field(10, description="principal components of ancestry among the covariates")


class TraitConfig(Config):
    """How genes and environment move the brain factors."""

    loci: Positive = Field(60, description="planted loci, each in its own window")
    ncp_min: float = Field(60.0, description="smallest non-centrality N r^2 of a planted locus")
    ncp_max: float = Field(500.0, description="largest non-centrality N r^2 of a planted locus")
    pleiotropy: Share = Field(0.25, description="share of loci that move a second factor by half as much variance")
    polygenic_h2: Share = Field(0.15, description="variance of a factor from the polygenic background")
    polygenic_variants: Positive = Field(2000, description="variants that carry the polygenic background")
    null_chromosomes: NonNegative = Field(
        5, description="last chromosomes without any effect, where every hit is false"
    )
    household: Share = Field(0.05, description="variance that members of a family share")
    stratification: float = Field(0.3, description="SD of the mean shift of a factor between ancestries")


class BrainConfig(Config):
    """The simulated volumes."""

    resolution_mm: Literal[1, 2, 4, 6, 8] = Field(6, description="voxel size")
    idiosyncratic_mm: float = Field(1.0, description="SD of smooth deformations that no factor explains")
    noise: float = Field(1.0, ge=0, description="multiplies the scanner noise")
    bias_field: float = Field(0.02, ge=0, description="SD of the log of the intensity bias field")
    pose_deg: float = Field(0.5, ge=0, description="SD of the residual rotation about each axis, degrees")
    pose_mm: float = Field(0.5, ge=0, description="SD of the residual translation along each axis")


class SimulateConfig(VerbConfig):
    """A cohort with known truth: genotypes, volumes, covariates, sparse GRM."""

    out: Path = Field(description="folder to write the cohort to")
    preset: Literal["smoke", "demo", "bench"] = Field("demo", description="default sizes, which other keys override")
    seed: NonNegative = Field(1, description="the same seed gives the same bytes")
    train: NonNegative = Field(2500, description="people with only a scan, to train on")
    gwas: Positive = Field(4000, description="other people, with scan and genotypes, to test")
    traits_only: bool = Field(False, description="write no volumes; a phenotype table replaces the latents")
    genomes: GenomeConfig = GenomeConfig()
    traits: TraitConfig = TraitConfig()
    brains: BrainConfig = BrainConfig()
    workers: NonNegative = Field(2, description="processes; 0 works in this one")

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "demo": {},
        "smoke": {
            "train": 300,
            "gwas": 500,
            "genomes": {"windows_per_chromosome": 2, "variants_per_mb": 100},
            "traits": {"loci": 24, "ncp_max": 125, "polygenic_variants": 500},
            "brains": {"resolution_mm": 8},
        },
        "bench": {
            "train": 0,
            "gwas": 22_867,
            "traits_only": True,
            "genomes": {
                "windows_per_chromosome": 5,
                "window_bp": 250_000,
                "variants_per_mb": None,
                "min_maf": 0.001,
                "components": 21,  # 30 covariates with age, sex, four sites and head size and position
            },
        },
    }

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        return merge(cls.PRESETS.get(tree.get("preset", "demo"), {}), tree)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.traits.null_chromosomes >= self.genomes.chromosomes:
            raise ValueError(
                f"traits.null_chromosomes={self.traits.null_chromosomes} leaves none of the "
                f"genomes.chromosomes={self.genomes.chromosomes} for the loci; give a smaller number"
            )
        genomes, traits = self.genomes, self.traits
        if genomes.spacing_bp < genomes.window_bp:
            raise ValueError(
                f"genomes.spacing_bp={genomes.spacing_bp} is less than genomes.window_bp={genomes.window_bp}, so the "
                "windows would overlap; give a larger spacing"
            )
        if not 0 < traits.ncp_min <= traits.ncp_max <= 0.5 * self.gwas:
            raise ValueError(
                f"traits.ncp_min={traits.ncp_min:g} and traits.ncp_max={traits.ncp_max:g} must be in 0 < ncp_min <= "
                f"ncp_max <= gwas / 2 = {self.gwas / 2:g}: a locus explains the share ncp / gwas of a factor; give "
                "other ncp, or more gwas"
            )
        if traits.polygenic_h2 + traits.household > 0.8:
            raise ValueError(
                f"traits.polygenic_h2={traits.polygenic_h2:g} + traits.household={traits.household:g} is above 0.8, "
                "and loci and noise need the rest of a factor's variance; give smaller shares"
            )
        windows = (genomes.chromosomes - traits.null_chromosomes) * genomes.windows_per_chromosome
        if traits.loci > windows:
            raise ValueError(
                f"traits.loci={traits.loci} needs as many windows, and there are {windows} outside the null "
                "chromosomes; give fewer loci or more genomes.windows_per_chromosome"
            )
        return self
