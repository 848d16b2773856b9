"""udipdist inspect: what a thing is, whether it is whole, who made it from what. (Training runs: tests/training.)"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import zarr
from bed_reader import to_bed
from safetensors.numpy import save_file

from hpc import parts
from hpc.errors import InputError
from hpc.files import publish_json
from hpc.stage import stage
from udipdist import inspection
from udipdist.cli import VERBS, resolve
from udipdist.cohort.simulate import simulate
from udipdist.config import (
    EmbedConfig,
    ExportConfig,
    GrmConfig,
    GwasConfig,
    IngestConfig,
    InspectConfig,
    LociConfig,
    PanelConfig,
    ReportConfig,
    RunConfig,
    SimulateConfig,
    VolumesConfig,
)
from udipdist.gwas.scan.verb import gwas
from udipdist.inspection import verb as inspecting
from udipdist.inspection.verb import Damaged, inspect, look
from udipdist.loci.panel import panel
from udipdist.loci.verb import loci
from udipdist.relatedness.verb import grm
from udipdist.sumstats.export import export
from udipdist.volumes import convert
from udipdist.volumes import ingest as ingesting
from udipdist.volumes.convert import volumes
from udipdist.volumes.ingest import ingest

N, M = 40, 30


def scan(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((9, 8, 7)) < 0.5, rng.integers(1, 900, (9, 8, 7)), 0).astype("int16")
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 2, 2, 1])), path)


def make_genetics(place: Path) -> None:
    """Genotypes, phenotypes, kinships of 40 people; the association, its loci, panel and exports; a sparse GRM."""
    rng = np.random.default_rng(1)
    ids = [f"i{i}" for i in range(N)]
    to_bed(
        f"{place / 'geno'}.bed",
        rng.integers(0, 3, (N, M)).astype(np.float32),
        properties={
            "fid": ids,
            "iid": ids,
            "chromosome": ["1"] * M,
            "bp_position": [1000 * i for i in range(1, M + 1)],
        },
    )
    table = pd.DataFrame({"FID": ids, "IID": ids, "y0": rng.standard_normal(N), "y1": rng.standard_normal(N)})
    table.to_csv(place / "y.pheno", sep=" ", index=False)
    (place / "kin.dat").write_text("ID1 ID2 HetHet IBS0 Kinship\ni1 i2 0.1 0.001 0.25\n")
    base = {"genotypes": place / "geno"}
    scan_keys = {"phenotypes": place / "y.pheno", "test": "linear", "variants_per_part": 12, "out": place / "gwas"}
    gwas(GwasConfig.parse(base | scan_keys))
    loci(LociConfig(sumstats=place / "gwas", genotypes=place / "geno", out=place / "loci", p=0.5, tests=1))
    panel(PanelConfig(loci=place / "loci", panel="big40", out=place / "panel", rotations=20))
    export(ExportConfig(sumstats=place / "gwas", trait="y0", format="ssf", out=place / "y0.tsv"))
    export(ExportConfig(sumstats=place / "gwas", trait="all", format="regenie", out=place / "all"))
    grm(GrmConfig(genotypes=place / "geno", kinship=place / "kin.dat", out=place / "sparse", match="iid"))


@pytest.fixture(scope="session")
def originals(tmp_path_factory) -> Path:
    """One of each kind; do not write to it."""
    place = tmp_path_factory.mktemp("inspect")
    (place / "scans").mkdir()
    for i in range(5):
        scan(place / "scans" / f"s{i}.nii.gz", i)
    (place / "scans" / "s5.nii.gz").write_bytes(b"not a scan")
    keys = {"volumes": place / "scans", "workers": 0, "subjects_per_shard": 2, "allow_failures": 1}
    ingest(IngestConfig.parse(keys | {"out": place / "store.zarr"}))
    shutil.rmtree(place / "scans" / "s5.nii.gz", ignore_errors=True)
    volumes(VolumesConfig(store=place / "store.zarr", out=place / "nifti"))
    volumes(VolumesConfig(store=place / "store.zarr", out=place / "ome", format="ome-zarr", subjects=("s1", "s2")))
    latents = place / "latents.parquet"
    with stage("embed", latents, EmbedConfig(run_dir=place, store=place, out=latents), {"store": place / "store.zarr"}):
        table = pd.DataFrame({"FID": ["a"], "IID": ["a"], "z000": [1.0]})
        table.to_parquet(latents)
        table.to_csv(latents.with_suffix(".pheno"), sep=" ")
    with stage("report", place / "report.html", ReportConfig(run=place), {}) as current:
        (place / "report.html").write_text("<html></html>")
        (place / "report_figures").mkdir()
        (place / "report_figures" / "qq.png").write_bytes(b"png")
        current.note(figures=["qq"])
    make_genetics(place)
    return place


@pytest.fixture
def place(originals, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(originals, tmp_path / "copy"))


OUTPUTS = {  # name: kind, the stage that made it, some of its facts
    "store.zarr": ("volume store", "ingest", {"subjects": 6, "not_readable": ["s5"], "type": "int16", "shards": 3}),
    "nifti": ("volumes for other programs", "volumes", {"subjects": 5, "format": "nifti"}),
    "ome": ("volumes for other programs", "volumes", {"subjects": 2, "format": "ome-zarr"}),
    "latents.parquet": ("latents", "embed", {"subjects": 1, "columns": ["FID", "IID", "z000"]}),
    "gwas": ("association results", "gwas", {"variants": M, "traits": ["y0", "y1"], "test": "linear"}),
    "y0.tsv": ("exported summary statistics", "export", {"format": "ssf", "trait": "y0"}),
    "all": ("exported summary statistics", "export", {"format": "regenie", "files": 2}),
    "sparse.grm.sp": ("sparse GRM", "grm", {"n_people": N}),
    "loci": ("genomic risk loci", "loci", {"trait": "minp"}),
    "panel": ("loci against a panel", "panel", {"rotations": 20}),
    "report.html": ("report", "report", {"figures": ["qq"]}),
}


@pytest.mark.parametrize("contents", [False, True])
@pytest.mark.parametrize("name", OUTPUTS)
def test_whole_outputs(name, contents, originals):
    kind, made_by, facts = OUTPUTS[name]
    found = look(originals / name, contents)
    assert (found.kind, found.state, found.problems) == (kind, "complete", [])
    assert {key: found.facts[key] for key in facts} == facts
    assert found.made["stage"] == made_by and found.made["host"] == os.uname().nodename
    assert found.made["command"] == sys.argv and "udipdist" in found.made["versions"]
    assert {one["state"] for one in found.inputs} <= {"unchanged"}
    tree = json.loads(json.dumps(found.tree()))
    assert tree["path"] == str(originals / name) and tree["state"] == "complete"
    text = found.text()
    assert text.splitlines()[1] == f"  {kind}, complete" and "WRONG" not in text


def _cut(path: Path, n: int = 5) -> None:
    path.write_bytes(path.read_bytes()[:-n])


def _flip(path: Path) -> None:
    """Change one byte in the middle; the size stays."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


