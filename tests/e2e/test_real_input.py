"""The verbs on files that no simulator of ours made: nibabel's test images, nilearn's templates, plink2's .bed."""

from __future__ import annotations

import shutil
import subprocess
from importlib import resources
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from udipdist.sumstats.store import Sumstats
from udipdist.volumes.store import VolumeStore

PLINK2 = shutil.which("plink2")


@pytest.fixture
def templates(tmp_path) -> Path:
    """The MNI templates of nilearn as a small cohort of other dtypes, byte orders, orientations and scalings."""
    folder = tmp_path / "scans"
    folder.mkdir()
    data = resources.files("nilearn.datasets") / "data"
    image = nib.load(str(data / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")).slicer[::6, ::6, ::6]
    values = np.asarray(image.dataobj)
    rng = np.random.default_rng(0)
    kinds = ("<i2", ">i2", "<f4", ">f4", "u1", "<f8")
    for index in range(12):
        noisy = np.where(
            values > 0, np.clip(values * rng.uniform(0.8, 1.1) + rng.normal(0, 3, values.shape), 1, 250), 0
        )
        dtype = np.dtype(kinds[index % len(kinds)])
        header = nib.Nifti1Header(endianness=">" if dtype.byteorder == ">" else "<")
        header.set_data_dtype(dtype)
        scan = nib.Nifti1Image(np.round(noisy).astype(dtype.newbyteorder("=")), image.affine, header)
        if index % 3 == 1:
            scan = scan.as_reoriented(nib.io_orientation(np.diag([-1, 1, 1, 1])))
        nib.save(scan, folder / f"00{index:02d}{'.nii' if index % 2 else '.nii.gz'}")
    return folder


def test_scans_of_many_kinds_become_latents(templates, tmp_path, udipdist):
    udipdist("ingest", f"volumes={templates}", "out=s.zarr", "workers=0")
    store = VolumeStore.open(tmp_path / "s.zarr")
    assert sorted(store.subjects) == [f"00{i:02d}" for i in range(12)]
    for index, subject in enumerate(store.subjects):
        path = next(templates.glob(f"{subject}.nii*"))
        original = nib.as_closest_canonical(nib.load(path))
        np.testing.assert_allclose(store.affine(index), original.affine)
        np.testing.assert_array_equal(store.to_nifti(index).get_fdata(), original.get_fdata())
    words = ["model.width=32", "model.depth=1", "model.heads=2", "model.latent=8", "epochs=1", "global_batch=4"]
    udipdist("train", "store=s.zarr", "run_dir=run", *words)
    udipdist("embed", "store=s.zarr", "run_dir=run", "out=latents.parquet")
    latents = pd.read_parquet(tmp_path / "latents.parquet")
    assert list(latents["IID"]) == store.subjects
    assert np.isfinite(latents.iloc[:, 2:].to_numpy()).all() and latents.shape[1] == 2 + 8


@pytest.mark.skipif(PLINK2 is None, reason="plink2 is not installed (Debian: apt-get install plink2)")
def test_bed_written_by_plink2(tmp_path, udipdist):
    """plink2 makes the genotypes, and its own --glm is the oracle of test=linear."""

    def plink2(*words: str) -> None:
        subprocess.run([PLINK2, *words], cwd=tmp_path, check=True, capture_output=True)

    plink2("--dummy", "300", "500", "0.0", "--seed", "3", "--make-bed", "--out", "dummy")
    people = pd.read_csv(tmp_path / "dummy.fam", sep=r"\s+", header=None, dtype=str)
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"FID": people[0], "IID": people[1], "t1": rng.normal(size=300), "t2": rng.normal(size=300)})
    covariates = table[["FID", "IID"]].assign(age=rng.uniform(45, 80, 300), sex=rng.integers(0, 2, 300))
    table.to_csv(tmp_path / "y.pheno", sep="\t", index=False)
    covariates.to_csv(tmp_path / "c.tsv", sep="\t", index=False)
    udipdist(
        "gwas", "genotypes=dummy", "phenotypes=y.pheno", "covariates=c.tsv", "test=linear", "out=g", "min_maf=0.05"
    )
    plink2(
        "--bfile", "dummy", "--pheno", "y.pheno", "--covar", "c.tsv", "--glm", "hide-covar",
        "--covar-variance-standardize",
        "--out", "peer",
    )  # fmt: skip
    ours = Sumstats.open(tmp_path / "g")
    for trait in ("t1", "t2"):
        peer = pd.read_csv(tmp_path / f"peer.{trait}.glm.linear", sep="\t")
        sign = np.where(peer["A1"].to_numpy() == ours.variants["a1"].to_numpy(), 1.0, -1.0)
        tested = np.isfinite(ours.beta(trait)) & peer["BETA"].notna().to_numpy()
        assert tested.sum() > 300
        np.testing.assert_allclose(ours.beta(trait)[tested], (sign * peer["BETA"])[tested], rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(ours.se(trait)[tested], peer["SE"][tested], rtol=2e-5)
        np.testing.assert_allclose(10.0 ** -ours.log10p(trait)[tested], peer["P"][tested], rtol=2e-4)
