"""A tiny cohort for examples and tests: 200 people, 300 variants, three traits, and 24 images of a few voxels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

N_PEOPLE, N_VARIANTS, N_IMAGES, SHAPE = 200, 300, 24, (10, 12, 9)
EDGE_MM = 16.0
PLANTED = 120  # the variant that acts on z000


@dataclass(frozen=True)
class Example:
    """Where the files of the cohort lie, and its tables.

    `genotypes` is a prefix of .bed/.bim/.fam, `scans` a folder of NIfTI images. `phenotypes` has FID IID z000 z001 z002
    and `covariates` FID IID age sex. Variant rs120 acts on z000; nothing else is related to anything.
    """

    folder: Path
    genotypes: Path
    scans: Path
    phenotypes: pd.DataFrame
    covariates: pd.DataFrame


def make(folder: Path, seed: int = 1) -> Example:
    """Write the cohort below `folder`, the same bytes for a seed. Takes a fraction of a second."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    ids = pd.DataFrame({"FID": [f"F{i:03d}" for i in range(N_PEOPLE)], "IID": [f"I{i:03d}" for i in range(N_PEOPLE)]})
    copies_MN = rng.binomial(2, rng.uniform(0.1, 0.5, (N_VARIANTS, 1)), (N_VARIANTS, N_PEOPLE))
    age, sex = rng.uniform(45, 80, N_PEOPLE).round(1), rng.integers(0, 2, N_PEOPLE)
    traits = pd.DataFrame(rng.standard_normal((N_PEOPLE, 3)), columns=["z000", "z001", "z002"])
    traits["z000"] += 1.2 * copies_MN[PLANTED] + 0.02 * age
    _write_genotypes(folder / "genotypes", copies_MN, ids)
    _write_scans(folder / "scans", ids["IID"].tolist()[:N_IMAGES], rng)
    covariates = ids.assign(age=age, sex=sex)
    return Example(folder, folder / "genotypes", folder / "scans", pd.concat([ids, traits], axis=1), covariates)


def _write_genotypes(prefix: Path, copies_MN: np.ndarray, ids: pd.DataFrame) -> None:
    """PLINK 1: two bits a person, the first person lowest; 0, 2 and 3 stand for 2, 1 and 0 copies of A1."""
    code_MN = np.array([3, 2, 0], np.uint8)[copies_MN]
    packed_MQ = (code_MN.reshape(len(code_MN), -1, 4) << np.array([0, 2, 4, 6], np.uint8)).sum(axis=2, dtype=np.uint8)
    prefix.with_suffix(".bed").write_bytes(bytes([0x6C, 0x1B, 0x01]) + packed_MQ.tobytes())
    lines = [f"{1 + i // 150}\trs{i}\t0\t{10_000 * (1 + i % 150)}\tA\tG\n" for i in range(len(code_MN))]
    prefix.with_suffix(".bim").write_text("".join(lines), encoding="utf-8")
    lines = [f"{fid}\t{iid}\t0\t0\t0\t-9\n" for fid, iid in ids.itertuples(index=False)]
    prefix.with_suffix(".fam").write_text("".join(lines), encoding="utf-8")


def _write_scans(folder: Path, names: list[str], rng: np.random.Generator) -> None:
    """Balls of differing size and texture, background exactly 0, in voxels of 16 mm."""
    import nibabel as nib

    folder.mkdir(exist_ok=True)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    distance = np.linalg.norm(grid, axis=0)
    for name in names:
        texture = 100 + 20 * np.tensordot(rng.standard_normal(3), grid, 1) + 3 * rng.standard_normal(SHAPE)
        values = (distance < 0.85 + 0.1 * rng.standard_normal()) * texture
        nib.save(
            nib.Nifti1Image(np.rint(values).astype(np.int16), np.diag([EDGE_MM] * 3 + [1.0])),
            folder / f"{name}.nii.gz",
        )