SHARD = "store.zarr/image/c/1/0/0/0"
DAMAGES = [  # name, what is done to it, what is said
    ("store.zarr", lambda p: _cut(p / SHARD), "image/c/1/0/0/0"),
    ("store.zarr", lambda p: (p / SHARD).unlink(), "image/c/1/0/0/0"),
    ("store.zarr", lambda p: shutil.rmtree(p / "store.zarr" / "mask"), "the array mask is missing"),
    ("store.zarr", lambda p: shutil.rmtree(p / "store.zarr" / "std" / "c"), "the array std is missing"),
    ("store.zarr", lambda p: _cut(p / "store.zarr" / "std" / "c" / "0"), "the array std cannot be read"),
    ("store.zarr", lambda p: (p / "store.zarr" / "zarr.json").unlink(), "zarr.json is missing"),
    ("nifti", lambda p: _cut(p / "nifti" / "s1.nii.gz"), "s1.nii.gz has .* bytes, not"),
    ("nifti", lambda p: (p / "nifti" / "s1.nii.gz").unlink(), "s1.nii.gz is missing"),
    ("nifti", lambda p: (p / "nifti" / "files.tsv").unlink(), "files.tsv is missing"),
    ("nifti", lambda p: _cut(p / "nifti" / "files.tsv", 70), "files.tsv is damaged"),
    ("nifti", lambda p: (p / "nifti" / "files.tsv").write_text("FID\tIID\tfile\n"), "it lists 0 files of 5"),
    ("store.zarr", lambda p: (p / "store.failures.tsv").unlink(), "store.failures.tsv is missing"),
    ("store.zarr", lambda p: shutil.rmtree(p / "store.zarr/thumbnail/c/1"), "thumbnail/c/1/0/0/0: is missing"),
    ("store.zarr", lambda p: _cut(p / "store.zarr" / "zarr.json"), "damaged: "),
    ("ome", lambda p: (p / "ome" / "s1.ome.zarr" / "zarr.json").unlink(), "s1.ome.zarr has"),
    ("latents.parquet", lambda p: _cut(p / "latents.parquet"), "cannot be read as Parquet"),
    ("latents.parquet", lambda p: (p / "latents.pheno").unlink(), "latents.pheno is missing"),
    ("latents.parquet", lambda p: (p / "latents.parquet").unlink(), "its manifest exists, but the output does not"),
    ("gwas", lambda p: _cut(p / "gwas" / "sumstats.zarr" / "beta" / "c" / "1" / "0"), "beta/c/1/0 has"),
    ("gwas", lambda p: (p / "gwas" / "null.tsv").unlink(), "null.tsv is missing"),
    ("gwas", lambda p: (p / "gwas" / "parts" / "000001.json").write_text("{"), "000001.json: .* not valid JSON"),
    ("y0.tsv", lambda p: (p / "y0.tsv-meta.yaml").unlink(), "y0.tsv-meta.yaml is missing"),
    ("all", lambda p: (p / "all" / "all_y1.regenie.gz").unlink(), "all_y1.regenie.gz is missing"),
    ("sparse.grm.sp", lambda p: (p / "sparse.grm.id").unlink(), "sparse.grm.id is missing"),
    ("sparse.grm.sp", lambda p: (p / "sparse.grm.id").write_text("a a\n"), "sparse.grm.id names 1 people, not 40"),
    ("loci", lambda p: (p / "loci" / "leadSNPs.txt").unlink(), "leadSNPs.txt is missing"),
    ("panel", lambda p: (p / "panel" / "hits.tsv").unlink(), "hits.tsv is missing"),
    ("report.html", lambda p: _cut(p / "report.html"), "has 8 bytes, and was made with 13"),
    ("report.html", lambda p: (p / "report_figures" / "qq.png").unlink(), "report_figures/qq.png is missing"),
    ("loci", lambda p: (p / "loci" / "manifest.json").write_text('{"stage": "lo'), "manifest is damaged"),
    ("loci", lambda p: (p / "loci" / "manifest.json").write_text("[1]"), "does not say which stage made it"),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGES)
