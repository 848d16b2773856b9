"""The whole pipeline from the user's own files: each stage a process of its own, skipped while it is current.

A stage runs as `python -m udipdist VERB STAGE.yaml`, so its time and memory are its own, and a stage that is killed
leaves the others untouched; what all of them import is imported once (hpc.warm). The files STAGE.yaml stay in
`configs/` of the run: each can be run by hand.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hpc import torchrun, warm
from hpc.config import Config
from hpc.errors import ConfigError, Error
from hpc.files import publish_text
from hpc.lock import held
from hpc.stage import is_current, read_manifest
from udipdist.config import (
    AttentionConfig,
    ClustersConfig,
    EmbedConfig,
    GalleryConfig,
    GwasConfig,
    IngestConfig,
    LociConfig,
    PanelConfig,
    PerturbConfig,
    PhewasConfig,
    ProbeConfig,
    ReportConfig,
    RunConfig,
    SaliencyConfig,
    TrainConfig,
)
from udipdist.config.analyses import LOCI_FOLDERS

log = logging.getLogger(__name__)
IMPORTS = (  # what takes seconds to import in most stages
    "udipdist.volumes.ingest", "udipdist.training.embed", "udipdist.gwas.scan.verb", "udipdist.loci.verb",
    "udipdist.loci.panel", "udipdist.interpret.attention", "udipdist.report.page",
)  # fmt: skip
STAGES = ("ingest", "train", "embed", "gwas", "loci", "panel", "clusters", "probe", "phewas")
INTERPRETATIONS = ("gallery", "attention", "saliency", "perturb", "snp")  # stages of interpret=true


class StageFailed(Error):
    """A stage ended with an error; its own message is already on the screen."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Step:
    """One stage of a run: its name in the run, its verb, its configuration, and where it writes."""

    name: str
    verb: str
    config: Config
    out: Path
    ranks: int = 1
    always: bool = False  # cheap, and reads so much that it is simply made again
    loci: Path | None = None  # about the loci in this folder: of none there is nothing to do

    @property
    def current(self) -> bool:
        """True where the output is complete and nothing that it was made from has changed."""
        if self.always or not is_current(self.verb.split()[-1], self.out, self.config):
            return False
        return not isinstance(self.config, IngestConfig) or not scans_changed(self.config)

    @property
    def accepted(self) -> bool:
        """False where input could not be used or looks wrong, and the user has not said that this may be."""
        facts = (read_manifest(self.out) or {}).get("facts", {})
        few = facts.get("failures", 0) <= getattr(self.config, "allow_failures", 0)
        return few and set(facts.get("doubts", [])) <= set(getattr(self.config, "allow", ()))

    @property
    def pointless(self) -> str:
        """Why there is nothing to do where the steps before it found too little for it; otherwise ""."""
        if self.loci is not None and not (read_manifest(self.loci) or {})["facts"]["n_loci"]:
            return "no loci, so there is nothing to show"
        if isinstance(self.config, ClustersConfig):
            from udipdist.analysis.clusters.verb import too_little

            return too_little(self.config)
        return ""


def run(config: RunConfig) -> None:
    """Run every stage that is not current. Raises StageFailed; the same command goes on from there. Raises InUse."""
    with held(config.out, "run"):
        run_held(config)


def run_held(config: RunConfig) -> None:
    """`run`, called by a verb that holds the folder."""
    steps = plan(config)
    _check_gwas(steps)
    publish_text(config.out / "config.yaml", config.yaml())
    execute_all(steps, config.out, config.overwrite)


def preview(config: RunConfig) -> list[str]:
    """What `run` would do, a line a stage."""
    lines = []
    for step in plan(config):
        state = "up to date" if step.current else "stale, made again" if read_manifest(step.out) else "to do"
        lines.append(f"{step.name:18s} {state:18s} -> {step.out}")
    return lines


