"""The configuration of what spans the stages: reports, whole runs, a look at anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hpc.config import Config
from udipdist.config.base import NonNegative, Positive, VerbConfig, Volumes


class ReportConfig(VerbConfig):
    """One self-contained HTML page about a run."""

    run: Path = Field(description="folder of the run")
    out: Path = Field(Path("report.html"), description="page to write; figures go to the folder NAME_figures beside it")
    title: str = Field("udipdist", description="heading of the page")


class LaunchConfig(Config):
    """How `run` starts the training."""

    ranks: Positive = Field(1, description="processes of the training on this machine, under torchrun")


class RunConfig(VerbConfig):
    """The whole pipeline from the user's own files; a stage is skipped if its output is complete and current."""

    out: Path = Field(description="folder of the run; each stage has a folder below it")
    volumes: Volumes = Field(description="scans of the people to test: a folder, pattern, CSV ..., as in ingest")
    train_volumes: Volumes | None = Field(None, description="scans of the people to train on; default the same")
    genotypes: Path = Field(description="prefix of PLINK .bed/.bim/.fam; {chr} in it stands for 1..22, X, XY")
    covariates: Path | None = Field(None, description="table with FID IID and covariates")
    sparse_grm: Path | None = Field(None, description="prefix of GCTA .grm.sp/.grm.id; without it the test is linear")
    workers: NonNegative = Field(2, description="worker processes of ingest and gwas; 0 works in this one")
    report: bool = Field(True, description="write report.html")
    stages: dict[str, dict[str, Any]] = Field(
        {}, description="keys for single stages: ingest, train, embed, gwas, loci, panel, as in their verbs"
    )
    launch: LaunchConfig = LaunchConfig()


class DemoConfig(VerbConfig):
    """The whole pipeline on a simulated cohort; the found loci are held against the planted ones."""

    out: Path = Field(Path("demo"), description="folder to write")
    preset: Literal["smoke", "demo"] = Field("demo", description="size of the cohort")
    seed: NonNegative = Field(1, description="of the cohort and of the network")
    workers: NonNegative = Field(2, description="processes, and ranks of the training")
    stages: dict[str, dict[str, Any]] = Field({}, description="keys for single stages: simulate, train, gwas, loci ...")


class InspectConfig(Config):
    """What a file or folder is: what made it from what, whether it is complete, and whether its files are whole.

    The exit code is 0 where it is complete, 3 where it is unfinished, 4 where files are missing or damaged, and 2
    where there is nothing, or nothing that is known. Inputs that changed since are told, and change nothing of that.
    """

    path: Path = Field(
        description="anything that these verbs write or read; its name alone will do: udipdist inspect X"
    )
    contents: bool = Field(False, description="read all of it: compare SHA-256 where one is on record, unpack volumes")
    format: Literal["text", "json"] = Field("text", description="text for people, json for programs")