def test_damage_is_told(name, damage, message, place, capsys):
    damage(place)
    with pytest.raises(Damaged, match=message) as caught:
        inspect(InspectConfig(path=place / name))
    assert caught.value.exit_code == 4 and "damaged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("store.zarr", SHARD, "s2|s3"),
        ("nifti", "nifti/s1.nii.gz", "other bytes than were written"),
        ("ome", "ome/s1.ome.zarr/0/c/0/0/0", "other bytes than were written"),
        ("gwas", "gwas/sumstats.zarr/beta/c/1/0", "other bytes than were written"),
    ],
)
def test_changed_bytes_are_found_by_reading_all(name, file, message, place):
    assert look(place / name, contents=False).state == "complete"
    _flip(place / file)
    found = look(place / name, contents=True)
    assert found.state == "damaged" and any(re.search(message, line) for line in found.problems)


def test_other_voxels_than_were_ingested(place):
    """A shard written anew, whole and valid, with other values."""
    array = zarr.open_array(place / "store.zarr" / "image", mode="r+")
    array[1] = array[1] + np.int16(1)
    assert look(place / "store.zarr", contents=False).state == "complete"
    problems = look(place / "store.zarr", contents=True).problems
    assert problems == ["subject s1 has other voxels than were ingested"]


def test_inputs_that_changed_since(place, capsys):
    """Told, and nothing against the output; a copy names the places that its manifest has."""
    keys = {"volumes": place / "scans", "workers": 0, "out": place / "new.zarr", "allow_failures": 1}
    ingest(IngestConfig.parse(keys))
    volumes(VolumesConfig(store=place / "new.zarr", out=place / "of_new"))
    scan(place / "scans" / "s9.nii.gz", 9)
    found = look(place / "new.zarr", contents=False)
    assert found.state == "complete" and found.inputs[0]["state"] == "CHANGED since"
    assert look(place / "of_new", contents=False).inputs[0]["state"] == "unchanged"
    place.rename(place.with_name("moved"))  # both together
    moved = look(place.with_name("moved") / "of_new", contents=False).inputs[0]
    assert moved == {"key": "store", "path": str(place.with_name("moved") / "new.zarr"), "state": "unchanged"}
    place.with_name("moved").rename(place)
    shutil.rmtree(place / "new.zarr")
    inspect(InspectConfig(path=place / "of_new"))
    text = capsys.readouterr().out
    assert f"store: {place / 'new.zarr'} (no longer there)" in text
    assert "no longer where it was; where it has moved, its new path does as well" in text


