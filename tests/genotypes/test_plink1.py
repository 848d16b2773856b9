"""Genotype files: decoding against another reader, sets of chromosomes, and files that are not what they should be."""

from __future__ import annotations

import pickle
import shutil
import subprocess
from pathlib import Path

import bed_reader
import numpy as np
import pandas as pd
import pytest

from hpc.errors import InputError
from udipdist.genotypes.plink1 import read_fam
from udipdist.genotypes.source import GenotypeSource, count, decode, find_sets, open_genotypes, read_people
from udipdist.genotypes.testing import GenotypeSourceTests

REAL = Path(__file__).parents[2] / "../shared/data/genotypes"
GOLDEN = Path(__file__).parents[1] / "golden" / "gcta" / "cohort"
PLINK2 = shutil.which("plink2")


def by_bed_reader(prefix: Path) -> np.ndarray:
    with bed_reader.open_bed(f"{prefix}.bed") as file:
        counts = file.read(dtype="int8").T
    return np.where(counts == -127, -1, counts)


@pytest.fixture
def files(tmp_path, plink_writer) -> Path:
    rng = np.random.default_rng(0)
    ids = pd.DataFrame({"FID": list("abcdefg"), "IID": list("1234567")})
    plink_writer(tmp_path / "c", rng.integers(-1, 3, (9, 7)), ids)
    return tmp_path / "c"


class TestPlink1(GenotypeSourceTests):
    """bed-reader says what is expected, of one file and of several."""

    @pytest.fixture(params=["golden", "human", "hapmap", "chromosomes"])
    def prefixes(self, request, tmp_path, plink_writer) -> list[Path]:
        """The sets behind one pattern, in order."""
        if request.param != "chromosomes":
            prefix = {"golden": GOLDEN, "human": REAL / "human", "hapmap": REAL / "hapmap"}[request.param]
            if not Path(f"{prefix}.bed").exists():
                pytest.skip(f"{prefix}.bed is not on this machine")
            return [prefix]
        rng = np.random.default_rng(0)
        ids = pd.DataFrame({"FID": list("abcdefg"), "IID": list("1234567")})
        for chromosome in ("11", "2", "X"):
            plink_writer(tmp_path / f"c{chromosome}", rng.integers(-1, 3, (5, 7)), ids, chromosome)
        return [tmp_path / f"c{chromosome}" for chromosome in ("2", "11", "X")]

    @pytest.fixture
    def source(self, prefixes) -> GenotypeSource:
        first = prefixes[0]
        return open_genotypes(first if len(prefixes) == 1 else first.with_name("c{chr}"))

    @pytest.fixture
    def expected(self, prefixes) -> np.ndarray:
        return np.concatenate([by_bed_reader(prefix) for prefix in prefixes])


def test_files_of_a_set_are_named(files):
    (one,) = find_sets(f"{files}.bed")
    assert one.files == {ending: Path(f"{files}.{ending}") for ending in ("bed", "bim", "fam")}
    assert one.with_people == {"fam": Path(f"{files}.fam")}
    assert count(files) == (7, 9)
    pd.testing.assert_frame_equal(read_people(files), open_genotypes(files).people)


