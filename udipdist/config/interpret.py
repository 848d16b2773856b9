"""The configuration of what explains a network: what it looks at, and what its latents look like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat

from udipdist.config.base import Checkpoint, NonNegative, Positive, VerbConfig


class OfNetwork(VerbConfig):
    """What every look at a trained network needs."""

    run_dir: Path = Field(description="folder of the training run")
    checkpoint: Checkpoint = Field("last", description="last, best, or the number of an optimiser step (0: untrained)")
    store: Path = Field(description="volume store of the subjects to look at")
    modality: str | None = Field(None, description="which images of a store that holds several, as T1")
    out: Path = Field(description="folder to write")


class AttentionConfig(OfNetwork):
    """Where a transformer looks: attention maps, sparsity, spotlight tokens, symmetry; as NIfTI and pictures."""


class PerturbConfig(OfNetwork):
    """What a latent direction looks like in the brain: subjects decoded as they are, and shifted along it."""


class SaliencyConfig(OfNetwork):
    """Which voxels of the input a latent depends on, beside the same maps of a network with random weights."""

    methods: list[Literal["integrated_gradients", "gradient_x_input", "occlusion"]] = Field(
        ["integrated_gradients", "gradient_x_input", "occlusion"], min_length=1, description="maps to make"
    )
    latents: list[NonNegative] = Field([], description="numbers of the latents to explain, as [0, 7]; none: see top")
    top: Positive = Field(4, description="without latents: how many, those that vary most over the subjects")
    subjects: Annotated[int, Field(ge=2)] = Field(16, description="subjects to look at, drawn by seed")
    steps: Annotated[int, Field(ge=2)] = Field(32, description="integrated gradients: points of the path")
    window_mm: PositiveFloat = Field(24.0, description="occlusion: edge of the cubes that are replaced [mm]")
    shifts: Positive = Field(1, description="occlusion: grids of cubes an axis, evenly shifted, that are averaged")
    random_networks: NonNegative = Field(1, description="sanity check: networks with random weights; 0: no check")
    seed: int = Field(0, description="of the draw of subjects and the random weights")
    batch: Positive = Field(8, description="subjects at once; changes the last digits only")
    operational: ClassVar[frozenset[str]] = OfNetwork.operational | {"batch"}


class GalleryConfig(OfNetwork):
    """Reconstructions of subjects, and latents walked from -3 to +3 standard deviations."""

    subjects: Positive = Field(6, description="subjects to show, from the best reconstructed to the worst")
    sample: Annotated[int, Field(ge=2)] = Field(256, description="subjects for means, SDs and errors, drawn by seed")
    basis: Literal["latents", "components"] = Field(
        "latents", description="what to walk along: single latents, or the principal components of all of them"
    )
    latents: list[NonNegative] = Field([], description="numbers of the latents or components to walk; none: see top")
    top: Positive = Field(6, description="without latents: how many, those that vary most over the sample")
    reach: PositiveFloat = Field(3.0, description="walk from -reach to +reach standard deviations")
    steps: Annotated[int, Field(ge=2)] = Field(7, description="brains of one walk")
    seed: int = Field(0, description="of the draw of the sample")
    batch: Positive = Field(16, description="subjects at once; changes the last digits only")
    operational: ClassVar[frozenset[str]] = OfNetwork.operational | {"batch"}
