"""Chromosome X: males have one copy. Against the definition on decoded genotypes, and against PLINK."""

from __future__ import annotations

import shutil
import subprocess
import time

import numpy as np
import pandas as pd
import pytest

from udipdist.genome import chromosomes
from udipdist.genotypes import codes, hardy, sex
from udipdist.genotypes.sex import FEMALE, MALE, UNKNOWN
from udipdist.genotypes.source import GenotypeSource, decode, open_genotypes

PLINK = shutil.which("plink1.9")


@pytest.fixture
def bed(tmp_path, plink_writer) -> GenotypeSource:
    """29 people (four of unknown sex), 40 variants of X with heterozygous males."""
    rng = np.random.default_rng(0)
    ids = pd.DataFrame({"FID": [f"f{i}" for i in range(29)], "IID": [f"i{i}" for i in range(29)]})
    counts = rng.binomial(2, rng.uniform(0, 1, (40, 1)), (40, 29))
    counts[rng.random(counts.shape) < 0.05] = -1
    counts[3] = -1
    counts[4] = 2
    plink_writer(tmp_path / "x", counts, ids, "X")
    sexes = [*rng.choice(["1", "2"], 25), "0", "-9", "NA", "0"]
    lines = [f"{fid} {iid} 0 0 {s} -9\n" for (fid, iid), s in zip(ids.to_numpy(), sexes, strict=True)]
    (tmp_path / "x.fam").write_text("".join(lines))
    return open_genotypes(tmp_path / "x")


def count(packed: np.ndarray, flag_N: np.ndarray) -> np.ndarray:
    out = np.empty((len(packed), 4), np.int64)
    codes.count_codes(packed, codes.two_bits(flag_N), int(flag_N.sum()), out)
    return out


def test_sexes_of_a_fam(bed, caplog):
    code = sex.sex_codes(bed.people)
    assert set(code[:25].tolist()) == {MALE, FEMALE} and (code[25:] == UNKNOWN).all()
    assert (code == MALE).sum() == (bed.people.sex == "1").sum()
    assert sex.tell_unknown(code, 0, "x") == 4 and not caplog.text
    assert sex.tell_unknown(code, 40, "x") == 4 and "x.fam: 4 of 29 people have no sex" in caplog.text
    assert sex.tell_unknown(code[:25], 40, "y") == 0 and "y.fam" not in caplog.text


def test_heterozygous_males_become_missing_and_nothing_else_changes(bed):
    male = sex.sex_codes(bed.people) == MALE
    packed, before = bed.packed(0, 40), bed.counts(0, 40)
    rows, masked = sex.mask_male_hets(packed, codes.two_bits(male))
    hets = (before == 1) & male
    np.testing.assert_array_equal(decode(rows, np.arange(29)), np.where(hets, -1, before))
    np.testing.assert_array_equal(masked, hets.sum(axis=1))
    np.testing.assert_array_equal(bed.counts(0, 40), before)
    again, none = sex.mask_male_hets(rows, codes.two_bits(male))
    assert not none.any() and (again == rows).all()
    untouched, none = sex.mask_male_hets(packed, codes.two_bits(male & False))
    assert not none.any() and (untouched == packed).all()


def test_every_byte():
    packed = np.arange(256, dtype=np.uint8)[:, None]
    for males in range(16):
        flag = np.array([males >> i & 1 for i in range(4)], bool)
        rows, masked = sex.mask_male_hets(packed, codes.two_bits(flag))
        before, after = decode(packed, np.arange(4)), decode(rows, np.arange(4))
        np.testing.assert_array_equal(after, np.where((before == 1) & flag, -1, before))
        np.testing.assert_array_equal(masked, ((before == 1) & flag).sum(axis=1))


def test_males_count_once(bed):
    male = sex.sex_codes(bed.people) == MALE
    rows, _ = sex.mask_male_hets(bed.packed(0, 40), codes.two_bits(male))
    analysed = np.random.default_rng(1).random(29) < 0.8
    counts = decode(rows, np.arange(29)).astype(float)
    counts[counts < 0] = np.nan
    ploidy = np.where(male, 1, 2)
    copies = np.nansum((counts * ploidy / 2)[:, analysed], axis=1)
    alleles = (np.isfinite(counts) * ploidy)[:, analysed].sum(axis=1)
    ours = sex.frequency(*sex.copies(count(rows, analysed), count(rows, analysed & male)))
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(ours, copies / alleles, rtol=1e-15)
    assert np.isnan(ours[3]) and ours[4] == 1
    everybody = np.nanmean(np.where(np.isnan(counts[0]), np.nan, counts[0])) / 2
    np.testing.assert_allclose(sex.frequency(*sex.copies(count(rows, male | True)))[0], everybody)


