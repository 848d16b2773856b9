"""The latent direction of a SNP, from its effects on the latents that a gwas has tested one by one.

Let b_p be the effect of an allele on latent z_p (in its own unit; where gwas has taken normal scores, in standard
deviations, so b_p is multiplied by the latent's SD). Each latent was tested alone, so b is how the mean of z moves with
the allele, E[z | g] = m + g b: a change of the latents, and no weights of a score. No inverse of their covariance S is
needed: the score that tells the allele best has the weights w = S^-1 b (Fisher's discriminant), and what goes with it,
S w, is b again. One SD along b is scaled by S as for every change (see `directions`); the fact `allele_sd` says how
many of these SDs one allele is.

The error of b has the covariance of the latents divided by N 2f(1-f), so a SNP without effect looks like a random
person's difference from the mean; `controls` draws such directions. In the metric of these errors the squared length of
b is the chi2 of the joint test, of which errors alone make q, the number of latents: the fact `reliability`,
(chi2 - q) / chi2, is the share of it that is not error. It is the squared cosine to expect between the direction and
the true one: of 128 latents 0.45 where the joint p is 5e-8.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.errors import InputError, some
from hpc.stage import read_manifest
from udipdist.config.analyses import MULTIVARIATE, OVER_TRAITS
from udipdist.interpret.directions import Direction, Population, of_change
from udipdist.latents import latent_names
from udipdist.loci.fuma import TIDY
from udipdist.sumstats.pvalues import chi2_from_log10p
from udipdist.sumstats.store import Sumstats

MOST_SNPS = 10_000  # of a table of loci: more is a mistake, and would take days


@dataclass(frozen=True)
class Wanted:
    """A SNP to look at; `locus` is its number in a loci folder, 0 for one that was named."""

    snp: str
    locus: int = 0
    chrom: str | None = None
    position: int | None = None

    def __str__(self) -> str:
        return self.snp


def lead_snps(folder: Path) -> list[Wanted]:
    """The lead SNP of every locus of a loci folder. Raises InputError where it is none, or has no loci."""
    path = folder / TIDY
    if not path.exists():
        raise InputError(f"{path}: does not exist; give loci= the folder that `udipdist loci` wrote")
    table = pd.read_parquet(path, columns=["locus", "chrom", "lead_snp", "lead_position"])
    if not 0 < len(table) <= MOST_SNPS:
        raise InputError(f"{path}: has {len(table):,} loci; 1 to {MOST_SNPS:,} can be looked at, or name some by snp=")
    return [
        Wanted(str(row.lead_snp), int(row.locus), str(row.chrom), int(row.lead_position)) for row in table.itertuples()
    ]


def of_snps(folder: Path, wanted: list[Wanted], people: Population) -> list[Direction]:
    """Directions of SNPs by a gwas of the network's latents.

    Raises InputError where a SNP is not there or was not tested, or the traits are not the latents.
    """
    sumstats = Sumstats.open(folder)
    columns = [sumstats.trait_index(name) for name in _traits(sumstats, len(people.sd_L))]
    scale_L = people.sd_L if _in_normal_scores(folder) else np.ones(len(people.sd_L))
    rows = _rows(sumstats, wanted)
    directions = []
    for one, row in zip(wanted, rows, strict=True):
        effect_L = sumstats.values("beta", row, row + 1)[0, columns].astype(np.float64) * scale_L
        if not np.isfinite(effect_L).all():
            raise InputError(f"{folder}: {one} has latents for which it was not tested; choose another snp=")
        facts = _facts(sumstats, row) | {"reliability": _reliability(sumstats, row, len(columns))}
        name = f"locus{one.locus:03d}_{one.snp}" if one.locus else one.snp
        direction = of_change(name, "snp", effect_L, people, locus=one.locus, **facts)
        allele = float(np.linalg.norm(effect_L) / np.linalg.norm(direction.shift_L))
        directions.append(Direction(direction.name, "snp", direction.shift_L, direction.facts | {"allele_sd": allele}))
    return directions


def _traits(sumstats: Sumstats, count: int) -> list[str]:
    wanted = latent_names(range(count))
    lacks = sorted(set(wanted) - set(sumstats.traits))
    if lacks:
        raise InputError(
            f"{sumstats.path}: tests {some(sumstats.traits)}, but not the latents {some(lacks)} of the network; give "
            "the gwas of the table that `udipdist embed` made with this run_dir and checkpoint"
        )
    return wanted


def _in_normal_scores(folder: Path) -> bool:
    manifest = read_manifest(folder)
    normalise = (manifest or {}).get("config", {}).get("normalise")
    if normalise not in ("none", "rank"):
        raise InputError(
            f"{folder}: its manifest.json does not say in which units traits were tested (normalise); give sumstats= "
            "the folder that `udipdist gwas` wrote, not the store in it"
        )
    return normalise == "rank"


def _rows(sumstats: Sumstats, wanted: list[Wanted]) -> list[int]:
    """The row of each SNP, read block by block. Raises InputError for one that is missing or ambiguous."""
    ids = {one.snp for one in wanted}
    parts = []
    for start, stop in sumstats.blocks():
        block = sumstats.variant_rows(start, stop, ("snp", "chrom", "position"))
        block = block[block["snp"].isin(ids)]
        parts.append(block.assign(row=start + block.index))
    table, rows, absent = pd.concat(parts, ignore_index=True), [], []
    for one in wanted:
        here = table[table["snp"] == one.snp]
        if one.chrom is not None:
            here = here[(here["chrom"] == one.chrom) & (here["position"] == one.position)]
        if len(here) > 1:
            places = some([f"{row.chrom}:{row.position}" for row in here.itertuples()])
            raise InputError(f"{sumstats.path}: several variants are called {one} ({places}); give loci= instead")
        absent += [one] if here.empty else []
        rows += here["row"].tolist()
    if absent:
        raise InputError(f"{sumstats.path}: has no variant {some(absent)}; ids are those of the .bim of the gwas")
    return [int(row) for row in rows]


def _reliability(sumstats: Sumstats, row: int, latents: int) -> float:
    """(chi2 - q) / chi2 of the joint test of the latents, 0 where that is negative; NaN where that test is of other
    traits too, or was not made."""
    if len(sumstats.traits) > latents:
        return float("nan")
    chi2 = chi2_from_log10p(float(sumstats.log10p(MULTIVARIATE, row, row + 1)[0]), latents)
    return chi2 if np.isnan(chi2) else max(0.0, 1 - latents / chi2) if chi2 > 0 else 0.0


def _facts(sumstats: Sumstats, row: int) -> dict[str, object]:
    variant = sumstats.variant_rows(row, row + 1).iloc[0]
    facts = {key: str(variant[key]) for key in ("snp", "chrom", "a1", "a2")}
    joint = [float(sumstats.log10p(name, row, row + 1)[0]) for name in OVER_TRAITS]
    return facts | {
        "position": int(variant["position"]),
        "af1": float(variant["af1"]),
        "minp_log10p": joint[0],
        "multivariate_log10p": joint[1],
    }
