"""Summary statistics in text: every layout that users bring, however it is packed, and messages about what is wrong."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from hpc.errors import InputError
from udipdist.config import ExportConfig
from udipdist.sumstats.export import export
from udipdist.sumstats.opening import open_statistics
from udipdist.sumstats.pvalues import log10p_from_z
from udipdist.sumstats.text import TextStatistics

PLACES = [(1, 100), (6, 29_700_000), (23, 5)]

FASTGWA = """CHR\tSNP\tPOS\tA1\tA2\tN\tAF1\tBETA\tSE\tP
1\trs1\t100\tA\tG\t100\t0.2\t0.1\t0.01\t1e-9
6\trs2\t29700000\tT\tC\t100\t0.2\t0.1\t0.01\t3.5e-400
23\trs3\t5\tA\tT\t100\t0.2\t0.1\t0.01\tNA
"""
SSF = """chromosome\tbase_pair_location\teffect_allele\tother_allele\tbeta\tstandard_error\tneg_log_10_p_value\trsid
1\t100\tA\tG\t0.1\t0.01\t9\trs1
6\t29700000\tT\tC\t0.1\t0.01\t399.45593195564972\trs2
23\t5\tA\tT\t0.1\t0.01\t#NA\trs3
"""
FUMA = """snp chr bp a2 a1 pvalue
rs1 1 100 G A 1e-9
rs2 6 29700000 C T 3.5E-400
rs3 23 5 T A .
"""
PLINK2 = """## a remark
#CHROM\tPOS\tID\tREF\tALT\tPROVISIONAL_REF?\tA1\tOMITTED\tA1_FREQ\tTEST\tOBS_CT\tBETA\tSE\tT_STAT\tLOG10_P\tERRCODE
1\t100\trs1\tG\tA\tN\tA\tG\t0.2\tADD\t100\t0.1\t0.01\t10\t9\t.
1\t100\trs1\tG\tA\tN\tA\tG\t0.2\tage\t100\t9\t0.01\t10\t99\t.
chr6\t29700000\trs2\tT\tC\tN\tT\tC\t0.2\tADD\t100\t0.1\t0.01\t10\t399.45593195564972\t.
chr6\t29700000\trs2\tT\tC\tN\tT\tC\t0.2\tage\t100\t0.1\t0.01\t10\t0.1\t.
X\t5\trs3\tT\tA\tN\tA\tT\t0.2\tADD\t100\tNA\tNA\tNA\tNA\tCONST_ALLELE
X\t5\trs3\tT\tA\tN\tA\tT\t0.2\tage\t100\tNA\tNA\tNA\tNA\tCONST_ALLELE
"""
PLINK2_OLD = """#CHROM\tPOS\tID\tREF\tALT\tA1\tTEST\tOBS_CT\tOR\tLOG(OR)_SE\tZ_STAT\tP
1\t100\trs1\tG\tA\tA\tADD\t100\t1\t1\t1\t1e-9
6\t29700000\trs2\tT\tC\tT\tADD\t100\t1\t1\t1\t3.5e-400
X\t5\trs3\tT\tA\tA\tADD\t100\t1\t1\t1\tNA
"""
REGENIE = """CHROM GENPOS ID ALLELE0 ALLELE1 A1FREQ N TEST BETA SE CHISQ LOG10P EXTRA
1 100 rs1 G A 0.2 100 ADD 0.1 0.01 4 9 NA
6 29700000 rs2 C T 0.2 100 ADD 0.1 0.01 4 399.45593195564972 NA
23 5 rs3 T A 0.2 100 ADD 0.1 0.01 4 NA NA
"""
BLANKS = """  CHR     SNP        BP   A1  A2      P
    1     rs1       100    A   G   1e-9
   06     rs2  29700000    T   C   3.5e-400
    X     rs3         5    A   T   nan
