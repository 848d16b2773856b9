"""Maps of found SNPs compared with what the generator does to the images with the factor that was planted there.

A true map is the mean over people of the image with the factor at +1 SD less the same person's image at -1 SD, same
scan and same noise, each image z-scored over its own brain as a network sees it.

Shapes: K factors, E effects (rows of changes of the factors), [x, y, z] voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from hpc.errors import InputError, some
from hpc.progress import Progress
from hpc.stage import read_manifest
from udipdist.cohort import seeds
from udipdist.cohort.brains import SITES, BrainModel, draw_scan
from udipdist.cohort.factors import NAMES
from udipdist.cohort.template import SHAPES, affine
from udipdist.config import BrainConfig
from udipdist.genotypes.source import GenotypeSource, open_hard_calls

PEOPLE = 40  # their mean correlates with that of 160 others by 0.90 to 0.999: a score can only be lower for it
FLANK_BP = 300_000  # a lead SNP nearer than this to a planted one has found it
DIRECTIONS = "directions.tsv"  # of `udipdist interpret perturb`: name kind snp chrom position a1
MEAN = "maps/{}_mean.nii.gz"  # of the same: how much the image changes


@dataclass(frozen=True)
class MapScore:
    """How well maps of SNPs show what was planted. `table` has a row a found locus: locus, snp, factor, correlation
    (with the true map of the planted factor, the sign from the allele), control (the same of a random direction).
    """

    table: pd.DataFrame
    correlation: float  # mean over found loci
    control: float  # mean over found loci; random directions have no sign, so it is near 0 without any meaning
    control_size: float  # mean of its absolute value


def true_maps(
    config: BrainConfig, effects_EK: np.ndarray, people: int = PEOPLE, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Mean change of the z-scored image for -1 to +1 of each row of changes of the factors (SDs, order of NAMES).

    Returns float64 [E, x, y, z], 0 outside, and the mask bool [x, y, z] where half of the people have brain.
    """
    model = BrainModel(config.resolution_mm)
    total = np.zeros((len(effects_EK), *model.shape))
    counts, brain = np.zeros(total.shape), np.zeros(model.shape)
    with threadpool_limits(1), Progress("true maps", people * len(effects_EK), "pairs") as progress:
        for i in range(people):
            rng = seeds.stream(seed, "true maps", i)
            factors_K = rng.standard_normal(len(NAMES))
            scan = draw_scan(config, i % len(SITES), float(rng.standard_normal()), rng)
            for e, effect_K in enumerate(effects_EK):
                # the same stream twice: deformations that no factor explains, and noise, cancel
                high, low = (
                    _zscored(model.render(factors_K + sign * effect_K, scan, seeds.stream(seed, "person", i)))
                    for sign in (1, -1)
                )
                both = (high != 0) & (low != 0)
                total[e] += np.where(both, high - low, 0)
                counts[e] += both
                brain += (low != 0) / len(effects_EK)
                progress.advance()
    mask = brain >= people / 2
    return np.where(mask, total / np.maximum(counts, 1), 0.0), mask