# ---------------------------------------------------------------------------------------------------- unfinished


def _stopped(monkeypatch, module, name, at: int):
    """Make a function stop at its call number `at`, as if killed."""
    called, real = [], getattr(module, name)

    def stop(*words, **keys):
        called.append(1)
        if len(called) == at:
            raise KeyboardInterrupt
        return real(*words, **keys)

    monkeypatch.setattr(module, name, stop)


def test_unfinished_store(place, monkeypatch):
    _stopped(monkeypatch, ingesting.IngestJob, "part", 2)
    with pytest.raises(KeyboardInterrupt):
        ingest(IngestConfig(volumes=place / "scans", out=place / "half.zarr", workers=0, subjects_per_shard=2))
    found = look(place / "half.zarr", contents=True)
    assert (found.kind, found.state) == ("volume store", "unfinished")
    assert found.parts == {"done": 1, "total": 3} and found.made["host"] == os.uname().nodename
    assert "done  1 of 3 parts" in " ".join(found.text().split()).replace("done 1", "done  1")
    assert look(place / "half.zarr" / "plan.json", contents=False).kind == "volume store"
    _flip(place / "half.zarr" / "image" / "c" / "0" / "0" / "0" / "0")
    found = look(place / "half.zarr", contents=True)
    assert found.state == "damaged" and "crc32c" in found.first_problem


def test_unfinished_export(place, monkeypatch):
    write = convert._WRITERS["nifti"]
    _stopped(monkeypatch, convert.formats, "write_nifti", 3)
    monkeypatch.setitem(convert._WRITERS, "nifti", convert.formats.write_nifti)
    with pytest.raises(KeyboardInterrupt):
        volumes(VolumesConfig(store=place / "store.zarr", out=place / "half"))
    monkeypatch.setitem(convert._WRITERS, "nifti", write)
    found = look(place / "half", contents=True)
    assert (found.kind, found.state, found.parts) == (
        "volumes for other programs",
        "unfinished",
        {"done": 2, "total": 5},
    )
    assert [one["key"] for one in found.inputs] == ["store"] and found.inputs[0]["state"] == "unchanged"


def test_unfinished_gwas(place, monkeypatch):
    from udipdist.gwas.scan.job import Scan

    _stopped(monkeypatch, Scan, "part", 2)
    keys = {"genotypes": place / "geno", "phenotypes": place / "y.pheno", "test": "linear", "variants_per_part": 12}
    with pytest.raises(KeyboardInterrupt):
        gwas(GwasConfig.parse(keys | {"out": place / "half"}))
    found = look(place / "half", contents=True)
    assert (found.kind, found.state, found.parts) == ("association results", "unfinished", {"done": 1, "total": 3})
    assert {one["key"] for one in found.inputs} >= {"genotypes.bed", "phenotypes"}


def test_unfinished_of_unknown_plans(tmp_path):
    (tmp_path / "x").mkdir()
    publish_json(tmp_path / "x" / "plan.json", {"what": 1})
    found = look(tmp_path / "x", contents=False)
    assert (found.kind, found.state, found.parts) == ("output", "unfinished", {"done": 0, "total": None})
    (tmp_path / "x" / "plan.json").write_text("{")
    assert look(tmp_path / "x", contents=False).state == "damaged"
    work = tmp_path / "rel.grm.work"
    work.mkdir()
    parts.fix_plan(work, {"cutoff": 0.1})
    assert look(tmp_path / "rel", contents=False).kind == "sparse GRM"


