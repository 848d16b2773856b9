"""The configuration of a comparison: several networks trained on one cohort, held against each other by their loci."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from udipdist.config.analyses import LOCI_FOLDERS
from udipdist.config.whole import RunConfig

_NAME = r"[A-Za-z0-9][\w.+-]*"


class CompareConfig(RunConfig):
    """The whole pipeline for several networks on one cohort: their loci, novel loci, and how far they agree."""

    networks: dict[str, dict[str, Any]] = Field(
        description="name -> keys of train, over those of stages.train, as {ViT: {}, CNN: {model: {name: cnn_ae}}}; "
        "the first is that of the run, each other has a folder networks/NAME"
    )
    truth: Path | None = Field(
        None, description="folder truth/ of a simulated cohort: planted loci are counted, and false ones"
    )

    @field_validator("networks")
    @classmethod
    def _several_with_names(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if len(value) < 2:
            raise ValueError("needs two networks or more; as {ViT: {}, CNN: {model: {name: cnn_ae}}}")
        for name in value:
            if not re.fullmatch(_NAME, name) or name.lower() in LOCI_FOLDERS.values():
                raise ValueError(f"{name!r}: is no name for a folder; use letters, digits, . + - and _")
        return value
