"""The configuration of a comparison: several networks trained on one cohort, compared by their loci."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from hpc.declared import KeysOf
from udipdist.config.analyses import LOCI_FOLDERS
from udipdist.config.imaging import TrainConfig
from udipdist.config.whole import RunConfig

_NAME = r"[A-Za-z0-9][\w.+-]*"


class CompareConfig(RunConfig):
    """The whole pipeline for several networks on one cohort: their loci, novel loci, and how well they agree."""

    networks: dict[str, Annotated[dict[str, Any], KeysOf(TrainConfig)]] = Field(
        description="name -> keys of train, which override stages.train, as {ViT: {}, CNN: {model: {name: cnn_ae}}}; "
        "the first network is the run itself; each other one has a folder networks/NAME"
    )
    truth: Path | None = Field(
        None, description="folder truth/ of a simulated cohort: planted and false loci are counted"
    )

    @field_validator("networks")
    @classmethod
    def _several_with_names(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if len(value) < 2:
            raise ValueError("needs two networks or more; as {ViT: {}, CNN: {model: {name: cnn_ae}}}")
        for name in value:
            if not re.fullmatch(_NAME, name) or name.lower() in LOCI_FOLDERS.values():
                raise ValueError(f"{name!r}: cannot be the name of a folder; use letters, digits, . + - and _")
        return value