# --------------------------------------------------------------------------------------------- stores, and of others


def test_store_of_several_modalities(place):
    (place / "list.csv").write_text(
        "EID,T1,FLAIR\na,scans/s0.nii.gz,scans/s1.nii.gz\nb,scans/s2.nii.gz,scans/s3.nii.gz\n"
    )
    keys = {"modalities": ["T1", "FLAIR"], "workers": 0, "out": place / "two.zarr", "allow": "background"}
    ingest(IngestConfig.parse({"volumes": place / "list.csv"} | keys))
    found = look(place / "two.zarr", contents=True)
    assert found.state == "complete" and found.facts["T1"]["subjects"] == found.facts["FLAIR"]["subjects"] == 2
    one = look(place / "two.zarr" / "FLAIR", contents=False)
    assert one.kind == "volume store" and "is a modality of" in one.notes[0]
    _cut(place / "two.zarr" / "FLAIR" / "image" / "c" / "0" / "0" / "0" / "0")
    assert look(place / "two.zarr", contents=False).state == "damaged"


def test_packed_voxels_of_a_store(place):
    from udipdist.volumes import packed
    from udipdist.volumes.store import VolumeStore

    store = VolumeStore.open(place / "store.zarr")
    gather = packed.Gather((3, 7), np.arange(21))
    made = packed.pack(store, gather)
    (inside,) = look(place / "store.zarr", contents=False).inside
    assert (inside.kind, inside.state, inside.path) == ("packed voxels of a volume store", "complete", made.place)
    assert look(made.place, contents=True).notes == []
    (made.place / "zarr.json").unlink()
    found = look(place / "store.zarr", contents=False)
    assert found.state == "complete" and found.inside[0].state == "unfinished"


def test_copies_without_their_record(place, tmp_path):
    """A store copied without its manifest, and summary statistics without the folder: said, and not called damaged."""
    shutil.copytree(place / "store.zarr", tmp_path / "alone.zarr")
    found = look(tmp_path / "alone.zarr", contents=True)
    assert (found.kind, found.state) == ("volume store", "complete") and "not known" in found.notes[0]
    shutil.copytree(place / "gwas" / "sumstats.zarr", tmp_path / "sumstats.zarr")
    found = look(tmp_path / "sumstats.zarr", contents=True)
    assert (found.kind, found.state, found.facts["variants"]) == ("summary statistics", "complete", M)
    _cut(tmp_path / "sumstats.zarr" / "beta" / "c" / "0" / "0")
    assert look(tmp_path / "sumstats.zarr", contents=False).state == "complete"
    assert look(tmp_path / "sumstats.zarr", contents=True).state == "damaged"


def test_ome_zarr(place):
    found = look(place / "ome" / "s1.ome.zarr", contents=True)
    assert (found.kind, found.state, found.facts["subject"]) == ("OME-Zarr image", "readable", "s1")
    assert found.facts["image"] == "7 x 8 x 9 (zyx), int16"
    shutil.rmtree(place / "ome" / "s1.ome.zarr" / "0")
    assert look(place / "ome" / "s1.ome.zarr", contents=False).problems == ["level 0 is missing"]


def test_zarr_of_others(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(3,), dtype="f4", attributes={"by": "others"})[...] = 1
    found = look(tmp_path / "a.zarr", contents=True)
    assert (found.kind, found.state, found.facts["by"]) == ("Zarr array", "readable", "others")
    group = zarr.create_group(tmp_path / "g.zarr")
    group.create_array("x", shape=(2, 2), dtype="i4")
    assert look(tmp_path / "g.zarr", contents=True).facts["arrays"] == ["x [2, 2] int32"]
    (tmp_path / "g.zarr" / "zarr.json").write_text("{}")
    assert look(tmp_path / "g.zarr", contents=False).state == "damaged"


# ------------------------------------------------------------------------------------------- what people bring


@pytest.mark.parametrize("name", ["geno", "geno.bed", "geno.bim", "geno.fam"])
def test_genotypes(name, place):
    found = look(place / name, contents=False)
    assert (found.state, found.facts) == ("readable", {"people": N, "variants": M})
    _cut(place / "geno.bed")
    assert look(place / name, contents=False).state == "damaged"


