"""Exported tables parse back to what the store holds, p below the smallest float64 included."""

import gzip
from pathlib import Path

import mpmath
import numpy as np
import pandas as pd
import pytest
import zarr

from hpc.errors import InputError, OutputExists
from hpc.files import publish_json, sha256
from hpc.stage import read_manifest
from udipdist.config import ExportConfig
from udipdist.gwas.export import export, preview
from udipdist.gwas.sumstats import Sumstats, SumstatsBlock, create, log10p_from_z, write

M, P, ROWS = 23, 4, 10
TRAITS = [f"z{i:03d}" for i in range(P)]
NOT_TESTED = 12


@pytest.fixture
def gwas(tmp_path: Path) -> Path:
    """A finished gwas folder; variant 12 was not tested, variant 3 has p of about 1e-1000."""
    rng = np.random.default_rng(1)
    variants = pd.DataFrame(
        {
            "chrom": ["1"] * 10 + ["chr22"] * 10 + ["X"] * 3,
            "position": np.arange(M) * 1000 + 1,
            "snp": ["rs1:2", *(f"rs{i}" for i in range(1, M))],
            "a1": ["a"] + ["C"] * (M - 1),
            "a2": ["GT"] * M,
        }
    )
    se = rng.uniform(0.01, 0.1, (M, P)).astype(np.float32)
    beta = (se * rng.normal(size=(M, P))).astype(np.float32)
    beta[3, 2] = 68 * se[3, 2]
    beta[NOT_TESTED] = se[NOT_TESTED] = np.nan
    log10p = log10p_from_z(beta.astype(float) / se)
    best = np.where(np.isnan(log10p[:, 0]), -1, np.nan_to_num(log10p).argmax(1))
    minp = np.where(best < 0, np.nan, np.take_along_axis(log10p, np.maximum(best, 0)[:, None], 1)[:, 0])
    af1 = rng.uniform(0.01, 0.99, M)
    block = SumstatsBlock(beta, se, np.full(M, 100), af1, minp, best, np.zeros(M))
    folder = tmp_path / "gwas"
    create(folder / "sumstats.zarr", variants, TRAITS, ROWS, {"df": None})
    for start in range(0, M, ROWS):
        rows = slice(start, start + ROWS)
        write(folder / "sumstats.zarr", start, SumstatsBlock(**{k: v[rows] for k, v in vars(block).items()}))
    publish_json(folder / "manifest.json", {"id": "gwas-1", "stage": "gwas"})
    return folder


def test_numbers_of_people_that_are_not_the_traits_are_told(gwas, caplog):
    run(gwas, "whole.tsv", trait="z001")
    assert "differ in who is missing" not in caplog.text
    zarr.open_group(str(gwas / "sumstats.zarr"), mode="r+").attrs.update({"groups": 2, "n_samples": 100})
    run(gwas, "groups.tsv", trait="z001")
    assert "traits differ in who is missing; N and the allele frequency are of all 100 people" in caplog.text


def run(gwas: Path, name: str, **keys) -> pd.DataFrame:
    out = gwas.parent / name
    export(ExportConfig(sumstats=gwas, out=out, **keys))
    return pd.read_csv(out, sep="\t", dtype=str, keep_default_na=False)


def log10(text: str) -> float:
    return float(-mpmath.log10(mpmath.mpf(text)))


def test_fastgwa(gwas):
    table, store = run(gwas, "z.fastGWA", format="fastgwa", trait="z002"), Sumstats.open(gwas)
    assert list(table) == ["CHR", "SNP", "POS", "A1", "A2", "N", "AF1", "BETA", "SE", "P"]
    keep = np.arange(M) != NOT_TESTED
    assert len(table) == M - 1 and list(table.SNP) == list(store.variants.snp[keep])
    np.testing.assert_allclose(table.BETA.astype(float), store.beta("z002")[keep], rtol=1e-6)
    np.testing.assert_allclose(table.SE.astype(float), store.se("z002")[keep], rtol=1e-6)
    np.testing.assert_allclose(table.AF1.astype(float), store.variants.af1[keep], rtol=1e-6)
    np.testing.assert_allclose([log10(p) for p in table.P], store.log10p("z002")[keep], atol=3e-6)
    assert log10(table.P[3]) > 1000 and float(table.P[3]) == 0.0
    manifest = read_manifest(gwas.parent / "z.fastGWA")
    assert manifest["facts"] == {"variants": M - 1, "not_tested": 1}


def test_minp_has_the_effects_of_its_trait(gwas):
    table, store = run(gwas, "minp.txt", format="fuma"), Sumstats.open(gwas)
    assert list(table) == ["CHR", "BP", "SNP", "A1", "A2", "P", "N", "BETA", "SE"]
    assert table.BETA[3] == f"{store.beta('z002')[3]:.7g}"
    z = table.BETA.astype(float) / table.SE.astype(float)
    np.testing.assert_allclose(log10p_from_z(z), [log10(p) for p in table.P], rtol=1e-5, atol=1e-6)
    keep = np.arange(M) != NOT_TESTED
    np.testing.assert_allclose([log10(p) for p in table.P], store.log10p("minp")[keep], rtol=1e-6, atol=3e-6)


def test_gwas_ssf(gwas):
    table = run(gwas, "z.tsv", format="ssf", trait="z000")
    mandatory = "chromosome base_pair_location effect_allele other_allele beta standard_error effect_allele_frequency"
    assert list(table)[:8] == [*mandatory.split(), "p_value"]
    assert set(table.chromosome) == {"1", "22", "23"}
    assert table.effect_allele.str.fullmatch("[ACGT]+").all() and table.other_allele.str.fullmatch("[ACGT]+").all()
    assert table.rsid[0] == "NA" and table.rsid[1:].str.fullmatch("rs[0-9]+").all()
    assert table.variant_id.str.fullmatch("[A-Za-z0-9_]+").all()
    assert table.effect_allele_frequency.astype(float).between(0, 1).all()


def test_gz_is_the_same_table_and_the_same_bytes_each_time(gwas):
    plain = run(gwas, "a.tsv", format="ssf")
    packed = run(gwas, "b.tsv.gz", format="ssf")
    pd.testing.assert_frame_equal(plain, packed)
    assert gzip.decompress((gwas.parent / "b.tsv.gz").read_bytes()) == (gwas.parent / "a.tsv").read_bytes()
    run(gwas, "c.tsv.gz", format="ssf")
    assert sha256(gwas.parent / "b.tsv.gz") == sha256(gwas.parent / "c.tsv.gz")


def test_bad_inputs_leave_no_file(gwas):
    out = gwas.parent / "x.txt"
    with pytest.raises(InputError, match="no trait 'z02'; did you mean z002"):
        export(ExportConfig(sumstats=gwas, out=out, trait="z02"))
    with pytest.raises(InputError, match="has no effect sizes"):
        export(ExportConfig(sumstats=gwas, out=out, trait="multivariate"))
    with pytest.raises(InputError, match="does not exist"):
        export(ExportConfig(sumstats=gwas / "no", out=out))
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(OutputExists, match="overwrite=true"):
        export(ExportConfig(sumstats=gwas, out=out))
    export(ExportConfig(sumstats=gwas, out=out, overwrite=True))
    assert out.read_text().startswith("CHR\tSNP")


def test_preview_says_what_would_be_written(gwas):
    assert preview(ExportConfig(sumstats=gwas, out=Path("x"), format="ssf"))[0] == "23 variants of minp as ssf -> x"
