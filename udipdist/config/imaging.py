"""The configuration of the stages from scans to latents."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from hpc.cluster import ClusterConfig
from hpc.config import Config
from udipdist.config.base import (
    OTHER_IMAGES,
    NonNegative,
    OtherImages,
    Positive,
    Share,
    VerbConfig,
    Volumes,
)
from udipdist.config.networks import AnyNetwork, VitAeConfig


class IngestConfig(VerbConfig):
    """NIfTI volumes -> the chunked volume store."""

    volumes: Volumes = Field(
        description="a folder of .nii/.nii.gz/.mgz, a pattern in quotes ('scans/*/T1.nii.gz'), a CSV with EID (and "
        "FID) and columns of paths, a BIDS dataset, or a folder of UK Biobank's EID_20252_2_0.zip"
    )
    out: Path = Field(description="store to write, NAME.zarr")
    layout: Literal["auto", "folder", "table", "bids", "ukb"] = Field(
        "auto", description="form of `volumes`; auto: detect it; folder: also a pattern"
    )
    modalities: tuple[str, ...] = Field(
        (),
        description="one or several, as [T1, T2_FLAIR]: columns of the CSV; suffixes of BIDS, with entities to choose "
        "by (space-MNI_T1w); T1 or T2_FLAIR of UK Biobank. Default the first column, T1w, T1",
    )
    mask: str | None = Field(
        None,
        description="applied to the images, for those that are not skull-stripped: a column of the CSV with the paths "
        "of masks, or of BIDS the name of the masks, desc-brain_mask",
    )
    allow: tuple[Literal["background", "orientation", "affines"], ...] = Field(
        (),
        description="what to take all the same, as [affines]: background: foreground that does not look like a brain; "
        "orientation: files that do not say for sure which side is left; affines: no place in space that most share",
    )
    subjects_per_shard: Positive = Field(64, description="volumes per file of the store")
    allow_failures: NonNegative = Field(0, description="number of files that may fail before the exit status is 3")
    workers: NonNegative = Field(2, description="Dask worker processes on this machine; 0 works in this one")
    cluster: ClusterConfig = ClusterConfig()
    operational: ClassVar[frozenset[str]] = VerbConfig.operational | {"allow", "allow_failures", "cluster"}

    @field_validator("modalities", "allow", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("modalities")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value) or not all(re.fullmatch(r"[^./\\][^/\\]*", name) for name in value):
            raise ValueError(f"{list(value)}: needs different names without / in them, as [T1, T2_FLAIR]")
        return value


class VolumesConfig(VerbConfig):
    """A volume store -> files for other programs, one per subject: NIfTI, NIfTI-Zarr or OME-Zarr."""

    store: Path = Field(description="volume store that ingest wrote")
    out: Path = Field(description="folder to write: a file (or Zarr group) per subject, and files.tsv")
    format: Literal["nifti", "nifti-zarr", "ome-zarr"] = Field(
        "nifti", description="nifti: IID.nii.gz; ome-zarr: IID.ome.zarr (0.5, a pyramid); nifti-zarr: both headers"
    )
    subjects: str | tuple[str, ...] = Field("all", description="all, or the ids of some: 1001, or [1001, 1002]")
    modality: str | None = Field(None, description="modality, if the store has several")
    orientation: Literal["ras", "source"] = Field(
        "ras", description="axes of the voxels: ras, as in the store; source, as in each file"
    )
    workers: NonNegative = Field(0, description="Dask worker processes on this machine; 0 works in this one")

    @field_validator("subjects", mode="before")
    @classmethod
    def _ids(cls, value: Any) -> Any:
        if value in ([], ()):
            raise ValueError("the list is empty; give subjects=all, or some ids")
        if value == "all":
            return value
        entries = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
        return tuple(str(entry).strip() for entry in entries)


class OptimConfig(Config):
    """AdamW."""

    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay")
    betas: tuple[float, float] = Field((0.9, 0.98), description="moment decays")
    clip: float = Field(1.0, ge=0, description="largest gradient norm; 0 does not clip")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="decay of a moving average of the weights, which is then validated and saved; 0: none"
    )


class ScheduleConfig(Config):
    """The learning rate over optimiser steps."""

    name: Literal["cosine", "constant", "step", "warm_restarts"] = Field("cosine", description="shape after warm-up")
    warmup: Share = Field(0.05, description="share of all steps with a linear rise")
    floor: Share = Field(0.02, description="lowest rate, as a share of the peak")
    step_epochs: Positive = Field(3, description="step: epochs between drops")
    step_factor: Share = Field(0.5, description="step: factor of a drop")
    restart_epochs: Positive = Field(10, description="warm_restarts: length of the first cycle; each next is doubled")


class EngineConfig(Config):
    """How DeepSpeed runs the training."""

    zero: Literal[0, 1, 2, 3] = Field(0, description="ZeRO stage: what is sharded over ranks")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 on a GPU, fp32 on a CPU; fp16 scales the loss dynamically"
    )
    attention: Literal["auto", "flash", "efficient", "cudnn", "math"] = Field(
        "auto", description="kernel of the attention; auto: torch chooses, and the log says which"
    )
    offload: Literal["none", "cpu", "nvme"] = Field(
        "none", description="where the optimiser state (zero=3: weights too) is kept: the GPU, the host, or nvme_path"
    )
    nvme_path: Path | None = Field(None, description="offload=nvme: folder on a fast local disk of every node")
    activation_checkpointing: bool = Field(False, description="recompute blocks in the backward pass to save memory")
    compile: bool = Field(False, description="torch.compile: the first step takes a minute or more, later ones less")
    deepspeed: dict[str, Any] = Field({}, description="passed to DeepSpeed last; a warning names what it overrides")

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.offload == "cpu" and self.zero == 0:
            raise ValueError("offload=cpu: needs engine.zero=1, 2 or 3, as stage 0 leaves the optimiser whole")
        if self.offload == "nvme" and self.zero != 3:
            raise ValueError(f"offload=nvme: needs engine.zero=3, not {self.zero}; or type engine.offload=cpu")
        if (self.offload == "nvme") != (self.nvme_path is not None):
            raise ValueError("nvme_path and offload=nvme: each needs the other; give both or neither")
        if self.compile and self.zero == 3:
            raise ValueError(
                "compile=true: cannot be used with engine.zero=3, whose gathering of weights around every module stops "
                "the compiler at each; type engine.compile=false, or engine.zero=2"
            )
        return self


Resident = Literal["auto", "device", "host", "none"]


class DataConfig(Config):
    """Where the packed voxels are kept: in the order of the network, uncompressed, made once from the store."""

    resident: Resident = Field(
        "auto",
        description="held in the memory of the GPU (device) or of the machine, once for all its ranks (host), or read "
        "as needed (none); auto: the first with enough room",
    )
    packed: Path | None = Field(None, description="folder for the packed voxels; default NAME.zarr/packed in the store")


class TrainConfig(VerbConfig):
    """Train an autoencoder on a volume store; run it under torchrun or deepspeed for more than one rank."""

    store: Path = Field(description="volume store to train on")
    modality: str | None = Field(None, description="which images of a store that holds several, as T1")
    run_dir: Path = Field(description="folder of the run: config, metrics, checkpoints")
    epochs: NonNegative = Field(10, description="passes over the training subjects; 0 saves the untrained network")
    global_batch: Positive = Field(16, description="subjects in one optimiser step, over all ranks")
    micro_batch: Positive | None = Field(
        None, description="subjects that a rank holds at once; default global_batch / ranks"
    )
    loss: Literal["brain", "patch", "batch"] = Field(
        "brain", description="voxels that count: brain; whole patches; whole patches of the batch (the published code)"
    )
    validation: Share = Field(0.1, description="share of subjects held out, chosen by a hash of the id")
    checkpoint_epochs: Positive = Field(1, description="epochs between checkpoints")
    keep: Positive = Field(3, description="newest checkpoints to keep, besides the first (untrained) and the best")
    keep_epochs: tuple[NonNegative, ...] = Field(
        (), description="epochs whose checkpoints are saved and kept in any case, as [10, 50]"
    )
    picture_epochs: Positive = Field(5, description="epochs between pictures of reconstructions")
    tensorboard: bool = Field(True, description="write event files for TensorBoard into run_dir/tensorboard")
    resume: bool = Field(True, description="continue from the last checkpoint of run_dir")
    seed: NonNegative = Field(0, description="weights, order of subjects, dropout")
    threads: NonNegative = Field(0, description="CPU threads of a rank; 0: cores / ranks")
    model: AnyNetwork = VitAeConfig()
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    engine: EngineConfig = EngineConfig()
    data: DataConfig = DataConfig()
    operational: ClassVar[frozenset[str]] = VerbConfig.operational | {
        "run_dir", "data", "resume", "threads", "keep", "micro_batch", "picture_epochs", "tensorboard",
    }  # fmt: skip

    @field_validator("keep_epochs", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) and not isinstance(value, bool) else value


class EmbedConfig(VerbConfig):
    """A checkpoint and a volume store -> the latents table."""

    run_dir: Path = Field(description="folder of the training run")
    store: Path = Field(description="volume store to embed")
    modality: str | None = Field(None, description="which images of a store that holds several, as T1")
    out: Path = Field(Path("latents.parquet"), description="latents table to write, with a PLINK .pheno beside it")
    checkpoint: str = Field("last", description="last, best, or the number of an optimiser step (0: untrained)")
    allow: OtherImages = Field((), description=OTHER_IMAGES)
    batch: Positive = Field(32, description="subjects at once; does not change the result")
    threads: NonNegative = Field(0, description="CPU threads; 0: all cores")
    operational: ClassVar[frozenset[str]] = VerbConfig.operational | {"allow", "batch", "threads"}
