"""Consensus phenotypes: the latents of all replicates of a configuration, reduced to what they have in common.

The result is a table of latents like any other, so it goes through the same association.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from pydantic import Field

from hpc.config import Config
from hpc.errors import ConfigError
from hpc.files import remove
from hpc.stage import is_current, stage
from udipdist.analysis.consensus import COMPONENTS, METHODS, reduce
from udipdist.analysis.similarity import Latents, shared_people
from udipdist.latents import latents_table, write_latents
from udipdist.sweep.folder import SweepFolder

log = logging.getLogger(__name__)


class ConsensusConfig(Config):
    """What a consensus is made from; it has no verb of its own."""

    latents: tuple[Path, ...] = Field(description="a table of each replicate")
    method: Literal["pca", "maxvar"]
    components: int = COMPONENTS


def make(out: Path, configuration: str, method: str = "pca", components: int = COMPONENTS) -> Path:
    """Write `out`/consensus/CONFIGURATION/latents.parquet (FID IID z000 .. float32) and a .pheno beside it.

    Each finished replicate gives the latents of the epoch that its objective chose. Up to date, nothing is done; made
    anew, what stood in the folder (scores, loci) goes. Returns the table's path. Raises ConfigError for an unknown
    method or configuration, or where there are fewer than two replicates.
    """
    if method not in METHODS:
        raise ConfigError(f"consensus={method}: is not a method; the methods are {', '.join(METHODS)}")
    sweep = SweepFolder.open(out)
    looks = [look for look in sweep.chosen() if look.trial.configuration == configuration]
    if len(looks) < 2:
        raise ConfigError(
            f"configuration {configuration}: has {len(looks)} finished replicates in {out}, and a consensus needs two; "
            "give more replicates, or leave the consensus out"
        )
    tables = tuple(look.latents for look in sorted(looks, key=lambda look: look.trial.name))
    config = ConsensusConfig(latents=tables, method=method, components=components)
    folder = Path(out) / "consensus" / configuration
    place = folder / "latents.parquet"
    if is_current("consensus", place, config):
        return place
    remove(folder)
    inputs = {f"latents {look.trial.name}": look.latents for look in looks}
    with stage("consensus", place, config, inputs) as current:
        replicates = shared_people([Latents.read(path) for path in tables])
        scores_NC, shared_C = reduce([one.values_NP for one in replicates], method, components)
        people = zip(*(text.split("\t") for text in replicates[0].ids), strict=True)
        write_latents(latents_table(*people, scores_NC), place)
        current.note(
            subjects=len(scores_NC), latents=scores_NC.shape[1], replicates=len(tables), shared=shared_C.tolist()
        )
    return place