def plan(config: RunConfig) -> list[Step]:
    """The stages of a run in order. Raises ConfigError where keys of a stage are wrong."""
    known = (*STAGES, *INTERPRETATIONS)
    unknown = sorted(set(config.stages) - set(known))
    if unknown:
        raise ConfigError(f"stages.{unknown[0]}: unknown stage; the stages are {', '.join(known)}")
    out = config.out
    test_store = out / "ingest" / "gwas.zarr"
    train_store = out / "ingest" / "train.zarr" if config.train_volumes else test_store
    latents, sumstats = out / "latents.parquet", out / "gwas"

    steps = []
    if config.train_volumes:
        steps.append(_ingest("ingest train", config, config.train_volumes, train_store))
    steps.append(_ingest("ingest gwas", config, config.volumes, test_store))
    train = _stage(TrainConfig, config, "train", store=train_store, run_dir=out / "train")
    steps.append(Step("train", "train", train, out / "train", config.launch.ranks))
    embed = _stage(EmbedConfig, config, "embed", run_dir=out / "train", store=test_store, out=latents)
    steps.append(Step("embed", "embed", embed, latents))
    steps += association_steps(config, latents, out, sumstats)
    panel = _stage(PanelConfig, config, "panel", loci=out / "loci", out=out / "panel")
    steps.append(Step("panel", "panel", panel, out / "panel"))
    if config.interpret:
        steps += interpretation_steps(config, train, test_store, latents, sumstats)
    steps.append(clusters_step(config, out))
    if config.targets is not None:
        steps.append(probe_step(config, (latents,), out))
    if config.phecodes is not None or config.events is not None:
        steps.append(phewas_step(config, (latents,), out))
    if config.report:
        steps.append(report_step(out, config.title))
    return steps


def interpretation_steps(
    config: RunConfig, train: TrainConfig, store: Path, latents: Path, sumstats: Path
) -> list[Step]:
    """What the network of a run sees, in interpret/NAME: one each of INTERPRETATIONS (attention: of a transformer)."""
    network = {"run_dir": train.run_dir, "store": store, "modality": train.modality}
    kinds: dict[str, tuple[type[Config], dict[str, Any]]] = {
        "gallery": (GalleryConfig, {}),
        "attention": (AttentionConfig, {}),
        "saliency": (SaliencyConfig, {}),
        "perturb": (PerturbConfig, {"population": latents}),
        "snp": (PerturbConfig, {"population": latents, "sumstats": sumstats, "loci": config.out / "loci"}),
    }
    if not train.model.has_attention:
        del kinds["attention"]
    steps = []
    for name, (cls, keys) in kinds.items():
        folder = config.out / "interpret" / name
        verb = f"interpret {'perturb' if name == 'snp' else name}"
        look = _stage(cls, config, name, **network, **keys, out=folder)
        steps.append(Step(f"interpret {name}", verb, look, folder, loci=keys.get("loci")))
    return steps


def clusters_step(config: RunConfig, out: Path) -> Step:
    """Clusters of the SNP directions of the association in `out`, by name where the run has maps of its lead SNPs, and
    genes."""
    maps = config.out / "interpret" / "snp"
    drawn = config.interpret and out == config.out and config.stages.get("snp", {}).get("atlas") != "none"
    genes = out == config.out and config.stages.get("panel", {}).get("genes") is not None
    clusters = _stage(
        ClustersConfig, config, "clusters", sumstats=out / "gwas", loci=[out / name for name in LOCI_FOLDERS.values()],
        maps=[maps] if drawn else [], panel=[out / "panel"] if genes else [], out=out / "clusters",
    )  # fmt: skip
    return Step("clusters", "interpret clusters", clusters, out / "clusters")


def probe_step(config: RunConfig, latents: tuple[Path, ...], out: Path) -> Step:
    """What can be read from latents of the targets of a run; covariates as in its gwas."""
    formula = config.stages.get("gwas", {}).get("formula") if config.covariates is not None else None
    probe = _stage(
        ProbeConfig, config, "probe", latents=latents, targets=config.targets, covariates=config.covariates,
        formula=formula, workers=config.workers, out=out / "probe",
    )  # fmt: skip
    return Step("probe", "probe", probe, out / "probe")


def phewas_step(config: RunConfig, latents: tuple[Path, ...], out: Path) -> Step:
    """Which diagnoses latents tell; covariates as in the gwas of the run."""
    formula = config.stages.get("gwas", {}).get("formula") if config.covariates is not None else None
    given = {"phecodes": config.phecodes, "events": config.events, "map": config.map, "definitions": config.definitions}
    phewas = _stage(
        PhewasConfig, config, "phewas", latents=latents, covariates=config.covariates, formula=formula,
        out=out / "phewas", **{key: path for key, path in given.items() if path is not None},
    )  # fmt: skip
    return Step("phewas", "phewas", phewas, out / "phewas")


