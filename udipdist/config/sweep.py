"""The configuration of sweeps: many trainings, scored by the loci that their latents discover."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from udipdist.config.base import NonNegative, VerbConfig


class SweepConfig(VerbConfig):
    """Train many configurations and replicates, and score each by the loci it discovers."""

    out: Path = Field(description="folder of the sweep")


class SweepDemoConfig(VerbConfig):
    """A sweep on the simulated cohort, whose planted loci are known."""

    out: Path = Field(Path("sweep-demo"), description="folder to write")
    seed: NonNegative = Field(1, description="of the cohort and of the networks")
