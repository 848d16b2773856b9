"""The best trial of a sweep as commands that repeat it without the sweep."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from pyarrow import parquet

from hpc.config import Config
from hpc.files import publish_text
from udipdist.analysis.similarity import IDS
from udipdist.config import SweepConfig
from udipdist.config.analyses import MINP, MULTIVARIATE
from udipdist.sweep import configs
from udipdist.sweep.folder import Look, SweepFolder

SCRIPT, RECIPES = "best.sh", "best"
_HEAD = """#!/bin/sh
# {trial} at epoch {epoch} (step {step}): {scores}.
# {values}
# Repeats that trial and its association without the sweep: sh best.sh [FOLDER]
set -eu
out=${{1:-reproduced}}
mkdir -p "$out"
out=$(cd "$out" && pwd)
python=${{PYTHON:-{python}}}
cd {here}
"""


_DROP = "import sys, pandas as p; f, *c = sys.argv[1:]; p.read_parquet(f).drop(columns=c).to_parquet(f, index=False)"


def look(sweep: SweepFolder) -> Look | None:
    """The look that is worth most, of the full pass where that has been made; None where none has a score."""
    return sweep.best(sweep.trained("full" if "full" in sweep.passes() else None))


def write(sweep: SweepFolder, best: Look) -> None:
    """Write best.sh, and the configuration of each stage into best/. Raises ConfigError where a key is wrong."""
    config = SweepConfig.load(sweep.path / "config.yaml")
    recipes = sweep.path.absolute() / RECIPES
    scores = ", ".join(f"{name} {value:.6g}" for name, value in best.scores.items() if value is not None)
    values = {**best.trial.values, "seed": best.trial.seed}
    lines = [
        _HEAD.format(
            trial=best.trial.name, epoch=best.epoch, step=best.step, scores=scores,
            values=" ".join(f"{key}={value}" for key, value in values.items()).replace("\n", " "),
            python=shlex.quote(sys.executable), here=shlex.quote(os.getcwd()),
        )
    ]  # fmt: skip
    if best.trial.parent is not None:
        lines.append(
            f"# It took over the state of {best.trial.parent.name} during the sweep, which this does not: the training "
            "has its values from the start,\n# and its loci will differ."
        )
    if config.ray.nodes > 1:
        lines.append(f"# It ran on {config.ray.nodes} nodes; start train there as launch/README.md says.")
    for name, (verb, made, words) in _steps(config, best).items():
        path = recipes / f"{name}.yaml"
        publish_text(path, made.yaml())
        launcher = ""
        if verb == "train" and config.ray.ranks > 1:
            launcher = f"hpc.torchrun --standalone --nproc-per-node={config.ray.ranks} -m "
        lines.append(f'"$python" -m {launcher}udipdist {verb} {shlex.quote(str(path))} {words}')
        if verb == "embed" and best.collapsed:
            lines.append(f'"$python" -c {shlex.quote(_DROP)} "$out/latents.parquet" {shlex.join(best.collapsed)}')
    publish_text(sweep.path / SCRIPT, "\n".join(lines) + "\n")


def _steps(config: SweepConfig, best: Look) -> dict[str, tuple[str, Config, str]]:
    """Name of a recipe -> verb, configuration, and the places that the script gives."""
    there = Path("reproduced")
    listed = config.out / "association" / "screened_variants.txt" if best.screening else None
    latents, gwas = there / "latents.parquet", there / "gwas"
    loci = configs.loci_config(config, gwas, MINP, there / "loci")
    if best.collapsed and loci.tests is None:  # which count as tests
        loci = loci.model_copy(update={"tests": len(parquet.read_schema(best.latents)) - len(IDS)})
    return {
        "train": ("train", configs.train_config(config, best.trial), 'run_dir="$out/train"'),
        "embed": (
            "embed", configs.embed_config(config, there / "train", best.step, latents),
            'run_dir="$out/train" out="$out/latents.parquet"',
        ),
        "gwas": (
            "gwas", configs.gwas_config(config, (latents,), gwas, listed),
            'phenotypes="$out/latents.parquet" out="$out/gwas"',
        ),
        "loci": (
            "loci", loci, 'sumstats="$out/gwas" out="$out/loci"',
        ),
        "loci_multivariate": (
            "loci", configs.loci_config(config, gwas, MULTIVARIATE, there / "loci_multivariate"),
            'sumstats="$out/gwas" out="$out/loci_multivariate"',
        ),
        "panel": ("panel", configs.panel_config(config, there / "loci", there / "panel"),
                  'loci="$out/loci" out="$out/panel"'),
    }  # fmt: skip
