"""The configuration of what explains a network: what it looks at, and what its latents look like."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from udipdist.config.base import Checkpoint, VerbConfig


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


class GalleryConfig(OfNetwork):
    """Reconstructions of subjects, and latents walked from -3 to +3 standard deviations."""
