"""Tables of kinships from KING, plink2 and UK Biobank, right and wrong."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

from hpc.errors import ConfigError, InputError
from hpc.stage import read_manifest
from udipdist.config import GrmConfig
from udipdist.relatedness import grm, tables, verb

# The same three pairs as each program writes them, with one of somebody else and one below the cutoff.
TABLES = {
    "king.kin0": """FID1\tID1\tFID2\tID2\tN_SNP\tHetHet\tIBS0\tKinship
f1\ta\tf2\tb\t1000\t0.2\t0.01\t0.25
f3\tc\tf2\tb\t1000\t0.2\t0.01\t0.0442
f1\ta\tf3\tc\t1000\t0.2\t0.01\t-0.02
f1\ta\tf9\tz\t1000\t0.2\t0.01\t0.2
f4\td\tf5\te\t1000\t0.4\t0\t0.5
""",
    "related.kin0": """FID1 ID1 FID2 ID2 N_SNP HetHet IBS0 HetConc HomIBS0 Kinship IBD1Seg IBD2Seg PropIBD InfType
f1 a f2 b 1000 0.2 0.01 0.1 0.1 0.25 0.5 0.25 0.9 FS
f2 b f3 c 1000 0.2 0.01 0.1 0.1 0.0442 0.5 0.25 0.9 3rd
f1 a f3 c 1000 0.2 0.01 0.1 0.1 -0.02 0 0 0.9 UN
f1 a f9 z 1000 0.2 0.01 0.1 0.1 0.2 0.5 0.25 0.9 FS
f4 d f5 e 1000 0.2 0.01 0.1 0.1 0.5 0.5 0.25 0.9 Dup/MZ
""",
    "king.seg": """FID1\tID1\tFID2\tID2\tMaxIBD1\tMaxIBD2\tIBD1Seg\tIBD2Seg\tPropIBD\tInfType
f1\ta\tf2\tb\t50\t20\t0.5\t0.25\t0.5\tFS
f2\tb\tf3\tc\t50\t20\t0.17\t0.0\t0.0884\t3rd
f1\ta\tf3\tc\t50\t20\t0.01\t0.0\t0.005\tUN
f1\ta\tf9\tz\t50\t20\t0.5\t0.25\t0.4\tFS
f4\td\tf5\te\t50\t20\t0\t1\t1\tDup/MZ
""",
    "plink2.kin0": """#FID1\tIID1\tFID2\tIID2\tNSNP\tHETHET\tIBS0\tKINSHIP
f2\tb\tf1\ta\t1000\t0.2\t0.01\t0.25
f3\tc\tf2\tb\t1000\t0.2\t0.01\t0.0442
f3\tc\tf1\ta\t1000\t0.2\t0.01\t-0.02
f9\tz\tf1\ta\t1000\t0.2\t0.01\t0.2
f5\te\tf4\td\t1000\t0.4\t0\t0.5
""",
    "plink2_without_families.kin0": """#IID1\tIID2\tNSNP\tHETHET\tIBS0\tKINSHIP
b\ta\t1000\t0.2\t0.01\t2.5e-1
c\tb\t1000\t0.2\t0.01\t0.0442
c\ta\t1000\t0.2\t0.01\t-0.02
z\ta\t1000\t0.2\t0.01\t0.2
e\td\t1000\t0.4\t0\t0.5
""",
    "ukb_rel.dat": """ID1 ID2 HetHet IBS0 Kinship