"""
COMMAS = """"rsid","chromosome","position","Allele1","Allele2","P-value"
"rs1","chr1",100,"A","G",1e-9
"rs2","chr6",2.97e7,"T","C",3.5e-400
"rs3","chrX",5,"A","T",""
"""
LAYOUTS = {
    "fastgwa": FASTGWA, "ssf": SSF, "fuma": FUMA, "plink2": PLINK2, "plink2 old": PLINK2_OLD, "regenie": REGENIE,
    "blanks": BLANKS, "commas": COMMAS, "windows": FASTGWA.replace("\n", "\r\n"),
}  # fmt: skip


def written(tmp_path: Path, text: str, name: str = "a.txt") -> Path:
    path = tmp_path / name
    data = text.encode()
    if name.endswith("gz"):
        half = len(data) // 2  # bgzip writes many members
        data = gzip.compress(data[:half]) + gzip.compress(data[half:])
    if name.endswith(".zst"):
        data = pa.Codec("zstd").compress(data, asbytes=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["a.txt", "a.tsv.gz", "a.zst"])
def test_layouts(tmp_path, layout, name):
    read = open_statistics(written(tmp_path, LAYOUTS[layout], name))
    assert list(zip(read.chrom_M.tolist(), read.position_M.tolist(), strict=True)) == PLACES
    np.testing.assert_allclose(read.log10p_M, [9, 400 - np.log10(3.5), np.nan], rtol=1e-12)
    names = read.names(np.arange(3))
    assert names["snp"].tolist() == ["rs1", "rs2", "rs3"]
    assert names["a1"].tolist() == ["A", "T", "A"] and names["a2"].tolist() == ["G", "C", "T"]
    assert read.analyses("minp") == ["a"] and read.n_tests("a") == 1 and read.traits == ["a"]
    assert read.significant({"a": 8.9})["a"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-308", 308), ("4.9E-324", 324 - np.log10(4.9)), ("1e-4000", 4000), ("0.0", np.inf), ("0", np.inf),
        ("1", 0), ("2.5e-301", 301 - np.log10(2.5)), ("123.4e-1002", 1002 - np.log10(123.4)), (".5d-330", None),
        ("1e-05", 5),
    ],
)  # fmt: skip
def test_p_of_any_size(tmp_path, text, expected):
    path = written(tmp_path, f"CHR POS A1 A2 P\n1 5 A C {text}\n")
    if expected is None:
        with pytest.raises(InputError, match=r"line 2: P '.5d-330' is not a number"):
            open_statistics(path)
    else:
        np.testing.assert_allclose(open_statistics(path).log10p_M, [expected], rtol=1e-13, atol=1e-15)


def test_p_of_zero_comes_from_beta_and_se_where_they_are(tmp_path, caplog):
    rows = ["CHR POS A1 A2 BETA SE P", "1 5 A C 1 0.02 0", "1 6 A C NA NA 0", "1 7 A C 1 1 0.3"]
    read = open_statistics(written(tmp_path, "\n".join(rows)))
    np.testing.assert_allclose(read.log10p_M, [log10p_from_z(50.0), np.inf, -np.log10(0.3)])
    assert "p of 2 variants is 0" in caplog.text


def test_blocks_do_not_show(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    m = 4000
    table = pd.DataFrame(
        {
            "chr": rng.choice(["1", "chr2", "X"], m), "pos": rng.integers(1, 10**8, m),
            "id": [f"v{i}" for i in range(m)], "a1": rng.choice(["A", "ACGT"], m), "a2": "G",
            "p": 10.0 ** -rng.uniform(0, 20, m),
        }
    )  # fmt: skip
    path = tmp_path / "x.csv"
    table.to_csv(path, index=False)
    whole = TextStatistics.read(path)
    monkeypatch.setattr("udipdist.sumstats.text._BLOCK_BYTES", 3000)
    pieces = TextStatistics.read(path)
    for name in ("chrom_M", "position_M", "log10p_M"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(pieces, name))
    rows = np.sort(rng.choice(m, 100, replace=False))
    pd.testing.assert_frame_equal(whole.names(rows), pieces.names(rows))
    assert whole.names(rows)["snp"].tolist() == [f"v{i}" for i in rows]
    np.testing.assert_allclose(whole.log10p_M, -np.log10(table["p"]), rtol=1e-12)
    table.astype({"p": object}).assign(p=lambda t: t["p"].where(t.index != 3000, "x")).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"line 3002: p 'x' is not a number"):
        TextStatistics.read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("CHR POS A1 A2 P\n", "no lines below"),
        ("CHR\tPOS\tA1\tA2\tP\n", "no lines below"),
        ("SNP A1 A2 P\nrs1 A C 0.1\n", r"lacks chrom \(called CHR.*position \(called POS, BP.*it has SNP, A1, A2, P"),
        ("CHR POS A1 P\n1 1 A 0.1\n", r"lacks a1 and a2 \(called A1 and A2"),
        ("CHR POS A1 A2 BETA\n1 1 A C 0.1\n", r"lacks p \(called P, p_value"),
        ("CHR POS A1 A2 P P\n1 1 A C 0.1 1\n", "has two columns 'P'"),
        ("CHR\tPOS\tA1\tA2\tP\n1\t1\tA\tC\t0.1\n1\t1\tA\tC\t1.5\n", r"line 3: P '1.5' is not a p-value \(0..1\)"),
        ("CHR\tPOS\tA1\tA2\tP\n1\t1\tA\tC\t-0.1\n", r"line 2: P '-0.1' is not a p-value"),
        ("CHR\tPOS\tA1\tA2\tLOG10P\n1\t1\tA\tC\t-7\n", r"LOG10P '-7' is negative"),
        ("CHR\tPOS\tA1\tA2\tP\n1\t1.5\tA\tC\t0.1\n", r"line 2: POS '1.5' is not a position"),
        ("CHR\tPOS\tA1\tA2\tP\n1\tNA\tA\tC\t0.1\n", r"none of its 1 rows can be used: 1 no position \(first: line 2\)"),
        ("CHR\tPOS\tA1\tA2\tP\n1\t1\tA\tC\t0.1\n1\t1\tA\tC\n", "cannot be read as a table .*5 columns are expected"),
        ("CHR\tPOS\tA1\tA2\tP\nun\t1\tA\tC\t0.1\n", r"none of its 1 rows can be used: 1 a chromosome other"),
        ("CHR\tPOS\tA1\tA2\tTEST\tP\n1\t1\tA\tC\tDOM\t0.1\n1\t1\tA\tC\tREC\t0.1\n", "several tests a variant .*none"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        open_statistics(written(tmp_path, text))


def test_files_that_are_no_text(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(range(256)) * 10)
    with pytest.raises(InputError, match="line 2: holds the byte 0x80, so it is not UTF-8 text.*iconv -f latin1"):
        open_statistics(tmp_path / "a.bin")
    packed = gzip.compress(FASTGWA.encode() * 50)
    (tmp_path / "a.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        open_statistics(tmp_path / "a.gz")


def test_a_table_of_the_smallest_p_names_its_traits(tmp_path):
    text = "CHR\tPOS\tA1\tA2\tP\ttrait\n1\t1\tA\tC\t0.1\tz1\n1\t2\tA\tC\t0.1\tz0\n1\t3\tA\tC\t0.001\tz1\n"
    read = open_statistics(written(tmp_path, text))
    assert read.traits == ["z1", "z0"] and read.analyses("minp") == ["minp"]
    assert read.trait_of("minp", np.array([0, 1, 2])) == ["z1", "z0", "z1"]
    with pytest.raises(InputError, match=r"not how many were tested; give tests=N"):
        read.n_tests("minp")
    best, whose = read.best_of_traits(np.array([0, 1, 2]))
    np.testing.assert_allclose(best, [3, 1])
    assert whose.tolist() == [2, 1] and read.lambdas(["minp"], 100).empty
    with pytest.raises(InputError, match="a table has one column of p"):
        read.analyses("multivariate")


@pytest.mark.parametrize(("format", "name"), [("fastgwa", "a.fastGWA"), ("ssf", "a.tsv.gz"), ("fuma", "a.txt.gz"),
                                              ("regenie", "a.regenie")])  # fmt: skip
def test_what_export_writes_is_read_back(make_study, format, name):
    rng = np.random.default_rng(2)
    snps = pd.DataFrame(
        {
            "chrom": rng.choice(["1", "X"], 30), "position": rng.integers(1, 10**7, 30),
            "snp": [f"rs{i}" for i in range(30)], "a1": "A", "a2": "G",
        }
    )  # fmt: skip
    study = make_study(snps, rng.integers(0, 3, (20, 30)), snps, rng.uniform(0, 20, 30))
    export(ExportConfig(sumstats=study.folder / "gwas", trait="a", format=format, out=study.folder / name))
    ours, read = open_statistics(study.folder / "gwas"), open_statistics(study.folder / name)
    np.testing.assert_array_equal(ours.chrom_M, read.chrom_M)
    np.testing.assert_array_equal(ours.position_M, read.position_M)
    rows = np.arange(30)
    np.testing.assert_allclose(read.log10p(["a"], rows)("a"), ours.log10p(["a"], rows)("a"), rtol=1e-5)
    pd.testing.assert_frame_equal(ours.names(rows), read.names(rows), check_dtype=False)


SSF = "chromosome\tbase_pair_location\teffect_allele\tother_allele\tbeta\tstandard_error\tp_value"


def test_rows_that_cannot_be_used_are_counted_with_reasons(tmp_path, caplog):
    text = f"{SSF}\n1\t10\tA\tC\t1\t1\t0.5\n1\tNA\tA\tC\t1\t1\t0.5\nNA\t30\tA\tC\t1\t1\t0.5\n"
    text += "1.0\t40\tA\tA\t1\t1\t0.5\n1\t50\tA\tC\t1\t1\tNA\nscaffold7\t60\tA\tC\t1\t1\t0.1\n1\t#NA\tA\tC\t1\t1\t0.5\n"
    read = open_statistics(written(tmp_path, text))
    assert read.position_M.tolist() == [10, 30, 40, 50, 60] and read.chrom_M.tolist() == [1, 0, 1, 1, 0]
    (said,) = [line for line in caplog.messages if "not used" in line]
    assert "of 7" in said and "2 no position (first: line 3)" in said and "1 no chromosome (first: line 4)" in said
    assert "1 twice the same allele (first: line 5)" in said and "1 no p-value (first: line 6)" in said
    assert "1 a chromosome other than 1..22, X, Y and MT (first: line 7)" in said


def test_log10p_falls_back_to_p_row_by_row(tmp_path):
    rows = ("10\tA\tC\t1\t1\t1e-9\t#NA", "20\tA\tC\t1\t1\t0.5\t7", "30\tA\tC\t1\t1\tNA\tNA")
    text = f"{SSF}\tneg_log_10_p_value\n" + "".join(f"1\t{row}\n" for row in rows)
    read = open_statistics(written(tmp_path, text))
    np.testing.assert_allclose(read.log10p_M, [9, 7, np.nan])


def test_25_is_mt_in_gwas_ssf_and_xy_elsewhere(tmp_path):
    assert open_statistics(written(tmp_path, f"{SSF}\n25\t10\tA\tC\t1\t1\t0.5\n")).chrom_M.tolist() == [26]
    assert open_statistics(written(tmp_path, "CHR\tPOS\tA1\tA2\tP\n25\t10\tA\tC\t0.5\n")).chrom_M.tolist() == [23]


def test_harmonised_places_are_used_where_the_original_ones_are_missing(tmp_path):
    head = "hm_chrom\thm_pos\t" + SSF
    read = open_statistics(written(tmp_path, f"{head}\n1\t10\tNA\tNA\tA\tC\t1\t1\t0.5\n"))
    assert (read.chrom_M.tolist(), read.position_M.tolist()) == ([1], [10])
    read = open_statistics(written(tmp_path, f"{head}\n1\t10\t2\t20\tA\tC\t1\t1\t0.5\n"))
    assert (read.chrom_M.tolist(), read.position_M.tolist()) == ([2], [20])


@pytest.mark.parametrize("name", ["Z_STAT", "T_STAT", "zscore", "Z"])
def test_ties_at_p_0_are_broken_by_z(tmp_path, name):
    read = open_statistics(
        written(tmp_path, f"CHR\tPOS\tA1\tA2\t{name}\tP\n1\t1\tA\tC\t-50\t0\n1\t2\tA\tC\t40\t0\n1\t3\tA\tC\tNA\t0\n")
    )
    assert read.log10p_M[0] > read.log10p_M[1] > 300 and np.isinf(read.log10p_M[2])


@pytest.mark.parametrize("separator", ["\t", ",", " "])
@pytest.mark.parametrize("packed", ["", "gz", "bz2"])
def test_quoted_packed_and_marked_tables_are_the_same(tmp_path, separator, packed):
    """As R and Windows write them: quotes, a byte order mark, CRLF."""
    rows = [
        ["CHR", "POS", "SNP", "A1", "A2", "P"],
        ["1", "10", "rs1", "A", "C", "1e-9"],
        ["X", "20", "rs2", "A", "G", "0.5"],
    ]
    text = "\ufeff" + "".join(separator.join(f'"{cell}"' for cell in row) + "\r\n" for row in rows)
    data = {"": bytes, "gz": gzip.compress, "bz2": bz2.compress}[packed](text.encode())
    (tmp_path / "a.txt").write_bytes(data)
    read = open_statistics(tmp_path / "a.txt")
    assert read.chrom_M.tolist() == [1, 23] and read.position_M.tolist() == [10, 20]
    np.testing.assert_allclose(read.log10p_M, [9, -np.log10(0.5)])
    assert read.names(np.array([0, 1]))["snp"].tolist() == ["rs1", "rs2"]
