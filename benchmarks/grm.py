"""How fast, and how right, is the sparse GRM from genotypes?

    python -m benchmarks.grm [--quick] [--people N] [--variants M] [--workers W]

The floor is the product of genotypes of everybody with everybody (each pair once), 8-bit integers or float32 as the
processor has it, timed in the same run. The cohort has two ancestries and families of three generations, dropped
through pedigrees along 22 chromosomes with crossings-over, so who is related how is known. The last line is one JSON
object: floor_ratio, pairs_variants_per_s, peak_gb, recall (of pairs that the pedigree relates in the third degree or
closer) and precision (pairs found that the pedigree relates at all), for king, and false relatives for gcta.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from scipy import sparse

from benchmarks.clock import Cost, clock, smallest, watch_memory
from hpc import int8
from hpc.errors import InputError
from udipdist.config import GrmConfig
from udipdist.relatedness import grm as sparse_grm
from udipdist.relatedness import verb

CHROMOSOMES = 22
CENTIMORGAN = 130.0  # of a chromosome, as the mean of the human genome
DRIFT = 0.1  # Fst of either ancestry from the common source
MISSING = 0.005
BIG = 40_000  # people to extrapolate to

# A family: (father, mother) of each member, -1 for a founder. Two founders, their two children with a spouse each, and
# three grandchildren, two of them sibs. In the cohort are the children, the grandchildren, and a twin of one of these.
PEDIGREE = [(-1, -1), (-1, -1), (0, 1), (0, 1), (-1, -1), (-1, -1), (2, 4), (2, 4), (3, 5)]
TWIN_OF = 6
GENOTYPED = (2, 3, 6, 7, 8)


def main() -> None:
    """Make a cohort, run, print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer people and variants, within 45 s")
    parser.add_argument("--people", type=int, default=None)
    parser.add_argument("--variants", type=int, default=None)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    n = options.people or (6_000 if options.quick else 20_000)
    m = options.variants or (10_000 if options.quick else 20_000)
    logging.getLogger("udipdist").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        row = measure(Path(folder), n, m, options.workers)
    for name, value in row.items():
        print(f"{name:<24} {value:>14,.4g}" if isinstance(value, int | float) else f"{name:<24} {value!s:>14}")
    print(json.dumps(row))


def measure(folder: Path, n: int, m: int, workers: int) -> dict[str, float | str | None]:
    """Seconds, ratios and errors of one cohort."""
    truth = write_cohort(folder, n, m, np.random.default_rng(1))
    tiny = folder / "tiny"
    tiny.mkdir()
    write_cohort(tiny, 60, 400, np.random.default_rng(2))
    for method in ("king", "gcta"):  # compile, or load what is compiled
        verb.grm(_config(tiny, method, workers=0))
    with watch_memory() as seen, clock() as king:
        verb.grm(_config(folder, "king", workers))
    floor = floor_cost(n, m)
    found = sparse.triu(sparse_grm.read(str(folder / "king"))[1], k=1).tocoo()
    pairs = set(zip(found.row.tolist(), found.col.tolist(), strict=True))
    second, third = (sum(value >= least for value in truth.values()) for least in (0.25, 0.125))
    found_second, found_third = (
        sum(value >= least and pair in pairs for pair, value in truth.items()) for least in (0.25, 0.125)
    )
    work = n * (n - 1) / 2 * m
    return {
        "people": n,
        "variants": m,
        "workers": workers,
        "product": int8.fastest() if int8.fastest() == "int8" else "float32",
        "seconds": round(king.seconds, 3),
        "floor_seconds": round(floor.seconds, 6),
        "floor_ratio": round(king.seconds / floor.seconds, 3),
        "floor_ratio_cpu": round(king.cpu / floor.cpu, 3),
        "pairs_variants_per_s": round(work / king.seconds),
        "seconds_for_40000_people": round(king.seconds * BIG**2 / n**2 * 20_000 / m, 1),
        "recall": round(found_third / third, 5),
        "recall_second_degree": round(found_second / second, 5),
        "precision": round(len(pairs & truth.keys()) / max(len(pairs), 1), 5),
        "gcta_false_pairs": _false_pairs(folder, truth),
        "plink2_seconds": _plink2(folder),
        "peak_gb": round(seen.together / 1e9, 3),
    }


def floor_cost(n: int, m: int, tile: int = 2048) -> Cost:
    """The product of a tile of people with another (the best of five) times the tiles that all pairs fill."""
    tile = min(tile, n)
    rng = np.random.default_rng(0)
    left, right = (rng.integers(-1, 2, (tile, m), np.int8) for _ in range(2))
    costs = []
    for _ in range(5):
        with clock() as cost:
            if int8.fastest() == "int8":
                int8.product(left, right.T)
            else:
                left.astype(np.float32) @ right.astype(np.float32).T
        costs.append(cost)
    return smallest(costs) * (n * (n - 1) / 2 / tile**2)


def _config(folder: Path, method: str, workers: int) -> GrmConfig:
    keys = {"genotypes": folder / "c", "out": folder / method, "method": method, "workers": workers, "max_missing": 0.1}
    return GrmConfig.parse(keys | {"overwrite": True, "max_variants": 1_000_000})


def _false_pairs(folder: Path, truth: dict[tuple[int, int], float]) -> int | str:
    """Pairs that GCTA's GRM takes for relatives and the pedigree does not, or why it gives none."""
    try:
        verb.grm(_config(folder, "gcta", workers=0))
    except InputError:
        return "refused"
    found = sparse.triu(sparse_grm.read(str(folder / "gcta"))[1], k=1).tocoo()
    return len(set(zip(found.row.tolist(), found.col.tolist(), strict=True)) - truth.keys())