def test_genotypes_of_chromosomes(place):
    for chromosome in (1, 2):
        for suffix in ("bed", "bim", "fam"):
            shutil.copy(place / f"geno.{suffix}", place / f"chr{chromosome}.{suffix}")
    found = look(place / "chr{chr}", contents=False)
    assert found.facts == {"people": N, "variants": 2 * M, "sets": ["chr1", "chr2"]}
    (place / "chr2.bed").write_bytes(b"\0" + (place / "chr2.bed").read_bytes()[1:])
    (problem,) = look(place / "chr{chr}", contents=False).problems
    assert problem.endswith("chr2.bed is not a variant-major .bed (it begins with 00 1b 01)")


@pytest.mark.parametrize("name", ["sparse", "sparse.grm.sp", "sparse.grm.id"])
def test_sparse_grm(name, place):
    assert look(place / name, contents=False).kind == "sparse GRM"
    (place / "sparse.grm.sp.manifest.json").unlink()
    found = look(place / name, contents=False)
    assert (found.state, found.facts) == ("readable", {"people": N, "pairs": 1})
    (place / "sparse.grm.sp").write_text("0 99 1\n")
    assert look(place / name, contents=False).state == "damaged"


def test_images(place):
    found = look(place / "scans" / "s1.nii.gz", contents=True)
    assert (found.kind, found.state, found.facts["voxels"]) == ("NIfTI image", "readable", "9 x 8 x 7 of 2 x 2 x 2 mm")
    assert look(place / "scans" / "s5.nii.gz", contents=False).state == "damaged"
    _cut(place / "scans" / "s1.nii.gz", 4)
    assert look(place / "scans" / "s1.nii.gz", contents=False).state == "readable"
    assert look(place / "scans" / "s1.nii.gz", contents=True).state == "damaged"
    found = look(place / "scans", contents=False)
    assert (found.kind, found.facts) == ("folder of images", {"files": {".nii.gz": 6}})
    shutil.move(place / "scans", place / "bids" / "sub-1" / "anat")
    assert look(place / "bids", contents=False).kind == "BIDS dataset"


def test_tables(place, tmp_path):
    found = look(place / "y.pheno", contents=False)
    assert found.facts == {"lines": N + 1, "first_line": ["FID", "IID", "y0", "y1"], "columns": 4}
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write("a,b c\n1,2\n")
    assert look(tmp_path / "t.csv.gz", contents=False).facts["first_line"] == ["a", "b c"]
    _cut(tmp_path / "t.csv.gz", 9)
    assert look(tmp_path / "t.csv.gz", contents=False).state == "damaged"
    (tmp_path / "e.tsv").touch()
    assert look(tmp_path / "e.tsv", contents=False).problems == ["is empty; the first line must name the columns"]
    pd.DataFrame({"x": [1, 2]}).to_parquet(tmp_path / "t.parquet")
    assert look(tmp_path / "t.parquet", contents=True).facts == {"rows": 2, "columns": ["x"], "n_columns": 1}
    _cut(tmp_path / "t.parquet")
    assert look(tmp_path / "t.parquet", contents=False).state == "damaged"


def test_tensors(tmp_path):
    save_file({"w": np.zeros((3, 4), np.float32)}, tmp_path / "w.safetensors")
    assert look(tmp_path / "w.safetensors", contents=False).facts == {"tensors": 1, "numbers": 12}
    _cut(tmp_path / "w.safetensors", 1)
    assert look(tmp_path / "w.safetensors", contents=False).state == "damaged"


# ------------------------------------------------------------------------------------------------------- folders


