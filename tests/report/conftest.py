"""A small run folder as the stages would leave it, with planted peaks and with hostile names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from hpc.files import publish_json
from hpc.stage import stage
from udipdist.config import EmbedConfig, GwasConfig, IngestConfig, LociConfig, PanelConfig, ReportConfig, TrainConfig
from udipdist.loci.fuma import TIDY_TYPES
from udipdist.report.page import report
from udipdist.sumstats import pvalues
from udipdist.sumstats import store as sumstats
from udipdist.volumes.ingest import ingest

SCRIPT = "<script>alert(1)</script>"  # the name of a lead SNP
HANDLER = '"><img src=x onerror=alert(1)>'  # the name of a person and of a trait
MATH = "$\\frac{1}$"  # would stop matplotlib if it were read as mathematics
TRAITS = ["z000", HANDLER, "z002", MATH, "z004"]
M_PER_CHROMOSOME = 600
CHROMOSOMES = ("1", "2", "X", "22")
SHAPE = (10, 12, 11)


def fake_sumstats(folder: Path, rng: np.random.Generator, df: object = None, shift: float = 1.0) -> np.ndarray:
    """sumstats.zarr in `folder`: 5 traits, 4 chromosomes and 10 unplaced variants; peaks on 1 and 2. Returns z [M, 5].

    Variant 17 is not tested.
    """
    m = M_PER_CHROMOSOME * len(CHROMOSOMES) + 10
    chrom = np.repeat([*CHROMOSOMES, "scaffold7"], [*[M_PER_CHROMOSOME] * len(CHROMOSOMES), 10])
    position = np.concatenate([*[np.arange(1, M_PER_CHROMOSOME + 1) * 10_000] * len(CHROMOSOMES), np.arange(1, 11)])
    variants = pd.DataFrame(
        {"chrom": chrom, "snp": [f"rs{i}" for i in range(m)], "position": position, "a1": "A", "a2": "C"}
    )
    variants.loc[300, "snp"] = SCRIPT
    z = rng.normal(size=(m, 5)) * shift
    z[296:305, 1] = [3, 5, 6, 7, 9, 7, 6, 5, 3]
    z[900, 3] = 45.0  # p is about 1e-441
    z[17] = np.nan
    se = np.full_like(z, 0.01)
    log10p = pvalues.log10p_from_z(z)
    best = np.where(np.isnan(z).all(axis=1), -1, np.argmax(np.nan_to_num(log10p, nan=-1), axis=1))
    attrs = {"test": "mixed", "adjust": "gls", "n_samples": 90, "n_covariates": 3, "df": df, "genotypes": "g"}
    sumstats.create(folder / sumstats.STORE, variants, TRAITS, 1000, attrs)
    for start in range(0, m, 1000):
        rows = slice(start, min(start + 1000, m))
        n = rows.stop - start
        sumstats.write(
            folder / sumstats.STORE,
            start,
            sumstats.SumstatsBlock(
                z[rows] * se[rows], np.where(np.isnan(z[rows]), np.nan, se[rows]), np.full(n, 90), np.full(n, 0.3),
                np.where(best[rows] < 0, np.nan, np.nanmax(np.nan_to_num(log10p[rows], nan=-1), axis=1)),
                best[rows], np.where(best[rows] < 0, np.nan, rng.exponential(size=n) / np.log(10)),
            ),
        )  # fmt: skip
    return z


def _write_loci(folder: Path, chromosomes: tuple[str, ...]) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    everything = [
        (1, "1", 2_970_000, 3_060_000, SCRIPT, 3_010_000, 18.65, HANDLER, 9, 1, 1, SCRIPT, SCRIPT),
        (2, "2", 3_010_000, 3_010_000, MATH, 3_010_000, 441.0, MATH, 1, 1, 1, MATH, MATH),
    ]
    rows = [row for row in everything if row[1] in chromosomes]
    pd.DataFrame(rows, columns=list(TIDY_TYPES)).astype(TIDY_TYPES).to_parquet(folder / "loci.parquet")


def _write_gwas(run: Path, out: Path, rng: np.random.Generator, **keys) -> None:
    config = GwasConfig(genotypes=Path("g"), phenotypes=run / "latents.parquet", test="linear", out=out, **keys)
    with stage("gwas", out, config, {}) as current:
        out.mkdir(parents=True)
        fake_sumstats(out, rng, shift=1.0 if config.covariates else 1.4)
        table = pd.DataFrame({"trait": TRAITS, "n": 90, "k": 3, "vg": 0.2, "ve": 0.8})
        table = table.assign(h2=[0.2, 0.0, 0.5, 0.1, 0.3], h2_se=0.1, boundary=["", "lower", "", "", ""], test="mixed")
        table.to_csv(out / "null.tsv", sep="\t", index=False, na_rep="NA")
        pd.DataFrame({"FID": ["a", "b"], "IID": ["a", "b"], "reason": ["no scan", "no scan"]}).to_csv(
            out / "dropped.tsv", sep="\t", index=False
        )
        current.note(n_samples=90, n_dropped=2, n_variants=2410, n_traits=5, n_covariates=3, relatives=10)


def _write_volumes(folder: Path, name: str, n: int, rng: np.random.Generator) -> None:
    lines = ["FID,EID,T1"]
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, s) for s in SHAPE], indexing="ij"))
    brain = (grid**2).sum(0) < 0.8
    for i in range(n):
        values = np.where(brain, 100 + 30 * rng.normal(size=SHAPE), 0).astype(np.int16)
        nib.save(nib.Nifti1Image(values, np.diag([2.0, 2, 3, 1])), folder / f"{name}{i}.nii.gz")
        lines.append(f"{name}{i},{name}{i},{name}{i}.nii.gz")
    (folder / f"{name}9.nii.gz").write_bytes(b"not a scan")
    lines.append(f"{name}9,{name}9,{name}9.nii.gz")
    (folder / f"{name}.csv").write_text("\n".join(lines))


def build_run(run: Path) -> None:
    """Write all that `udipdist demo` leaves, small."""
    rng = np.random.default_rng(7)
    scans = run.parent / "scans"
    scans.mkdir()
    for name in ("train", "gwas"):
        _write_volumes(scans, name, 5, rng)
        ingest(
            IngestConfig(
                volumes=scans / f"{name}.csv", out=run / "ingest" / f"{name}.zarr", workers=0, allow_failures=1
            )
        )
    train = TrainConfig(store=run / "ingest" / "train.zarr", run_dir=run / "train")
    with stage("train", run / "train", train, {}) as current:
        (run / "train").mkdir()
        records = [{"step": 0, "epoch": 0, "split": "validation", "loss": 1.0, "lr": 0.0, "ssim": 0.1, "psnr": 5.0}]
        records += [{"step": s, "epoch": 0, "split": "train", "loss": 1 / s, "lr": 1e-3} for s in range(1, 9)]
        records += [{"step": 8, "epoch": 1, "split": "validation", "loss": 0.2, "lr": 0, "ssim": 0.7, "psnr": 15.0}]
        (run / "train" / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        original = rng.normal(size=(2, *SHAPE)).astype(np.float32)
        original[:, :2] = 0
        np.savez_compressed(
            run / "train" / "reconstructions.npz", subject=np.array([HANDLER, MATH]), original=original,
            reconstruction=0.7 * original,
        )  # fmt: skip
        current.note(subjects_train=4, subjects_validation=1, parameters=1234, steps=8, ranks=2, loss=0.2, ssim=0.7)
    latents = run / "latents.parquet"
    with stage("embed", latents, EmbedConfig(run_dir=run, store=run, out=latents), {}):
        pd.DataFrame({"FID": ["a"], "IID": ["a"], "z000": [1.0]}).to_parquet(latents)
    _write_gwas(run, run / "gwas", rng, covariates=Path("c"), formula="age + sex")
    _write_gwas(run, run / "comparison" / "without_covariates" / "gwas", rng)
    for name, chromosomes in (
        ("loci", ("1", "2")), ("loci_multivariate", ("1",)), ("comparison/without_covariates/loci", ("1", "2")),
    ):  # fmt: skip
        config = LociConfig(sumstats=run / "gwas", genotypes=Path("g"), out=run / name)
        with stage("loci", run / name, config, {}) as current:
            _write_loci(run / name, chromosomes)
            current.note(n_loci=len(chromosomes), threshold_log10p=7.3)
    with stage("panel", run / "panel", PanelConfig(loci=run / "loci", out=run / "panel"), {}):
        (run / "panel").mkdir()
        (run / "panel" / "hits.tsv").write_text(
            "locus\tchr\tstart\tend\thit\tnearest_panel\tdistance\n1\t1\t2970000\t3060000\t1\trs9&9\t12000\n"
            "2\t2\t3010000\t3010000\t0\t\t\n"
        )
        summary = {"recall": 0.01, "our_share": 0.5, "novel": 1, "n_panel": 692, "rotation_share": 0.14}
        summary |= {"rotation_p": 0.3, "matched_share": 0.2, "matched_p": 0.04}
        summary |= {"matched_on": {"maf": [0.21, 0.2], "genes": [3.0, 2.9]}}
        publish_json(run / "panel" / "panel.json", {**summary, "n_loci": 2, "n_hits": 1})
    row = {"planted_total": 2, "leads": 2, "polygenic": 0, "lambda_null": 1.012, "multivariate_loci": 1}
    row |= {"multivariate_false": 0, "factor_r2": 0.6}
    planted = [
        {"locus": "L001", "chr": "1", "pos": 3_000_000, "snp": SCRIPT, "factor": "size", "r2": 0.1, "found_by": ["A"]},
        {"locus": "L002", "chr": "2", "pos": 3_010_000, "snp": "rs1", "factor": "size", "r2": 0.02, "found_by": []},
    ]
    rows = [{"name": "A", "planted_found": 1, "strict_false": 0, **row}]
    rows += [{"name": HANDLER, "planted_found": 0, "strict_false": 3, **row}]
    publish_json(run / "comparison.json", {"rows": rows, "planted": planted, "null_chromosomes": ["22"]})


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory) -> Path:
    """A whole run folder; do not change it."""
    run = tmp_path_factory.mktemp("report") / "run"
    build_run(run)
    return run


@pytest.fixture(scope="session")
def whole_page(whole_run, tmp_path_factory) -> Path:
    """The page of the whole run; do not change it."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    report(ReportConfig(run=whole_run, out=out, title="A & B"))
    return out


@pytest.fixture
def run_copy(whole_run, tmp_path) -> Path:
    """A run folder to damage."""
    return Path(shutil.copytree(whole_run, tmp_path / "run"))


@pytest.fixture
def make_sumstats(tmp_path):
    """make_sumstats(df) -> (open Sumstats, z [M, P] as stored)."""

    def make(df: object = None) -> tuple[sumstats.Sumstats, np.ndarray]:
        fake_sumstats(tmp_path, np.random.default_rng(3), df)
        opened = sumstats.Sumstats.open(tmp_path / sumstats.STORE)
        beta, se = opened.effects()
        return opened, (beta / se).astype(np.float64)

    return make