def score_maps(maps: Path, cohort: Path, people: int = PEOPLE) -> MapScore:
    """Hold the SNP maps of `udipdist interpret perturb` (out=`maps`) against the truth of the cohort.

    A SNP within FLANK_BP of a planted one has found it; its map is correlated, over the voxels where half of the people
    have brain, with the true map of the planted factor, whose sign is that of the lead's allele (by LD with the
    planted variant). Raises InputError where there is nothing to compare.
    """
    table, controls = _directions(maps)
    planted = _planted(cohort)
    source = open_hard_calls(cohort / "genotypes")
    config = _brains(cohort)
    rows, signs = [], []
    for one in table.itertuples():
        near = planted[(planted["chr"] == one.chrom) & ((planted["pos"] - one.position).abs() <= FLANK_BP)]
        if near.empty:
            continue
        truth = near.loc[(near["pos"] - one.position).abs().idxmin()]
        rows.append({"locus": truth["locus"], "snp": one.snp, "factor": truth["factor"], "name": one.name})
        signs.append(float(np.sign(truth["beta"] * _ld(source, one, truth))))
    if not rows:
        raise InputError(f"{maps}: none of its {len(table)} SNPs is within {FLANK_BP:,} bp of a planted one")
    shape, place = SHAPES[config.resolution_mm], affine(config.resolution_mm)
    found = [_read(maps / MEAN.format(row.pop("name")), shape, place) for row in rows]
    random = [_read(maps / MEAN.format(name), shape, place) for name in controls]
    factors = sorted({row["factor"] for row in rows})
    ups, mask = true_maps(config, np.stack([(np.array(NAMES) == name).astype(float) for name in factors]), people)
    for i, (row, sign, image) in enumerate(zip(rows, signs, found, strict=True)):
        truth_map = sign * ups[factors.index(row["factor"])][mask]
        row["correlation"] = _correlation(image[mask], truth_map)
        row["control"] = _correlation(random[i % len(random)][mask], truth_map) if random else float("nan")
    result = pd.DataFrame(rows)
    control = result["control"]
    return MapScore(result, *(float(v) for v in (result["correlation"].mean(), control.mean(), control.abs().mean())))


def _zscored(volume: np.ndarray) -> np.ndarray:
    brain = volume != 0
    values = volume[brain].astype(np.float64)
    result = np.zeros(volume.shape)
    result[brain] = (values - values.mean()) / values.std()
    return result


def _directions(maps: Path) -> tuple[pd.DataFrame, list[str]]:
    """The SNPs of a folder of maps, and the names of its random directions."""
    path = maps / DIRECTIONS
    if not path.exists():
        raise InputError(f"{path}: does not exist; give the folder that `udipdist interpret perturb` wrote")
    table = pd.read_csv(path, sep="\t", dtype={"name": str, "snp": str, "chrom": str})
    snps = table[table["kind"] == "snp"]
    if snps.empty:
        raise InputError(f"{path}: has no SNPs; make it with sumstats= and loci= or snp=")
    return snps.astype({"position": int}), table["name"][table["kind"] == "control"].tolist()


def _planted(cohort: Path) -> pd.DataFrame:
    """The planted variants, each once, with the factor that it was planted for."""
    path = cohort / "truth" / "loci.tsv"
    if not path.exists():
        raise InputError(f"{path}: does not exist; give the folder that `udipdist simulate` wrote")
    table = pd.read_csv(path, sep="\t", dtype={"chr": str})
    return table[table["role"] == "primary"]


def _brains(cohort: Path) -> BrainConfig:
    manifest = read_manifest(cohort)
    if manifest is None:
        raise InputError(f"{cohort}: has no manifest.json, so it is unfinished; simulate it again")
    return BrainConfig.parse(manifest["config"]["brains"])


def _ld(source: GenotypeSource, lead, truth: pd.Series) -> float:
    """Correlation of the counts of the two effect alleles. Raises InputError where a variant is not there."""
    columns = []
    for snp in (lead.snp, truth["snp"]):
        rows = np.flatnonzero((source.variants["snp"] == snp).to_numpy())
        if len(rows) != 1:
            raise InputError(f"genotypes of the cohort: {len(rows)} variants are called {snp}; one is needed")
        columns.append(source.counts(int(rows[0]), int(rows[0]) + 1)[0].astype(np.float64))
    called = (columns[0] >= 0) & (columns[1] >= 0)
    return _correlation(columns[0][called], columns[1][called])


def _read(path: Path, shape: Sequence[int], place: np.ndarray) -> np.ndarray:
    if not path.exists():
        raise InputError(f"{path}: does not exist; make the maps again with overwrite=true")
    image = nib.load(path)
    if image.shape != tuple(shape) or not np.allclose(image.affine, place, atol=1e-3):
        raise InputError(
            f"{path}: is not on the grid of the cohort's volumes ({some(shape, 3)}); give maps of its store"
        )
    return np.asarray(image.dataobj, np.float64)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])
