"""How fast volumes get into the store and out of it: `python -m benchmarks.volumes [--quick]`.

Volumes of 182 x 218 x 182 int16 are made from the MNI152 template that nilearn ships, with smooth contrast and noise
inside the brain. Files and store lie in the page cache. Each time is the smallest of several rounds over all volumes,
in one process; the last line is JSON with ratios, which mean something on any machine.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from nilearn.datasets import load_mni152_template

from udipdist.config import IngestConfig
from udipdist.volumes.ingest import ingest
from udipdist.volumes.store import VolumeStore


def make_volumes(folder: Path, n: int) -> list[Path]:
    """n brain-extracted T1-like volumes as .nii.gz."""
    template = load_mni152_template(resolution=1)
    brain = np.asarray(template.dataobj)[7:189, 8:226, 0:182]
    brain = brain / brain.max() * 900
    paths = []
    for i in range(n):
        rng = np.random.default_rng(i)
        gain = 1 + 0.1 * np.sin(np.linspace(0, 3, 182) + rng.normal())[:, None, None]
        values = np.where(brain > 0, np.maximum(brain * gain + rng.normal(0, 20, brain.shape), 1), 0)
        paths.append(folder / f"{i:04d}.nii.gz")
        nib.save(nib.Nifti1Image(values.astype(np.int16), template.affine), paths[-1])
    return paths


def read_as_published(path: Path) -> np.ndarray:
    """What the published code does for each sample of each epoch: get_fdata, and a boolean pass each for mean,
    deviation and the z-score."""
    data = nib.load(path).get_fdata()
    mean, std = data[data != 0].mean(), data[data != 0].std()
    data[data != 0] = (data[data != 0] - mean) / std
    return data.astype(np.float32)


def best(rounds: int, works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The smallest time of each work in seconds. A round does each once, so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if turn:  # the first round compiles and fills the page cache
                times[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in times.items()}


def measure(folder: Path, n: int, rounds: int) -> dict[str, float]:
    """Milliseconds a volume of each way."""
    (folder / "scans").mkdir()
    paths = make_volumes(folder / "scans", n)
    packed = [path.read_bytes() for path in paths]
    config = IngestConfig(volumes=folder / "scans", out=folder / "store.zarr", overwrite=True, workers=0)
    ingest(config)
    store = VolumeStore.open(config.out)
    batch, other = store.normalised([0]), store.normalised([0])
    np.testing.assert_allclose(batch[0], read_as_published(paths[0]), rtol=1e-5, atol=1e-6)
    seconds = best(
        rounds,
        {
            "inflate the .nii.gz (floor of ingest)": lambda: [gzip.decompress(data) for data in packed],
            "ingest": lambda: ingest(config),
            "read as the published code": lambda: [read_as_published(path) for path in paths],
            "store.raw": lambda: [store.raw(i) for i in range(n)],
            "store.normalised": lambda: [store.normalised([i]) for i in range(n)],
            "store.normalised(out=)": lambda: [store.normalised([i], batch) for i in range(n)],
            "memcpy of a float32 volume (floor of reading)": lambda: [np.copyto(other, batch) for _ in paths],
        },
    )
    return {name: 1000 * value / n for name, value in seconds.items()}


def main() -> None:
    """Measure, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 volumes, 1 round")
    quick = parser.parse_args().quick
    logging.getLogger("udipdist").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        times = measure(Path(folder), 4 if quick else 12, 1 if quick else 3)
    for name, milliseconds in times.items():
        print(f"{name:48s} {milliseconds:9.2f} ms a volume")
    ratios = {
        "ingest_over_inflate": times["ingest"] / times["inflate the .nii.gz (floor of ingest)"],
        "read_speedup_over_seed": times["read as the published code"] / times["store.normalised"],
        "read_over_memcpy": times["store.normalised(out=)"] / times["memcpy of a float32 volume (floor of reading)"],
    }
    print(json.dumps({name: round(value, 3) for name, value in ratios.items()}))


if __name__ == "__main__":
    main()