def report_step(out: Path, title: str | None) -> Step:
    """The report of a run."""
    config = ReportConfig(run=out, out=out / "report.html", title=title)
    return Step("report", "report", config, out / "report.html", always=True)


def association_steps(config: RunConfig, phenotypes: Path, out: Path, sumstats: Path) -> list[Step]:
    """gwas, loci of the smallest p, and loci of the joint test, for one table of phenotypes."""
    keys = config.stages.get("gwas", {})
    grm = keys.get("sparse_grm", config.sparse_grm)
    gwas = _stage(
        GwasConfig, config, "gwas", genotypes=config.genotypes, phenotypes=phenotypes, covariates=config.covariates,
        sparse_grm=grm, test=keys.get("test", "mixed" if grm else "linear"), workers=config.workers, out=sumstats,
    )  # fmt: skip
    steps = [Step("gwas", "gwas", gwas, sumstats)]
    for trait, name in LOCI_FOLDERS.items():
        loci = _stage(
            LociConfig, config, "loci", sumstats=sumstats, genotypes=config.genotypes, trait=trait, out=out / name
        ).of_test(trait)
        steps.append(Step(name.replace("_", " "), "loci", loci, out / name))
    return steps


def execute_all(steps: list[Step], out: Path, overwrite: bool = False) -> None:
    """Run the steps that are not current, in order; with `overwrite` all of them. Raises StageFailed."""
    for number, step in enumerate(steps, 1):
        done = step.current and step.accepted and not overwrite
        pointless = "" if done else step.pointless
        state = f": {pointless}" if pointless else ": up to date" if done else ""
        log.info("[%d/%d] %s%s", number, len(steps), step.name, state)
        if not (done or pointless):
            execute(step, out, overwrite)


def scans_changed(config: IngestConfig) -> bool:
    """True where a volume is newer than the store made from it (a table's own date does not tell)."""
    from udipdist.volumes.sources import list_cohort

    manifest = read_manifest(config.out)
    made = datetime.fromisoformat(manifest["started"]).timestamp() if manifest else 0.0
    cohort = list_cohort(config.volumes, config.layout, config.modalities, config.mask)
    scans = [scan for source in cohort.sources for scan in source.scans if scan is not None]
    return any(path.stat().st_mtime > made for scan in scans for path in scan.files if path.exists())


def execute(step: Step, out: Path, overwrite: bool = False) -> None:
    """Run one step in a process of its own (under torchrun where it has several ranks). Raises StageFailed.

    A complete output that is stale is replaced; unfinished work is resumed unless `overwrite`.
    """
    path = out / "configs" / f"{step.name.replace(' ', '_')}.yaml"
    stale = read_manifest(step.out) is not None and not step.current
    config = step.config.model_copy(update={"overwrite": overwrite or (stale and not _extends(step.config))})
    publish_text(path, config.yaml())
    words = [*step.verb.split(), str(path)]
    code = torchrun.run("udipdist", words, step.ranks) if step.ranks > 1 else warm.run("udipdist", words, IMPORTS)
    if code:
        raise StageFailed(
            f"stage {step.name} ended with exit code {code}; its message is above. Fix that and run the same command: "
            f"finished stages are kept. The stage alone: udipdist {step.verb} {path}",
            exit_code=code if 0 < code < 128 else 1,
        )


def _extends(config: Config) -> bool:
    """True for a training of more epochs than were done, which goes on."""
    if not isinstance(config, TrainConfig):
        return False
    from udipdist.training.run_folder import extends

    return extends(config)


def _check_gwas(steps: list[Step]) -> None:
    """Refuse genotypes, covariates, formula and GRM that gwas would refuse after the training. Raises InputError."""
    from udipdist.gwas.scan.verb import check

    for step in steps:
        if isinstance(step.config, GwasConfig) and not step.current:
            check(step.config)


def _ingest(name: str, config: RunConfig, volumes: str, store: Path) -> Step:
    ingest = _stage(IngestConfig, config, "ingest", volumes=volumes, out=store, workers=config.workers)
    return Step(name, "ingest", ingest, store)


def _stage(cls: type[Config], config: RunConfig, stage: str, **keys: Any) -> Any:
    """The configuration of a stage: the run's keys, with the user's keys for that stage on top."""
    return cls.parse(keys | config.stages.get(stage, {}), f"stages.{stage}")
