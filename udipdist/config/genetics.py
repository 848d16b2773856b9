"""The configuration of the stages from genotypes to loci."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from hpc.declared import Files
from udipdist.config.analyses import MINP, MULTIVARIATE
from udipdist.config.association import ScanOptions, ScanPlaces
from udipdist.config.base import Draws, NonNegative, Positive, Probability, Share, VerbConfig


class GrmConfig(VerbConfig):
    """The sparse GRM: pairs of relatives from genotypes, or from a table of kinships made elsewhere."""

    genotypes: Path = Field(description="prefix of PLINK .bed/.bim/.fam; {chr} in it stands for 1..22, X, XY")
    kinship: Path | tuple[Path, ...] | None = Field(
        None,
        description="table of KING (.kin0, .kin, .seg), plink2 (--make-king-table) or UK Biobank (ukb_rel.dat), or a "
        "list [a.kin, b.kin0], used instead of the genotypes (only the .fam is read); G is twice the kinship",
    )
    out: Path = Field(description="prefix to write: .grm.sp, .grm.id (for sparse_grm=); .grm.kin0 lists the pairs")
    method: Literal["king", "gcta"] = Field(
        "king", description="king: KING-robust, for several ancestries; gcta: GCTA's GRM, takes ancestry for kinship"
    )
    cutoff: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.0884, description="pairs with a smaller G count as unrelated; 0.0884 keeps relatives up to the third degree"
    )
    match: Literal["fid_iid", "iid"] = Field("fid_iid", description="ids that kinship table and .fam must share")
    max_variants: Positive = Field(20_000, description="variants used, spread evenly over the autosomes")
    min_maf: Share = Field(0.05, description="variants below this minor allele frequency are not used")
    max_missing: Share = Field(0.02, description="variants with more missing calls are not used")
    max_family: Positive = Field(8000, description="a larger group of relatives is refused, as in gwas")
    tile: Positive = Field(2048, description="people per tile; memory grows with it, the result does not change")
    workers: NonNegative = Field(0, description="Dask worker processes; 0 works in this one")
    operational: ClassVar[frozenset[str]] = VerbConfig.operational | {"tile"}

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        unused = {"method", "max_variants", "min_maf", "max_missing"} & self.model_fields_set
        if self.kinship is not None and unused:
            raise ValueError(
                f"{', '.join(sorted(unused))}: not used with kinship=, whose table is read unchanged; leave it out"
            )
        return self


class GwasConfig(ScanOptions, ScanPlaces):
    """Test every variant against every trait in one pass over the genotypes."""

    @model_validator(mode="after")
    def _components_of_one_table(self) -> Self:
        if self.null_model.variance is not None and len(self.phenotypes) > 1:
            raise ValueError(
                "null_model.variance: names traits of one table, but phenotypes has several; test the tables one by one"
            )
        return self


class GwasPlanConfig(GwasConfig):
    """Plan a gwas whose parts run as a job array: check the input, fit the null models, print the number of parts."""


class GwasPartConfig(GwasConfig):
    """Do parts of a planned gwas: udipdist gwas-part 7 CONFIG.yaml, or 0-9, or 3,5,8."""

    part: str = Field(description="number of a part, a range 0-9 (it may end beyond the last), or a list of both")
    operational: ClassVar[frozenset[str]] = GwasConfig.operational | {"part"}

    @field_validator("part")
    @classmethod
    def _of_numbers(cls, value: str) -> str:
        if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", value):
            raise ValueError("is not a part; give a number such as 7, a range such as 0-9, or a list such as 0-9,12")
        return value


class GwasFinishConfig(GwasConfig):
    """Finish a gwas whose parts are all done: check every file that they wrote, and write the manifest."""


class ExportConfig(VerbConfig):
    """Summary statistics in the formats of other programs: of a trait, several traits, or the smallest p."""

    sumstats: Path = Field(description="folder that gwas wrote")
    trait: str | list[str] = Field(
        MINP,
        description="a trait, minp or multivariate: one file; a list of them, or all traits: a folder of files",
    )
    format: Literal["fastgwa", "ssf", "fuma", "regenie"] = Field(
        "fastgwa", description="columns of GCTA, of GWAS-SSF (with its -meta.yaml), of FUMA's input, or of regenie"
    )
    out: Path = Field(description="file to write (.gz compresses, .parquet is Parquet); for several traits a folder")
    encoding: Literal["text", "gz", "parquet"] | None = Field(
        None, description="encoding of the files in a folder; default gz. The suffix of a single file decides"
    )
    untested: bool = Field(False, description="keep variants that were not tested, as NA (fastgwa, regenie)")
    p_floor: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="smaller p are written as this: programs that read p as a float64, such as LDSC's munge_sumstats, "
        "drop what underflows to 0; default 1e-300 for fuma (which has -log10 p beside it), else 0, which is no limit",
    )
    assembly: Literal["GRCh36", "GRCh37", "GRCh38", "NR"] = Field(
        "NR", description="genome assembly of the positions, for the metadata of ssf; NR: not reported"
    )


class LociOptions(VerbConfig):
    """How genomic risk loci are found, whatever the summary statistics."""

    genotypes: Path = Field(description="prefix of .bed/.bim/.fam for LD; {chr} in it stands for 1..22, X, XY")
    trait: str | tuple[str, ...] = Field(
        MINP, description="minp, multivariate, a trait, a list of these, or all; for a table minp, which is its p"
    )
    p: Probability = Field(5e-8, description="threshold of lead SNPs, before division by traits")
    tests: Positive | None = Field(
        None, description="tests of each variant, by which p is divided (Bonferroni); default: the traits tested"
    )
    renamed: ClassVar[dict[str, str]] = {"traits": "tests"}
    p_candidate: Probability = Field(0.05, description="threshold of candidate SNPs")
    r2: Share = Field(0.6, description="LD that makes a SNP a candidate of an independent significant SNP")
    r2_lead: Share = Field(0.1, description="LD that joins independent significant SNPs to one lead SNP")
    r2_floor: Share = Field(0.05, description="weaker LD counts as none")
    merge_bp: NonNegative = Field(250_000, description="blocks closer than this are one locus")
    window_bp: Positive = Field(1_000_000, description="LD is computed within this distance")
    min_maf: Share = Field(0.0, description="SNPs below this are not used as independent significant SNPs")
    exclude_mhc: bool = Field(False, description="leave out the MHC of chromosome 6")
    mhc: tuple[NonNegative, NonNegative] | None = Field(
        None, description="its first and last base pair; default 29614758, 33170276 (GRCh38: 29646981, 33202499)"
    )
    assembly: Literal["GRCh37", "GRCh38", "NR"] = Field(
        "NR", description="genome build of all positions; checked against chromosome lengths; NR: not reported"
    )
    lambda_variants: Positive = Field(
        200_000, description="variants, in evenly spread shards, from which lambda_GC of each trait is computed"
    )

    @field_validator("trait")
    @classmethod
    def _names_something(cls, value: Any) -> Any:
        if (isinstance(value, tuple) and len(set(value)) != len(value)) or not value:
            raise ValueError("is empty, or names a trait twice; give a trait, minp, multivariate, a list, or all")
        return value

    def of_test(self, trait: str) -> Self:
        """The same for one test: a divisor `tests` is that of the smallest p; a joint test is one test a variant."""
        return self.model_copy(update={"tests": None}) if trait == MULTIVARIATE else self

    @model_validator(mode="after")
    def _stretch(self) -> Self:
        if self.mhc is not None and self.mhc[0] > self.mhc[1]:
            raise ValueError(f"mhc: ends before it begins; give mhc=[{self.mhc[1]}, {self.mhc[0]}]")
        if self.mhc is not None and not self.exclude_mhc:
            raise ValueError("mhc: has no effect without exclude_mhc=true; give both, or leave it out")
        return self


class LociPlaces(VerbConfig):
    """The summary statistics of a search for loci, and where its tables go."""

    sumstats: tuple[Path, ...] = Field(
        description="folder that gwas wrote, or a table (.gz or not) of fastGWA, GWAS-SSF, FUMA's input, plink2 --glm "
        "or regenie; several runs, as [a, b, ...], are also compared with each other"
    )
    out: Path = Field(
        description="folder to write: GenomicRiskLoci.txt, leadSNPs.txt, IndSigSNPs.txt, ld.txt, loci.parquet; of "
        "several runs or traits: their merged loci, with a folder below it for each"
    )

    @field_validator("sumstats", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if value in ([], ()):
            raise ValueError("the list is empty; give sumstats=FOLDER or sumstats=[FOLDER, FOLDER]")
        return (value,) if isinstance(value, str | Path) else value


class LociConfig(LociOptions, LociPlaces):
    """Summary statistics -> genomic risk loci, by the rules of FUMA SNP2GENE."""


class PanelConfig(VerbConfig):
    """Compare loci with panels of known loci, and list the genes near them."""

    loci: Path = Field(description="folder that loci wrote, or one of FUMA")
    panel: Annotated[tuple[str, ...], Files()] = Field(
        ("big40",),
        description="big40, a table with chr, start, end (or chr, pos), BED, the GWAS Catalog's table of associations; "
        "or several, as [big40, mine.tsv]",
    )
    out: Path = Field(description="folder to write: hits.tsv, panel.json")
    assembly: Literal["GRCh37", "GRCh38"] | None = Field(
        None, description="genome build of the loci; default: what `loci` was given, otherwise GRCh37"
    )
    panel_assembly: Literal["GRCh37", "GRCh38"] | None = Field(
        None, description="genome build of tables that do not state it; default: that of the loci"
    )
    variants: Path | None = Field(
        None,
        description="folder that gwas wrote, or prefix of .bim: places panels of the other build by rsID",
    )
    chain: Path | None = Field(
        None,
        description="UCSC chain file that lifts panels of the other build to that of the loci, such as "
        "hg38ToHg19.over.chain.gz; needs the library liftover",
    )
    catalog_traits: tuple[str, ...] = Field(
        (), description="GWAS Catalog: only associations whose trait has a word beginning with one of these"
    )
    catalog_p: Probability = Field(5e-8, description="only associations of the GWAS Catalog up to this p")
    genes: Annotated[str | None, Files()] = Field(
        None,
        description="GTF of GENCODE or Ensembl, refGene of UCSC, or a table with chr, start, end, gene; for GRCh38 "
        "also ensembl, which comes with the package",
    )
    gene_window_bp: NonNegative = Field(10_000, description="genes are listed up to this distance from a locus")
    gene_types: tuple[str, ...] = Field(
        ("protein_coding",), description="types of genes, if the table has them; []: all"
    )
    flank_bp: NonNegative = Field(250_000, description="added on both sides of a panel interval")
    genotypes: Path | None = Field(
        None,
        description="prefix of genotypes that chance loci are drawn from, with MAF, LD and genes as at the found ones; "
        "default: those of the loci",
    )
    pool: NonNegative = Field(2000, description="random SNPs of the genotypes that chance loci are drawn from; 0: none")
    rotations: Draws = Field(1000, description="rotations of the genome: the chance level of random places; 0: none")
    seed: NonNegative = Field(0, description="of the pool and the rotations")

    @field_validator("panel", "catalog_traits", mode="before")
    @classmethod
    def _one_or_a_list(cls, value: Any) -> Any:
        return (str(value),) if isinstance(value, str | Path) else value

    @field_validator("panel")
    @classmethod
    def _any_panel(cls, value: Any) -> Any:
        if not value or len(set(value)) != len(value):
            raise ValueError("names no panel, or one twice; give panel=big40, panel=FILE or panel=[big40, FILE]")
        return value

    @field_validator("catalog_traits")
    @classmethod
    def _any_word(cls, value: Any) -> Any:
        if not all(word.strip() for word in value):
            raise ValueError("a word is empty; give catalog_traits=[brain, cortical]")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.variants is not None and self.chain is not None:
            raise ValueError("variants: chain is given too; give only one of them")
        return self
