"""INFO of variants from every layout of list, matched by id and alleles."""

from __future__ import annotations

import gzip
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from hpc.errors import InputError
from udipdist.config import GwasConfig
from udipdist.genome import chromosomes
from udipdist.genotypes import filters, info

TABLE = pd.DataFrame(
    [
        ("1", "rs1", 100, "A", "C"),
        ("1", "rs2", 200, "A", "G"),
        ("1", "rs2", 200, "A", "T"),
        ("X", "rs3", 300, "GT", "G"),
        ("XY", "rs4", 400, "T", "C"),
    ],
    columns=["chrom", "snp", "position", "a1", "a2"],
)
CODES = chromosomes.codes(TABLE.chrom)
MFI = (
    "1:100_A_C\trs1\t100\tA\tC\t0.1\tA\t0.9\n1:200_A_G\trs2\t200\tG\tA\t0.2\tG\t0.25\n"
    "1:200_A_T\trs2\t200\tA\tT\t0.01\tT\t1\nother\trs9\t5\tA\tC\t0\tA\tNA\n3:300\trs3\t300\tG\tGT\tNA\tG\t2.5e-1\n"
)
EXPECTED = [0.9, 0.25, 1, 0.25, np.nan]


def read(path, table=TABLE) -> list[float]:
    return info.read(str(path), table, chromosomes.codes(table.chrom)).tolist()


@pytest.mark.parametrize(
    "text",
    [
        MFI,
        MFI.replace("\t", "  "),
        "#CHROM\tID\tREF\tALT\tALT_FREQS\tMACH_R2\tOBS_CT\n1\trs1\tA\tC\t0.1\t0.9\t8\n1\trs2\tG\tA\t.\t0.25\t8\n"
        "1\trs2\tT\tA\t0.1\t1\t8\nX\trs3\tGT\tG\t0.1\t0.25\t8\n",
        "SNP\tREF(0)\tALT(1)\tRsq\tGenotyped\nrs1\tC\tA\t0.9\t-\nrs2\tG\tA\t0.25\t-\nrs2\tT\tA\t1\t-\nrs3\tG\tGT\t.25\t-\n",
        "## made by a program\n# [1]ID\t[2]REF\t[3]ALT\t[4]INFO/INFO\nrs1\tA\tC\t0.9\nrs2\tA\tG\t0.25\nrs2\tA\tT\t1\n"
        "rs3\tG\tGT\t0.25\nrs4\tC\tT\t.\n",
        "rsid alleleA allele1 allele2 info\nrs1 x A C 0.9\nrs2  x A G 0.25\nrs2 x T A 1\nrs3 x G GT 0.25\n",
        "id,a1,a2,info\nrs1,A,C,0.9\nrs2,A,G,0.25\nrs2,T,A,1\nrs3,G,GT,0.25\nrs4,T,G,0.6\n",
    ],
    ids=["ukb", "ukb with blanks", "plink2", "minimac", "bcftools", "blanks", "csv"],
)
@pytest.mark.parametrize("name", ["list.txt", "list.gz"])
def test_layouts_with_alleles(tmp_path, text, name, caplog):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    np.testing.assert_array_equal(read(path), EXPECTED)
    assert not caplog.text


def test_alternate_ids_of_uk_biobank(tmp_path):
    (tmp_path / "m").write_text(MFI)
    table = TABLE.assign(snp=["1:100_A_C", "1:200_A_G", "1:200_A_T", "x", "y"])
    np.testing.assert_array_equal(read(tmp_path / "m", table), [0.9, 0.25, 1, np.nan, np.nan])


@pytest.mark.parametrize(
    "text", ["rs1 0.9\nrs2 1\nrs2 0.25\nrs3 .25\nrs4 NA\n", "name\tquality\nrs1\t.9\nrs2\t0.25\nrs3\t.25\n"]
)
def test_two_columns(tmp_path, text, caplog):
    (tmp_path / "two").write_text(text)
    np.testing.assert_array_equal(read(tmp_path / "two"), [0.9, 0.25, 0.25, 0.25, np.nan])
    several = "2 variants have several values of INFO (first rs2); the smallest counts"
    assert (several in caplog.text) == text.startswith("rs1")


