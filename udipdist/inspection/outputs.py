"""Outputs of stages: finished ones by their manifest, unfinished ones by their plan."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpc.errors import Error, InputError, some
from hpc.files import size_of
from udipdist.genotypes.plink1 import PLINK1
from udipdist.gwas.scan.planned import ScanPlan
from udipdist.inspection import records, stores, training
from udipdist.inspection.finding import DAMAGED, UNFINISHED, Finding
from udipdist.volumes import convert

KINDS = {
    "simulate": "simulated cohort",
    "ingest": "volume store",
    "volumes": "volumes for other programs",
    "train": "training run",
    "embed": "latents",
    "grm": "sparse GRM",
    "gwas": "association results",
    "export": "exported summary statistics",
    "loci": "genomic risk loci",
    "panel": "loci against a panel",
    "report": "report",
    "voxel_pca": "latents of a PCA of the voxels",
    "attention": "attention of a network",
    "perturb": "perturbation maps",
    "saliency": "saliency maps",
    "gallery": "gallery of a network",
    "clusters": "clusters of SNP directions",
    "probe": "probes of latents",
    "phewas": "phenome-wide association",
    "erase": "latents without confounders",
    "plot": "figure",
    "sweep": "sweep",
    "consensus": "consensus phenotypes",
}
GENOTYPES = ("genotypes.bed", "genotypes.bim", "genotypes.fam")
COHORT = (*GENOTYPES, "sparse.grm.sp", "sparse.grm.id", "covariates.tsv", "truth/truth.json", "truth/loci.tsv")
GWAS = ("null.tsv", "samples.tsv", "dropped.tsv")
LOCI = ("GenomicRiskLoci.txt", "leadSNPs.txt", "IndSigSNPs.txt", "loci.parquet")
PANEL = ("hits.tsv", "panel.json")
CLUSTERS = ("clusters.tsv", "names.tsv", "similarity.tsv", "tree.nwk", "tree.png", "tree.pdf")
PHEWAS = ("phewas.tsv", "summary.tsv", "skipped.tsv")
PROBES = ("probes.tsv", "skipped.tsv", "probes.png", "probes.pdf")
TWO_TREES = ("agreement.tsv", "matched.tsv", "partitions.tsv", "clades.tsv", "tanglegram.png", "tanglegram.pdf")
INTERPRET_TABLES = {  # of interpret: the tables that are always there
    "attention": ("heads.tsv", "layers.tsv", "tokens.tsv", "singular.tsv"),
    "perturb": ("directions.tsv", "maps"),
    "saliency": ("sanity.tsv", "maps"),
    "gallery": ("subjects.tsv", "walks.tsv", "reconstructions.png", "walks.png"),
}
# records removed, packed voxels added, old checkpoints deleted since, the report made again
_OF_OTHER_SIZE = ("ingest", "volumes", "train", "sweep")
_TOLD_BY_THE_STORE = ("subjects", "valid", "shape", "dtype", "mask_voxels")
_TOLD_BY_THE_METRICS = ("steps", "loss", "ssim", "psnr", "train_loss")


def finished(path: Path, contents: bool) -> Finding | None:
    """An output with a manifest; None where it has none."""
    try:
        manifest = records.open_manifest(path)
    except records.Unreadable as error:
        return Finding(path, "output of a stage", DAMAGED, problems=[f"its manifest is damaged: {error}"])
    if manifest is None:
        return None
    stage = manifest["stage"]
    found = Finding(path, KINDS.get(stage, f"output of {stage}"))
    records.tell(found, manifest)
    if not path.exists():
        found.worsen(DAMAGED, ["its manifest exists, but the output does not"])
        return found
    found.facts = records.of_manifest(manifest)
    CHECKS.get(stage, _nothing_more)(found, manifest, contents)
    if stage not in _OF_OTHER_SIZE and not found.problems:
        records.check_size(found, manifest)
    found.notes += records.leftovers(path)
    states = {one["state"] for one in found.inputs}
    if records.CHANGED in states:
        found.notes.append("an input has changed: to make this again from the new one, add overwrite=true")
    if records.GONE in states:
        found.notes.append("an input is no longer where it was; where it has moved, its new path does as well")
    return found


def unfinished(path: Path, contents: bool) -> Finding | None:
    """An output with a plan and no manifest; None where it has no plan."""
    if not (path / "plan.json").is_file():
        return None
    try:
        plan = records.read_json(path / "plan.json")
        stage = _stage_of(path, plan)
    except (records.Unreadable, AttributeError, TypeError) as error:
        return Finding(path, "unfinished output", DAMAGED, problems=[f"its plan is damaged: {error}"])
    found = Finding(path, KINDS.get(stage or "", "output"), UNFINISHED)
    done = len(list((path / "parts").glob("*.json")))
    found.parts = {"done": done, "total": _total(path, stage, plan)}
    found.facts["last_written"] = records.last_change([path / "plan.json", *records.markers(path)])
    found.made = _of_parts(path)
    found.inputs = [{"key": key, **records.look_at_input(seen, None, path)} for key, seen in _inputs_of(plan).items()]
    records.check_parts(found, contents)
    found.notes += records.leftovers(path)
    found.worsen(UNFINISHED, ["has no manifest: it is being made, or was interrupted; the same command continues it"])
    return found


# ------------------------------------------------------------------------------------------------------ what is whole

Check = Callable[[Finding, Mapping[str, Any], bool], None]


def _nothing_more(found: Finding, manifest: Mapping[str, Any], contents: bool) -> None:
    """All that is known of the outputs of other stages is their size."""


def _simulate(found: Finding, manifest: Mapping[str, Any], contents: bool) -> None:
    place, scans = found.path, int(found.facts.get("volumes", 0))
    lists = ("volumes_train.csv", "volumes_gwas.csv") if scans else ()
    found.worsen(DAMAGED, records.missing(place, (*COHORT, *lists)))
    here = sum(1 for _ in (place / "volumes").glob("[!.]*.nii.gz"))
    if here != scans:
        found.worsen(DAMAGED, [f"volumes/ holds {here:,} scans, and {scans:,} were made"])
    if not records.missing(place, GENOTYPES):
        found.worsen(DAMAGED, genotype_problems(str(place / "genotypes")))


def _ingest(found: Finding, manifest: Mapping[str, Any], contents: bool) -> None:
    said = {key: value for key, value in found.facts.items() if key not in _TOLD_BY_THE_STORE}
    found.facts = {}
    stores.check_store(found, contents)
    found.facts |= said
    facts = manifest.get("facts", {})
    judged = any("quality" in one for one in (facts, *facts.get("modalities", {}).values()))
    tables = [name for name in ("failures", "repeats") if said.get(name)] + (["qc"] if judged else [])
    found.worsen(DAMAGED, records.missing(found.path.parent, [f"{found.path.stem}.{name}.tsv" for name in tables]))


def _volumes(found: Finding, manifest: Mapping[str, Any], contents: bool) -> None:
    config = manifest.get("config", {})
    found.facts |= {key: config[key] for key in ("format", "orientation", "modality") if config.get(key)}
    for row in _rows_of(found, convert.FILES, found.facts.get("subjects", 0)):
        path = found.path / row["file"]
        if not path.exists():
            found.worsen(DAMAGED, [f"{row['file']} is missing"])
        elif size_of(path) != int(row["bytes"]):
            found.worsen(DAMAGED, [f"{row['file']} has {size_of(path):,} bytes, not {int(row['bytes']):,}"])
        elif contents and convert.digest(path)[1] != row["sha256"]:
            found.worsen(DAMAGED, [f"{row['file']} has other bytes than were written (SHA-256)"])


def _train(found: Finding, manifest: Mapping[str, Any], contents: bool) -> None:
    found.facts = {key: value for key, value in found.facts.items() if key not in _TOLD_BY_THE_METRICS}
    training.check_run(found, contents)
    found.worsen(DAMAGED, records.missing(found.path, ["reconstructions.npz"]))


def _embed(found: Finding, manifest: Mapping[str, Any], contents: bool) -> None:
    pheno = found.path.with_suffix(".pheno")
    found.worsen(DAMAGED, records.missing(pheno.parent, [pheno.name]))
    try:
        file = pq.ParquetFile(found.path)
        found.facts |= {"subjects": file.metadata.num_rows, "columns": file.schema_arrow.names}
        if contents:
            file.read()
        if pheno.is_file() and (here := _lines(pheno) - 1) != file.metadata.num_rows:
            found.worsen(DAMAGED, [f"{pheno.name} holds {here:,} subjects, not {file.metadata.num_rows:,}"])
    except (OSError, pa.ArrowException) as error:
        found.worsen(DAMAGED, [f"cannot be read as Parquet ({error})"])


def _grm(found: Finding, manifest: Mapping[str, Any], contents: bool) -> None:
    ids = found.path.with_suffix(".id")
    found.worsen(DAMAGED, records.missing(ids.parent, [ids.name]))
    people = found.facts.get("n_people")
    if ids.is_file() and people is not None and people != (here := _lines(ids)):
        found.worsen(DAMAGED, [f"{ids.name} names {here:,} people, not {people:,}"])


def _gwas(found: Finding, manifest: Mapping[str, Any], contents: bool) -> None:
    place, tables = found.path, found.facts.get("tables") or []
    records.check_parts(found, contents)
    if tables:
        found.worsen(DAMAGED, records.missing(place, tables))
        found.hold([one for name in tables if (one := finished(place / name, contents)) is not None])
        return
    if not found.problems:
        found.worsen(DAMAGED, records.missing(place, GWAS))
    if not found.problems:
        stores.check_sumstats(found, place, contents)


def _export(found: Finding, manifest: Mapping[str, Any], contents: bool) -> None:
    config = manifest.get("config", {})
    found.facts |= {key: config[key] for key in ("format", "trait") if key in config}
    paths = [found.path]
    if found.path.is_dir():
        paths = [found.path / row["file"] for row in _rows_of(found, "files.tsv", found.facts.get("files", 0))]
    if config.get("format") == "ssf":
        paths += [path.with_name(f"{path.name}-meta.yaml") for path in paths]
    found.worsen(DAMAGED, [f"{path.name} is missing" for path in paths if not path.is_file()])
    if contents:
        found.worsen(DAMAGED, [line for path in paths if path.is_file() for line in unzipped(path)])


def _loci(found: Finding, manifest: Mapping[str, Any], contents: bool) -> None:
    found.worsen(DAMAGED, records.missing(found.path, LOCI))


def _panel(found: Finding, manifest: Mapping[str, Any], contents: bool) -> None:
    found.worsen(DAMAGED, records.missing(found.path, PANEL))


def _interpret(found: Finding, manifest: Mapping[str, Any], contents: bool) -> None:
    names = [*INTERPRET_TABLES[manifest["stage"]], *manifest.get("facts", {}).get("captions", {})]
    found.worsen(DAMAGED, records.missing(found.path, dict.fromkeys(names)))
    records.check_parts(found, contents)


def _clusters(found: Finding, manifest: Mapping[str, Any], contents: bool) -> None:
    each = manifest.get("facts", {}).get("analyses", {})
    names = [*TWO_TREES, *(f"{one}/{name}" for one in each for name in CLUSTERS)] if each else CLUSTERS
    found.worsen(DAMAGED, records.missing(found.path, names))


def _probe(found: Finding, manifest: Mapping[str, Any], contents: bool) -> None:
    found.worsen(DAMAGED, records.missing(found.path, PROBES))
    records.check_parts(found, contents)


def _phewas(found: Finding, manifest: Mapping[str, Any], contents: bool) -> None:
    pictures = list(manifest.get("facts", {}).get("captions", {}))
    found.worsen(DAMAGED, records.missing(found.path, [*PHEWAS, *pictures]))


def _report(found: Finding, manifest: Mapping[str, Any], contents: bool) -> None:
    figures = found.path.with_name(f"{found.path.stem}_figures")
    names = [f"{figures.name}/{name}.png" for name in found.facts.get("figures", [])]
    found.worsen(DAMAGED, records.missing(figures.parent, names))


CHECKS: dict[str, Check] = {
    "simulate": _simulate,
    "ingest": _ingest,
    "volumes": _volumes,
    "train": _train,
    "embed": _embed,
    "erase": _embed,
    "grm": _grm,
    "gwas": _gwas,
    "export": _export,
    "loci": _loci,
    "panel": _panel,
    "clusters": _clusters,
    "probe": _probe,
    "phewas": _phewas,
    "report": _report,
    "consensus": _embed,
    **dict.fromkeys(INTERPRET_TABLES, _interpret),
}


def genotype_problems(prefix: str) -> list[str]:
    """What is wrong with .bed/.bim/.fam, from the first bytes and the size of the .bed and the lines of the others."""
    try:
        people, variants = PLINK1.count(prefix)
    except InputError as error:
        return [str(error)]
    with Path(f"{prefix}.bed").open("rb") as file:
        magic = file.read(3)
    lines, size = _lines(Path(f"{prefix}.bim")), Path(f"{prefix}.bed").stat().st_size
    if magic != b"\x6c\x1b\x01":
        return [f"{prefix}.bed is not a variant-major .bed (it begins with {magic.hex(' ')})"]
    if lines != variants or size != 3 + variants * ((people + 3) // 4):
        return [f"{prefix}.bed holds {variants:,} variants of {people:,} people by its size, the .bim {lines:,}"]
    return []


def unzipped(path: Path) -> list[str]:
    """What is wrong with a gzip file, which is read to its end, where its checksum stands; nothing of other files."""
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else nullcontext() as stream:
            while packed and stream.read(1 << 20):
                pass
    except (OSError, EOFError, zlib.error) as error:
        return [f"{path.name} cannot be read to its end ({error})"]
    return []


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _rows_of(found: Finding, name: str, n: int) -> list[dict[str, str]]:
    """The rows of a table of `n` files; damaged where there is none."""
    try:
        with (found.path / name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except OSError:
        found.worsen(DAMAGED, [f"{name} is missing"])
        return []
    except ValueError as error:  # no UTF-8
        found.worsen(DAMAGED, [f"{name} is damaged ({error})"])
        return []
    bad = [str(number) for number, row in enumerate(rows, 2) if None in row.values() or "file" not in row]
    if bad or len(rows) != n:
        what = f"line {some(bad)}" if bad else f"it lists {len(rows):,} files of {n:,}"
        found.worsen(DAMAGED, [f"{name} is damaged ({what})"])
        return []
    return rows


# ------------------------------------------------------------------------------------------------------ what is begun


def _stage_of(path: Path, plan: Mapping[str, Any]) -> str | None:
    """Which stage fixed a plan: it says so, or is known by what it holds."""
    if "stage" in plan:
        return str(plan["stage"])
    if "variants_per_part" in plan:
        return "gwas"
    if "genomes" in plan and "traits" in plan:
        return "simulate"
    if "sides" in plan and "permutations" in plan:
        return "perturb"
    return "grm" if path.name.endswith(".grm.work") else None


def _total(path: Path, stage: str | None, plan: Mapping[str, Any]) -> int | None:
    """How many parts there are; None where that is not on record."""
    try:
        if "parts" in plan:
            return int(plan["parts"])
        if stage == "ingest":
            return sum(-(-shape[0] // plan["subjects_per_shard"]) for shape in plan["shape"].values())
        if stage == "gwas":
            return -(-ScanPlan.load(path).n_variants // plan["variants_per_part"])
    except (Error, records.Unreadable, KeyError, IndexError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        return None
    return None


def _inputs_of(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The fingerprints in a plan."""
    inputs = plan.get("inputs") if isinstance(plan.get("inputs"), dict) else {"store": plan.get("store")}
    return {key: seen for key, seen in inputs.items() if isinstance(seen, dict) and "path" in seen}


def _of_parts(path: Path) -> dict[str, Any]:
    """Who did parts, and when the first of them."""
    read = []
    for marker in (path / "parts").glob("*.json"):
        try:
            record = records.read_json(marker)
            read.append((record["started"], record["host"]))
        except (records.Unreadable, KeyError, TypeError):
            continue  # check_parts says so
    return {"when": min(read)[0], "host": some(sorted({host for _, host in read}))} if read else {}
