"""SNP-to-brain maps against the truth: brains of known factors, a linear network, a gwas, and maps of it."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from bed_reader import to_bed

from hpc.errors import InputError
from hpc.stage import manifest_path
from udipdist.cohort import seeds
from udipdist.cohort.brains import SITES, BrainModel, draw_scan
from udipdist.cohort.factors import NAMES
from udipdist.cohort.maps import DIRECTIONS, MEAN, score_maps, true_maps
from udipdist.config import BrainConfig
from udipdist.interpret import snp
from udipdist.interpret.directions import Population, controls
from udipdist.interpret.perturb import moments_of
from udipdist.sumstats import store as sumstats

BRAINS = BrainConfig(resolution_mm=8)
PEOPLE, LATENTS = 350, 24
PLANTED = {
    "rsA": ("thick_global", 0.9),
    "rsB": ("int_wm_ap", -0.9),
    "rsC": ("ventricles", 0.9),
    "rsD": ("torque", -0.9),
}


@pytest.fixture(scope="module")
def truth() -> tuple[np.ndarray, np.ndarray]:
    factors = np.eye(len(NAMES))[[NAMES.index(name) for name in ("thick_global", "ventricles")]]
    return true_maps(BRAINS, factors, people=10)


def test_true_maps_are_where_the_factor_acts(truth):
    (thickness, ventricles), mask = truth
    assert 0.15 < mask.mean() < 0.4
    assert (thickness[~mask] == 0).all()
    model = BrainModel(8)
    places = np.indices(model.shape).reshape(3, -1).T @ model.affine[:3, :3] + model.affine[:3, 3]
    near = (np.abs(places - [0, -5, 14]) < [22, 25, 14]).all(axis=1).reshape(model.shape)  # the lateral ventricles
    assert np.abs(ventricles[near & mask]).mean() > 3 * np.abs(ventricles[~near & mask]).mean()
    # thicker cortex: less csf in the sulci, so brighter outside against the same white matter
    assert np.abs(thickness[mask]).max() > 0.2


def test_the_mean_of_few_people_is_that_of_others(truth):
    (thickness, _), mask = truth
    (others,), _ = true_maps(BRAINS, np.eye(len(NAMES))[[NAMES.index("thick_global")]], people=20, seed=9)
    assert np.corrcoef(thickness[mask], others[mask])[0, 1] > 0.8  # unrelated factors: below 0.4


class Linear(torch.nn.Module):
    """A decoder made of components [L, V]."""

    def __init__(self, components_LV: np.ndarray):
        super().__init__()
        self.components = torch.from_numpy(components_LV).float()

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        return latent @ self.components


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> tuple[Path, Path]:
    """The folders of a cohort with four planted variants, and of the maps of its gwas."""
    folder = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(1)
    counts_NM = rng.binomial(2, 0.4, (PEOPLE, 2 * len(PLANTED)))
    # the lead SNP beside each planted one is nearly the same variant, with the alleles the other way round
    flipped = rng.random((PEOPLE, len(PLANTED))) < 0.95
    counts_NM[:, 1::2] = np.where(flipped, 2 - counts_NM[:, 0::2], counts_NM[:, 1::2])
    factors_NK = rng.standard_normal((PEOPLE, len(NAMES)))
    for m, (factor, beta) in enumerate(PLANTED.values()):
        factors_NK[:, NAMES.index(factor)] += beta * (counts_NM[:, 2 * m] - 0.8)
    model = BrainModel(8)
    volumes = []
    for i in range(PEOPLE):
        own = seeds.stream(2, i)
        volumes.append(model.render(factors_NK[i], draw_scan(BRAINS, i % len(SITES), 0.0, own), own))
    values_NV = np.stack(volumes).reshape(PEOPLE, -1)
    filled = (values_NV != 0).mean(axis=0) > 0.9
    z_NV = np.where(values_NV != 0, values_NV, np.nan)[:, filled]
    z_NV = np.nan_to_num((z_NV - np.nanmean(z_NV, 1)[:, None]) / np.nanstd(z_NV, 1)[:, None])
    centred = z_NV - z_NV.mean(axis=0)
    _, _, components_LV = np.linalg.svd(centred, full_matrices=False)
    latents_NL = centred @ components_LV[:LATENTS].T
    _write_cohort(folder, counts_NM)
    gwas = _gwas(folder, counts_NM, latents_NL)
    people = Population.of(latents_NL)
    asked = snp.of_snps(gwas, [snp.Wanted(f"{name}_lead") for name in PLANTED], people) + controls(4, people, 0)
    moments, _ = moments_of(Linear(components_LV[:LATENTS]), torch.from_numpy(latents_NL[:9]).float(), asked)
    rows = []
    for direction, own in zip(asked, moments, strict=True):
        volume = np.zeros(int(np.prod(model.shape)))
        volume[filled] = own.mean.numpy()
        path = folder / "maps" / MEAN.format(direction.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(volume.reshape(model.shape).astype(np.float32), model.affine), path)
        rows.append({"name": direction.name, "kind": direction.kind} | direction.facts)
    pd.DataFrame(rows).to_csv(folder / "maps" / DIRECTIONS, sep="\t", index=False)
    return folder, folder / "maps"


def _variants() -> pd.DataFrame:
    names = [name for planted in PLANTED for name in (planted, f"{planted}_lead")]
    position = [1_000_000 + 20_000 * (i % 2) for i in range(len(names))]
    chrom = [str(1 + i // 2) for i in range(len(names))]
    return pd.DataFrame({"chrom": chrom, "position": position, "snp": names, "a1": "A", "a2": "G"})


def _write_cohort(folder: Path, counts_NM: np.ndarray) -> None:
    variants = _variants()
    people = [f"I{i}" for i in range(PEOPLE)]
    properties = {
        "fid": people, "iid": people, "sid": variants["snp"], "chromosome": variants["chrom"],
        "bp_position": variants["position"], "allele_1": variants["a1"], "allele_2": variants["a2"],
    }  # fmt: skip
    to_bed(str(folder / "genotypes.bed"), counts_NM.astype(np.int8), properties=properties, count_A1=True)
    (folder / "truth").mkdir()
    rows = [
        {
            "locus": f"L{m:03d}",
            "chr": m + 1,
            "pos": 1_000_000,
            "snp": name,
            "factor": factor,
            "beta": beta,
            "role": "primary",
        }
        for m, (name, (factor, beta)) in enumerate(PLANTED.items())
    ]
    pd.DataFrame(rows).to_csv(folder / "truth" / "loci.tsv", sep="\t", index=False)
    manifest = {"id": "simulate-1", "config": {"brains": BRAINS.model_dump(mode="json")}}
    manifest_path(folder).write_text(json.dumps(manifest))


def _gwas(folder: Path, counts_NM: np.ndarray, latents_NL: np.ndarray) -> Path:
    """One regression a variant and latent."""
    out = folder / "gwas"
    out.mkdir()
    x_NM, y_NL = counts_NM - counts_NM.mean(axis=0), latents_NL - latents_NL.mean(axis=0)
    beta_ML = (x_NM.T @ y_NL) / (x_NM**2).sum(axis=0)[:, None]
    ones = np.ones(len(beta_ML))
    sumstats.create(out / sumstats.STORE, _variants(), [f"z{k:03d}" for k in range(LATENTS)], 8, {"df": None})
    block = sumstats.SumstatsBlock(beta_ML, np.ones(beta_ML.shape), ones * PEOPLE, ones * 0.4, ones * 9, ones, ones * 9)
    sumstats.write(out / sumstats.STORE, 0, block)
    manifest_path(out).write_text(json.dumps({"id": "gwas-1", "config": {"normalise": "none"}}))
    return out


def test_maps_of_found_snps_show_what_was_planted_and_random_directions_do_not(cohort):
    folder, maps = cohort
    score = score_maps(maps, folder, people=10)
    assert sorted(score.table["factor"]) == sorted(factor for factor, _ in PLANTED.values())
    assert score.correlation > 0.5
    assert score.table["correlation"].min() > 0.3  # also where the allele, and its effect, are the other way round
    assert abs(score.control) < 0.4 and score.control_size < 0.5 < score.correlation


def test_what_cannot_be_compared_is_refused(cohort, tmp_path):
    folder, maps = cohort
    with pytest.raises(InputError, match="give the folder that `udipdist interpret perturb` wrote"):
        score_maps(tmp_path, folder)
    table = pd.read_csv(maps / DIRECTIONS, sep="\t", dtype={"chrom": str})
    table[table["kind"] == "control"].to_csv(tmp_path / DIRECTIONS, sep="\t", index=False)
    with pytest.raises(InputError, match="has no SNPs"):
        score_maps(tmp_path, folder)
    table.assign(position=9_000_000).to_csv(tmp_path / DIRECTIONS, sep="\t", index=False)
    with pytest.raises(InputError, match="none of its 4 SNPs is within 300,000 bp of a planted one"):
        score_maps(tmp_path, folder)
    table.to_csv(tmp_path / DIRECTIONS, sep="\t", index=False)
    with pytest.raises(InputError, match="make the maps again"):
        score_maps(tmp_path, folder, people=2)
    (tmp_path / "maps").mkdir()
    for name in table["name"]:
        nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), tmp_path / MEAN.format(name))
    with pytest.raises(InputError, match="is not on the grid"):
        score_maps(tmp_path, folder, people=2)