def test_run_of_the_pipeline(place):
    run = place / "run"
    config = RunConfig(out="elsewhere", volumes=place / "scans", genotypes=place / "geno", report=True)
    for name, to in (("store.zarr", "ingest/gwas.zarr"), ("gwas", "gwas"), ("latents.parquet", "latents.parquet")):
        (run / to).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(place / name, run / to)
    shutil.move(place / "latents.pheno", run)
    for name in ("failures", "qc"):
        shutil.move(place / f"store.{name}.tsv", run / "ingest" / f"gwas.{name}.tsv")
    (run / "config.yaml").write_text(config.yaml())
    for name in ("store.zarr", "latents.parquet"):
        to = "ingest/gwas.zarr" if name == "store.zarr" else name
        shutil.move(place / f"{name}.manifest.json", run / f"{to}.manifest.json")
    found = look(run, contents=False)
    assert (found.kind, found.state) == ("run of the pipeline", "unfinished")
    assert {str(one.path.relative_to(run)): one.state for one in found.inside} == {
        "gwas": "complete", "ingest/gwas.zarr": "complete", "latents.parquet": "complete",
    }  # fmt: skip
    assert "stage train has not been run" in found.problems and "stage gwas has not been run" not in found.problems
    _cut(run / "latents.parquet")
    found = look(place, contents=False)
    assert (found.kind, found.state) == ("folder of outputs", "damaged")
    assert any(line.startswith("run: latents.parquet: cannot be read") for line in found.problems)


def test_simulated_cohort(tmp_path):
    out = tmp_path / "cohort"
    genomes = {"chromosomes": 2, "windows_per_chromosome": 1, "window_bp": 100_000, "components": 2}
    traits = {"loci": 1, "null_chromosomes": 1, "ncp_min": 1, "ncp_max": 10, "polygenic_variants": 5}
    keys = {"preset": "smoke", "train": 2, "gwas": 40, "workers": 0, "genomes": genomes, "traits": traits}
    simulate(SimulateConfig.parse(keys | {"out": out}))
    found = look(out, contents=False)
    assert (found.kind, found.state, found.facts["volumes"]) == ("simulated cohort", "complete", 42)
    next((out / "volumes").glob("*.nii.gz")).unlink()
    assert look(out, contents=False).problems == ["volumes/ holds 41 scans, and 42 were made"]
    (out / "truth" / "loci.tsv").unlink()
    assert "truth/loci.tsv is missing" in look(out, contents=False).problems


# -------------------------------------------------------------------------------------------------- the command


def test_nothing_and_nothing_known(tmp_path):
    with pytest.raises(InputError, match="nowhere: does not exist; nor do PREFIX.bed"):
        look(tmp_path / "nowhere", contents=False)
    (tmp_path / "x.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    for path in (tmp_path, tmp_path / "x.pkl"):
        with pytest.raises(InputError, match="is not a known kind of file. Looked for: outputs of the verbs"):
            look(path, contents=True)


def test_command_line(place, udipdist):
    done = udipdist("inspect", place / "gwas", "contents=true", "format=json")
    tree = json.loads(done.stdout)
    assert (tree["kind"], tree["state"], tree["facts"]["variants"]) == ("association results", "complete", M)
    (place / "gwas" / "null.tsv").unlink()
    done = udipdist("inspect", f"path={place / 'gwas'}", check=False)
    assert done.returncode == 4 and "WRONG" in done.stdout
    assert done.stderr.strip().endswith("association results, damaged: null.tsv is missing")
    assert udipdist("inspect", place / "nowhere", check=False).returncode == 2
    (line,) = inspecting.preview(InspectConfig(path=place / "loci"))
    assert line.endswith("loci: genomic risk loci, complete; reads what is on record")


@pytest.mark.parametrize(
    "path", ["it's", 'a "b"', "010", "1e-4", "null", "\u00e4\u4e2d\U0001f9e0", "a: b", "back\\slash"]
)
def test_the_first_word_is_the_path_as_it_stands(path, tmp_path):
    verb = next(verb for verb in VERBS if verb.name == "inspect")
    assert resolve(verb, (path,)) == InspectConfig(path=Path(path))
    (tmp_path / "c.yaml").write_text("contents: true\n")
    assert resolve(verb, (path, str(tmp_path / "c.yaml"))) == InspectConfig(path=Path(path), contents=True)


def test_torch_is_not_needed(originals):
    program = (
        "import sys\nfrom pathlib import Path\nfrom udipdist.inspection.verb import look\n"
        f"for path in Path({str(originals)!r}).iterdir():\n"
        "    try: look(path, contents=True)\n"
        "    except ValueError: pass\n"
        "assert not {'torch', 'deepspeed', 'distributed', 'matplotlib'} & set(sys.modules), sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(inspection.__file__).parents[2])
