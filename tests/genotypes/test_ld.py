"""r2 from 2-bit rows against numpy over people with both calls, and against plink."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bed_reader import to_bed

from udipdist.genotypes import ld
from udipdist.genotypes.ld import LinkageReader
from udipdist.genotypes.source import open_genotypes

HUMAN = Path(__file__).parents[2] / "../shared/data/genotypes/human"
PLINK = shutil.which("plink1.9") or shutil.which("plink")


def correlated(rng: np.random.Generator, n: int, m: int, missing: float) -> np.ndarray:
    """Counts [n, m] of SNPs in LD with their neighbours; -1 missing."""
    haplotypes = rng.random((2, n, m)) < 0.4
    for j in range(1, m):
        keep = rng.random((2, n)) < 0.7
        haplotypes[:, :, j] = np.where(keep, haplotypes[:, :, j - 1], haplotypes[:, :, j])
    counts = haplotypes.sum(0)
    counts[rng.random((n, m)) < missing] = -1
    return counts


def write_bed(prefix, counts: np.ndarray, chromosome: str = "1", sex=None) -> None:
    n, m = counts.shape
    properties = {
        "chromosome": [chromosome] * m, "bp_position": (np.arange(m) * 1000 + 1).tolist(),
        "sid": [f"s{j}" for j in range(m)], "sex": [0] * n if sex is None else sex.tolist(),
        "fid": [f"f{i}" for i in range(n)], "iid": [f"i{i}" for i in range(n)],
    }  # fmt: skip
    to_bed(f"{prefix}.bed", np.where(counts < 0, np.nan, counts).astype(np.float32), properties=properties)


def pairwise_r2(x: np.ndarray, y: np.ndarray) -> float:
    both = (x >= 0) & (y >= 0)
    x, y = x[both], y[both]
    return np.corrcoef(x, y)[0, 1] ** 2 if len(x) and np.ptp(x) and np.ptp(y) else 0.0


@pytest.mark.parametrize("n", [1, 3, 4, 31, 32, 33, 64, 65, 129, 500])
def test_r2_is_numpys_over_people_with_both_calls(tmp_path, n):
    counts = correlated(np.random.default_rng(n), n, 40, 0.15)
    counts[:, 7], counts[:, 8] = -1, 2  # nobody called; everybody the same
    write_bed(tmp_path / "x", counts)
    reader = LinkageReader(open_genotypes(tmp_path / "x"))
    for j in (0, 7, 8, 20, 39):
        expected = [pairwise_r2(counts[:, j], counts[:, k]) for k in range(40)]
        np.testing.assert_allclose(reader.r2(j, 0, 40), expected, atol=1e-12)
        np.testing.assert_allclose(reader.r2(j, 7, 21), expected[7:21], atol=1e-12)
        called = counts[counts[:, j] >= 0, j]
        frequency = called.mean() / 2 if len(called) else 0.0
        assert reader.minor_frequency(j) == pytest.approx(min(frequency, 1 - frequency), abs=1e-12)


def test_more_rows_than_are_copied_at_once(tmp_path):
    counts = np.random.default_rng(0).integers(0, 3, (9, 1300))
    write_bed(tmp_path / "x", counts)
    expected = np.array([pairwise_r2(counts[:, 640], counts[:, k]) for k in range(1300)])
    bed = open_genotypes(tmp_path / "x")
    np.testing.assert_allclose(LinkageReader(bed).r2(640, 0, 1300), expected, atol=1e-12)
    rows = np.random.default_rng(1).permutation(1300)[:1100]  # some, in any order
    reader, at = LinkageReader(bed, rows), int(np.flatnonzero(rows == 640)[0])
    np.testing.assert_allclose(reader.r2(at, 3, 1099), expected[rows[3:1099]], atol=1e-12)


def test_what_is_kept_in_memory_has_a_limit(tmp_path, monkeypatch):
    counts = np.random.default_rng(0).integers(0, 3, (33, 1300))
    write_bed(tmp_path / "x", counts)
    bed = open_genotypes(tmp_path / "x")
    expected = LinkageReader(bed).r2(5, 0, 1300)
    monkeypatch.setattr(ld, "KEPT_BYTES", 2 * 512 * 16 + 1)
    reader = LinkageReader(bed)
    for _ in range(2):
        np.testing.assert_array_equal(reader.r2(5, 0, 1300), expected)
    assert len(reader._blocks) <= 2


@pytest.mark.skipif(PLINK is None, reason="plink 1.9 is not installed (apt-get install plink1.9)")
@pytest.mark.parametrize(("chromosome", "women"), [("23", 0.5), ("23", 1.0), ("23", 0.0), ("25", 0.5), ("7", 0.5)])
def test_r2_on_x_is_plinks(tmp_path, chromosome, women):
    """Males are 0 or 1 on X (not on its pseudo-autosomal part), and their heterozygous calls are missing."""
    rng = np.random.default_rng(5)
    counts = correlated(rng, 150, 40, 0.05)
    male = rng.random(150) >= women
    haploid = 2 * (counts[male] > rng.integers(0, 2, counts[male].shape)) - 3 * (counts[male] < 0)
    counts[male] = np.where(rng.random(haploid.shape) < 0.03, 1, np.maximum(haploid, -1))
    write_bed(tmp_path / "x", counts, chromosome, np.where(male, 1, 2))
    table = plink_r2(tmp_path / "x", tmp_path / "ld").dropna()
    assert len(table) > 700
    reader = LinkageReader(open_genotypes(tmp_path / "x"))
    r2 = np.array([reader.r2(j, 0, 40) for j in range(40)])
    first, second = (table[name].str[1:].astype(int) for name in ("SNP_A", "SNP_B"))
    np.testing.assert_allclose(r2[first, second], table.R2, rtol=2e-5, atol=1e-7)
    run = [PLINK, "--bfile", str(tmp_path / "x"), "--freq", "--nonfounders", "--out", str(tmp_path / "f")]
    subprocess.run(run, check=True, capture_output=True)
    frequency = pd.read_csv(tmp_path / "f.frq", sep=r"\s+").MAF
    np.testing.assert_allclose([reader.minor_frequency(j) for j in range(40)], frequency, rtol=5e-4)


def plink_r2(prefix, out) -> pd.DataFrame:
    """All pairs within 1 Mb: SNP_A, SNP_B, R2 (six digits)."""
    options = ["--r2", "--ld-window", "99999", "--ld-window-kb", "1000", "--ld-window-r2", "0", "--allow-no-sex"]
    subprocess.run([PLINK, "--bfile", str(prefix), *options, "--out", str(out)], check=True, capture_output=True)
    return pd.read_csv(f"{out}.ld", sep=r"\s+")


@pytest.mark.skipif(PLINK is None, reason="plink 1.9 is not installed (apt-get install plink1.9)")
def test_r2_is_plinks(tmp_path):
    counts = correlated(np.random.default_rng(3), 211, 60, 0.03)
    write_bed(tmp_path / "x", counts)
    table = plink_r2(tmp_path / "x", tmp_path / "ld")
    assert len(table) == 60 * 59 // 2
    reader = LinkageReader(open_genotypes(tmp_path / "x"))
    r2 = np.array([reader.r2(j, 0, 60) for j in range(60)])
    first, second = (table[name].str[1:].astype(int) for name in ("SNP_A", "SNP_B"))
    np.testing.assert_allclose(r2[first, second], table.R2, rtol=2e-5, atol=1e-7)
    np.testing.assert_array_equal(r2, r2.T)


@pytest.mark.skipif(PLINK is None, reason="plink 1.9 is not installed (apt-get install plink1.9)")
@pytest.mark.skipif(not HUMAN.with_suffix(".bed").exists(), reason=f"no real genotypes at {HUMAN}")
def test_r2_of_real_genotypes_is_plinks(tmp_path):
    table = plink_r2(HUMAN, tmp_path / "ld").dropna()
    bed = open_genotypes(HUMAN)
    row_of = dict(zip(bed.variants.snp, range(bed.n_variants), strict=True))
    reader, compared = LinkageReader(bed), 0
    for name, group in table.groupby("SNP_A"):
        if row_of[name] % 50:
            continue
        others = group.SNP_B.map(row_of).to_numpy()
        r2 = reader.r2(row_of[name], 0, bed.n_variants)[others]
        np.testing.assert_allclose(r2, group.R2.to_numpy(), rtol=2e-5, atol=1e-7)
        compared += len(group)
    assert compared > 1000
