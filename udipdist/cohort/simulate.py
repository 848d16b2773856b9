"""The verb `simulate`: genomes, then traits, then brains, then tables; resumable, the same bytes for a seed."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hpc import cluster, extras, parts
from hpc.files import publish_json, remove, require_space
from hpc.stage import Stage, stage
from udipdist.cohort import diseases, seeds, traits, writers
from udipdist.cohort.brains import BrainModel, draw_scan
from udipdist.cohort.components import principal_components
from udipdist.cohort.factors import NAMES
from udipdist.cohort.genomes import GenomeJob, WindowGenotypes, windows
from udipdist.cohort.pedigree import Pedigree, make_pedigree
from udipdist.cohort.people import People, tested_people, training_people
from udipdist.config import BrainConfig, SimulateConfig

log = logging.getLogger(__name__)
VOLUMES_PER_PART = 100
PHENOTYPES = 128  # of traits_only
# Measured: bytes of a .nii.gz, seconds to make it on one core; variants per Mb at a minor allele frequency of 0.1 %.
_VOLUME_COST = {1: (2.8e6, 0.6), 2: (3.6e5, 0.09), 4: (4.6e4, 0.015), 6: (1.5e4, 0.007), 8: (6.5e3, 0.004)}
_UNTHINNED_PER_MB = 4_300


def simulate(config: SimulateConfig) -> None:
    """Write the cohort to config.out. Raises ConfigError, InputError, OutputExists, NoSpace."""
    _require_msprime()
    with stage("simulate", config.out, config, inputs={}, overwrite=config.overwrite) as current:
        require_space(config.out, _disk(config))
        parts.fix_plan(config.out, config.semantics())
        with threadpool_limits(1):  # products of matrices have the same bits whatever the number of threads
            _simulate(config, current)
        remove(config.out / "work")


def preview(config: SimulateConfig) -> list[str]:
    """What would be made, and what it takes."""
    _require_msprime()
    stretches = len(windows(config.genomes))
    scans = 0 if config.traits_only else config.train + config.gwas
    lines = [
        f"{config.gwas:,} people with genotypes, about {_variants(config):,} variants in {stretches} windows "
        f"of {config.genomes.window_bp / 1e6:g} Mb",
        f"{config.traits.loci} planted loci; no effects on chromosomes "
        f"{', '.join(map(str, traits.null_chromosomes(config))) or '(all have effects)'}",
    ]
    if config.traits_only:
        lines.append(f"no volumes; {PHENOTYPES} traits in phenotypes.parquet")
    else:
        seconds = scans * _VOLUME_COST[config.brains.resolution_mm][1]
        lines.append(
            f"{scans:,} volumes at {config.brains.resolution_mm} mm ({config.train:,} of other people, to train on), "
            f"about {seconds:.0f} s of one core"
        )
    return [*lines, f"disk: about {_disk(config) / 1e9:.2f} GB, half of it for a while"]


@dataclass
class VolumeJob:
    """Scans in parts of VOLUMES_PER_PART; each file is published when it is whole."""

    place: Path
    volumes: Path
    config: BrainConfig
    seed: int
    names: list[str]
    factors: np.ndarray  # float64 [N, K]
    site: np.ndarray  # int64 [N]
    age_sd: np.ndarray  # float64 [N]
    unit: str = field(default="volumes")

    @property
    def n_parts(self) -> int:
        """Parts of VOLUMES_PER_PART people."""
        return -(-len(self.names) // VOLUMES_PER_PART)

    def size_of_part(self, index: int) -> int:
        """People of a part."""
        return len(self._people(index))

    def _people(self, index: int) -> range:
        return range(index * VOLUMES_PER_PART, min((index + 1) * VOLUMES_PER_PART, len(self.names)))

    @cached_property
    def _model(self) -> BrainModel:
        return BrainModel(self.config.resolution_mm)

    def part(self, index: int) -> dict[str, Any]:
        """Render and write the people of part `index`."""
        with threadpool_limits(1):
            for i in self._people(index):
                rng = seeds.stream(self.seed, "scan", self.names[i])
                scan = draw_scan(self.config, int(self.site[i]), float(self.age_sd[i]), rng)
                volume = self._model.render(self.factors[i], scan, rng)
                self._model.save(volume, self.volumes / f"{self.names[i]}.nii.gz")
        return {"volumes": len(self._people(index))}


def _require_msprime() -> None:
    extras.require("simulate", "msprime", extra="simulate")


def _simulate(config: SimulateConfig, current: Stage) -> None:
    out, seed, work = config.out, config.seed, config.out / "work"
    pedigree = make_pedigree(config.gwas, config.genomes.related_share, seeds.stream(seed, "pedigree"))
    tested = tested_people(pedigree, seeds.stream(seed, "tested people"))
    places = windows(config.genomes)
    job = GenomeJob(work / "genomes", config.genomes, pedigree, traits.polygenic_per_window(config, places), seed)
    parts.run(job, "genomes", cluster.runner(config.workers))
    genotypes = [WindowGenotypes.load(job.summary(i)) for i in range(job.n_parts)]

    truth = traits.build(config, places, genotypes, tested, seeds.stream(seed, "traits"))
    factors = traits.tested_factors(truth, tested)
    variants = _write_genetics(config, job, genotypes, pedigree, tested)
    _write_truth(config, truth, tested, factors)
    scanned = 0
    if config.traits_only:
        values = traits.mixed_phenotypes(factors, PHENOTYPES, seeds.stream(seed, "phenotypes"))
        names = [f"trait{i:03d}" for i in range(PHENOTYPES)]
        writers.write_values(out / "phenotypes.parquet", tested, values, names)
    else:
        training = training_people(config.train, seeds.stream(seed, "training people"))
        others = traits.training_factors(truth, tested, training, seeds.stream(seed, "training factors"))
        scanned = _write_volumes(config, [(training, others), (tested, factors)])
    current.note(
        people=config.gwas,
        training_people=0 if config.traits_only else config.train,
        variants=variants,
        relatives=len(pedigree.relatives[0]),
        unrelated=int(pedigree.unrelated.sum()),
        volumes=scanned,
        planted_loci=config.traits.loci,
    )


def _write_genetics(
    config: SimulateConfig, job: GenomeJob, genotypes: list[WindowGenotypes], pedigree: Pedigree, tested: People
) -> int:
    """Genotypes, sparse GRM, covariates with components. Returns the number of variants."""
    prefix = config.out / "genotypes"
    writers.write_bed(prefix, job)
    variants = writers.write_bim(prefix, job, genotypes, config.seed)
    writers.write_fam(prefix, tested)
    writers.write_sparse_grm(config.out / "sparse", pedigree, tested)
    counts = np.concatenate([g.pc_counts for g in genotypes])
    components = principal_components(counts, pedigree.unrelated, config.genomes.components)
    writers.write_covariates(config.out / "covariates.tsv", tested, components)
    return variants


def _write_truth(config: SimulateConfig, truth: traits.Truth, tested: People, factors: np.ndarray) -> None:
    folder = config.out / "truth"
    writers.write_tsv(folder / "loci.tsv", truth.loci)
    writers.write_tsv(folder / "windows.tsv", truth.windows.astype({"planted": int, "null": int}))
    writers.write_values(folder / "factors.parquet", tested, factors, list(NAMES))
    found = diseases.draw(tested, factors, seeds.stream(config.seed, "diseases"))
    writers.write_tsv(folder / "diseases.tsv", found.truth)
    writers.write_tsv(folder / "phecodes.tsv", found.phecodes, missing="NA")
    writers.write_tsv(folder / "events.tsv", found.events)
    writers.write_tsv(folder / "phecode_map.tsv", found.map)
    writers.write_tsv(folder / "phecode_definitions.tsv", found.definitions)
    targets = diseases.targets(tested, factors, seeds.stream(config.seed, "targets"))
    writers.write_tsv(folder / "targets.tsv", targets, missing="NA")
    publish_json(
        folder / "truth.json",
        {
            "seed": config.seed,
            "preset": config.preset,
            "people": config.gwas,
            "factors": list(NAMES),
            "null_chromosomes": [str(c) for c in traits.null_chromosomes(config)],
        },
    )


def _write_volumes(config: SimulateConfig, groups: list[tuple[People, np.ndarray]]) -> int:
    """The scans of training and tested people and their lists. Returns the number of scans."""
    job = VolumeJob(
        place=config.out / "work" / "volumes",
        volumes=config.out / "volumes",
        config=config.brains,
        seed=config.seed,
        names=[name for people, _ in groups for name in people.table["IID"]],
        factors=np.concatenate([factors for _, factors in groups]),
        site=np.concatenate([people.table["site"] for people, _ in groups]),
        age_sd=np.concatenate([people.standardised()["age"] for people, _ in groups]),
    )
    parts.run(job, "volumes", cluster.runner(config.workers))
    for name, (people, _) in zip(("train", "gwas"), groups, strict=True):
        writers.write_volume_list(config.out / f"volumes_{name}.csv", people)
    return len(job.names)


def _variants(config: SimulateConfig) -> int:
    genomes = config.genomes
    per_mb = _UNTHINNED_PER_MB if genomes.variants_per_mb is None else genomes.variants_per_mb
    return round(len(windows(genomes)) * genomes.window_bp / 1e6 * per_mb)


def _disk(config: SimulateConfig) -> int:
    """Bytes at the peak: the genotypes are there twice (windows, then joined)."""
    scans = 0 if config.traits_only else config.train + config.gwas
    return round(2 * _variants(config) * config.gwas / 4 + scans * _VOLUME_COST[config.brains.resolution_mm][0])
