"""The verb `grm`: who is related to whom, as the sparse GRM that a mixed model needs.

From genotypes it is plan (choose variants, turn the genotypes person by person), part (a tile of people against those
before it), finish (write). From a table of kinships it is one reading.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse import csgraph
from scipy.special import ndtr, ndtri

from hpc import cluster, parts
from hpc.errors import InputError, OutputExists
from hpc.files import publish, publish_json, remove
from hpc.stage import fingerprint, make_way, stage
from udipdist.config import GrmConfig
from udipdist.genotypes import source
from udipdist.relatedness import grm as sparse_grm
from udipdist.relatedness import pairs as kinship
from udipdist.relatedness import tables as kinship_tables

log = logging.getLogger(__name__)

# Lower limits of G = 2 x kinship (Manichaikul et al. 2010, table 1: kinship 2^-1.5, 2^-2.5, 2^-3.5, 2^-4.5).
DEGREES = {"the same or identical twins": 2**-0.5, "first degree": 2**-1.5, "second degree": 2**-2.5}


def grm(config: GrmConfig) -> None:
    """Write PREFIX.grm.sp and PREFIX.grm.id, and from genotypes by method=king PREFIX.grm.kin0 with the pairs.

    Raises InputError for unusable input, too large families, or a cutoff that nearly everybody reaches; OutputExists.
    """
    _refuse_place(config)
    sp = Path(f"{config.out}.grm.sp")
    with stage("grm", sp, config, inputs=input_files(config), overwrite=config.overwrite) as running:
        samples = source.read_people(config.genotypes)
        if config.kinship is not None:
            pairs = kinship_tables.read(_tables(config), samples, config.match, config.cutoff)
            matrix = sparse_grm.symmetric(pairs.low_L, pairs.high_L, pairs.value_L, np.ones(len(samples)))
            facts: dict[str, Any] = {"n_people": len(samples), **pairs.facts}
        else:
            matrix, facts = _estimate(config, samples)
        facts |= _describe(matrix, config)
        sparse_grm.write(str(config.out), samples, matrix)
        running.note(**facts)
        remove(work_folder(config))


def preview(config: GrmConfig) -> list[str]:
    """What a run would do, from headers and file sizes only."""
    n, m = source.count(config.genotypes)
    if config.kinship is not None:
        size = sum(path.stat().st_size for path in _tables(config) if path.exists())
        return [f"{n:,} people in the .fam, kinships of {len(_tables(config))} table(s), {size / 1e6:,.1f} MB"]
    used, tile = min(m, config.max_variants), min(n, config.tile)
    bytes_a_call = 1 if config.method == "king" else 4
    return [
        f"{n:,} people, {n * (n - 1) // 2:,} pairs, at most {used:,} of {m:,} variants, method={config.method}",
        f"{-(-n // config.tile):,} parts of {config.tile:,} people, {config.workers} workers (0: this process)",
        f"memory about {(3 * tile * used * bytes_a_call + 4 * tile * tile) / 1e9 + 0.4:.2f} GB a process, "
        f"disk {n * used / 4 / 1e9:.2f} GB for the time of the work",
    ]


def input_files(config: GrmConfig) -> dict[str, Path]:
    """Every file that is read. Raises InputError where genotypes are missing."""
    sets = source.find_sets(config.genotypes)
    if config.kinship is not None:
        tables = {f"kinship{i or ''}": path for i, path in enumerate(_tables(config))}
        for path in tables.values():
            if not path.is_file():
                raise InputError(f"{path}: does not exist; kinship= is a table of KING, plink2 or UK Biobank")
        return {f"genotypes.{label}": path for label, path in sets[0].with_people.items()} | tables
    return {f"genotypes{i or ''}.{label}": path for i, one in enumerate(sets) for label, path in one.files.items()}


def work_folder(config: GrmConfig) -> Path:
    """Where unfinished work is kept, to go on with."""
    return Path(f"{config.out}.grm.work")


def _tables(config: GrmConfig) -> tuple[Path, ...]:
    if config.kinship is None:
        return ()
    return config.kinship if isinstance(config.kinship, tuple) else (config.kinship,)


def _refuse_place(config: GrmConfig) -> None:
    if config.out.is_dir():
        raise OutputExists(f"{config.out}: is a folder; out= is the prefix of files, such as out={config.out}/sparse")
    dense = Path(f"{config.out}.grm.bin")
    if dense.exists():
        raise OutputExists(f"{dense}: is a dense GRM, whose .grm.id would be replaced; give another out=")


def _estimate(config: GrmConfig, samples: pd.DataFrame) -> tuple[sparse.csr_array, dict[str, Any]]:
    """G from the genotypes, and facts."""
    job, facts = plan(config)
    done = parts.run(job, "grm", cluster.runner(config.workers))
    found = [np.load(kinship.pairs_path(job.place, i), allow_pickle=False) for i in range(job.n_parts)]
    pairs = np.concatenate(found)
    pairs = pairs[pairs["value"] >= config.cutoff]
    diagonal_N = kinship.load(job.place, job.stamp).diagonal_N if config.method == "gcta" else np.ones(len(samples))
    kinship.load.cache_clear()
    if config.method == "king":
        _write_pairs(Path(f"{config.out}.grm.kin0"), samples, pairs)
    facts |= {"n_pairs": len(pairs), "n_counted_exactly": sum(part["screened"] for part in done)}
    return sparse_grm.symmetric(pairs["j"], pairs["i"], pairs["value"], diagonal_N), facts


def _counts(plan: dict[str, Any]) -> dict[str, Any]:
    """What of a plan makes it another: of its inputs the content, not the paths."""
    own = {"tile": plan["tile"], "inputs": plan["inputs"]}
    return GrmConfig.identity_of({key: value for key, value in plan.items() if key not in own}) | own


def plan(config: GrmConfig) -> tuple[kinship.Pairs, dict[str, Any]]:
    """Choose variants and turn their genotypes, unless that is done. Returns the job and facts for people."""
    place = work_folder(config)
    make_way(place, config.overwrite)
    if kinship.planned(place) is None:
        parts.drop_plan(place)
    _raise_cutoff(place / "plan.json", config.cutoff)
    inputs = {name: fingerprint(path) for name, path in input_files(config).items()}
    settings = {key: value for key, value in config.semantics().items() if key != "max_family"}
    parts.fix_plan(place, settings | {"tile": config.tile, "inputs": inputs}, _counts)
    facts = kinship.planned(place)
    if facts is None:
        genotypes = source.open_hard_calls(config.genotypes)
        facts = kinship.prepare(place, genotypes, config.max_variants, config.min_maf, config.max_missing)
    place = place.absolute()
    job = kinship.Pairs(place, kinship.stamp_of(place), facts["n_people"], config.method, config.cutoff, config.tile)
    facts["scatter"] = kinship.scatter(kinship.load(job.place, job.stamp), config.method)
    _warn(facts, config)
    return job, facts


def _raise_cutoff(path: Path, cutoff: float) -> None:
    """Parts that are done hold all pairs of a larger cutoff too, so a cutoff that was refused may be raised."""
    if path.exists():
        plan_there = json.loads(path.read_text(encoding="utf-8"))
        if plan_there["cutoff"] < cutoff:
            publish_json(path, plan_there | {"cutoff": cutoff})


def _warn(facts: dict[str, Any], config: GrmConfig) -> None:
    n, scatter = facts["n_people"], facts["scatter"]
    n_pairs = n * (n - 1) // 2
    log.info(
        "relatedness from %s variants; that of unrelated people scatters by %.4f", f"{facts['n_variants']:,}", scatter
    )
    by_chance = n_pairs * ndtr(-config.cutoff / scatter) if scatter > 0 else 0.0
    if by_chance > 1 + n / 100:
        log.warning(
            "about %s of %s pairs reach cutoff=%g by chance; cutoff=%.3f would leave about %d: give that, "
            "%s",
            f"{by_chance:,.0f}", f"{n_pairs:,}", config.cutoff, -scatter * ndtri((1 + n / 100) / n_pairs), 1 + n // 100,
            "or, among people of several ancestries, method=king" if config.method == "gcta"
            else "or genotypes that cover more of the genome",
        )  # fmt: skip
    if facts["n_badly_called"]:
        log.warning("%d people have more than 10 %% missing calls; check them", facts["n_badly_called"])
    if facts["n_without_heterozygotes"]:
        log.warning("%d people have no heterozygous call and no relatives", facts["n_without_heterozygotes"])


def _describe(matrix: sparse.csr_array, config: GrmConfig) -> dict[str, Any]:
    """Say how many relatives there are and how large families are. Raises InputError where one is too large."""
    value_L = sparse.triu(matrix, k=1).data
    _, label_N = csgraph.connected_components(matrix, directed=False)
    size_F = np.bincount(label_N, minlength=1)
    largest, n = int(size_F.max(initial=1)), len(label_N)
    upper, words = np.inf, []
    for name, lower in DEGREES.items():
        words.append(f"{((value_L >= lower) & (value_L < upper)).sum():,} {name}")
        upper = lower
    words.append(f"{(value_L < upper).sum():,} further")
    log.info("%s pairs: %s; the largest family has %s people", f"{len(value_L):,}", ", ".join(words), f"{largest:,}")
    if largest > config.max_family:
        sparse_grm.refuse_family(matrix, largest, config.max_family, str(config.out))
    if largest > max(50, n // 5):
        target = max(10, n // 50)
        log.warning(
            "the largest group of relatives holds %s of %s people; that is rarely family, rather ancestry%s or "
            "noise: above %.4f no group exceeds %d",
            f"{largest:,}", f"{n:,}", " (try method=king)" if config.method == "gcta" else "",
            sparse_grm.splitting_cutoff(matrix, target), target,
        )  # fmt: skip
    return {
        "n_pairs": len(value_L),
        "n_relatives": int(size_F[size_F > 1].sum()),
        "n_families": int((size_F > 1).sum()),
        "largest_family": largest,
    }


def _write_pairs(path: Path, samples: pd.DataFrame, pairs: np.ndarray) -> None:
    """The pairs with their counts, in the columns of plink2 --make-king-table."""
    first, second = (samples.iloc[pairs[side]].reset_index(drop=True) for side in ("i", "j"))
    both_L = np.maximum(pairs["both"], 1)
    table = pd.DataFrame(
        {
            "#FID1": first.FID, "IID1": first.IID, "FID2": second.FID, "IID2": second.IID, "NSNP": pairs["both"],
            "HETHET": pairs["het_het"] / both_L, "IBS0": pairs["ibs0"] / both_L, "KINSHIP": pairs["value"] / 2,
        }
    )  # fmt: skip
    with publish(path) as partial:
        table.to_csv(partial, sep="\t", index=False, float_format="%.6g")
