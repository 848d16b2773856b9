"""The configuration of what explains a network: what it looks at, and what its latents look like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, field_validator, model_validator

from hpc.declared import Files
from udipdist.config.base import OTHER_IMAGES, Draws, NonNegative, OtherImages, Positive, VerbConfig


class OfNetwork(VerbConfig):
    """What every look at a trained network needs."""

    run_dir: Path = Field(description="folder of the training run")
    checkpoint: str = Field("last", description="last, best, or the number of an optimiser step (0: untrained)")
    store: Path = Field(description="volume store of the subjects to look at")
    modality: str | None = Field(None, description="which images of a store that holds several, as T1")
    out: Path = Field(description="folder to write")
    allow: OtherImages = Field((), description=OTHER_IMAGES)
    operational: ClassVar[frozenset[str]] = VerbConfig.operational | {"allow"}


class AttentionConfig(OfNetwork):
    """Where a transformer looks: attention maps, sparsity, spotlight tokens, symmetry; as NIfTI and pictures."""

    subjects: NonNegative = Field(200, description="subjects to look at, drawn by seed; 0: all")
    layers: list[Positive] = Field([], description="layers to look at, from 1, as [1, 12]; empty: all")
    layer: Positive = Field(1, description="the layer whose maps and correlations are kept whole and drawn")
    heads: list[Positive] = Field([], description="heads of that layer whose maps are kept, as [1, 8]; empty: all")
    embedding: Literal["patch", "layer"] = Field(
        "patch", description="what is correlated: patch: embedded patches, without position; layer: what a layer reads"
    )
    low: float = Field(
        0.5, gt=0, le=1, description="spotlight: mean correlation with the others below this times the median token's"
    )
    high: float = Field(2.0, gt=0, description="spotlight: attention received, at least this times a fair share")
    runs: list[Path] = Field([], description="runs with other seeds, to compare their spotlights with those of run_dir")
    permutations: Draws = Field(999, gt=0, description="random pairings for the p-values of the symmetry")
    rollout: bool = Field(False, description="also follow attention through all layers (Abnar and Zuidema 2020)")
    seed: NonNegative = Field(0, description="of the draw of subjects and the random pairings")
    batch: Positive = Field(8, description="subjects at once; changes the last digits only")
    operational: ClassVar[frozenset[str]] = OfNetwork.operational | {"batch"}

    @field_validator("layers", "heads", "runs", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return value if isinstance(value, list | tuple) else [value]


class PerturbConfig(OfNetwork):
    """What a latent direction looks like in the brain: subjects decoded unchanged, and shifted along it."""

    latents: tuple[NonNegative, ...] | Literal["all"] | None = Field(
        None,
        description="latents by number, as [0, 17], all, or [] for none; default: all, if no other direction is given",
    )
    directions: Path | None = Field(
        None, description="tab-separated table of changes of the latents: name and one column per latent (z000 ...)"
    )
    probe: Path | None = Field(
        None, description="the same for weights of a score; shows what goes with the score (Haufe et al. 2014)"
    )
    sumstats: Path | None = Field(None, description="folder of a gwas of this network's latents; needed for SNPs")
    snp: tuple[str, ...] = Field((), description="SNPs to show, by their ids in the gwas, as [rs1, rs2]")
    loci: Path | None = Field(None, description="folder that loci wrote: the lead SNP of every locus is shown")
    controls: NonNegative = Field(0, description="additional random directions with the covariance of the latents")
    population: Path | None = Field(
        None, description="latents table of the cohort, for SD and covariance; default those of the subjects looked at"
    )
    shift: float = Field(1.0, gt=0, description="how far, in standard deviations along the direction")
    sides: Literal["plus", "minus", "both"] = Field(
        "plus", description="plus, minus: shifted up or down, minus unchanged; both: up minus down"
    )
    subjects: Annotated[int, Field(ge=2)] = Field(500, description="subjects to look at, drawn by seed")
    smooth_mm: float = Field(3.0, ge=0, description="SD of the smoothing of |t|")
    atlas: Annotated[str, Files()] = Field(
        "seitzman_2018",
        description="seitzman_2018 or dosenbach_2010, which nilearn ships; a NIfTI image of labels in MNI mm; or none",
    )
    atlas_labels: Path | None = Field(None, description="table with index and name of the image's labels")
    rank: Literal["t", "mean"] = Field(
        "t", description="regions are ranked by smoothed |t|, or by how much the image changes, smoothed"
    )
    permutations: Positive | None = Field(
        None, description="surrogate maps for the p-value of a region; default: 1000, or 20 a region where that is more"
    )
    seed: NonNegative = Field(0, description="of the draw of subjects, controls and permutations")
    batch: Positive = Field(16, description="subjects decoded at once")
    at_once: Positive = Field(8, description="directions decoded at once; memory grows with it")
    operational: ClassVar[frozenset[str]] = OfNetwork.operational | {"batch"}

    @field_validator("latents", "snp", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return value if value is None or isinstance(value, list | tuple) or value == "all" else (value,)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.snp or self.loci is not None) and self.sumstats is None:
            raise ValueError("sumstats: is needed to show SNPs; give sumstats= the folder that gwas wrote")
        if self.sumstats is not None and not self.snp and self.loci is None:
            raise ValueError("sumstats: needs SNPs to show; give loci=FOLDER for the lead SNPs, or snp=[rs1, rs2]")
        if self.latents == () and not (self.directions or self.probe or self.sumstats or self.controls):
            raise ValueError("latents: [] shows no latent, and nothing else is asked for; give latents=all or a number")
        if self.atlas_labels is not None and self.atlas in ("none", "seitzman_2018", "dosenbach_2010"):
            raise ValueError(f"atlas_labels: has no effect with atlas={self.atlas}; leave it out")
        return self


class SaliencyConfig(OfNetwork):
    """Which voxels of the input a latent depends on, with the same maps for random weights as a check."""

    methods: list[Literal["integrated_gradients", "gradient_x_input", "occlusion"]] = Field(
        ["integrated_gradients", "gradient_x_input", "occlusion"], min_length=1, description="maps to make"
    )
    latents: list[NonNegative] = Field([], description="numbers of the latents to explain, as [0, 7]; empty: see top")
    top: Positive = Field(4, description="without latents=: how many of the latents that vary most over the subjects")
    subjects: Annotated[int, Field(ge=2)] = Field(16, description="subjects to look at, drawn by seed")
    steps: Annotated[int, Field(ge=2)] = Field(32, description="integrated gradients: points of the path")
    window_mm: PositiveFloat = Field(24.0, description="occlusion: edge of the cubes that are replaced [mm]")
    shifts: Positive = Field(1, description="occlusion: evenly shifted grids of cubes per axis that are averaged")
    random_networks: NonNegative = Field(1, description="sanity check: networks with random weights; 0: no check")
    seed: NonNegative = Field(0, description="of the draw of subjects and the random weights")
    batch: Positive = Field(8, description="subjects at once; changes the last digits only")
    operational: ClassVar[frozenset[str]] = OfNetwork.operational | {"batch"}


class GalleryConfig(OfNetwork):
    """Reconstructions of subjects, and latents walked from -3 to +3 standard deviations."""

    subjects: Positive = Field(6, description="subjects to show, from the best reconstructed to the worst")
    sample: Annotated[int, Field(ge=2)] = Field(256, description="subjects for means, SDs and errors, drawn by seed")
    basis: Literal["latents", "components"] = Field(
        "latents", description="what to walk along: single latents, or the principal components of all of them"
    )
    latents: list[NonNegative] = Field([], description="numbers of the latents or components to walk; empty: see top")
    top: Positive = Field(6, description="without latents=: how many of those that vary most over the sample")
    reach: PositiveFloat = Field(3.0, description="walk from -reach to +reach standard deviations")
    steps: Annotated[int, Field(ge=2)] = Field(7, description="brains per walk")
    seed: NonNegative = Field(0, description="of the draw of the sample")
    batch: Positive = Field(16, description="subjects at once; changes the last digits only")
    operational: ClassVar[frozenset[str]] = OfNetwork.operational | {"batch"}
