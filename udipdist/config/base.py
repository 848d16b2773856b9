"""What the configurations of all verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from hpc.config import Config
from hpc.declared import Files

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
_FEWEST_DRAWS = 19  # with k draws no p is below 1 / (1 + k)


def _enough(draws: int) -> int:
    if 0 < draws < _FEWEST_DRAWS:
        raise ValueError(f"with {draws} no p could be as small as 0.05; type {_FEWEST_DRAWS} or more")
    return draws


Draws = Annotated[int, Field(ge=0), AfterValidator(_enough)]  # permutations and the like, of which p is a share
Probability = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Volumes = Annotated[str, Files(), BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)]
OtherImages = Annotated[
    tuple[Literal["voxels", "origin", "modality", "kind"], ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
]
OTHER_IMAGES = (
    "in what the images may differ from those of the training: voxels (their size), origin (the place in space), "
    "modality (the name), kind (what their mean looks like)"
)


class VerbConfig(Config):
    """Keys that every verb has."""

    overwrite: bool = Field(False, description="replace an output that exists")