@pytest.mark.skipif(PLINK is None, reason="plink1.9 is not installed (apt-get install plink1.9)")
def test_plink_says_the_same(bed, tmp_path):
    code = sex.sex_codes(bed.people)
    command = [PLINK, "--bfile", "x", "--freq", "counts", "--nonfounders", "--out", "f", "--allow-no-sex"]
    subprocess.run([*command, "--keep-allele-order"], cwd=tmp_path, check=True, capture_output=True)
    # with males PLINK tests more (Graffelman & Weir 2016): that their frequency is the females'
    command = [PLINK, "--bfile", "x", "--hardy", "--nonfounders", "--filter-females", "--out", "h"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    theirs = pd.read_csv(tmp_path / "f.frq.counts", sep=r"\s+")
    everybody, male, female = code >= 0, code == MALE, code == FEMALE
    rows, _ = sex.mask_male_hets(bed.packed(0, 40), codes.two_bits(male))
    ours = sex.frequency(*sex.copies(count(rows, everybody), count(rows, male)))
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(ours, (theirs.C1 / (theirs.C1 + theirs.C2)), rtol=1e-15)
    female = count(rows, female)
    p = 10 ** -hardy.log10p(female[:, 0], female[:, 2], female[:, 3])
    hwe = pd.read_csv(tmp_path / "h.hwe", sep=r"\s+").set_index("SNP").P.reindex(bed.variants.snp)
    called = np.isfinite(p) & hwe.notna().to_numpy()
    assert called.sum() >= 38
    np.testing.assert_allclose(p[called], hwe[called], rtol=6e-4)


def test_which_variants_are_on_x():
    labels = ["1", "X", "23", "XY", "chrX", "25", "Y", "0", "GL1", "x"]
    code = chromosomes.codes(pd.Series(labels, dtype="category"))
    assert code.tolist() == [1, 23, 23, 25, 23, 25, 24, 0, 0, 23]
    runs = sex.x_runs(code)
    assert runs == [[1, 3], [4, 5], [9, 10]]
    assert sex.rows_on_x(runs, 5, 9) is None
    assert sex.rows_on_x(runs, 2, 4) == slice(0, 1)
    for start in range(11):
        for stop in range(start, 11):
            rows = sex.rows_on_x(runs, start, stop)
            found = np.zeros(stop - start, bool)
            if rows is not None:
                found[rows] = True
            np.testing.assert_array_equal(found, code[start:stop] == 23)
    assert sex.x_runs(np.zeros(0, np.int16)) == []


@pytest.mark.parametrize(
    ("label", "expected"),
    [("1", 1), ("01", 1), ("chr22", 22), ("CHR_7", 7), (7, 7), ("27", 0), ("999", 0), ("0", 0), ("", 0),
     ("1_random", 0), ("MT", 26), ("M", 26), ("PAR1", 25), ("chrXY", 25), ("-1", 0), ("\u00b2", 0)],
)  # fmt: skip
def test_names_of_chromosomes(label, expected):
    assert chromosomes.code(label) == expected


def test_many_heterozygous_males_are_told(caplog):
    sex.tell_masked(0, 0)
    sex.tell_masked(1, 1000)
    assert not caplog.text
    sex.tell_masked(50, 1000)
    assert "5.0 % of the calls of males on chromosome X are heterozygous" in caplog.text


def test_masking_costs_little():
    """2,000 rows of 40,000 people; decoding them takes some fifty times as long."""
    packed = np.random.default_rng(0).integers(0, 256, (2_000, 10_000), np.uint8)
    male = codes.two_bits(np.arange(40_000) % 2 == 0)
    sex.mask_male_hets(packed[:1], male)
    start = time.process_time()
    sex.mask_male_hets(packed, male)
    assert time.process_time() - start < 0.5  # 0.01 on an idle core