def _plink2(folder: Path) -> float | None:
    """Seconds of plink2 --make-king-table for the same pairs, where it is installed."""
    program = shutil.which("plink2")
    if program is None:
        return None
    command = [program, "--bfile", folder / "c", "--make-king-table", "--king-table-filter", "0.0442"]
    with clock() as cost:
        subprocess.run([*command, "--out", folder / "peer"], check=True, capture_output=True)
    return round(cost.seconds, 3)


# ---------------------------------------------------------------------------------------------------- the cohort


def write_cohort(folder: Path, n: int, m: int, rng: np.random.Generator) -> dict[tuple[int, int], float]:
    """Write c.bed/.bim/.fam of N people, half of them in families; {(low, high): relatedness by pedigree}."""
    n_families = n // (2 * (len(GENOTYPED) + 1))
    in_families = n_families * (len(GENOTYPED) + 1)
    ancestry_F = rng.random(n_families) < 0.5
    ancestry_S = rng.random(n - in_families) < 0.5
    place_N = rng.permutation(n)
    with (folder / "c.bed").open("wb") as bed:
        bed.write(b"\x6c\x1b\x01")
        for chromosome in range(CHROMOSOMES):
            count = m // CHROMOSOMES + (chromosome < m % CHROMOSOMES)
            bed.write(_pack(_chromosome(rng, count, ancestry_F, ancestry_S)[:, np.argsort(place_N)], rng).tobytes())
    lines = [f"F{i} I{i} 0 0 0 -9\n" for i in range(n)]
    (folder / "c.fam").write_text("".join(lines))
    lines = []
    for chromosome in range(CHROMOSOMES):
        count = m // CHROMOSOMES + (chromosome < m % CHROMOSOMES)
        lines += [f"{chromosome + 1}\tv{chromosome}_{i}\t0\t{10_000 * (i + 1)}\tA\tC\n" for i in range(count)]
    (folder / "c.bim").write_text("".join(lines))
    return _truth(n_families, place_N)


def _chromosome(rng: np.random.Generator, m: int, ancestry_F: np.ndarray, ancestry_S: np.ndarray) -> np.ndarray:
    """Copies of A1 [m, N] of one chromosome: families first, then people alone."""
    source_m = rng.uniform(0.1, 0.9, m)
    spread = (1 - DRIFT) / DRIFT
    frequency_2m = rng.beta(source_m * spread, (1 - source_m) * spread, (2, m))
    alone = (rng.random((2, len(ancestry_S), m), np.float32) < frequency_2m[ancestry_S.astype(int)]).sum(axis=0)
    haplotypes: list[np.ndarray] = []  # of each member [2, F, m]
    for father, mother in PEDIGREE:
        if father < 0:
            chance_Fm = frequency_2m[ancestry_F.astype(int)]
            haplotypes.append(rng.random((2, *chance_Fm.shape), np.float32) < chance_Fm)
        else:
            haplotypes.append(np.stack([_gamete(rng, haplotypes[father]), _gamete(rng, haplotypes[mother])]))
    members = [haplotypes[i] for i in (*GENOTYPED, TWIN_OF)]
    family = np.stack([member.sum(axis=0) for member in members], axis=1).reshape(-1, m)
    return np.concatenate([family, alone]).astype(np.int8).T


def _gamete(rng: np.random.Generator, parent_2Fm: np.ndarray) -> np.ndarray:
    """What a parent passes on [F, m]: its two haplotypes with crossings-over at Haldane's rate."""
    _, n_families, m = parent_2Fm.shape
    cross_Fm = rng.random((n_families, m), np.float32) < CENTIMORGAN / 100 / m
    cross_Fm[:, 0] = rng.random(n_families) < 0.5
    return np.where(np.cumsum(cross_Fm, axis=1) % 2, parent_2Fm[1], parent_2Fm[0])


def _pack(count_mN: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Packed rows, with some calls missing."""
    code = np.array([3, 2, 0], np.uint8)[count_mN]
    code[rng.random(code.shape, np.float32) < MISSING] = 1
    code = np.pad(code, ((0, 0), (0, -code.shape[1] % 4))).reshape(len(code), -1, 4)
    return code[..., 0] | code[..., 1] << 2 | code[..., 2] << 4 | code[..., 3] << 6


def _truth(n_families: int, place_N: np.ndarray) -> dict[tuple[int, int], float]:
    """Relatedness (twice the kinship) of all related pairs, by the recursion over the pedigree."""
    size = len(PEDIGREE)
    kinship = np.zeros((size, size))
    for i, (father, mother) in enumerate(PEDIGREE):
        if father >= 0:
            kinship[i, :i] = kinship[:i, i] = (kinship[father, :i] + kinship[mother, :i]) / 2
        kinship[i, i] = 0.5 + (kinship[father, mother] / 2 if father >= 0 else 0)
    members = np.array([*GENOTYPED, TWIN_OF])
    within = 2 * kinship[np.ix_(members, members)]
    truth: dict[tuple[int, int], float] = {}
    a, b = np.nonzero(np.triu(within, k=1))
    for family in range(n_families):
        row = place_N[family * len(members) + np.arange(len(members))]
        for i, j in zip(a, b, strict=True):
            low, high = sorted((int(row[i]), int(row[j])))
            truth[low, high] = float(within[i, j])
    return truth


if __name__ == "__main__":
    main()
