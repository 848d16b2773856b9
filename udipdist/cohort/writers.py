"""The files of a cohort, in the forms that PLINK, GCTA and this project read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from hpc.files import publish, publish_text
from udipdist.cohort import seeds
from udipdist.cohort.genomes import GenomeJob, WindowGenotypes
from udipdist.cohort.pedigree import Pedigree
from udipdist.cohort.people import SITE_NAMES, People
from udipdist.cohort.traits import snp_name

BED_MAGIC = bytes([0x6C, 0x1B, 0x01])  # PLINK 1, variant-major
_TRANSITION = {"A": "G", "G": "A", "C": "T", "T": "C"}


def write_bed(prefix: Path, job: GenomeJob) -> None:
    """Join the windows' rows to one .bed."""
    with publish(prefix.with_suffix(".bed")) as partial, partial.open("wb") as bed:
        bed.write(BED_MAGIC)
        for i in range(job.n_parts):
            with job.bed_rows(i).open("rb") as rows:
                shutil.copyfileobj(rows, bed, 1 << 24)


def write_bim(prefix: Path, job: GenomeJob, genotypes: list[WindowGenotypes], seed: int) -> int:
    """One line a variant; A1 (column 5) is the allele that the .bed counts. Returns the number of variants."""
    with publish(prefix.with_suffix(".bim")) as partial, partial.open("w", encoding="utf-8") as file:
        for window, variants in zip(job.windows, genotypes, strict=True):
            rng = seeds.stream(seed, "alleles", window.chromosome, window.start)
            for position, (a1, a2) in zip(
                variants.position.tolist(), _alleles(len(variants.position), rng), strict=True
            ):
                name = snp_name(window.chromosome, position)
                file.write(f"{window.chromosome}\t{name}\t{position / 1e6:.6f}\t{position}\t{a1}\t{a2}\n")
    return sum(len(variants.position) for variants in genotypes)


def _alleles(count: int, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Pairs of nucleotides, two thirds of them transitions."""
    for first, transition, other in zip(
        rng.integers(0, 4, count), rng.random(count) < 2 / 3, rng.integers(0, 2, count), strict=True
    ):
        a1 = "ACGT"[first]
        choices = [base for base in "ACGT" if base not in (a1, _TRANSITION[a1])]
        yield a1, _TRANSITION[a1] if transition else choices[other]


def write_fam(prefix: Path, people: People) -> None:
    """FID IID, parents unknown, sex (1 male, 2 female), phenotype missing."""
    table = people.table
    sex = np.where(table["sex"] == 1, 1, 2)
    lines = [f"{f}\t{i}\t0\t0\t{s}\t-9\n" for f, i, s in zip(table["FID"], table["IID"], sex, strict=True)]
    publish_text(prefix.with_suffix(".fam"), "".join(lines))


def write_sparse_grm(prefix: Path, pedigree: Pedigree, people: People) -> int:
    """Twice the pedigree kinship in GCTA's form: 0-based row, column, value; lower triangle and diagonal.

    Returns the number of pairs of relatives.
    """
    rows, columns, kinship = pedigree.relatives
    n = len(people.table)
    lines = [(i, i, 1.0) for i in range(n)]  # nobody here is inbred
    lines += zip(rows.tolist(), columns.tolist(), (2 * kinship).tolist(), strict=True)
    lines.sort()
    publish_text(with_ending(prefix, ".grm.sp"), "".join(f"{i}\t{j}\t{value:g}\n" for i, j, value in lines))
    ids = people.table[["FID", "IID"]].to_csv(sep="\t", header=False, index=False)
    publish_text(with_ending(prefix, ".grm.id"), ids)
    return len(rows)


def write_covariates(path: Path, people: People, components: np.ndarray) -> None:
    """FID IID age sex site head_size head_x head_y head_z PC1..PCn, tab separated; site as text."""
    table = people.table.assign(site=[SITE_NAMES[s] for s in people.table["site"]])
    for i in range(components.shape[1]):
        table[f"PC{i + 1}"] = components[:, i]
    write_tsv(path, table)


def write_volume_list(path: Path, people: People) -> None:
    """FID,EID,T1: the path of each scan, relative to the list."""
    table = people.table
    paths = [f"volumes/{name}.nii.gz" for name in table["IID"]]
    lists = pd.DataFrame({"FID": table["FID"], "EID": table["IID"], "T1": paths})
    publish_text(path, lists.to_csv(index=False))


def write_tsv(path: Path, table: pd.DataFrame, missing: str = "") -> None:
    """Tab separated, seven significant digits."""
    publish_text(path, table.to_csv(sep="\t", index=False, float_format="%.7g", na_rep=missing))


def write_values(path: Path, people: People, values: np.ndarray, names: list[str]) -> None:
    """A Parquet table FID IID and one column a name."""
    table = pd.concat([people.table[["FID", "IID"]], pd.DataFrame(values, columns=names)], axis=1)
    with publish(path) as partial:
        table.to_parquet(partial, index=False)


def with_ending(prefix: Path, ending: str) -> Path:
    """`prefix` + `ending`; unlike Path.with_suffix it keeps dots of the prefix."""
    return prefix.with_name(prefix.name + ending)