def test_one_file_a_chromosome(tmp_path):
    for name, line in (("1", "rs1 0.1\nrs2 0.2\nrs3 0.9\n"), ("X", "rs3 0.3\nrs1 0.9\n"), ("25", "rs4 0.4\n")):
        (tmp_path / f"i{name}.txt").write_text(line)
    np.testing.assert_array_equal(read(tmp_path / "i{chr}.txt"), [0.1, 0.2, 0.2, 0.3, 0.4])
    keys = {"genotypes": "c", "phenotypes": "p", "test": "linear", "out": "o", "min_info": 0.25}
    config = GwasConfig.parse(keys | {"info": str(tmp_path / "i{chr}.txt")})
    assert sorted(path.name for path in filters.input_files(config).values()) == ["i1.txt", "i25.txt", "iX.txt"]
    assert filters.choose(TABLE, config).rows.tolist() == [3, 4]
    (tmp_path / "iX.txt").write_text("rs9 0.3\nrs3 0.3\n")
    (tmp_path / "i25.txt").unlink()
    with pytest.raises(
        InputError, match=r"iXY.txt: not found \(info\), but the genotypes have variants of chromosome XY"
    ):
        filters.choose(TABLE, config)
    found = filters.choose(TABLE, config.model_copy(update={"region": ("X:1-350", "1")}))
    assert found.rows.tolist() == [3] and found.left_out == {"region": 1, "info": 3}


def test_unknown_and_low_variants_are_counted_apart(tmp_path):
    (tmp_path / "two").write_text("rs1 0.3\nrs2 0.2999\nrs3 NA\n")
    keys = {"genotypes": "c", "phenotypes": "p", "test": "linear", "out": "o", "min_info": 0.3}
    found = filters.choose(TABLE, GwasConfig.parse(keys | {"info": str(tmp_path / "two")}))
    assert found.rows.tolist() == [0] and found.left_out == {"info_unknown": 2, "info": 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; info= takes"),
        (b"\xff\xfe\x00\n", "is not text"),
        (b"SNP\tP\tBETA\nrs1\t0.1\t0.2\n", "its first line is .*info= takes UK Biobank's"),
        (b"rs1 0.5 0.6\n", "its first line is 'rs1 0.5 0.6'"),
        (
            b"a 0.5\nb 0.4\n",
            r"has none of the 5 variants of the genotypes by id \(there a, b; in the .bim rs1, rs2, rs2\)",
        ),
        (b"id a1 a2 info\nrs1 A G 0.5\n", "by id and alleles"),
        (b"rs1 0.5\nrs2 high\n", "high"),
        (b"rs1\t0.5\nrs2\t0.5\tx\n", "line 2: has 3 columns, not 2; info= takes"),
        (b"rs1  0.5\nrs2 high\n", "high"),
        (b"id\tinfo\n", "has a header and nothing below it"),
        (b"id  info\n", "has a header and nothing below it"),
        (None, r"does not exist \(info\)"),
    ],
)
def test_lists_that_are_none(tmp_path, content, message):
    if content is not None:
        (tmp_path / "i").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "i")


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed (apt-get install plink2)")
def test_what_plink2_writes(tmp_path, plink_writer):
    counts = np.random.default_rng(0).integers(0, 3, (6, 40))
    plink_writer(
        tmp_path / "p", counts, pd.DataFrame({"FID": [f"f{i}" for i in range(40)], "IID": [f"i{i}" for i in range(40)]})
    )
    command = ["plink2", "--bfile", "p", "--freq", "cols=+machr2", "--out", "q", "--nonfounders"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    table = pd.DataFrame({"chrom": "1", "snp": [f"rs1_{i}" for i in range(6)], "position": 1, "a1": "A", "a2": "C"})
    theirs = pd.read_csv(tmp_path / "q.afreq", sep="\t").MACH_R2
    np.testing.assert_allclose(read(tmp_path / "q.afreq", table), theirs)
