"""A simulated cohort under the names that README and configs/run.yaml use for a reader's own files."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import yaml

from udipdist.cohort.simulate import simulate
from udipdist.config import SimulateConfig

ROOT = Path(__file__).parents[2]

# Two chromosomes with a planted locus each, strong enough that a network trained for a moment shows a lead SNP.
COHORT = {
    "preset": "smoke",
    "seed": 15,
    "train": 24,
    "gwas": 240,
    "workers": 0,
    "genomes": {"chromosomes": 2, "windows_per_chromosome": 1, "window_bp": 200_000, "components": 5},
    "traits": {
        "loci": 2, "null_chromosomes": 0, "ncp_min": 110, "ncp_max": 120, "polygenic_variants": 20,
        "polygenic_h2": 0.02,
    },
    "brains": {"idiosyncratic_mm": 0, "pose_deg": 0, "pose_mm": 0},
}  # fmt: skip


def write(folder: Path) -> None:
    """Write the files into `folder`: scans, tables, genotypes by chromosome, and the configurations of the cluster."""
    made = folder / "simulated"
    simulate(SimulateConfig.parse({"out": made, **COHORT}))
    for name in ("configs", "launch"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("scans", "genotypes", "grm"):
        (folder / name).mkdir()
    for path in (made / "volumes").iterdir():
        shutil.move(path, folder / "scans" / _renamed(path.name))
    for group in ("gwas", "train"):
        table = _renamed((made / f"volumes_{group}.csv").read_text())
        (folder / "scans" / f"{group}.csv").write_text(table.replace(",volumes/", ","))
        if group == "gwas":
            (folder / "scans.csv").write_text(table.replace(",volumes/", ",scans/"))
    (folder / "covariates.tsv").write_text(_renamed((made / "covariates.tsv").read_text()))
    for name in ("phecodes", "events", "phecode_map", "phecode_definitions"):
        text = _renamed((made / "truth" / f"{name}.tsv").read_text())
        (folder / f"{name.removeprefix('phecode_')}.tsv").write_text(text)
    _write_relatives(made / "sparse", folder)
    _write_genotypes(made / "genotypes", folder)
    shutil.rmtree(made)


def write_configurations(folder: Path, gwas: dict[str, str]) -> None:
    """gwas.yaml, of the keys `gwas`, and train.yaml: small ones, as they are the reader's own."""
    (folder / "gwas.yaml").write_text(yaml.safe_dump(gwas | {"out": "scan", "workers": 0}))
    train = {"store": "scans.zarr", "run_dir": "ranks", "epochs": 1, "model": {"depth": 1}}
    (folder / "train.yaml").write_text(yaml.safe_dump(train))


def _renamed(text: str) -> str:
    """Subjects are numbers from 1001, as in README, and variants have rsIDs."""
    text = re.sub(r"\bsim(\d+)_", r"rs\1", text)
    return re.sub(r"\bG(\d{6})\b", lambda found: str(1001 + int(found[1])), text)


def _write_relatives(made: Path, folder: Path) -> None:
    """The sparse GRM, and its pairs as UK Biobank's table."""
    for suffix in (".grm.id", ".grm.sp"):
        (folder / "grm" / f"sparse{suffix}").write_text(_renamed(Path(f"{made}{suffix}").read_text()))
    ids = pd.read_csv(folder / "grm" / "sparse.grm.id", sep="\t", header=None, dtype=str)[1]
    entries = pd.read_csv(folder / "grm" / "sparse.grm.sp", sep="\t", header=None)
    pairs = entries[entries[0] != entries[1]]
    table = pd.DataFrame({"ID1": ids[pairs[0]].to_numpy(), "ID2": ids[pairs[1]].to_numpy()})
    table = table.assign(HetHet=0.05, IBS0=0.01, Kinship=pairs[2].to_numpy() / 2)
    table.to_csv(folder / "ukb_rel.dat", sep=" ", index=False)


def _write_genotypes(made: Path, folder: Path) -> None:
    """chr1 and chr2, here and in genotypes/; and a GWAS Catalog that knows a variant of the first."""
    bim = _renamed(made.with_suffix(".bim").read_text()).splitlines(keepends=True)
    fam = _renamed(made.with_suffix(".fam").read_text())
    bed = made.with_suffix(".bed").read_bytes()
    stride, at = -(-fam.count("\n") // 4), 3
    for chromosome in ("1", "2"):
        lines = [line for line in bim if line.split("\t")[0] == chromosome]
        end = at + stride * len(lines)
        for place in (folder, folder / "genotypes"):
            prefix = place / f"chr{chromosome}"
            prefix.with_suffix(".bim").write_text("".join(lines))
            prefix.with_suffix(".fam").write_text(fam)
            prefix.with_suffix(".bed").write_bytes(bed[:3] + bed[at:end])
        at = end
    assert at == len(bed)
    chromosome, snp, _, position, *_ = bim[0].split("\t")
    catalog = [
        ("CHR_ID", "CHR_POS", "SNPS", "DISEASE/TRAIT", "P-VALUE", "MAPPED_TRAIT"),
        (chromosome, position, snp, "Cortical thickness", "2E-12", "brain measurement"),
    ]
    (folder / "gwas_catalog.tsv").write_text("".join("\t".join(row) + "\n" for row in catalog))
