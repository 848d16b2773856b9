"""What a run folder holds: which stages are there, and their tables and arrays, checked as they are read.

A stage is absent, unfinished (its folder is there, its manifest is not) or done. What is done but cannot be read is an
InputError that names the file and the verb that makes it again.
"""

from __future__ import annotations

import decimal
import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from hpc import store
from hpc.errors import InputError, some
from hpc.stage import manifest_path, read_manifest
from udipdist.genome import assemblies
from udipdist.loci import fuma
from udipdist.sumstats.analyses import StoreStatistics
from udipdist.sumstats.store import Sumstats
from udipdist.volumes import quality, quality_files
from udipdist.volumes.store import VolumeStore

# stage -> its output inside the run folder, and the verb that makes it
STAGES = {
    "ingest train": ("ingest/train.zarr", "ingest"),
    "ingest gwas": ("ingest/gwas.zarr", "ingest"),
    "train": ("train", "train"),
    "embed": ("latents.parquet", "embed"),
    "gwas": ("gwas", "gwas"),
    "loci": ("loci", "loci"),
    "loci multivariate": ("loci_multivariate", "loci"),
    "panel": ("panel", "panel"),
}
# what explains the network of a run, where it was asked for
INTERPRETATIONS = {
    f"interpret {name}": (f"interpret/{name}", f"interpret {'perturb' if name == 'snp' else name}")
    for name in ("attention", "perturb", "snp", "saliency", "gallery")
} | {
    "interpret clusters": ("clusters", "interpret clusters"),
    "probe": ("probe", "probe"),
    "phewas": ("phewas", "phewas"),
}
BARE = "comparison/without_covariates"  # the same phenotypes tested without covariates
_CODES = "phecode"  # a column of text, though it looks like numbers
_LOCI = ("locus", "chrom", "start", "end", "lead_snp", "lead_position", "log10p", "trait", "n_snps", "n_lead")
_NULL = ("trait", "n", "k", "vg", "ve", "h2", "h2_se")
_HITS = ("locus", "hit", "nearest_panel", "distance")
_PLANTED = ("locus", "chr", "pos", "found_by")


@dataclass(frozen=True)
class StageOutput:
    """One stage of a run. `manifest` is None where the stage is not finished."""

    name: str
    verb: str
    path: Path
    manifest: dict[str, Any] | None

    @property
    def facts(self) -> dict[str, Any]:
        """Counts that the stage noted."""
        return self.manifest["facts"] if self.manifest else {}

    @property
    def state(self) -> str:
        """'done', 'unfinished' or 'not run'."""
        if self.manifest is not None:
            return "done"
        return "unfinished" if self.path.exists() else "not run"

    @property
    def why_absent(self) -> str:
        """One sentence for the page."""
        if self.state == "unfinished":
            return (
                f"The stage {self.name} has been started but is not finished: {self.path.name} has no manifest. "
                f"Run the same {self.verb} command again to continue."
            )
        return f"The stage {self.name} has not been run: there is no {self.path.name} in the run folder."


