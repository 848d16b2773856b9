"""A folder as `udipdist sweep` would leave it, with loci and latents that are chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hpc.files import publish_json
from hpc.sweep import Trial
from hpc.sweep.trials import end, fail
from udipdist.config import SweepConfig
from udipdist.loci.fuma import TIDY_TYPES

PEOPLE = 60
VALUES = {"step": {"schedule.name": "step"}, "cosine": {"schedule.name": "cosine", "global_batch": 16}}


def config(out: Path, **keys) -> SweepConfig:
    """A configuration of a sweep in `out`."""
    return SweepConfig(out=out, store=Path("train.zarr"), genotypes=Path("genotypes"), **keys)


def begin(out: Path, **keys) -> None:
    """Only the configuration."""
    out.mkdir(parents=True)
    (out / "config.yaml").write_text(config(out, **keys).yaml())


def trial(out: Path, number: int, configuration: str, seed: int, state: str = "finished") -> Trial:
    """A trial that ended so."""
    name = f"{configuration}-seed{seed}"
    made = Trial(name, number, configuration, VALUES.get(configuration, {}), out / "trials" / name, seed)
    made.folder.mkdir(parents=True)
    made.write()
    if state == "failed":
        fail(made.folder, "RuntimeError", "out of <memory>", "run")
        (made.folder / "log.txt").write_text("line 1\nRuntimeError: out of <memory>\n")
    elif state != "unfinished":
        end(made.folder, state)
    return made


def look(
    folder: Path, epoch: int, places: list[int], seed: int | None = None, screening: bool = False, **scores
) -> Path:
    """What is known of one epoch below `folder`; `places` are on chromosome 1, in megabases."""
    place = folder / f"{epoch:04d}"
    write_loci(place / "loci", places)
    write_loci(place / "loci_multivariate", places[::2])
    tree = {"epoch": epoch, "step": 10 * epoch, "loci": len(places), "multivariate_loci": len(places[::2])}
    tree |= {"panel_hits": len(places) // 2, "val_loss": 1.0 / (epoch + 1), "ssim": 0.5, "variants": 1000}
    publish_json(place / "scores.json", tree | {"screening": screening} | scores)
    if seed is not None:
        write_latents(place / "latents.parquet", seed)
    return place


def write_loci(folder: Path, megabases: list[int]) -> None:
    """loci.parquet with a locus of 100 kb at each place of chromosome 1."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        (i, "1", mb * 1_000_000, mb * 1_000_000 + 100_000, f"rs{mb}", mb * 1_000_000, 9.0, "z000", 3, 1, 1, "", "")
        for i, mb in enumerate(megabases, 1)
    ]
    pd.DataFrame(rows, columns=list(TIDY_TYPES)).astype(TIDY_TYPES).to_parquet(folder / "loci.parquet")


def write_latents(path: Path, seed: int, people: int = PEOPLE, latents: int = 4) -> np.ndarray:
    """Random latents of P0, P1, ...; returns them."""
    values = np.random.default_rng(seed).normal(size=(people, latents)).astype(np.float32)
    ids = [f"P{i}" for i in range(people)]
    table = pd.DataFrame(values, columns=[f"z{k:03d}" for k in range(latents)])
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.concat([pd.DataFrame({"FID": ids, "IID": ids}), table], axis=1).to_parquet(path, index=False)
    return values


def whole(out: Path) -> None:
    """Two configurations with two replicates each, three looks a trial, and a trial that failed.

    The best: cosine-seed2 at epoch 3, with 5 loci.
    """
    begin(out)
    found = {
        "step-seed1": {0: [5], 2: [5, 10], 4: [5, 10, 20]},
        "step-seed2": {0: [6], 2: [5, 11], 4: [5]},
        "cosine-seed1": {0: [5], 3: [5, 10, 20, 30]},
        "cosine-seed2": {0: [6], 3: [5, 10, 20, 40, 50], 4: [5, 10, 20]},
    }
    for number, (name, epochs) in enumerate(found.items()):
        configuration, seed = name.split("-seed")
        made = trial(out, number, configuration, int(seed))
        for epoch, loci in epochs.items():
            look(made.folder / "epochs", epoch, loci, seed=10 * number + epoch)
    trial(out, 4, "step", 3, "failed")
