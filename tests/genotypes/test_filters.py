"""Which variants are tested: regions, lists of ids, rows of the files; then a whole scan with them."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpc.errors import ConfigError, InputError
from hpc.stage import read_manifest
from udipdist.config import GwasConfig, VariantFilter
from udipdist.genotypes import filters
from udipdist.genotypes.filters import Region, in_regions, read_regions
from udipdist.genotypes.plink1 import PackedRows
from udipdist.genotypes.source import open_genotypes
from udipdist.gwas.scan.verb import gwas
from udipdist.sumstats.store import Sumstats

TABLE = pd.DataFrame(
    [
        ("1", "rs1", 100, "A", "C"),
        ("1", "rs2", 200, "A", "G"),
        ("chr6", "rs3", 26_000_000, "T", "C"),
        ("6", "rs4", 36_000_000, "T", "C"),
        ("X", "rs5", 300, "T", "C"),
        ("25", ".", 400, "T", "C"),
        ("Y", "rs7", 400, "T", "C"),
        ("MT", "rs8", 400, "T", "C"),
        ("GL1", "rs9", 100, "T", "C"),
    ],
    columns=["chrom", "snp", "position", "a1", "a2"],
)


def config(**keys) -> VariantFilter:
    return VariantFilter.parse({"genotypes": "c"} | keys)


def chosen(**keys) -> list[str]:
    rows = filters.choose(TABLE, config(**keys)).rows
    return (TABLE.snp if rows is None else TABLE.snp[rows]).tolist()


# ------------------------------------------------------------------------------------------------------ filters


def test_without_filters_only_haploid_chromosomes_are_left_out(caplog):
    found = filters.choose(TABLE, config())
    assert found.rows.tolist() == [0, 1, 2, 3, 4, 5, 8] and found.left_out == {"haploid": 2}
    assert "2 variants of Y and MT are left out" in caplog.text
    assert filters.choose(TABLE.iloc[:6], config()) == filters.Chosen(None, {})


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ("chr6:25000000-35000000", ["rs3"]),
        ("6:25,000,000-35,000,000", ["rs3"]),
        (6, ["rs3", "rs4"]),
        ("chr06", ["rs3", "rs4"]),
        ("1:100", ["rs1"]),
        ("1:101-200", ["rs2"]),
        (["1:100-100", "chr6:36000000-36000001"], ["rs1", "rs4"]),
        ("X", ["rs5", "."]),
        ("23:400-400", ["."]),
        ("chrXY", ["."]),
        ("25", ["."]),
        (["1", "1:5-150", 1], ["rs1", "rs2"]),
    ],
)
def test_regions(region, expected):
    assert chosen(region=region) == expected


def test_regions_that_overlap_in_any_order():
    rng = np.random.default_rng(0)
    position, code = rng.integers(0, 1000, 500), rng.integers(1, 4, 500)
    for _ in range(20):
        spans = [Region(int(c), int(a), int(a + w)) for c, a, w in rng.integers([1, 0, 0], [4, 1000, 300], (12, 3))]
        places = zip(code, position, strict=True)
        expected = [any(r.chromosome == c and r.first <= p <= r.last for r in spans) for c, p in places]
        np.testing.assert_array_equal(in_regions(spans, code, position), expected)


@pytest.mark.parametrize("name", ["r.bed", "r.bed.gz", "r.txt"])
def test_a_bed_file_counts_from_zero(tmp_path, name):
    text = "#a comment\ntrack name=x\nchr1\t99\t100\tname\n1\t199\t199999\n\nGL1\t0\t1000\n6 35999999 36000000\n"
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    assert read_regions([str(path)]) == [Region(1, 100, 100), Region(1, 200, 199999), Region(6, 36000000, 36000000)]
    assert chosen(region=path) == ["rs1", "rs2", "rs4"]
    assert chosen(region=[str(path), "X:300"]) == ["rs1", "rs2", "rs4", "rs5"]
    assert filters.input_files(config(region=["X", str(path)])) == {"region1": path}


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ("chr27", "region=chr27: is neither a region nor a file; write chr6:25000000-35000000"),
        ("regions.tsv", "region=regions.tsv: is neither"),
        ("6:1-", "region=6:1-: is neither"),
        ("6:200-100", "ends before it begins; write chr6:100-200"),
        ("absent.bed", "absent.bed: does not exist"),
        ("2", r"c: no variant of 9 is left \(on Y or MT: 2, outside region: 7\); widen"),
    ],
)
def test_regions_that_are_none(region, message):
    with pytest.raises(InputError, match=message):
        chosen(region=region)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"chr1\t5\n", "line 1: is not a line of a BED file"),
        (b"#x\n1\tfive\t6\n", "line 2: is not a line of a BED file"),
        (b"1\t5\t5\n", "line 1: ends at 5 and starts at 5"),
        (b"GL1\t5\t6\n", "names no region"),
        (b"", "names no region"),
        (b"\xff\xfe\x00", "is not text"),
    ],
)
def test_broken_bed_files(tmp_path, text, message):
    (tmp_path / "r.bed").write_bytes(text)
    with pytest.raises(InputError, match=message):
        read_regions([str(tmp_path / "r.bed")])


def test_lists_of_ids(tmp_path, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "ids"
    path.write_text("rs4\nrs1\nrs4\nunknown\n")
    assert chosen(extract=path) == ["rs1", "rs4"]
    assert "1 of 3 ids are not in the .bim (unknown)" in caplog.text
    assert chosen(exclude=path) == ["rs2", "rs3", "rs5", ".", "rs9"]
    other = tmp_path / "other.gz"
    other.write_bytes(gzip.compress(b"rs1\r\nrs5\r\n"))
    assert chosen(extract=path, exclude=other, region=[1, 6]) == ["rs4"]
    left_out = filters.choose(TABLE, config(extract=path, exclude=other, region=[1, 6])).left_out
    assert left_out == {"haploid": 2, "region": 3, "extract": 2, "exclude": 1}
    assert "left out: on Y or MT: 2, outside region: 3, not in extract: 2, in exclude: 1" in caplog.text
    assert filters.input_files(config(extract=path, exclude=other)) == {"extract": path, "exclude": other}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; extract= takes"),
        (b"a\nb\n", r"none of its 2 ids is in the .bim \(a, b; there rs1, rs2, rs3\)"),
        (b"6\t5\t6\n", "has 3 columns; extract= takes a file with one variant id per line"),
        (b"rs1\nrs2 rs3\n", "is not a list"),
        (b"\xff\xfe\x00\n", "is not a list"),
        (None, r"does not exist \(extract\)"),
    ],
)
def test_lists_that_are_none(tmp_path, content, message):
    if content is not None:
        (tmp_path / "ids").write_bytes(content)
    with pytest.raises(InputError, match=message):
        chosen(extract=tmp_path / "ids")


def test_info_needs_a_limit_and_a_limit_needs_info():
    with pytest.raises(ConfigError, match="give min_info=0.3"):
        config(info="f")
    with pytest.raises(ConfigError, match="give info=FILE"):
        config(min_info=0.3)
    again = config(info="f", min_info=0.3, region=["1", "X"])
    assert VariantFilter.parse(again.tree()) == again
    assert VariantFilter.parse(config().tree()) == config()
    whole = {"phenotypes": "p", "test": "linear", "out": "o"}  # the keys of the part are keys of gwas
    assert GwasConfig.parse(again.tree() | whole).model_dump().items() >= again.model_dump().items()
    with pytest.raises(ConfigError, match="give min_info=0.3"):
        GwasConfig.parse(config().tree() | whole | {"info": "f"})


# --------------------------------------------------------------------------------------------------------- rows


@pytest.fixture
def set_of_two(tmp_path, plink_writer) -> tuple[Path, np.ndarray]:
    ids = pd.DataFrame({"FID": list("abcdefg"), "IID": list("1234567")})
    counts = np.random.default_rng(0).integers(-1, 3, (60, 7))
    plink_writer(tmp_path / "s3", counts[:25], ids, "3")
    plink_writer(tmp_path / "sX", counts[25:50], ids, "X")
    plink_writer(tmp_path / "s25", counts[50:], ids, "XY")
    return tmp_path / "s{chr}", counts


def test_x_is_found_among_the_files(set_of_two):
    bed = open_genotypes(set_of_two[0])
    assert bed.variants.chrom.tolist() == ["3"] * 25 + ["X"] * 25 + ["XY"] * 10
    np.testing.assert_array_equal(bed.counts(0, 60), set_of_two[1])
    (set_of_two[0].with_name("s23.bed")).write_bytes(b"")
    with pytest.raises(InputError, match="sX.bed, .*s23.bed: are of the same chromosome"):
        open_genotypes(set_of_two[0])


def test_other_people_on_x_are_told(set_of_two):
    fam = set_of_two[0].with_name("sX.fam")
    fam.write_text("".join(fam.read_text().splitlines(keepends=True)[:5]))
    with pytest.raises(InputError, match="sX.fam: has 5 people, .*s3.fam has 7; .* as X often, goes to another folder"):
        open_genotypes(set_of_two[0])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_selected_rows(tmp_path, set_of_two, share):
    rng = np.random.default_rng(3)
    bed = open_genotypes(set_of_two[0])
    rows = np.flatnonzero(rng.random(60) < share)
    some = bed.select(rows)
    np.save(tmp_path / "rows.npy", rows)
    by_name = bed.rows.select(str(tmp_path / "rows.npy"))
    pickled = pickle.dumps(by_name)
    assert len(pickled) < 2000
    assert some.n_variants == len(rows) == len(some.rows) == len(by_name)
    assert some.variants.snp.tolist() == bed.variants.snp[rows].tolist()
    people = np.arange(7)
    for start in range(0, len(rows), 5):
        stop = int(rng.integers(start, len(rows) + 1))
        expected = set_of_two[1][rows[start:stop]]
        np.testing.assert_array_equal(some.counts(start, stop, people), expected)
        np.testing.assert_array_equal(by_name.packed(start, stop), some.packed(start, stop))
        np.testing.assert_array_equal(pickle.loads(pickled).packed(start, stop), some.packed(start, stop))
    with pytest.raises(IndexError):
        some.packed(0, len(rows) + 1)


def test_neighbours_are_read_at_once():
    rows = PackedRows(["a", "b", "c"], [10, 1, 5], 4, np.array([0, 1, 2, 5, 8, 9, 10, 11, 15]))
    assert list(rows._runs(0, 9)) == [(0, 0, 3), (0, 5, 6), (0, 8, 10), (1, 0, 1), (2, 0, 1), (2, 4, 5)]
    assert list(rows._runs(1, 4)) == [(0, 1, 3), (0, 5, 6)]
    assert list(rows._runs(2, 2)) == []
    assert list(PackedRows(["a", "b", "c"], [10, 1, 5], 4)._runs(3, 15)) == [(0, 3, 10), (1, 0, 1), (2, 0, 4)]


# --------------------------------------------------------------------------------------------------------- scan


def test_a_scan_of_some_variants_is_those_rows_of_the_whole(tmp_path, make_cohort):
    cohort = make_cohort(tmp_path, seed=5, n=90, m=60)
    ids = pd.read_csv(tmp_path / "c.bim", sep="\t", header=None)[1]
    wanted = np.random.default_rng(2).random(60) < 0.5
    (tmp_path / "ids").write_text("\n".join(ids[wanted]) + "\n")
    gwas(cohort.config("whole"))
    keys = {"extract": tmp_path / "ids", "region": "chr1:1000-5000"}
    gwas(cohort.config("some", **keys, variants_per_part=7))
    rows = np.flatnonzero(wanted & (np.arange(1, 61) * 100 >= 1000) & (np.arange(1, 61) * 100 <= 5000))
    whole, some = Sumstats.open(tmp_path / "whole"), Sumstats.open(tmp_path / "some")
    assert some.variants.snp.tolist() == ids[rows].tolist()
    pd.testing.assert_frame_equal(some.variants, whole.variants.iloc[rows].reset_index(drop=True))
    for trait in whole.traits:
        np.testing.assert_array_equal(some.beta(trait), whole.beta(trait)[rows])
        np.testing.assert_array_equal(some.se(trait), whole.se(trait)[rows])
    facts = read_manifest(tmp_path / "some")["facts"]
    assert facts["n_variants"] == len(rows)
    assert facts["left_out"] == {"region": 19, "extract": int((~wanted[9:50]).sum())}
    assert set(facts["unusual"].values()) == {0}
    with pytest.raises(InputError, match="does not exist"):
        gwas(cohort.config("other", extract=tmp_path / "absent"))
    assert not (tmp_path / "other").exists() or not any((tmp_path / "other").rglob("*.zarr"))