@dataclass(frozen=True)
class RunFolder:
    """A folder that `udipdist run` wrote, whole or in part."""

    path: Path
    stages: dict[str, StageOutput]

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Look which stages are there. Raises InputError where there is none, or where a manifest is damaged."""
        path = Path(path)
        if not path.is_dir():
            raise InputError(f"run={path}: is not a folder; give the folder that `udipdist run` wrote (its out=)")
        stages = {name: _stage(name, verb, path / place) for name, (place, verb) in STAGES.items()}
        if all(stage.state == "not run" for stage in stages.values()):
            raise InputError(
                f"run={path}: holds no stage of a run ({some([place for place, _ in STAGES.values()], 20)}); "
                "give the folder that `udipdist run` wrote (its out=)"
            )
        return cls(path, stages)

    def done(self, name: str) -> bool:
        """True where the stage is complete."""
        return self.stages[name].manifest is not None

    def begun(self, name: str) -> bool:
        """True where the stage has been started, whether it is complete or not."""
        return self.stages[name].state != "not run"

    @cached_property
    def interpretations(self) -> dict[str, StageOutput]:
        """What was asked of the network, as `stages`. Raises InputError where a manifest is damaged."""
        return {name: _stage(name, verb, self.path / place) for name, (place, verb) in INTERPRETATIONS.items()}

    @property
    def finished(self) -> dict[str, StageOutput]:
        """Everything that is complete, stages first."""
        return {name: made for name, made in (self.stages | self.interpretations).items() if made.manifest is not None}

    def tables_of(self, name: str) -> dict[str, pd.DataFrame]:
        """The tables NAME.tsv of an interpretation, by file name, numbers as numbers. Raises InputError."""
        made = self.interpretations[name]
        tables = {path.name: _read_tsv(path, (), made.verb) for path in sorted(made.path.glob("*.tsv"))}
        for table in tables.values():
            for column in table.columns.difference([_CODES], sort=False):
                values = pd.to_numeric(table[column].replace({"NA": "nan", "": "nan"}), errors="coerce")
                if not (values.isna() & ~table[column].isin(["NA", "", "nan"])).any():
                    table[column] = values
        return tables

    @cached_property
    def sumstats(self) -> Sumstats:
        """The summary statistics. Raises InputError."""
        return Sumstats.open(self.stages["gwas"].path)

    @cached_property
    def statistics(self) -> StoreStatistics:
        """The summary statistics with the place of each variant."""
        return StoreStatistics(self.sumstats)

    def bare(self) -> tuple[StoreStatistics, pd.DataFrame] | None:
        """Summary statistics and loci of the same phenotypes without covariates, where the demo made them."""
        folder = self.path / BARE
        if read_manifest(folder / "gwas") is None or read_manifest(folder / "loci") is None:
            return None
        return StoreStatistics(Sumstats.open(folder / "gwas")), read_loci(folder / "loci")

    def volumes(self, name: str) -> dict[str, VolumeStore]:
        """The modalities of the store of `ingest train` or `ingest gwas`; '' is the name of an only one.

        Raises InputError.
        """
        path = self.stages[name].path
        names = store.open_group(path).attrs.get("modalities")
        return {name: VolumeStore.open(path, name) for name in names} if names else {"": VolumeStore.open(path)}

    def quality(self, name: str) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]] | None:
        """The table of figures of each scan of a store, and for each modality `limits` and `flip_limit`.

        None where the store was made without. `name`: `ingest train` or `ingest gwas`. Raises InputError.
        """
        place = self.stages[name].path
        path = quality_files.table_path(place)
        if not path.exists():
            return None
        table = _read_tsv(path, quality_files.COLUMNS, "ingest", numbers=quality.FIGURES)
        limits = {}
        for modality in table["modality"].unique():
            array = f"{modality}/qc_outlier" if modality else "qc_outlier"
            try:
                limits[modality] = dict(store.open_group(place)[array].attrs)
            except KeyError:
                raise InputError(f"{place}: holds no {array}; run ingest again with overwrite=true") from None
        return table, limits

    def metrics(self) -> pd.DataFrame:
        """metrics.jsonl: one row a line, columns step, epoch, split, loss, lr and what else is there."""
        path = self.stages["train"].path / "metrics.jsonl"
        records = []
        for number, line in enumerate(_text(path, "train").splitlines(), 1):
            try:
                record = json.loads(line)
                record["step"], record["split"]
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f"{path}, line {number}: is not a JSON object with step and split; delete the line, or train again"
                ) from None
            records.append(record)
        return pd.DataFrame(records, columns=None if records else ["step", "split"])

    def reconstructions(self) -> dict[str, np.ndarray] | None:
        """subject [S] text, original and reconstruction [S, x, y, z] float32; None where training wrote none."""
        path = self.stages["train"].path / "reconstructions.npz"
        if not path.exists():
            return None
        cure = "it should hold subject [S], original and reconstruction [S, x, y, z]; train again with overwrite=true"
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in ("subject", "original", "reconstruction")}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: cannot be read ({error}); {cure}") from None
        shape = arrays["original"].shape
        if len(shape) != 4 or arrays["reconstruction"].shape != shape or len(arrays["subject"]) != shape[0]:
            raise InputError(f"{path}: its arrays have shapes {[a.shape for a in arrays.values()]}; {cure}")
        return arrays

    def null_models(self) -> pd.DataFrame:
        """null.tsv of gwas, a row a trait."""
        return _read_tsv(self.stages["gwas"].path / "null.tsv", _NULL, "gwas", numbers=("vg", "ve", "h2", "h2_se"))

    def dropped(self) -> pd.Series:
        """How many people were left out of the association, by reason."""
        table = _read_tsv(self.stages["gwas"].path / "dropped.tsv", ("reason",), "gwas")
        return table["reason"].value_counts()

    def loci(self, name: str = "loci") -> pd.DataFrame:
        """loci.parquet, a row a locus, with `code` the number of the chromosome."""
        return read_loci(self.stages[name].path)

    def panel(self) -> tuple[pd.DataFrame, dict[str, Any]]:
        """hits.tsv (a row a locus) and panel.json."""
        folder = self.stages["panel"].path
        return read_hits(folder), _read_json(folder / "panel.json", "panel")

    @cached_property
    def comparison(self) -> dict[str, Any] | None:
        """comparison.json, which only a run on a simulated cohort has. Raises InputError where keys are missing."""
        path = self.path / "comparison.json"
        if not path.exists():
            return None
        tree = _read_json(path, "demo")
        rows, planted = tree.get("rows"), tree.get("planted")
        whole = isinstance(rows, list) and isinstance(planted, list) and rows
        if not whole or not all("name" in row for row in rows):
            raise InputError(f"{path}: lacks rows (with a name each) or planted; run `udipdist demo` again")
        for record in planted:
            lacks = [key for key in _PLANTED if key not in record]
            if lacks:
                raise InputError(f"{path}: a planted locus lacks {some(lacks)}; run `udipdist demo` again")
        return tree

    def planted(self) -> pd.DataFrame | None:
        """Planted loci, a row each: locus chr pos found_by ... and `code`; None for a cohort that is not simulated."""
        if self.comparison is None:
            return None
        table = pd.DataFrame(self.comparison["planted"], columns=None if self.comparison["planted"] else _PLANTED)
        return table.assign(code=assemblies.codes(table["chr"]))

    def null_chromosomes(self) -> list[int]:
        """Codes of the chromosomes on which nothing was planted, where that is known."""
        names = (self.comparison or {}).get("null_chromosomes", [])
        return [assemblies.code(name) for name in names]


def _stage(name: str, verb: str, path: Path) -> StageOutput:
    manifest = read_manifest(path)
    if manifest is None and path.exists() and manifest_path(path).exists():
        raise InputError(f"{manifest_path(path)}: is not valid JSON; run {verb} again with overwrite=true")
    lacks = [key for key in ("facts", "seconds", "config") if manifest is not None and key not in manifest]
    if lacks:
        raise InputError(f"{manifest_path(path)}: lacks {some(lacks)}; run {verb} again with overwrite=true")
    return StageOutput(name, verb, path, manifest)


def read_loci(folder: Path) -> pd.DataFrame:
    """A row a locus with what `naming` knows, of a folder of `loci` or of FUMA itself. Raises InputError."""
    path = folder / fuma.TIDY
    if not path.exists() and (folder / fuma.LOCI).exists():
        return _read_fuma(folder / fuma.LOCI)
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run loci again with overwrite=true") from None
    _require(table, _LOCI, path, "loci")
    return table.assign(code=assemblies.codes(table["chrom"]))


def _read_fuma(path: Path) -> pd.DataFrame:
    numbers = ("GenomicLocus", "pos", "start", "end")
    table = _read_tsv(path, (*numbers, "rsID", "chr", "p"), "loci", numbers)
    names = {"GenomicLocus": "locus", "rsID": "lead_snp", "chr": "chrom", "pos": "lead_position"}
    table = table.rename(columns=names)
    try:  # p may lie below the smallest float64
        log10p = [-float(decimal.Decimal(p).log10()) for p in table["p"]]
    except decimal.InvalidOperation:
        raise InputError(f"{path}: has a p that is not a number; give the file as FUMA wrote it") from None
    whole = dict.fromkeys(("locus", "lead_position", "start", "end"), np.int64)
    return table.astype(whole).assign(log10p=log10p, trait="", code=assemblies.codes(table["chrom"]))


def read_hits(folder: Path) -> pd.DataFrame:
    """hits.tsv of a folder of `panel`: locus, hit, nearest_panel, distance, and the nearest gene where it is there.

    Raises InputError.
    """
    table = _read_tsv(folder / "hits.tsv", _HITS, "panel", numbers=("locus", "hit", "distance"))
    kept = [name for name in (*_HITS, "nearest_gene", "distance_to_gene") if name in table]
    return table[kept].assign(
        **{name: pd.to_numeric(table[name], errors="coerce") for name in kept if name == "distance_to_gene"}
    )


def with_hits(loci: pd.DataFrame, hits: pd.DataFrame) -> pd.DataFrame:
    """Loci with what `read_hits` knows of them."""
    blank = {"hit": 0, "nearest_panel": "", "nearest_gene": ""}
    columns = [name for name in hits if name == "locus" or name not in loci]
    return loci.merge(hits[columns], on="locus", how="left").fillna({k: v for k, v in blank.items() if k in hits})


def _read_tsv(path: Path, columns: tuple[str, ...], verb: str, numbers: tuple[str, ...] = ()) -> pd.DataFrame:
    _text(path, verb)
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path}: is not a table ({error}); run {verb} again with overwrite=true") from None
    _require(table, columns, path, verb)
    for name in numbers:
        values = pd.to_numeric(table[name].replace({"NA": "nan", "": "nan"}), errors="coerce")
        wrong = np.flatnonzero(values.isna() & ~table[name].isin(["NA", "", "nan"]))
        if len(wrong):
            raise InputError(
                f"{path}, line {wrong[0] + 2}: {name}={table[name].iloc[wrong[0]]!r} is not a number; "
                f"run {verb} again with overwrite=true"
            )
        table[name] = values
    return table


def _require(table: pd.DataFrame, columns: tuple[str, ...], path: Path, verb: str) -> None:
    lacks = [name for name in columns if name not in table]
    if lacks:
        raise InputError(f"{path}: lacks the columns {some(lacks)}; run {verb} again with overwrite=true")


def _read_json(path: Path, verb: str) -> dict[str, Any]:
    try:
        tree = json.loads(_text(path, verb))
    except ValueError as error:
        raise InputError(f"{path}: is not valid JSON ({error}); run {verb} again with overwrite=true") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: holds a {type(tree).__name__}, not an object; run {verb} again with overwrite=true")
    return tree


def _text(path: Path, verb: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run {verb} again with overwrite=true") from None
