"""The configuration of what spans the stages: reports, whole runs, a look at anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from hpc.config import Config
from hpc.declared import Files, KeysOf
from udipdist.config.analyses import MINP
from udipdist.config.base import NonNegative, Positive, Probability, VerbConfig, Volumes
from udipdist.config.clusters import ClustersConfig
from udipdist.config.cohort import SimulateConfig
from udipdist.config.genetics import GwasConfig, LociConfig, PanelConfig
from udipdist.config.imaging import EmbedConfig, IngestConfig, TrainConfig
from udipdist.config.interpret import AttentionConfig, GalleryConfig, PerturbConfig, SaliencyConfig
from udipdist.config.phewas import PhewasConfig
from udipdist.config.probe import ProbeConfig

STAGES: dict[str, type[Config]] = {  # of a run, by their names in stages=
    "ingest": IngestConfig, "train": TrainConfig, "embed": EmbedConfig, "gwas": GwasConfig, "loci": LociConfig,
    "panel": PanelConfig, "gallery": GalleryConfig, "attention": AttentionConfig, "saliency": SaliencyConfig,
    "perturb": PerturbConfig, "snp": PerturbConfig, "clusters": ClustersConfig, "probe": ProbeConfig,
    "phewas": PhewasConfig,
}  # fmt: skip


class ReportConfig(VerbConfig):
    """One self-contained HTML page about a run."""

    run: Path = Field(description="folder of the run")
    out: Path = Field(Path("report.html"), description="page to write; figures go to the folder NAME_figures beside it")
    title: str | None = Field(None, description="the study, heading of the page; default: the name of the run's folder")


class PlotConfig(VerbConfig):
    """One figure of any summary statistics: Manhattan, Miami, QQ, the region of a locus, loci by traits.

    `udipdist plot kind=manhattan sumstats=gwas loci=loci panel=panel out=manhattan.pdf`
    """

    kind: Literal["manhattan", "miami", "qq", "regional", "heatmap"] = Field(description="what to draw")
    sumstats: Path = Field(
        description="folder that gwas wrote, or a table (.gz or not) of fastGWA, GWAS-SSF, FUMA's input, plink2 --glm "
        "or regenie"
    )
    out: Path = Field(
        description="file to write: NAME.png, .pdf, .svg, or .html, a page with a tooltip for each locus; dots are "
        "pixels in each format"
    )
    also: tuple[Literal["png", "pdf", "svg", "html"], ...] = Field((), description="also write these: [pdf, svg]")
    trait: str | None = Field(
        None, description="minp, multivariate, or a trait; qq: also all, one small curve each; default minp, qq: all"
    )
    loci: Path | None = Field(None, description="folder that loci or FUMA wrote, to mark loci; heatmap needs it")
    panel: Path | None = Field(None, description="folder that panel wrote for these loci, with hits and nearest genes")
    p: Probability = Field(5e-8, description="threshold (minp: divided by the traits); that of loci= overrides it")
    below: Path | None = Field(None, description="miami: sumstats drawn downwards; default: sumstats, with below_trait")
    below_trait: str = Field(MINP, description="miami: trait drawn downwards")
    below_loci: Path | None = Field(None, description="miami: loci for the lower half")
    names: tuple[str, str] | None = Field(None, description="miami: labels above and below; default: traits")
    locus: Positive | None = Field(None, description="regional: number of a locus in `loci`")
    region: str | None = Field(None, description="regional: chr:start-end, instead of a locus; LD is to its best SNP")
    flank_bp: Positive = Field(500_000, description="regional: base pairs shown on both sides of the lead SNP")
    genotypes: Path | None = Field(None, description="regional: prefix of .bed/.bim/.fam for LD colours")
    genes: Annotated[str | None, Files()] = Field(
        None, description="regional: ensembl, or a GTF, refGene or table with chr, start, end, gene: a track of genes"
    )
    gene_types: tuple[str, ...] = Field(
        ("protein_coding",), description="types of genes, if the table has them; []: all"
    )
    assembly: Literal["GRCh37", "GRCh38"] = Field("GRCh37", description="build of the positions; genes= is checked")
    cap: float = Field(20.0, gt=0, description="heatmap: -log10 p at the darkest colour")
    width_mm: Annotated[float, Field(ge=40, le=1000)] | None = Field(None, description="width of the figure, as 180")
    dpi: Annotated[int, Field(ge=30, le=1200)] = Field(300, description="pixels per inch, of PNG and of dots")

    @field_validator("also", "gene_types", "names", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _what_the_kind_needs(self) -> Self:
        if self.kind == "heatmap" and self.loci is None:
            raise ValueError("kind=heatmap: needs loci=, the folder that loci wrote")
        if self.panel is not None and self.loci is None:
            raise ValueError("panel: needs loci=, the folder of the loci that it was made of")
        if self.kind == "regional" and (self.region is None) == (self.locus is None or self.loci is None):
            raise ValueError("kind=regional: needs locus= and loci=, or region=chr:start-end")
        if self.kind == "miami" and self.below is None and self.below_trait == (self.trait or MINP):
            raise ValueError("kind=miami: would draw the same twice; give below= or below_trait=")
        foreign = {
            key: kind for key, kind in _KEYS_OF_KINDS.items() if key in self.model_fields_set and kind != self.kind
        }
        if foreign:
            key, kind = next(iter(foreign.items()))
            raise ValueError(f"{key}: is a key of kind={kind}, not of kind={self.kind}; leave it out")
        return self


_KEYS_OF_KINDS = {
    **dict.fromkeys(("below", "below_trait", "below_loci", "names"), "miami"),
    **dict.fromkeys(("locus", "region", "flank_bp", "genotypes", "genes", "gene_types", "assembly"), "regional"),
    "cap": "heatmap",
}


class LaunchConfig(Config):
    """How `run` starts the training."""

    ranks: Positive = Field(1, description="processes of the training on this machine, under torchrun")


class RunConfig(VerbConfig):
    """The whole pipeline from the user's own files; a stage is skipped if its output is complete and current."""

    out: Path = Field(description="folder of the run; each stage has a folder below it")
    volumes: Volumes = Field(description="scans of the people to test: a folder, pattern, CSV ..., as in ingest")
    train_volumes: Volumes | None = Field(None, description="scans of the people to train on; default: volumes")
    genotypes: Path = Field(description="prefix of PLINK .bed/.bim/.fam; {chr} in it stands for 1..22, X, XY")
    covariates: Path | None = Field(None, description="table with FID IID and covariates")
    sparse_grm: Path | None = Field(None, description="prefix of GCTA .grm.sp/.grm.id; without it the test is linear")
    targets: Path | None = Field(
        None, description="table with FID IID and what is to be read from the latents: adds the stage probe"
    )
    phecodes: Path | None = Field(
        None, description="table with FID IID and 0, 1 or NA for each phecode: adds the stage phewas; or events="
    )
    events: Path | None = Field(None, description="table with IID, code, vocabulary, date: adds the stage phewas")
    map: Path | None = Field(None, description="of events: table with code, vocabulary, phecode")
    definitions: Path | None = Field(None, description="names, categories, sexes of phecodes, as in phewas")
    workers: NonNegative = Field(2, description="worker processes of ingest, gwas and probe; 0 works in this one")
    interpret: bool = Field(
        False, description="also look into the network: gallery, attention, saliency, perturb, and maps of lead SNPs"
    )
    report: bool = Field(True, description="write report.html")
    title: str | None = Field(None, description="the study, heading of the report; default: the name of the folder out")
    stages: Annotated[dict[str, dict[str, Any]], KeysOf(**STAGES)] = Field(
        {},
        description="keys for single stages: ingest, train, embed, gwas, loci, panel, probe, phewas, as in their "
        "verbs; gallery, attention, saliency, perturb, snp, clusters as in those of interpret",
    )
    launch: LaunchConfig = LaunchConfig()


class DemoConfig(VerbConfig):
    """The whole pipeline on a simulated cohort; the loci found are compared with the planted ones."""

    out: Path = Field(Path("demo"), description="folder to write")
    preset: Literal["smoke", "demo"] = Field("demo", description="size of the cohort")
    seed: NonNegative = Field(1, description="of the cohort and of the network")
    workers: NonNegative = Field(2, description="processes, and ranks of the training")
    stages: Annotated[dict[str, dict[str, Any]], KeysOf(**STAGES, simulate=SimulateConfig)] = Field(
        {}, description="keys for single stages: simulate, train, gwas, loci ..."
    )


class InspectConfig(Config):
    """What a file or folder is: how it was made, whether it is complete, and whether its files are intact.

    The exit code is 0 if it is complete, 3 if it is unfinished, 4 if files are missing or damaged, and 2
    if nothing is there, or nothing known. Inputs that have changed since are reported; they do not affect the code.
    """

    path: Path = Field(
        description="anything that these verbs write or read; the name alone is enough: udipdist inspect X"
    )
    contents: bool = Field(False, description="read everything: compare recorded SHA-256, unpack volumes")
    format: Literal["text", "json"] = Field("text", description="text for people, json for programs")