@pytest.mark.skipif(PLINK2 is None, reason="plink2 is not installed (apt-get install plink2)")
def test_a_bed_that_plink2_wrote(tmp_path):
    subprocess.run(
        [PLINK2, "--dummy", "203", "150", "0.03", "--seed", "7", "--make-bed", "--out", "p"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    bed = open_genotypes(tmp_path / "p")
    assert (bed.n_people, bed.n_variants) == (203, 150)
    np.testing.assert_array_equal(bed.counts(0, 150), by_bed_reader(tmp_path / "p"))


def test_chromosomes_are_one_set(tmp_path, files, plink_writer, caplog):
    ids = open_genotypes(files).people
    rng = np.random.default_rng(1)
    pieces = {chromosome: rng.integers(-1, 3, (4, 7)) for chromosome in (2, 11)}
    for chromosome, counts in pieces.items():
        plink_writer(tmp_path / f"set{chromosome}", counts, ids, str(chromosome))
    bed = open_genotypes(tmp_path / "set{chr}")
    assert "no file for chr = 1, 3" in caplog.text
    assert list(bed.variants.chrom) == ["2"] * 4 + ["11"] * 4
    copy = pickle.loads(pickle.dumps(bed.rows))
    for start, stop in ((0, 8), (2, 6), (4, 8), (3, 3)):
        expected = np.concatenate(list(pieces.values()))[start:stop]
        np.testing.assert_array_equal(bed.counts(start, stop), expected)
        np.testing.assert_array_equal(decode(copy.packed(start, stop), np.arange(7)), expected)
    assert count(tmp_path / "set{chr}") == (7, 8)
    with pytest.raises(IndexError):
        bed.packed(5, 9)
    plink_writer(tmp_path / "set11", pieces[11], ids.iloc[::-1])
    with pytest.raises(InputError, match=r"set11.fam, line 1: is g 7, but a 1"):
        open_genotypes(tmp_path / "set{chr}")


def corrupt(path: Path, change) -> None:
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("suffix", "change", "message"),
    [
        ("bed", lambda b: b"\x6c\x1b\x00" + b[3:], "old person-major order"),
        ("bed", lambda b: b"PK" + b[2:], "not a PLINK 1 .bed"),
        ("bed", lambda b: b[:-1], r"has 20 bytes, but 7 people \(.fam\) and 9 variants \(.bim\) need 21"),
        ("bed", lambda b: b + b"\0", "has 22 bytes"),
        ("bed", lambda b: b"", "not a PLINK 1 .bed"),
        ("fam", lambda b: b.replace(b"b 2", b"a 1"), r"1 people are listed twice \(a 1\)"),
        ("fam", lambda b: b.replace(b"c 3 0", b"c 3"), "line 3: has 5 columns, not 6"),
        ("fam", lambda b: b"", "is empty"),
        ("fam", lambda b: b"\xff\xfe" + b, "is not text"),
        ("bim", lambda b: b.replace(b"\t300\t", b"\tx\t"), "line 3: 'x' is not a position"),
        ("bim", lambda b: b.replace(b"\t300\t", b"\t-3\t"), "line 3: '-3' is not a position"),
    ],
)
def test_broken_files_are_refused(files, suffix, change, message):
    corrupt(Path(f"{files}.{suffix}"), change)
    with pytest.raises(InputError, match=message):
        open_genotypes(files)


@pytest.mark.parametrize("suffix", ["bed", "bim", "fam"])
def test_missing_files_are_named(files, suffix):
    Path(f"{files}.{suffix}").unlink()
    with pytest.raises(InputError, match=rf"c\.{suffix}: does not exist"):
        open_genotypes(files)


def test_no_chromosome_at_all(tmp_path):
    with pytest.raises(InputError, match="none of the files"):
        open_genotypes(tmp_path / "x{chr}")


@pytest.mark.parametrize("header", ["#FID IID PAT MAT SEX PHENO1\n", "FID IID father mother sex phenotype\n"])
def test_a_header_of_the_fam_is_skipped(files, header, caplog):
    """Else everybody would get the genotypes of the next one."""
    caplog.set_level("INFO")
    before = read_fam(str(files))
    path = Path(f"{files}.fam")
    path.write_text(header + path.read_text())
    pd.testing.assert_frame_equal(read_fam(str(files)), before, check_flags=False)
    assert "its first line is a header, and skipped" in caplog.text


def test_a_fam_that_lacks_people_is_refused_with_both_counts(files):
    path = Path(f"{files}.fam")
    lines = path.read_text().splitlines(keepends=True)
    n = len(lines)
    for fewer in (1, 5):
        path.write_text("".join(lines[: n - fewer]))
        with pytest.raises(InputError) as error:
            open_genotypes(files)
        assert f"{n - fewer}" in str(error.value) and f"{4 * -(-n // 4)}" in str(error.value)


def test_a_byte_order_mark_is_no_part_of_the_first_family(files):
    before = read_fam(str(files))
    path = Path(f"{files}.fam")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    pd.testing.assert_frame_equal(read_fam(str(files)), before, check_flags=False)


def test_other_family_ids_on_another_chromosome(tmp_path, plink_writer, caplog):
    """The same IIDs in the same order are the same people, if each is there once."""
    rng = np.random.default_rng(0)
    for chromosome, families in (("1", "abc"), ("2", "xyz")):
        ids = pd.DataFrame({"FID": list(families), "IID": list("123")})
        plink_writer(tmp_path / f"c{chromosome}", rng.integers(-1, 3, (5, 3)), ids, chromosome)
    assert open_genotypes(tmp_path / "c{chr}").people.FID.tolist() == ["a", "b", "c"]
    assert "has other FIDs than" in caplog.text and "(x 1, there a 1)" in caplog.text
    for chromosome in "12":
        fam = tmp_path / f"c{chromosome}.fam"
        fam.write_text(fam.read_text().replace(" 3 ", " 1 ").replace("\t3\t", "\t1\t"))
    with pytest.raises(InputError, match="c2.fam, line 1: is x 1, but a 1 in"):
        open_genotypes(tmp_path / "c{chr}")
