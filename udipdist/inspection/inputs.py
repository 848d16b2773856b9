"""What people bring: genotypes, sparse GRMs, images, tables. They have no record, so they are readable or damaged."""

from __future__ import annotations

import zlib
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hpc.errors import InputError
from udipdist import delimited
from udipdist.genotypes import plink1
from udipdist.inspection import outputs, training
from udipdist.inspection.finding import DAMAGED, READABLE, UNFINISHED, Finding
from udipdist.relatedness import grm

IMAGES = (".nii", ".nii.gz", ".mgz", ".mgh")
TABLES = (".csv", ".tsv", ".txt", ".pheno", ".covar", ".fastGWA", ".fam", ".bim", ".kin0", ".kin", ".dat", ".regenie")
_GENOTYPES = (".bed", ".bim", ".fam")
_GRM = (".grm.sp", ".grm.id", ".grm.kin0")


def prefix(path: Path, contents: bool) -> Finding | None:
    """Genotypes or a sparse GRM, by their prefix or by one of their files; None where it is neither."""
    text = str(path)
    for suffix in _GRM:
        if text.endswith(suffix) and path.is_file():
            return _grm(text.removesuffix(suffix), contents)
    for suffix in _GENOTYPES:
        if text.endswith(suffix) and path.is_file():
            return _genotypes(text.removesuffix(suffix))
    if path.exists():
        return None
    if "{chr}" in text or Path(f"{text}.bed").is_file():
        return _genotypes(text)
    if Path(f"{text}.grm.sp").is_file() or Path(f"{text}.grm.work").is_dir():
        return _grm(text, contents)
    return None


def file(path: Path, contents: bool) -> Finding | None:
    """A single file of a common kind; None where it is none."""
    if not path.is_file():
        return None
    name = path.name.lower()
    if name.endswith(IMAGES):
        return _image(path, contents)
    if name.endswith((".parquet", ".pq")):
        return _parquet(path, contents)
    if name.endswith(".safetensors"):
        return training.safetensors(path, contents)
    if Path(name.removesuffix(".gz")).suffix in [suffix.lower() for suffix in TABLES]:
        return _table(path)
    return None


def folder(path: Path, contents: bool) -> Finding | None:
    """A folder with images in it (also BIDS, and UK Biobank's zips); None where there are none."""
    if not path.is_dir():
        return None
    kinds: Counter[str] = Counter()
    for one in path.rglob("*"):
        suffix = next((suffix for suffix in IMAGES if one.name.endswith(suffix)), "")
        kinds[suffix or (".zip" if one.name.endswith("_2_0.zip") or one.name.endswith("_3_0.zip") else "")] += 1
    kinds.pop("", None)
    if not kinds:
        return None
    found = Finding(path, "folder of images", READABLE, {"files": dict(kinds)})
    if (path / "dataset_description.json").is_file() or any(path.glob("sub-*")):
        found.kind = "BIDS dataset"
        found.facts["subjects"] = sum(1 for _ in path.glob("sub-*"))
    return found


def _genotypes(text: str) -> Finding:
    found = Finding(Path(text), "genotypes (.bed, .bim, .fam)", READABLE)
    try:
        sets = plink1.find_prefixes(text)
        people, variants = plink1.PLINK1.count(text)
    except InputError as error:
        found.worsen(DAMAGED, [str(error)])
        return found
    found.facts = {"people": people, "variants": variants}
    if len(sets) > 1:
        found.facts["sets"] = [Path(one).name for one in sets]
    for one in sets:
        found.worsen(DAMAGED, outputs.genotype_problems(one))
    return found


def _grm(text: str, contents: bool) -> Finding:
    sp, work = Path(f"{text}.grm.sp"), Path(f"{text}.grm.work")
    ours = outputs.finished(sp, contents)
    if ours is not None:
        return ours
    if work.is_dir():
        found = outputs.unfinished(work, contents)
        return found or Finding(work, "sparse GRM", UNFINISHED, problems=["has no plan yet; type the command again"])
    found = Finding(Path(text), "sparse GRM (.grm.sp, .grm.id)", READABLE)
    try:
        people, matrix = grm.read(text)
    except InputError as error:
        found.worsen(DAMAGED, [str(error)])
        return found
    found.facts = {"people": len(people), "pairs": int((matrix.nnz - len(people)) // 2)}
    return found


def _image(path: Path, contents: bool) -> Finding:
    found = Finding(path, "image", READABLE)
    try:
        image = nib.load(path)
        found.kind = f"{'MGH' if isinstance(image, nib.MGHImage) else 'NIfTI'} image"
        zooms = " x ".join(f"{z:.4g}" for z in image.header.get_zooms()[:3])
        found.facts = {
            "voxels": f"{' x '.join(map(str, image.shape))} of {zooms} mm",
            "type": str(image.get_data_dtype()),
            "axes": "".join(str(code) for code in nib.aff2axcodes(image.affine)),
        }
        if contents:
            values = np.asanyarray(image.dataobj)
            found.facts["range"] = [float(values.min()), float(values.max())]
            found.worsen(DAMAGED, outputs.unzipped(path))
    except (OSError, EOFError, zlib.error, ValueError, nib.filebasedimages.ImageFileError) as error:
        found.worsen(DAMAGED, [f"cannot be read ({str(error) or type(error).__name__})"])
    except nib.spatialimages.HeaderDataError as error:
        found.worsen(DAMAGED, [f"its header is not valid ({error})"])
    return found


def _parquet(path: Path, contents: bool) -> Finding:
    found = Finding(path, "table (Parquet)", READABLE)
    try:
        opened = pq.ParquetFile(path)
        names = opened.schema_arrow.names
        found.facts = {"rows": opened.metadata.num_rows, "columns": names, "n_columns": len(names)}
        if contents:
            opened.read()
    except (OSError, pa.ArrowException) as error:
        found.worsen(DAMAGED, [f"cannot be read ({error})"])
    return found


def _table(path: Path) -> Finding:
    found = Finding(path, "table (text)", READABLE)
    try:
        form = delimited.form_of(path)
        with delimited.open_text(path, form.encoding) as stream:
            lines = sum(1 for _ in stream)
    except (InputError, OSError) as error:
        found.worsen(DAMAGED, [str(error).removeprefix(f"{path}: ")])
        return found
    found.facts = {"lines": lines, "first_line": form.names, "columns": len(form.names)}
    return found
