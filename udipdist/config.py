"""Every verb's configuration on one page: the reference manual. `udipdist VERB --help` prints it.

Lengths are in millimetres, positions in base pairs, times in seconds, unless a key says otherwise.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from hpc.cluster import ClusterConfig
from hpc.config import Config, merge

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Volumes = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)]


class VerbConfig(Config):
    """Keys that every verb has."""

    overwrite: bool = Field(False, description="replace an output that exists")


# ---------------------------------------------------------------------------------------------------- simulate


class GenomeConfig(Config):
    """The simulated genomes: coalescent windows with real LD on whole chromosomes."""

    chromosomes: Annotated[int, Field(ge=2, le=22)] = Field(22, description="autosomes 1..n")
    windows_per_chromosome: Positive = Field(4, description="stretches of sequence simulated on each chromosome")
    window_bp: Positive = Field(1_000_000, description="length of a window")
    spacing_bp: Positive = Field(20_000_000, description="distance between the starts of windows")
    variants_per_mb: Positive | None = Field(300, description="variants kept per Mb, drawn at random; null keeps all")
    min_maf: Share = Field(0.01, description="variants below this minor allele frequency are left out")
    missing: Share = Field(0.002, description="share of genotype calls made missing")
    related_share: Share = Field(0.35, description="share of people who have relatives in the cohort")
    components: Positive = Field(10, description="principal components of ancestry among the covariates")


class TraitConfig(Config):
    """How genes and environment move the brain factors."""

    loci: Positive = Field(60, description="planted loci, each in its own window")
    ncp_min: float = Field(60.0, description="smallest non-centrality N r^2 of a planted locus")
    ncp_max: float = Field(500.0, description="largest non-centrality N r^2 of a planted locus")
    pleiotropy: Share = Field(0.25, description="share of loci that move a second factor by half as much variance")
    polygenic_h2: Share = Field(0.15, description="variance of a factor from the polygenic background")
    polygenic_variants: Positive = Field(2000, description="variants that carry the polygenic background")
    null_chromosomes: NonNegative = Field(
        5, description="last chromosomes without any effect, where every hit is false"
    )
    household: Share = Field(0.05, description="variance that members of a family share")
    stratification: float = Field(0.3, description="SD of the mean shift of a factor between ancestries")


class BrainConfig(Config):
    """The simulated volumes."""

    resolution_mm: Literal[1, 2, 4, 6, 8] = Field(6, description="voxel size")
    idiosyncratic_mm: float = Field(1.0, description="SD of smooth deformations that no factor explains")
    noise: float = Field(1.0, ge=0, description="multiplies the scanner noise")
    bias_field: float = Field(0.02, ge=0, description="SD of the log of the intensity bias field")
    pose_deg: float = Field(0.5, ge=0, description="SD of the residual rotation about each axis, degrees")
    pose_mm: float = Field(0.5, ge=0, description="SD of the residual translation along each axis")


class SimulateConfig(VerbConfig):
    """A cohort with known truth: genotypes, volumes, covariates, sparse GRM."""

    out: Path = Field(description="folder to write the cohort to")
    preset: Literal["smoke", "demo", "bench"] = Field("demo", description="sizes to start from; other keys go on top")
    seed: NonNegative = Field(1, description="the same seed gives the same bytes")
    train: NonNegative = Field(2500, description="people with a scan only, to train on")
    gwas: Positive = Field(4000, description="other people with scan and genotypes, to test")
    traits_only: bool = Field(False, description="write no volumes; a phenotype table stands in for the latents")
    genomes: GenomeConfig = GenomeConfig()
    traits: TraitConfig = TraitConfig()
    brains: BrainConfig = BrainConfig()
    workers: NonNegative = Field(2, description="processes; 0 works in this one")

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "demo": {},
        "smoke": {
            "train": 300,
            "gwas": 500,
            "genomes": {"windows_per_chromosome": 2, "variants_per_mb": 100},
            "traits": {"loci": 24, "ncp_max": 125, "polygenic_variants": 500},
            "brains": {"resolution_mm": 8},
        },
        "bench": {
            "train": 0,
            "gwas": 22_867,
            "traits_only": True,
            "genomes": {
                "windows_per_chromosome": 5,
                "window_bp": 250_000,
                "variants_per_mb": None,
                "min_maf": 0.001,
                "components": 21,  # 30 covariates with age, sex, four sites and head size and position
            },
        },
    }

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        return merge(cls.PRESETS.get(tree.get("preset", "demo"), {}), tree)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.traits.null_chromosomes >= self.genomes.chromosomes:
            raise ValueError(
                f"traits.null_chromosomes={self.traits.null_chromosomes} leaves none of the "
                f"genomes.chromosomes={self.genomes.chromosomes} for the loci; give a smaller number"
            )
        genomes, traits = self.genomes, self.traits
        if genomes.spacing_bp < genomes.window_bp:
            raise ValueError(
                f"genomes.spacing_bp={genomes.spacing_bp} is less than genomes.window_bp={genomes.window_bp}, so the "
                "windows would overlap; give a larger spacing"
            )
        if not 0 < traits.ncp_min <= traits.ncp_max <= 0.5 * self.gwas:
            raise ValueError(
                f"traits.ncp_min={traits.ncp_min:g} and traits.ncp_max={traits.ncp_max:g} must be in 0 < ncp_min <= "
                f"ncp_max <= gwas / 2 = {self.gwas / 2:g}: a locus explains the share ncp / gwas of a factor; give "
                "other ncp, or more gwas"
            )
        if traits.polygenic_h2 + traits.household > 0.8:
            raise ValueError(
                f"traits.polygenic_h2={traits.polygenic_h2:g} + traits.household={traits.household:g} is above 0.8, "
                "and loci and noise need the rest of a factor's variance; give smaller shares"
            )
        windows = (genomes.chromosomes - traits.null_chromosomes) * genomes.windows_per_chromosome
        if traits.loci > windows:
            raise ValueError(
                f"traits.loci={traits.loci} needs as many windows, and there are {windows} outside the null "
                "chromosomes; give fewer loci or more genomes.windows_per_chromosome"
            )
        return self


# ------------------------------------------------------------------------------------------------------ ingest


class IngestConfig(VerbConfig):
    """NIfTI volumes -> the chunked volume store."""

    volumes: Volumes = Field(
        description="a folder of .nii/.nii.gz/.mgz, a pattern in quotes ('scans/*/T1.nii.gz'), a CSV with EID (and "
        "FID) and columns of paths, a BIDS dataset, or a folder of UK Biobank's EID_20252_2_0.zip"
    )
    out: Path = Field(description="store to write, NAME.zarr")
    layout: Literal["auto", "folder", "table", "bids", "ukb"] = Field(
        "auto", description="what volumes is; auto looks; folder: also a pattern"
    )
    modalities: tuple[str, ...] = Field(
        (),
        description="one or several, as [T1, T2_FLAIR]: columns of the CSV; suffixes of BIDS, with entities to choose "
        "by (space-MNI_T1w); T1 or T2_FLAIR of UK Biobank. Default the first column, T1w, T1",
    )
    subjects_per_shard: Positive = Field(64, description="volumes in one file of the store")
    allow_failures: NonNegative = Field(0, description="files that may fail before the exit status says so")
    workers: NonNegative = Field(2, description="Dask worker processes on this machine; 0 works in this one")
    cluster: ClusterConfig = ClusterConfig()
    operational: ClassVar[frozenset[str]] = VerbConfig.operational | {"allow_failures", "cluster"}

    @field_validator("modalities", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("modalities")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value) or not all(re.fullmatch(r"[^./\\][^/\\]*", name) for name in value):
            raise ValueError(f"{list(value)}: needs different names without / in them, as [T1, T2_FLAIR]")
        return value


# ----------------------------------------------------------------------------------------------------- volumes


class VolumesConfig(VerbConfig):
    """A volume store -> files of other programs, one a subject: NIfTI, NIfTI-Zarr or OME-Zarr."""

    store: Path = Field(description="volume store that ingest wrote")
    out: Path = Field(description="folder to write: a file (or Zarr group) a subject, and files.tsv")
    format: Literal["nifti", "nifti-zarr", "ome-zarr"] = Field(
        "nifti", description="nifti: IID.nii.gz; ome-zarr: IID.ome.zarr (0.5, a pyramid); nifti-zarr: both headers"
    )
    subjects: str | tuple[str, ...] = Field("all", description="all, or the ids of some: 1001, or [1001, 1002]")
    modality: str | None = Field(None, description="which one, of a store that has several")
    orientation: Literal["ras", "source"] = Field(
        "ras", description="axes of the voxels: ras, as in the store, or as they were in each file"
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


# ------------------------------------------------------------------------------------------------------- train


class ModelConfig(Config):
    """The autoencoder."""

    name: Literal["vit_ae"] = Field("vit_ae", description="network")
    size: Literal["seed", "S", "B", "L", "H"] | None = Field(
        None, description="a named size; sets what is not given of width, depth, heads, mlp_ratio and the decoder's"
    )
    compat: Literal["vit_udip"] | None = Field(
        None, description="vit_udip: the published network as it is, faults included, to compare with"
    )
    patch: Positive | tuple[Positive, Positive, Positive] | None = Field(
        None, description="patch edge in voxels, one number or three; default 14x16x14 at 1 mm, else the 2^n over 32 mm"
    )
    width: Positive = Field(128, description="token width")
    depth: Positive = Field(4, description="encoder blocks (the paper: 12)")
    heads: Positive = Field(4, description="attention heads (the paper: 8)")
    mlp_ratio: float = Field(3.0, gt=0, description="hidden width of the MLP over the token width (the paper: 4)")
    decoder_width: Positive | None = Field(
        None, description="token width of the decoder (the paper: 64); default width"
    )
    decoder_depth: Positive = Field(1, description="decoder blocks (the paper: 12)")
    decoder_heads: Positive | None = Field(None, description="attention heads of the decoder; default heads")
    latent: Positive = Field(128, description="numbers in the bottleneck, the phenotypes")
    pool: Literal["mean", "attention", "cls"] = Field("mean", description="how a subject's tokens become one vector")
    variational: float = Field(0.0, ge=0, description="weight of the KL divergence from N(0, 1); 0: no sampling")
    covariance: float = Field(
        0.0, ge=0, description="weight of a penalty on correlated or collapsed latents (VICReg), within a micro-batch"
    )
    masked: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of a subject's tokens hidden from the encoder in training"
    )
    dropout: Share = Field(0.0, description="dropout in attention output and MLP")


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
        "none", description="where the optimiser (zero=3: the weights too) lies: on the GPU, the host, or nvme_path"
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
            raise ValueError("nvme_path and offload=nvme: the one needs the other; give both or neither")
        if self.compile and self.zero == 3:
            raise ValueError(
                "compile=true: cannot be used with engine.zero=3, whose gathering of weights around every module stops "
                "the compiler at each; type engine.compile=false, or engine.zero=2"
            )
        return self


Resident = Literal["auto", "device", "host", "none"]


class DataConfig(Config):
    """Where the voxels are that the network reads: in its own order, uncompressed, made once from the store."""

    resident: Resident = Field(
        "auto",
        description="held in the memory of the GPU (device) or of the machine, once for all its ranks (host), or read "
        "as they come (none); auto: the first that has room",
    )
    packed: Path | None = Field(None, description="folder for the packed voxels; default NAME.zarr/packed in the store")


class TrainConfig(VerbConfig):
    """Train an autoencoder on a volume store; run it under torchrun or deepspeed for more than one rank."""

    store: Path = Field(description="volume store to train on")
    run_dir: Path = Field(description="folder of the run: config, metrics, checkpoints")
    epochs: NonNegative = Field(10, description="passes over the training subjects; 0 saves the untrained network")
    global_batch: Positive = Field(16, description="subjects in one optimiser step, over all ranks")
    micro_batch: Positive | None = Field(
        None, description="subjects a rank holds at once; default global_batch / ranks"
    )
    loss: Literal["brain", "patch", "batch"] = Field(
        "brain", description="voxels that count: brain; whole patches; whole patches of the batch (the published code)"
    )
    validation: Share = Field(0.1, description="share of subjects held out, chosen by a hash of the id")
    checkpoint_epochs: Positive = Field(1, description="epochs between checkpoints")
    keep: Positive = Field(3, description="checkpoints kept beside the first (untrained) and the best")
    picture_epochs: Positive = Field(5, description="epochs between pictures of reconstructions")
    tensorboard: bool = Field(True, description="write event files for TensorBoard into run_dir/tensorboard")
    resume: bool = Field(True, description="go on from the last checkpoint of run_dir")
    seed: NonNegative = Field(0, description="weights, order of subjects, dropout")
    threads: NonNegative = Field(0, description="CPU threads of a rank; 0: cores / ranks")
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    engine: EngineConfig = EngineConfig()
    data: DataConfig = DataConfig()
    operational: ClassVar[frozenset[str]] = VerbConfig.operational | {
        "run_dir", "data", "resume", "threads", "keep", "micro_batch", "picture_epochs", "tensorboard",
    }  # fmt: skip


class EmbedConfig(VerbConfig):
    """A checkpoint and a volume store -> the latents table."""

    run_dir: Path = Field(description="folder of the training run")
    store: Path = Field(description="volume store to embed")
    out: Path = Field(Path("latents.parquet"), description="latents table to write; a PLINK .pheno is put beside it")
    checkpoint: str = Field("last", description="last, best, or the number of an optimiser step (0: untrained)")
    batch: Positive = Field(32, description="subjects at once; does not change the result")
    threads: NonNegative = Field(0, description="CPU threads; 0: all cores")
    operational: ClassVar[frozenset[str]] = VerbConfig.operational | {"batch", "threads"}

    @model_validator(mode="before")
    @classmethod
    def _step_is_text(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and isinstance(tree.get("checkpoint"), int):
            tree = tree | {"checkpoint": str(tree["checkpoint"])}
        return tree


# --------------------------------------------------------------------------------------------------------- grm


class GrmConfig(VerbConfig):
    """The sparse GRM: pairs of relatives from genotypes, or from a table of kinships made elsewhere."""

    genotypes: Path = Field(description="prefix of PLINK .bed/.bim/.fam; {chr} in it stands for 1..22, X, XY")
    kinship: Path | tuple[Path, ...] | None = Field(
        None,
        description="table of KING (.kin0, .kin, .seg), plink2 (--make-king-table) or UK Biobank (ukb_rel.dat), or a "
        "list [a.kin, b.kin0], taken instead of the genotypes (only the .fam is read); G is twice the kinship",
    )
    out: Path = Field(description="prefix to write: .grm.sp, .grm.id (for sparse_grm=); .grm.kin0 lists the pairs")
    method: Literal["king", "gcta"] = Field(
        "king", description="king: KING-robust, right among ancestries; gcta: GCTA's GRM, which takes ancestry for kin"
    )
    cutoff: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.0884, description="pairs with smaller relatedness G count as unrelated; 0.0884: up to third-degree relatives"
    )
    match: Literal["fid_iid", "iid"] = Field("fid_iid", description="ids of the kinship table that agree with the .fam")
    max_variants: Positive = Field(20_000, description="variants used, spread evenly over the autosomes")
    min_maf: Share = Field(0.05, description="variants below this minor allele frequency are not used")
    max_missing: Share = Field(0.02, description="variants with more missing calls are not used")
    max_family: Positive = Field(8000, description="a larger group of relatives is refused, as gwas would")
    tile: Positive = Field(2048, description="people of a tile; memory grows with it, the result does not change")
    workers: NonNegative = Field(0, description="Dask worker processes; 0 works in this one")
    operational: ClassVar[frozenset[str]] = VerbConfig.operational | {"tile"}

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        unused = {"method", "max_variants", "min_maf", "max_missing"} & self.model_fields_set
        if self.kinship is not None and unused:
            raise ValueError(
                f"{', '.join(sorted(unused))}: of no use with kinship=, which is read as it is; leave it out"
            )
        return self


# -------------------------------------------------------------------------------------------------------- gwas


class NullConfig(Config):
    """The null models (variance components without a variant)."""

    total_variance: Literal["free", "sample"] = Field(
        "free", description="free: two-parameter REML; sample: GCTA's constraint Vg + Ve = sample variance"
    )
    variance: Path | None = Field(None, description="table with trait, Vg, Ve to use instead of REML")


class GwasConfig(VerbConfig):
    """Test every variant against every trait in one pass over the genotypes."""

    genotypes: Path = Field(description="prefix of PLINK .bed/.bim/.fam; {chr} in it stands for 1..22, X, XY")
    phenotypes: tuple[Path, ...] = Field(
        description="Parquet or text table with FID IID and one column a trait; several, as [a.parquet, b.parquet], "
        "are tested in one pass, each with a folder of its own below out"
    )
    covariates: Path | None = Field(None, description="text or Parquet table with FID IID and covariates")
    formula: str | None = Field(
        None, description="covariates to use, as 'age + I(age**2) + sex + sex:age + C(site)'; default all columns"
    )
    missing_covariates: Literal["refuse", "drop"] = Field(
        "refuse", description="people with a missing covariate: an error, or left out"
    )
    sparse_grm: Path | None = Field(None, description="prefix of GCTA .grm.sp/.grm.id; needed by test=mixed")
    test: Literal["mixed", "linear"] = Field("mixed", description="exact mixed model, or linear regression")
    adjust: Literal["gls", "project", "phenotype"] = Field(
        "gls",
        description="covariates by GLS with the variants; projected (OLS) out of both; or out of the phenotype only",
    )
    out: Path = Field(description="folder to write: sumstats.zarr, null.tsv, samples.tsv")
    match: Literal["fid_iid", "iid"] = Field("fid_iid", description="ids that must agree between the tables")
    normalise: Literal["none", "rank"] = Field("none", description="rank: traits to normal scores before anything else")
    min_maf: Share = Field(1e-4, description="variants below this minor allele frequency are not tested (NaN)")
    max_missing: Share = Field(0.1, description="variants with more missing calls are not tested (NaN)")
    min_hwe: Share = Field(
        0.0,
        description="variants with a smaller p of Hardy-Weinberg equilibrium (exact; X: females) are not tested (NaN)",
    )
    region: tuple[str, ...] = Field(
        (), description="only variants there: chr6:25000000-35000000, a chromosome, a BED file, or a list [..., ...]"
    )
    extract: Path | None = Field(None, description="only variants whose ids this file lists, one a line")
    exclude: Path | None = Field(None, description="no variants whose ids this file lists")
    info: str | None = Field(
        None, description="list of INFO: ukb_mfi_chr{chr}_v3.txt, a table with ID and INFO or R2, or two columns"
    )
    min_info: Share | None = Field(None, description="variants below this INFO, or not in the list, are left out")
    max_family: Positive = Field(8000, description="largest group of relatives that is decomposed")
    weight_tolerance: float = Field(1e-9, gt=0, description="largest relative error of the weights' factorisation")
    block: Positive = Field(2048, description="variants decoded at once at most; does not change the result")
    variants_per_part: Positive = Field(8192, description="variants of one part, one shard of the output")
    workers: NonNegative = Field(0, description="Dask worker processes on this machine; 0 works in this one")
    cluster: ClusterConfig = ClusterConfig()
    null: NullConfig = NullConfig()
    operational: ClassVar[frozenset[str]] = VerbConfig.operational | {"block", "variants_per_part", "cluster"}

    @field_validator("phenotypes", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if value in ([], ()):
            raise ValueError("the list is empty; give phenotypes=TABLE or phenotypes=[TABLE, TABLE]")
        return (value,) if isinstance(value, str | Path) else value

    @field_validator("region", mode="before")
    @classmethod
    def _regions(cls, value: Any) -> Any:
        entries = value if isinstance(value, list | tuple) else [] if value is None else [value]
        return tuple(str(entry) if isinstance(entry, int | Path) else entry for entry in entries)

    @model_validator(mode="after")
    def _list_and_limit(self) -> Self:
        if self.min_info is not None and self.info is None:
            raise ValueError("min_info: needs the list that says what each variant's INFO is; give info=FILE")
        if self.min_info is None and self.info is not None:
            raise ValueError("info: is of no use without a limit; give min_info=0.3, or another between 0 and 1")
        return self

    @model_validator(mode="after")
    def _components_of_one_table(self) -> Self:
        if self.null.variance is not None and len(self.phenotypes) > 1:
            raise ValueError(
                "null.variance: names traits of one table, but phenotypes has several; test these tables one by one"
            )
        return self

    @model_validator(mode="after")
    def _has_grm(self) -> Self:
        if self.test == "mixed" and self.sparse_grm is None:
            raise ValueError(
                "sparse_grm: is required by test=mixed; give sparse_grm=PREFIX (of .grm.sp and .grm.id), "
                "or test=linear for people known to be unrelated"
            )
        return self


class GwasPlanConfig(GwasConfig):
    """Plan a gwas whose parts run as a job array: check all input, fit the null models, print how many parts."""


class GwasPartConfig(GwasConfig):
    """Do parts of a planned gwas: udipdist gwas-part 7 CONFIG.yaml, or 0-9, or 3,5,8."""

    part: str = Field(description="number of the part, a range as 0-9 (it may end beyond the last), or a list of both")
    operational: ClassVar[frozenset[str]] = GwasConfig.operational | {"part"}

    @field_validator("part", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("part")
    @classmethod
    def _of_numbers(cls, value: str) -> str:
        if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", value):
            raise ValueError("is no number of a part; give a number as 7, a range as 0-9, or a list of both as 0-9,12")
        return value


class GwasFinishConfig(GwasConfig):
    """End a gwas of which all parts are done: check every file that they wrote, and write the manifest."""


class ExportConfig(VerbConfig):
    """Summary statistics as other programs read them: of a trait, of several, or of the smallest p over traits."""

    sumstats: Path = Field(description="folder that gwas wrote")
    trait: str | list[str] = Field(
        "minp",
        description="a trait, minp or multivariate: one file; a list of them, or all traits: a folder of files",
    )
    format: Literal["fastgwa", "ssf", "fuma", "regenie"] = Field(
        "fastgwa", description="columns of GCTA, of GWAS-SSF (with its -meta.yaml), of FUMA's input, or of regenie"
    )
    out: Path = Field(description="file to write (.gz compresses, .parquet is Parquet); of several traits a folder")
    encoding: Literal["text", "gz", "parquet"] | None = Field(
        None, description="of the files of a folder; default gz. One file is encoded as its suffix says"
    )
    untested: bool = Field(False, description="keep variants that were not tested, as NA (fastgwa, regenie)")
    assembly: Literal["GRCh36", "GRCh37", "GRCh38", "NR"] = Field(
        "NR", description="genome assembly of the positions, for the metadata of ssf; NR: not reported"
    )


# -------------------------------------------------------------------------------------------------------- loci


class LociConfig(VerbConfig):
    """Summary statistics -> genomic risk loci, by the rules of FUMA SNP2GENE."""

    sumstats: Path = Field(description="folder that gwas wrote")
    genotypes: Path = Field(description="prefix of .bed/.bim/.fam for LD; {chr} in it stands for 1..22, X, XY")
    out: Path = Field(description="folder to write: GenomicRiskLoci.txt, leadSNPs.txt, IndSigSNPs.txt, loci.parquet")
    trait: str = Field("minp", description="minp, multivariate, or the name of a trait")
    p: Probability = Field(5e-8, description="threshold of lead SNPs, before division by traits")
    traits: Positive | None = Field(None, description="Bonferroni divisor; default the number tested (1 for one trait)")
    p_candidate: Probability = Field(0.05, description="threshold of candidate SNPs")
    r2: Share = Field(0.6, description="LD that makes a SNP a candidate of an independent significant SNP")
    r2_lead: Share = Field(0.1, description="LD that joins independent significant SNPs to one lead SNP")
    merge_bp: NonNegative = Field(250_000, description="blocks closer than this are one locus")
    window_bp: Positive = Field(1_000_000, description="LD is computed within this distance")
    min_maf: Share = Field(0.0, description="SNPs below this are no independent significant SNPs")
    exclude_mhc: bool = Field(False, description="leave out chr6:29,614,758-33,170,276 (GRCh37)")


class PanelConfig(VerbConfig):
    """Loci against a panel of known ones."""

    loci: Path = Field(description="folder that loci wrote")
    panel: str = Field("big40", description="big40, or a table with chr, start, end (or chr, pos)")
    out: Path = Field(description="folder to write: hits.tsv, panel.json")
    flank_bp: NonNegative = Field(250_000, description="added on both sides of a panel interval")
    rotations: NonNegative = Field(1000, description="rotations of the genome that give the chance level")
    seed: NonNegative = Field(0, description="of the rotations")


# ------------------------------------------------------------------------------------------------------ report


class ReportConfig(VerbConfig):
    """One self-contained HTML page about a run."""

    run: Path = Field(description="folder of the run")
    out: Path = Field(Path("report.html"), description="page to write; figures go to the folder NAME_figures beside it")
    title: str = Field("udipdist", description="heading of the page")


# ---------------------------------------------------------------------------------------------------- pipeline


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


# ----------------------------------------------------------------------------------------------------- inspect


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