a b 0.031 0.0145 0.25
b c 0.025 0.0118 0.0442
a c 0.025 0.0118 -0.02
a z 0.025 0.0118 0.2
d e 0.1 0 0.5
""",
}
PEOPLE = "f5 e 0 0 1 -9\nf1 a 0 0 1 -9\nf2 b 0 0 2 -9\nf3 c 0 0 1 -9\nf4 d 0 0 2 -9\nf6 g 0 0 1 -9\n"
EXPECTED = np.eye(6)
for _low, _high, _value in ((1, 2, 0.5), (2, 3, 0.0884), (0, 4, 1.0)):
    EXPECTED[_low, _high] = EXPECTED[_high, _low] = _value


@pytest.fixture
def prefix(tmp_path):
    """Genotypes that are never read."""
    (tmp_path / "c.fam").write_text(PEOPLE)
    (tmp_path / "c.bim").write_text("1 rs1 0 100 A C\n")
    (tmp_path / "c.bed").write_bytes(b"\x6c\x1b\x01\x00\x00")
    return tmp_path / "c"


def run(prefix, text: str | dict[str, str], **keys) -> np.ndarray:
    texts = text if isinstance(text, dict) else {"table": text}
    paths = []
    for name, content in texts.items():
        paths.append(prefix.with_name(name))
        paths[-1].write_text(content)
    tree = {"genotypes": prefix, "kinship": paths if len(paths) > 1 else paths[0], "out": prefix.with_name("g")}
    verb.grm(GrmConfig.parse(tree | {"overwrite": True} | keys))
    people, matrix = grm.read(str(prefix.with_name("g")))
    assert list(people.IID) == ["e", "a", "b", "c", "d", "g"]
    return matrix.toarray()


@pytest.mark.parametrize("name", TABLES)
def test_each_program_s_table_gives_the_same_grm(prefix, name, caplog):
    np.testing.assert_array_equal(run(prefix, TABLES[name]), EXPECTED)
    assert "1 of 5 pairs are of people who are not in the .fam" in caplog.text
    facts = read_manifest(prefix.with_name("g.grm.sp"))["facts"]
    wanted = {"n_lines": 5, "n_absent": 1, "n_below": 1, "n_pairs": 3, "n_people": 6, "largest_family": 3}
    assert facts.items() >= wanted.items()
    assert not prefix.with_name("g.grm.kin0").exists()


def test_pairs_within_and_between_families_come_in_two_files(prefix):
    within = "FID ID1 ID2 N_SNP Z0 Phi HetHet IBS0 Kinship Error\nf f1 f2 9 0 0 0 0 .3 0\nf a b 9 0 .25 .1 .1 0.25 0\n"
    prefix.with_suffix(".fam").write_text(PEOPLE.replace("f1 ", "f ").replace("f2 ", "f "))
    between = "\n".join(
        line for line in TABLES["king.kin0"].replace("f1\t", "f\t").replace("f2\t", "f\t").split("\n")
        if not line.startswith("f\ta\tf\tb")
    )  # fmt: skip
    np.testing.assert_array_equal(run(prefix, {"x.kin": within, "x.kin0": between}), EXPECTED)


def test_the_cutoff_and_the_ids_that_match(prefix):
    assert run(prefix, TABLES["king.kin0"], cutoff=0.1)[2, 3] == 0
    other_families = TABLES["king.kin0"].replace("f", "x")
    other_families = other_families.replace(other_families.split("\n")[0], TABLES["king.kin0"].split("\n")[0])
    np.testing.assert_array_equal(run(prefix, other_families, match="iid"), EXPECTED)
    with pytest.raises(InputError, match=r"none of the 5 pairs.*begins with f5 e; the pairs with x1 a.*match=iid"):
        run(prefix, other_families)


def test_kinships_whose_ids_lost_their_zeros_are_told_so(prefix):
    fam = prefix.with_suffix(".fam")
    fam.write_text("".join(f"0{i} 0{i} 0 0 1 -9\n" for i in range(1, 6)))
    with pytest.raises(InputError, match=r"none of the 1 pairs .* the pairs with 1\); .*leading zeros"):
        run(prefix, "ID1 ID2 Kinship\n1 2 0.25\n")


def test_long_tables_are_read_in_pieces(prefix, monkeypatch):
    monkeypatch.setattr(tables, "LINES_AT_ONCE", 2)
    np.testing.assert_array_equal(run(prefix, TABLES["ukb_rel.dat"]), EXPECTED)
    with pytest.raises(InputError, match=r"line 7: the pair f1 a and f2 b is already in .*table, line 2"):
        run(prefix, TABLES["ukb_rel.dat"] + "b a 0 0 0.25\n")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a b 0 0 nan", r"line 7: Kinship of a, b is nan; it must be a number up to 0.5"),
        ("a d 0 0 NA", "line 7: Kinship of a, d is NA"),
        ("a d 0 0 0.7", "line 7: Kinship of a, d is 0.7"),
        ("a d 0 0 inf", "line 7: Kinship of a, d is inf"),
        ("a d 0 0", "line 7: has fewer columns than the header"),
        ("a d 0 0 0.1 9 9", "table: Expected 5 fields in line 7, saw 7; each line must have the columns"),
        ("a a 0 0 0.5", "line 7: pairs a with itself"),
        ("d e 0 0 0.5\nb a 0 0 0.25", r"line 7: the pair f5 e and f4 d is already.*line 6 \(2 such lines\)"),
    ],
)
def test_broken_lines_are_named(prefix, lines, message):
    with pytest.raises(InputError, match=message):
        run(prefix, TABLES["ukb_rel.dat"] + lines + "\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: the columns are \(none\); needed are ID1 and ID2"),
        ("a b 0.25\n", "line 1: the columns are a, b, 0.25; needed"),
        ("ID1 ID2 HetHet IBS0 Kinship\n", "has no pairs"),
        ("ID1 ID2 HetHet IBS0 Kinship\na b 0 0 0.1 9\n", "line 2: has 6 columns, and the header has 5"),
    ],
)
def test_tables_without_columns_or_pairs_are_refused(prefix, text, message):
    with pytest.raises(InputError, match=message):
        run(prefix, text)


def test_files_that_are_no_tables_are_refused(prefix):
    keys = {"genotypes": prefix, "out": prefix.with_name("g")}
    with pytest.raises(InputError, match="does not exist; kinship= is a table"):
        verb.grm(GrmConfig.parse(keys | {"kinship": prefix.with_name("nope")}))
    prefix.with_name("x.king.bin").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="is not text"):
        verb.grm(GrmConfig.parse(keys | {"kinship": prefix.with_name("x.king.bin")}))
    with pytest.raises(ConfigError, match="max_variants, method: not used with kinship="):
        GrmConfig.parse(keys | {"kinship": "t", "method": "gcta", "max_variants": 5})


def test_ids_without_families_must_be_unique(prefix):
    prefix.with_suffix(".fam").write_text(PEOPLE + "f7 a 0 0 1 -9\n")
    with pytest.raises(InputError, match="no family ids.*: 1 people are listed more than once"):
        run(prefix, TABLES["ukb_rel.dat"])


def test_preview_and_a_random_table(prefix):
    """Any order of pairs, of ids within a pair and of columns gives the same matrix."""
    rng = np.random.default_rng(0)
    ids = [line.split()[:2] for line in PEOPLE.splitlines()]
    dense = np.eye(6)
    rows = []
    for i, j in rng.permutation(np.argwhere(np.tri(6, k=-1))):
        dense[i, j] = dense[j, i] = 2 * (value := round(rng.uniform(0.05, 0.5), 6))
        a, b = rng.permutation([i, j])
        rows.append({"KINSHIP": value, "ID2": ids[b][1], "FID2": ids[b][0], "ID1": ids[a][1], "FID1": ids[a][0]})
    text = pd.DataFrame(rows).to_csv(sep=" ", index=False)
    np.testing.assert_allclose(run(prefix, text), dense, rtol=1e-7)
    config = GrmConfig.parse({"genotypes": prefix, "kinship": prefix.with_name("table"), "out": prefix})
    assert verb.preview(config)[0].startswith("6 people in the .fam, kinships of 1 table(s)")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_other_spellings_of_a_table_are_the_same(prefix, separator, quoted, ends):
    lines = [line.split() for line in TABLES["ukb_rel.dat"].splitlines()]
    text = ends.join(separator.join(f'"{cell}"' if quoted else cell for cell in line) for line in lines) + ends
    np.testing.assert_array_equal(run(prefix, "\ufeff" + text), EXPECTED)


def test_a_packed_table_is_the_same(prefix):
    path = prefix.with_name("ukb_rel.dat.gz")
    path.write_bytes(gzip.compress(TABLES["ukb_rel.dat"].encode()))
    verb.grm(GrmConfig(genotypes=prefix, kinship=(path,), out=prefix.with_name("g")))
    np.testing.assert_array_equal(grm.read(str(prefix.with_name("g")))[1].toarray(), EXPECTED)
