"""The stages that benchmarks.shared times, in a process of their own.

    python -m benchmarks.shared_stages FOLDER quick|full

Says that it is ready, then reads the name of a stage from each line, does it, and prints the seconds that it took.
What the stages read lies in FOLDER; it is made where it is missing.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

STAGES = ("train", "embed", "gwas", "ingest")
QUICK = {"epochs": 1, "subjects": 48, "people": 4000, "variants": 2048, "scans": 4}
FULL = {"epochs": 6, "subjects": 96, "people": 12_000, "variants": 8192, "scans": 16}
_COARSE, _TRAITS = 4, 128


class Stages:
    """The four stages on data in `folder`."""

    def __init__(self, folder: Path, quick: bool):
        self.folder, self.sizes = folder, QUICK if quick else FULL
        if not (folder / "made").exists():
            self._make()
            (folder / "made").touch()

    def train(self) -> None:
        """A network of the demo's size."""
        from udipdist.config import TrainConfig
        from udipdist.training.verb import train

        keys = {
            "store": self.folder / "coarse.zarr", "run_dir": self._place("run"), "epochs": self.sizes["epochs"],
            "global_batch": 8, "model": {"patch": 8, "depth": 3}, "tensorboard": False, "picture_epochs": 1000,
        }  # fmt: skip
        train(TrainConfig.parse(keys | {"overwrite": True}))

    def embed(self) -> None:
        """The latents of all subjects."""
        from udipdist.config import EmbedConfig
        from udipdist.training.embed import embed

        keys = {"run_dir": self._place("run"), "store": self.folder / "coarse.zarr", "out": self._place("z.parquet")}
        embed(EmbedConfig.parse(keys | {"overwrite": True}))

    def gwas(self) -> None:
        """All traits at once, in the mixed model."""
        from benchmarks import cohort
        from udipdist.gwas.scan.verb import gwas

        gwas(cohort.config(self.folder / "cohort", self._place("gwas"), overwrite=True))

    def ingest(self) -> None:
        """Scans of full size."""
        from benchmarks import ingesting
        from udipdist.volumes.ingest import ingest

        ingest(ingesting.config(self.folder / "scans", self._place("scans.zarr")))

    def _place(self, name: str) -> Path:
        """Where this process writes: two of them read the same data."""
        folder = self.folder / str(id(self))
        folder.mkdir(exist_ok=True)
        return folder / name

    def _make(self) -> None:
        import nibabel as nib
        import numpy as np

        from benchmarks import cohort, ingesting, scans
        from udipdist.volumes.ingest import ingest

        scans.make(self.folder / "scans", self.sizes["scans"])
        brain = np.ascontiguousarray(scans.template_brain()[::_COARSE, ::_COARSE, ::_COARSE])
        (self.folder / "coarse").mkdir()
        affine = scans.AFFINE @ np.diag([_COARSE, _COARSE, _COARSE, 1.0])
        for i in range(self.sizes["subjects"]):
            nib.save(nib.Nifti1Image(scans.volume(brain, i), affine), self.folder / "coarse" / f"{i:03d}.nii.gz")
        ingest(ingesting.config(self.folder / "coarse", self.folder / "coarse.zarr"))
        people, variants = self.sizes["people"], self.sizes["variants"]
        cohort.write(self.folder / "cohort", people, variants, _TRAITS, people // 8)


def main() -> None:
    """Do what the lines of the input say."""
    for name in ("hpc", "udipdist", "benchmarks"):
        logging.getLogger(name).setLevel(logging.ERROR)
    stages = Stages(Path(sys.argv[1]), sys.argv[2] == "quick")
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        getattr(stages, STAGES[STAGES.index(line.strip())])()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
